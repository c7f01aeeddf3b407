"""What error by frequency is measured on: read in any form and unit, refused in one line, left as it was."""

import numpy as np
import pytest
import torch

from layerfreq import error_spectrum
from tests.helpers.places import lattice
from tests.helpers.refusals import Code, refuses


def test_class_ids_are_one_hot_against_the_softmax():
    rng = np.random.default_rng(7)
    x, ids, logits = np.arange(30.0), rng.integers(0, 3, 30), rng.standard_normal((30, 3))
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = error_spectrum(x, ids, logits)
    for other in (error_spectrum(x, np.eye(3)[ids], share), error_spectrum(x, ids, share)):
        np.testing.assert_allclose(other.error_energy, found.error_energy, atol=1e-14)
    assert any("softmax" in note for note in found.notes)


def test_auto_picks_and_says_why():
    rng = np.random.default_rng(8)
    for x, method, why in (
        (lattice((4, 5), (1, 2)), "grid", "regular grid"),
        (rng.random((20, 2)), "scattered", "no regular grid"),
        (rng.random((20, 9)), "filter", "9 dimensions"),
        (np.c_[np.arange(20.0), np.ones((20, 5))], "grid", "regular grid"),  # what does not vary is no dimension
    ):
        found = error_spectrum(x, np.arange(20.0), np.zeros(20))
        assert found.method == method
        assert why in found.notes[0]


@pytest.mark.parametrize("method", ["grid", "scattered", "filter", "projection"])
def test_targets_that_tell_nothing_are_said(method):
    x, y = (np.arange(30.0) if method == "grid" else np.random.default_rng(0).random(30)), np.sin(np.arange(30.0))
    found = error_spectrum(x, 0 * y, y, method=method)
    assert np.isnan(found.relative).all()
    assert "relative error is undefined" in found.notes[-1]
    assert (found.learned(), found.bias) == (None, None)


@pytest.mark.parametrize("method", ["grid", "scattered", "filter", "projection"])
@pytest.mark.parametrize("unit", [1e-140, 1e140])
def test_units_change_nothing(method, unit):
    rng = np.random.default_rng(1)
    x, y = (np.arange(40.0) if method == "grid" else rng.random(40)), rng.standard_normal(40)
    out = 0.3 * y + rng.standard_normal(40)
    one, other = (error_spectrum(x, u * y, u * out, method=method) for u in (1.0, unit))
    np.testing.assert_allclose(other.relative, one.relative, rtol=1e-5)
    np.testing.assert_allclose(other.error_energy / unit / unit, one.error_energy, rtol=1e-5, atol=1e-9)
    assert other.learned() == one.learned()
    moved = error_spectrum(5 * x, y, out, method=method)
    np.testing.assert_allclose(5 * moved.k, one.k)


X = lattice((5, 6), (1.0, 0.5))


