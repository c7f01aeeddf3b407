"""Image frequency: classes that differ in one wave, classifiers that look at one, and symmetric blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerfreq.related import class_spectra, image_frequency
from layerfreq.related.image_frequency import _blocks
from tests.helpers.refusals import Code, refuses

ROWS, COLUMNS = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
FIRST, SECOND = (np.cos(2 * np.pi * (a * ROWS + b * COLUMNS) / 16) for a, b in ((0, 5), (2, 1)))
RNG = np.random.default_rng(0)


def test_a_class_has_more_of_its_own_wave_and_less_of_the_others():
    noise = np.ones((9, 16, 16))
    amount = np.repeat([1.0, 2.0, 3.0], 3)[:, None, None]
    found = class_spectra(noise + amount * FIRST, np.repeat([4, 7, 9], 3))
    at = (8, 8 + 5)
    assert found[:, *at].tolist() == [-2, 0, 2]
    assert found[:, 8, 8 - 5].tolist() == [-2, 0, 2]
    assert np.abs(found).sum() == 8  # nothing else differs


@given(st.integers(4, 9), st.integers(4, 9), st.integers(1, 2))
def test_blocks_hold_mirror_images_so_that_filtered_images_are_real(h, w, patch):
    groups = _blocks(h, w, patch)
    image = RNG.normal(size=(h, w))
    assert groups.min() == 0
    assert set(groups.ravel()) == set(range(groups.max() + 1))
    for one in range(groups.max() + 1):
        assert np.abs(np.fft.ifft2(np.fft.fft2(image) * (groups == one)).imag).max() < 1e-12
    assert patch > 1 or np.bincount(groups.ravel()).max() <= 2


def classifier():
    """Tells two classes by the sign of the first wave, and looks at nothing else."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(np.stack([FIRST.ravel(), -FIRST.ravel()])) / 20)
    return model


@pytest.fixture(scope="module")
def found():
    labels = np.arange(40) % 2
    images = (1 - 2 * labels)[:, None, None] * FIRST + 0.5 * RNG.normal(size=(40, 16, 16)) + SECOND
    model = classifier().train()
    kept, random = [p.clone() for p in model.parameters()], torch.get_rng_state()
    result = image_frequency(model, images, labels, patch=1, share=0.02)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))
    assert torch.equal(random, torch.get_rng_state())
    return result


def test_a_classifier_that_looks_at_one_wave_is_found_out(found):
    for loss in found.loss:
        top = np.argsort(loss.ravel())[-2:]
        assert {(int(i) // 16 - 8, int(i) % 16 - 8) for i in top} == {(0, 5), (0, -5)}
        assert loss[8, 13] > 0.3
        assert abs(loss[8 + 2, 8 + 1]) < 1e-6  # a wave that all images have and it does not look at
    assert found.accuracy.min() > 0.9
    assert found.filtered.min() > 0.9
    assert found.share <= 0.02
    assert found.random.shape == (5, 2)
    assert "filtered" in repr(found)
    assert len(found.to_frame()) == 2
    assert len(found.plot([1]).axes) == 4


def test_without_its_wave_the_loss_is_that_of_a_coin():
    labels = np.arange(10) % 2
    images = (1 - 2 * labels)[:, None, None] * FIRST
    one = image_frequency(classifier(), images, labels, patch=1, share=0.02)
    margin = 2 * (FIRST**2).sum() / 20  # difference of the two outputs
    np.testing.assert_allclose(one.loss[:, 8, 13], np.log(2) - np.log1p(np.exp(-margin)), rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.ones((4, 16)), [0, 1, 0, 1]), {}, ("images", Code.SHAPE)),
        ((np.full((4, 16, 16), np.nan), [0, 1, 0, 1]), {}, ("images", Code.NOT_FINITE)),
        ((np.ones((4, 16, 16)), [0, 0, 0, 0]), {}, ("labels", Code.CONSTANT)),
        ((np.ones((4, 16, 16)), [0.5, 0, 0, 0]), {}, ("labels", Code.VALUE)),
        ((np.ones((4, 16, 16)), [0, 1, 2, 3]), {}, ("labels", Code.SHAPE)),
        ((np.ones((4, 16, 16)), [0, 1, 0, 1]), {"share": 1.5}, ("share", Code.VALUE)),
        ((np.ones((4, 16, 16)), [0, 1, 0, 1]), {"patch": 9}, ("patch", Code.VALUE)),
    ],
)
def test_what_is_no_classification_of_images_is_one_line(arguments, options, words):
    with refuses(*words):
        image_frequency(classifier(), *arguments, **options)


@pytest.mark.parametrize(("side", "patch"), [(4, 1), (6, 1), (7, 1), (8, 2), (16, 2)])
def test_the_default_blocks_fit_the_images(side, patch):
    model, labels = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 2)).double(), np.arange(8) % 2
    assert image_frequency(model, RNG.normal(size=(8, side, side)), labels, controls=1).patch == patch


def test_a_network_that_answers_nan_is_refused():
    model = classifier()
    model[1].weight.data[0] = torch.nan
    with refuses("model", Code.NOT_FINITE):
        image_frequency(model, RNG.normal(size=(8, 16, 16)), np.arange(8) % 2)
