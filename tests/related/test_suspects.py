"""Suspects: the filter by brute force, a case by hand, invariances, and labels that were really exchanged."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from layerfreq.related import suspects
from tests.helpers.refusals import Code, refuses

RNG = np.random.default_rng(0)


def test_three_points_by_hand():
    # Points at 0, 1 and 3 with labels 0, 0, 1 and 1/delta = 2 ln 2: weights 2^-1, 2^-4 and 2^-9.
    found = suspects([[0.0], [1.0], [3.0]], [0, 0, 1], 2 * np.log(2))
    a, b, c = 2.0**-1, 2.0**-4, 2.0**-9  # of distances 1, 2 and 3
    wrong = np.array([c / (a + c), b / (a + b), 1.0])  # share of the other label among the others
    np.testing.assert_allclose(found.score, 2 * wrong**2, rtol=1e-12)
    own = 1 / (1 + np.array([a + c, a + b, b + c]))
    np.testing.assert_allclose(found.residual, (1 - own) ** 2 * 2 * wrong**2, rtol=1e-12)
    # With a label of a point drawn at random, two in three of class 0: 2 q^2 for class 0, 2 (1 - q)^2 for 1.
    q = found.low[:, 1]
    np.testing.assert_allclose(found.chance, 2 / 3 * 2 * q**2 + 1 / 3 * 2 * (1 - q) ** 2, rtol=1e-12)
    assert found.order.tolist() == [2, 1, 0]
    assert found.suggested.tolist() == [0, 0, 0]


@given(st.integers(0, 2**31), st.sampled_from(["raw", "rms", "maxabs"]), st.floats(-3, 3), st.booleans())
def test_residuals_are_those_of_the_filter(seed, scale, log_cutoff, floats):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 3)) * [1, 2, 0.1] + 5
    y = rng.normal(size=(12, 2)) if floats else np.eye(3)[rng.integers(0, 2, 12)]
    targets = y if floats else y.argmax(axis=1)
    assume(floats or len(set(targets)) > 1)
    found = suspects(x, targets, 10.0**log_cutoff, scale=scale)
    f = x - x.mean(axis=0)
    f = f / {"raw": 1, "rms": np.sqrt((f**2).sum(axis=1).mean()), "maxabs": abs(f).max(axis=0)}[scale]
    kernel = np.exp(-((f[:, None] - f) ** 2).sum(axis=2) * 10.0**log_cutoff / 2)
    low = kernel @ y / kernel.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.residual, ((y - low) ** 2).sum(axis=1), atol=1e-9)


def clusters(n=300, flipped=30, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 5)) + 4 * np.eye(5)[labels]
    wrong = rng.choice(n, flipped, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, 3, flipped)) % 3
    return x, given, wrong, labels


def test_exchanged_labels_come_first_and_are_put_right():
    x, given, wrong, labels = clusters()
    found = suspects(x, given)
    assert found.chosen
    assert len(set(found.order[:30]) & set(wrong)) >= 27
    assert (found.suggested[wrong] == labels[wrong]).mean() > 0.9
    assert 25 <= found.worse <= 40


def test_labels_without_structure_score_as_chance_does():
    x = RNG.normal(size=(400, 4))
    found = suspects(x, RNG.integers(0, 2, 400), 1.0)
    assert found.score.mean() == pytest.approx(found.chance.mean(), rel=0.05)
    assert found.worse == pytest.approx(200, abs=60)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 2**31))
def test_order_of_points_units_and_names_of_classes_do_not_matter(unit, shift, seed):
    x, given, _, _ = clusters(60, 6)
    order = np.random.default_rng(seed).permutation(60)
    one, other = suspects(x, given), suspects((x * unit + shift)[order], 7 * given[order] + 3)
    np.testing.assert_allclose(other.score, one.score[order], rtol=1e-6, atol=1e-9)
    assert other.inv_delta == pytest.approx(one.inv_delta / unit**2, rel=1e-6)
    np.testing.assert_array_equal(other.suggested, 7 * one.suggested[order] + 3)


def test_a_window_without_others_takes_the_nearest_and_nothing_is_nan():
    x, given, _, _ = clusters(60, 6)
    found = suspects(x, given, 1e9)
    near = ((x[:, None] - x) ** 2).sum(axis=2)
    np.fill_diagonal(near, np.inf)
    np.testing.assert_array_equal(found.suggested, given[near.argmin(axis=1)])
    assert np.isfinite(found.residual).all()
    np.testing.assert_allclose(found.neighbours, 1, rtol=1e-6)
    frame = found.to_frame()
    assert list(frame) == ["score", "chance", "residual", "neighbours", "rank", "suggested"]
    assert sorted(frame["rank"]) == list(range(60))
    assert "fit worse" in repr(found)
    assert len(found.plot().lines) == 3


@pytest.mark.parametrize(
    ("features", "targets", "options", "words"),
    [
        (torch.ones(9, 2), torch.arange(9) % 2, {}, ("features", Code.CONSTANT)),
        (torch.randn(9, 2), torch.zeros(9).long(), {}, ("targets", Code.CONSTANT)),
        (torch.randn(2, 2), [0, 1], {}, ("features", Code.EMPTY)),
        (torch.randn(9, 2), torch.arange(9) % 2, {"inv_delta": [1.0, 2.0]}, ("inv_delta", Code.SHAPE)),
        (torch.randn(9, 2), torch.arange(9) % 2, {"inv_delta": -1}, ("inv_delta", Code.VALUE)),
        (torch.randn(9, 2), torch.arange(8) % 2, {}, ("targets", Code.SHAPE)),
    ],
)
def test_what_has_no_suspects_is_one_line(features, targets, options, words):
    with refuses(*words):
        suspects(features, targets, **options)
