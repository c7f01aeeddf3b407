"""Error by frequency held to what is known without it: Parseval, plane waves, white noise, closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfreq import error_spectrum
from layerfreq.response.grid import find_grid
from tests.helpers.places import lattice, noise

shapes = st.lists(st.integers(2, 7), min_size=1, max_size=3).map(tuple)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(0, 2**31), st.booleans())
def test_bands_of_a_grid_add_up_to_the_mean_squared_error_whatever_its_sizes_steps_and_order(shape, columns, seed, own):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.1, 3, len(shape))
    x, (y, out) = lattice(shape, steps), noise(int(np.prod(shape)), columns, seed)
    k = None if own else [0.3 * np.pi / max(steps), np.pi / max(steps)]
    found = error_spectrum(x, y, out, k, method="grid")
    mse = float(torch.nn.functional.mse_loss(torch.from_numpy(out), torch.from_numpy(y)))
    assert found.mse == pytest.approx(mse, rel=1e-12)
    assert found.error_energy.sum() == pytest.approx(mse, rel=1e-12)
    assert found.target_energy.sum() == pytest.approx(np.mean(y**2), rel=1e-12)
    np.testing.assert_allclose(found.columns.mean(axis=2), [found.target_energy, found.error_energy], atol=1e-14)
    order = rng.permutation(len(x))
    axes = rng.permutation(len(shape))
    for other in (
        error_spectrum(x[order], y[order], out[order], k, method="grid"),
        error_spectrum(x[:, axes], y, out, k, method="grid"),
        error_spectrum(-x + 7, y, out, k, method="grid"),
    ):
        np.testing.assert_allclose(other.k, found.k)
        np.testing.assert_allclose(other.error_energy, found.error_energy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(other.leak, found.leak, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["grid", "scattered"])
@pytest.mark.parametrize("shape", [(16,), (17,), (12, 15), (15, 12), (6, 5, 8)])
def test_a_plane_wave_lands_in_its_ring_with_its_amplitude(method, shape):
    steps = (0.25, 0.4, 0.5)[: len(shape)]
    x = lattice(shape, steps)
    wave = np.array([2 * np.pi * q / (count * step) for q, count, step in zip((2, 1, 1), shape, steps, strict=False)])
    y, phase = np.cos(x @ wave), np.cos(x @ wave - np.pi)
    for factor, out in ((0.0, y), (1.0, 0 * y), (2.0, phase), (0.5, 0.5 * y)):
        found = error_spectrum(x, 3 * y, 3 * out, method=method)
        at = int(np.argmin(abs(found.k - np.linalg.norm(wave))))
        assert found.target_energy[at] == pytest.approx(9 / 2, rel=1e-10)  # of a cosine of amplitude 3
        assert found.target_energy.sum() == pytest.approx(9 / 2, rel=1e-10)
        assert found.relative[at] == pytest.approx(factor, abs=1e-7)
        assert found.told.sum() == 1
        assert found.learned(0.1) == (found.k[at] if factor == 0 else None)


def test_the_right_magnitude_with_another_phase_is_an_error_unless_phase_blind():
    t = np.arange(64) / 64
    y, out = np.sin(2 * np.pi * 3 * t), np.sin(2 * np.pi * 3 * t - 0.7)
    for method in ("grid", "projection"):
        seen = error_spectrum(t, y, out, method=method).relative[3]
        assert seen == pytest.approx(2 * np.sin(0.35), rel=1e-10)  # |1 - exp(-0.7 i)|
        assert error_spectrum(t, y, out, method=method, phase_blind=True).relative[3] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("shape", [(40, 41), (41, 40), (12, 13, 14)])
def test_white_noise_is_flat(shape):
    n = int(np.prod(shape))
    x, (y, out) = lattice(shape, (1.0,) * len(shape)), noise(n, 20)
    found, ones = error_spectrum(x, y, out), np.zeros((n, 1))
    ones[0] = 1.0  # a single point has the same energy at every mode: 1 / n^2
    modes = error_spectrum(x, ones, 0 * ones).target_energy * n**2
    assert modes.sum() == pytest.approx(n)
    np.testing.assert_allclose(modes, np.rint(modes), atol=1e-9)
    z = (found.error_energy / modes * n - 2) / (2 * np.sqrt(2 / (20 * modes)))  # pairs of modes are alike
    assert abs(z).max() < 4.5
    assert np.std(z) < 1.5


def plain_filter(x, y, k):
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)
    g = np.exp(-squared * k**2 / 2)
    return g / g.sum(axis=1, keepdims=True) @ y


@pytest.mark.parametrize("engine", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("d", [1, 5])
def test_the_filter_is_the_formula(engine, d):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((80, d)), rng.standard_normal((80, 3)) + 2
    out = 0.5 * y + 0.3 * rng.standard_normal((80, 3))
    k = np.array([0.3, 1.0, 2.5, 6.0]) / d**0.5
    found = error_spectrum(x, y, out, k, method="filter", engine=engine)
    tolerance = 1e-5 if engine == "cpu" else 1e-9
    for at, one in enumerate(k):
        low_y, low_e = plain_filter(x, y, one), plain_filter(x, y - out, one)
        assert found.low[at] == pytest.approx(np.sqrt((low_e**2).sum() / (low_y**2).sum()), rel=tolerance * 10)
        high = np.sqrt(((y - out - low_e) ** 2).sum() / ((y - low_y) ** 2).sum())
        assert found.high[at] == pytest.approx(high, rel=1e-3 if engine == "cpu" else 1e-6)
        sums = found.error_energy[: at + 1].sum() if at < 3 else None
        assert sums is None or sums == pytest.approx(np.mean(low_e**2), rel=tolerance)
    assert found.error_energy.sum() == pytest.approx(np.mean((y - out) ** 2), rel=1e-12)


@pytest.mark.parametrize("method", ["grid", "filter", "projection"])
def test_chance_is_the_mean_over_shuffled_outputs(method):
    rng = np.random.default_rng(5)
    x = np.arange(24.0) if method == "grid" else rng.standard_normal((24, 2))
    y, out = noise(24, 2, 5)
    y, out = y + 1, out + 0.4
    y += 0 if method == "grid" else 3 * np.cos(x[:, :1])
    k = {"grid": None, "filter": [0.5, 1.0, 2.0], "projection": [0.2, 0.7, 1.1]}[method]
    found = error_spectrum(x, y, out, k, method=method)
    shuffled = [error_spectrum(x, y, out[rng.permutation(24)], k, method=method).error_energy for _ in range(500)]
    mean, error = np.mean(shuffled, axis=0), np.std(shuffled, axis=0) / np.sqrt(500)
    expected = found.chance**2 * found.target_energy
    fine = np.isfinite(expected)
    assert fine.sum() >= 2
    assert abs((mean - expected)[fine] / np.maximum(error, 1e-12)[fine]).max() < 4.5


def test_projection_is_the_sum_over_points_along_the_direction():
    rng = np.random.default_rng(6)
    x, (y, out) = rng.standard_normal((60, 7)), noise(60, 2)
    p, k = rng.standard_normal(7), [0.2, 0.5, 1.0]
    found = error_spectrum(x, y, out, k, method="projection", direction=3 * p)
    waves = np.exp(-1j * (x @ p / np.linalg.norm(p))[:, None] * np.array(k))
    np.testing.assert_allclose(found.error_energy, (abs(waves.T @ (y - out) / 60) ** 2).mean(axis=1), rtol=1e-9)
    _, _, v = np.linalg.svd(x - x.mean(axis=0))
    a, b = (error_spectrum(x, y, out, k, method="projection", direction=one) for one in (None, v[0]))
    np.testing.assert_allclose(a.error_energy, b.error_energy, rtol=1e-6)


def test_the_index_of_bias_and_what_is_learned():
    t = np.arange(128) / 128
    low, high = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * 11 * t)
    k = 2 * np.pi * np.array([2, 11])
    for out, bias, learned in ((low, 1, k[0]), (high, -1, None), (0 * t, 0, None), (0.95 * (low + high), 0, k[1])):
        found = error_spectrum(t, low + high, out)
        assert found.bias == pytest.approx(bias, abs=1e-9)
        assert found.learned() == (None if learned is None else pytest.approx(learned))
        assert found.learned_interval() == (found.learned(), found.learned())
    assert error_spectrum(t, low, low).bias is None
    np.testing.assert_allclose(found.cycles[[2, 11]], [2, 11])


@pytest.mark.parametrize("method", ["grid", "scattered", "filter"])
def test_the_index_of_bias_is_that_of_what_varies(method):
    t = np.arange(64) / 64
    y, out = np.sin(2 * np.pi * t) + np.sin(10 * np.pi * t), 0.7 * np.sin(2 * np.pi * t)
    for k in (None, [8.0, 30.0, 60.0]):
        one, moved = (error_spectrum(t, y + up, out - 2 * up, k, method=method) for up in (0, 3))
        assert moved.bias == pytest.approx(one.bias, abs=1e-6)
        np.testing.assert_allclose(moved.constant.sum(axis=1), [9, 81], rtol=1e-6)
    assert error_spectrum(t, 0 * t + 1, out, method=method).bias is None
    assert error_spectrum(t.astype(np.float32), 0 * t + 1, out, method=method).bias is None


def test_a_grid_of_steps_so_small_that_float32_rounds_them_is_one():
    for count in (20_000, 200_000):
        t = torch.linspace(-1, 1, count + 1)[:-1]
        found = error_spectrum(t, torch.sin(3 * torch.pi * t), 0.5 * torch.sin(3 * torch.pi * t))
        assert found.method == "grid"
        assert found.relative[3] == pytest.approx(0.5, abs=1e-4)
        assert error_spectrum(t.double(), t, t).method == "grid"  # the same numbers, in another type
    off = torch.arange(40.0, dtype=torch.float64)
    off[7] += 0.01
    assert error_spectrum(off, off, off).method == "scattered"


def test_what_does_not_repeat_leaks_and_a_window_stops_it():
    t = np.linspace(0, 1, 200)
    ramp = error_spectrum(t, np.sin(t), np.sin(t) - t)
    assert ramp.leak.sum() > 0.8 * ramp.error_energy[1:].sum()
    assert any("edges" in note for note in ramp.notes)
    windowed = error_spectrum(t, np.sin(t), np.sin(t) - t, window="hann", center=True)
    assert windowed.leak.sum() < 0.01 * windowed.error_energy.sum()
    assert windowed.error_energy.sum() == pytest.approx(windowed.mse, rel=1e-12)
    whole = np.arange(200) / 200
    sine = error_spectrum(whole, np.sin(2 * np.pi * whole), 0 * whole)
    assert sine.leak.sum() < 1e-6
    assert not any("edges" in note for note in sine.notes)


@settings(max_examples=30, deadline=None)
@given(shapes, st.sampled_from([np.float32, np.float64]), st.floats(-1e3, 1e3))
def test_a_grid_is_found_whatever_its_offset_and_precision(shape, kind, offset):
    x = (lattice(shape, (0.25, 0.5, 1.0)[: len(shape)]) + offset).astype(kind)
    grid = find_grid(x.astype(np.float64))
    assert grid.shape == shape
    assert sorted(grid.place) == list(range(len(x)))


def test_it_can_be_read_and_drawn():
    import matplotlib as mpl

    mpl.use("agg")
    x = np.random.default_rng(9).random((100, 1))
    y = np.cos(2 * np.pi * x)
    found = error_spectrum(x, y, 0.7 * y)
    assert "ErrorSpectrum of 100 points in 1 dimensions (scattered)" in repr(found)
    assert found._repr_html_().startswith("<pre>ErrorSpectrum")
    frame = found.to_frame()
    assert len(frame) == len(found.k)
    assert {"k", "cycles", "relative", "chance", "stderr"} <= set(frame)
    assert found.plot().get_xlabel().startswith("k (radians per unit")
    with pytest.raises(ValueError, match="read-only"):
        found.k[0] = 1


@pytest.mark.parametrize("method", ["grid", "projection"])
def test_chance_without_phase_is_that_of_shuffled_outputs(method):
    """Brute force; 101 points: all modes but the mean are complex."""
    rng = np.random.default_rng(0)
    t = np.arange(101) / 101
    y, out = 1 + np.sin(2 * np.pi * 3 * t) + 0.2 * rng.standard_normal(101), 2 + rng.standard_normal(101)
    k = 2 * np.pi * np.array([0.0, 1.0, 3.0, 7.0])
    found = error_spectrum(t, y, out, k if method == "projection" else None, method=method, phase_blind=True)
    at = [0, 1, 3, 7] if method == "grid" else slice(None)
    waves = np.exp(-1j * t[:, None] * k) / 101
    target = np.abs(y @ waves)
    errors = [(target - np.abs(rng.permutation(out) @ waves)) ** 2 for _ in range(4000)]
    np.testing.assert_allclose(found.chance[at], np.sqrt(np.mean(errors, axis=0)) / target, rtol=0.04)