Y = np.arange(30.0)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((X, np.where(Y == 3, np.nan, Y), Y), {}, ("targets", Code.NOT_FINITE)),
        ((X, Y, np.where(Y == 3, np.inf, Y)), {}, ("outputs", Code.NOT_FINITE)),
        ((np.where(X == 3, np.nan, X), Y, Y), {}, ("inputs", Code.NOT_FINITE)),
        ((X[1:], Y[1:], Y[1:]), {"method": "grid"}, ("inputs", Code.VALUE)),
        ((X[:1], Y[:1], Y[:1]), {}, ("inputs", Code.EMPTY)),
        ((X[[0, 0, 0]], Y[:3], Y[:3]), {}, ("inputs", Code.CONSTANT)),
        ((np.r_[X, X[:2]], np.arange(32.0), np.zeros(32)), {}, ("inputs", Code.VALUE)),
        ((np.r_[X, X[:2]], np.arange(32.0), np.zeros(32)), {"method": "grid"}, ("inputs", Code.VALUE)),
        ((X, Y + 1j, Y), {}, ("targets", Code.UNSUPPORTED)),
        ((X, Y, Y + 1j), {}, ("outputs", Code.UNSUPPORTED)),
        ((X, Y, Y[:-1]), {}, ("outputs", Code.SHAPE)),
        ((X, Y, np.zeros((30, 2))), {}, ("outputs", Code.SHAPE)),
        ((X, np.zeros(30, int) + 4, np.zeros((30, 3))), {}, ("outputs", Code.SHAPE)),
        ((X, Y, Y, [1.0, 6.4]), {"method": "grid"}, ("frequencies", Code.VALUE)),
        ((X[:9], Y[:9], Y[:9], [1.0, 99.0]), {"method": "scattered"}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, [1.0, 99.0]), {"method": "projection"}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, [2.0, 1.0]), {}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, [-1.0]), {}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, [0.0, 1.0]), {"method": "filter"}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, [True]), {}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, ["a"]), {}, ("frequencies", Code.VALUE)),
        ((X, Y, Y, []), {}, ("frequencies", Code.EMPTY)),
        ((X, Y, Y), {"window": np.ones(30)}, ("window", Code.VALUE)),
        ((X, Y, Y), {"window": 3}, ("window", Code.VALUE)),
        ((X, Y, Y), {"center": "no"}, ("center", Code.VALUE)),
        ((X, Y, Y), {"phase_blind": np.ones(2)}, ("phase_blind", Code.VALUE)),
        ((X, Y, Y), {"method": "scattered", "floor": None}, ("floor", Code.VALUE)),
        ((X, Y, Y), {"method": "scattered", "period": 9j}, ("period", Code.VALUE)),
        ((X, Y, Y), {"method": "scattered", "period": [9.0] * 3}, ("period", Code.SHAPE)),
        ((X, Y, Y), {"method": "scattered", "period": np.inf}, ("period", Code.VALUE)),
        ((X, Y, Y), {"method": "scattered", "weights": 1j * Y}, ("weights", Code.VALUE)),
        ((X, Y, Y), {"method": "scattered", "weights": 1 + 1e30 * (Y == 4)}, ("weights", Code.VALUE)),
        ((X, Y, Y), {"method": "projection", "direction": [1j, 0]}, ("direction", Code.VALUE)),
        ((X * 1e200, Y, Y), {}, ("inputs", Code.VALUE)),
        ((X * 1e-200, Y, Y), {"method": "projection"}, ("inputs", Code.VALUE)),
        ((X, Y * 1e-200, Y * 1e-200), {}, ("targets", Code.VALUE)),
        ((X, Y * 1e160, Y), {}, ("targets", Code.VALUE)),
        ((X, Y, Y), {"method": "fft"}, ("method", Code.UNKNOWN)),
        ((X, Y, Y), {"window": "hamster"}, ("window", Code.VALUE)),
        ((X, Y, Y), {"weights": "density"}, ("weights", Code.CONFLICT)),
        ((X, Y, Y), {"method": "scattered", "weights": Y}, ("weights", Code.SHAPE)),
        ((X, Y, Y), {"method": "scattered", "period": 2.0}, ("period", Code.VALUE)),
        ((X, Y, Y), {"method": "projection", "direction": [1, 0, 0]}, ("direction", Code.SHAPE)),
        (
            (np.random.default_rng(0).random((30, 4)), Y, Y),
            {"method": "grid"},
            ("method", Code.UNSUPPORTED),
        ),
        ((np.r_[0.0, 1.0, 2.5], Y[:3], Y[:3]), {"method": "grid"}, ("inputs", Code.VALUE)),
    ],
)
def test_bad_input_is_one_line(arguments, options, said):
    with refuses(*said) as caught:
        error_spectrum(*arguments, **options)
    assert ";" in str(caught.value)


def test_nothing_given_is_changed_and_random_states_stay():
    x, y, out = (torch.rand(40, generator=torch.Generator().manual_seed(i)) for i in range(3))
    before, state, numpys = (x.clone(), y.clone(), out.clone()), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for method in ("scattered", "filter", "projection"):
        error_spectrum(x, y, out, method=method)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, out), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["grid", "scattered", "projection"])
def test_how_targets_were_rounded_is_no_frequency_of_theirs(method, dtype):
    t = torch.arange(128, dtype=torch.float64) / 128
    y = (torch.sin(2 * torch.pi * t) + torch.sin(2 * torch.pi * 5 * t)).to(dtype)
    k = 2 * np.pi * np.arange(1, 21)
    found = error_spectrum(t, y, y.double() * 0, frequencies=k, method=method)
    assert np.flatnonzero(found.told).tolist() == [0, 4]
    assert found.learned() is None
    assert error_spectrum(t, y, y, frequencies=k, method=method).learned() == pytest.approx(2 * np.pi * 5)
