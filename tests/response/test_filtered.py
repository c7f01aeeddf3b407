"""Filters over the points: what they take away in closed form, and drawn filter centres around what all find."""

import warnings

import numpy as np
import pytest
import torch

from layerfreq import error_spectrum
from layerfreq.response.measure import check_error
from tests.helpers.refusals import Code, refuses


def pairs(weight, dtype, columns=2):
    """Twenty pairs, far from each other, in whose windows the other point has a weight relative to the own one."""
    rng = np.random.default_rng(0)
    step = np.sqrt(-2 * np.log(weight))  # at k = 1
    x = np.concatenate([np.c_[100.0 * np.arange(20), np.zeros(20)], np.c_[100.0 * np.arange(20), np.full(20, step)]])
    y, out = rng.standard_normal((2, 40, columns))
    return torch.from_numpy(x).to(dtype), y, out


def away(values):
    """What the filter takes away, over the weight of the other point: half of the energy of differences."""
    half = len(values) // 2
    return np.mean((values[:half] - values[half:]) ** 2)


@pytest.mark.parametrize(
    ("engine", "dtype", "weight"),
    [
        ("cpu", torch.float32, 1e-4),
        ("blocked", torch.float32, 1e-4),
        ("cpu", torch.float64, 1e-4),
        ("blocked", torch.float64, 1e-11),
        ("reference", torch.float32, 1e-4),
        ("reference", torch.float64, 1e-11),
    ],
)
def test_what_is_taken_away_is_told_far_below_the_rounding_of_energies(engine, dtype, weight):
    x, y, out = pairs(weight, dtype)
    found = error_spectrum(x, y, out, [1.0], method="filter", engine=engine)
    assert found.high[0] == pytest.approx(np.sqrt(away(y - out) / away(y)), rel=2e-3 if engine == "cpu" else 1e-4)
    assert found.low[0] == pytest.approx(np.sqrt(np.mean((y - out) ** 2) / np.mean(y**2)), rel=1e-3)


@pytest.mark.parametrize(("engine", "weight"), [("cpu", 1e-8), ("blocked", 1e-8), ("reference", 1e-14)])
def test_what_no_engine_can_tell_is_nan(engine, weight):
    x, y, out = pairs(weight, torch.float64 if engine == "reference" else torch.float32)
    assert np.isnan(error_spectrum(x, y, out, [1.0], method="filter", engine=engine).high[0])


def field(n=160, d=2):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((n, d))
    y = np.sin(2 * x[:, :1]) + 0.5 * np.sin(6 * x[:, 1:2]) + 0.3 * rng.standard_normal((n, 1))
    return x, y, 0.6 * y + 0.3 * np.sin(5 * x[:, 1:2])


K = np.array([1.5, 3.0, 6.0])


@pytest.mark.slow
def test_drawn_centres_lie_around_what_all_find():
    exact = error_spectrum(*field(), K, method="filter", engine="blocked")
    draws = [error_spectrum(*field(), K, method="filter", engine="blocked", rows=48, seed=seed) for seed in range(50)]
    for name in ("relative", "low", "high", "chance"):
        values = np.array([getattr(one, name) for one in draws])
        middle, spread = values.mean(axis=0), values.std(axis=0)
        assert (abs(middle - getattr(exact, name)) < 0.5 * spread + 1e-6).all(), name  # a bias below the spread
    inside = [abs(one.relative - exact.relative) <= 1.96 * one.stderr for one in draws]
    assert 0.9 < np.mean(inside) <= 1
    assert exact.stderr is None
    for one in draws[:3]:
        assert one.error_energy.sum() == pytest.approx(exact.mse, rel=1e-12)
        assert one.target_energy.sum() == pytest.approx(np.mean(field()[1] ** 2), rel=1e-12)
        assert any("48 of 160 points are filter centres" in note for note in one.notes)


@pytest.mark.parametrize("engine", ["reference", "blocked", "cpu"])
def test_all_points_drawn_is_exact(engine):
    exact = error_spectrum(*field(), K, method="filter", engine=engine)
    drawn = error_spectrum(*field(), K, method="filter", engine=engine, rows=160)
    for name in ("relative", "chance", "low", "high", "error_energy", "target_energy", "columns"):
        np.testing.assert_allclose(getattr(drawn, name), getattr(exact, name), rtol=1e-4, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(drawn.stderr, 0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"method": "filter", "rows": 161}, Code.VALUE),
        ({"method": "filter", "rows": 1}, Code.VALUE),
        ({"method": "filter", "rows": True}, Code.VALUE),
        ({"method": "projection", "rows": 20}, Code.CONFLICT),
    ],
)
def test_rows_that_cannot_be_drawn_are_one_line(options, code):
    x, y, out = field()
    for call in (lambda: error_spectrum(x, y, out, **options), lambda: check_error(torch.from_numpy(x), y, options)):
        with refuses("rows", code):
            call()


def test_targets_that_no_drawn_centre_has_are_one_line_and_more_rows_than_are_tried_pass():
    x, y, out = field()
    rare = np.zeros(160)
    rare[3] = 1.0
    with refuses("rows", Code.CONSTANT):
        error_spectrum(x, rare, out[:, 0], K, method="filter", rows=4)
    check_error(torch.from_numpy(x), y, {"method": "filter", "rows": 150})


@pytest.mark.parametrize("rows", [None, 60])
def test_inputs_that_differ_by_their_rounding_alone_tell_nothing(rows):
    x, y, out = field()
    near = torch.from_numpy(1 + 1e-7 * x)  # float64 has seven more digits, float32 none
    with pytest.warns(UserWarning, match="rounding of float32"):
        found = error_spectrum(near.float(), y, out, method="filter", rows=rows)
    assert np.isnan(found.relative).all()
    assert found.learned() is None
    assert found.resolution == 0
    assert any("inputs: " in note and "float32" in note for note in found.notes)
    for fine in (near, torch.from_numpy(x).float(), torch.from_numpy(1e-7 * x).float()):
        with warnings.catch_warnings(action="error"):
            told = error_spectrum(fine, y, out, method="filter", rows=rows)
        assert np.isfinite(told.relative).any()
