"""Error by frequency held to what is known without it: Parseval, plane waves, white noise, closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfreq import error_spectrum
from layerfreq.errors import InputError
from layerfreq.response import scattered
from layerfreq.response.grid import find_grid


def mesh(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def lattice(shape, steps):
    return mesh(*(1.5 + step * np.arange(count) for count, step in zip(shape, steps, strict=True)))


def noise(n, columns=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, columns)), rng.standard_normal((n, columns))


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


def test_scattered_is_grid_on_the_points_of_a_grid():
    for shape in ((24,), (25,), (10, 13), (13, 10), (4, 5, 6)):
        x, (y, out) = lattice(shape, (0.5, 0.3, 0.7)[: len(shape)]), noise(int(np.prod(shape)), 2)
        a, b = (error_spectrum(x, y, out, method=method) for method in ("grid", "scattered"))
        for name in ("k", "target_energy", "error_energy", "relative", "columns", "low"):
            np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=0, atol=1e-10, err_msg=name)
        assert b.stderr is None
        assert b.floor is None


def test_direct_sums_are_those_of_finufft_and_of_the_formula():
    rng = np.random.default_rng(0)
    for shape in ((9,), (5, 6), (3, 4, 5)):
        x, v = rng.uniform(0, 2 * np.pi, (50, len(shape))), rng.standard_normal((50, 2))
        q = mesh(*(np.arange(count) - count // 2 for count in shape))
        plain = v.T @ np.exp(-1j * x @ q.T)
        np.testing.assert_allclose(scattered.direct(x, v, shape), plain, atol=1e-12)
        if scattered.find_spec("finufft"):
            fast = scattered._finufft(x, v, shape)
            np.testing.assert_allclose(abs(fast), abs(plain), atol=1e-10)


def test_the_floor_is_what_noise_carries_and_leaves_nothing_in_the_mean():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        x = rng.random((150, 2))
        y = rng.standard_normal(150)
        found.append(error_spectrum(x, y, 0 * y, period=1.0))
    k = np.array([one.target_energy[:8] for one in found])
    assert abs(k.mean(axis=0) / (k.std(axis=0) / np.sqrt(60))).max() < 3.5
    raw = error_spectrum(x, y, 0 * y, period=1.0, floor=False)
    n, last = 150, found[-1]
    np.testing.assert_allclose(last.target_energy, (raw.target_energy - last.floor) / (1 - 1 / n), atol=1e-12)
    modes = last.floor / (np.mean(y**2) / n)  # E|r|^2 / n a mode
    np.testing.assert_allclose(modes, np.rint(modes), atol=1e-9)


def test_random_points_lie_within_their_errors():
    rng, inside, count = np.random.default_rng(2), 0, 0
    for _ in range(60):
        x = rng.random((800, 2))
        a, b = np.cos(2 * np.pi * x[:, 0]), np.sin(2 * np.pi * (x @ [2, 2]) + 1)
        found = error_spectrum(x, a + b, 0.8 * a + 0.4 * b, period=1.0, seed=int(rng.integers(1000)))
        for wave, true in ((1.0, 0.2), (np.sqrt(8), 0.6)):
            at = int(np.argmin(abs(found.k - 2 * np.pi * wave)))
            inside += abs(found.relative[at] - true) < 1.96 * found.stderr[at]
            count += 1
    assert 0.92 < inside / count <= 1.0


@pytest.mark.slow
def test_weights_undo_an_uneven_density():
    rng = np.random.default_rng(3)
    u = rng.random(4000)
    x = np.sqrt(u)  # density 2 x on [0, 1]
    y = np.sin(2 * np.pi * x)
    energy = [error_spectrum(x, y, 0 * y, period=1.0, weights=w).target_energy[[0, 1]] for w in (None, 1 / (x + 1e-3))]
    assert abs(energy[1] - [0, 0.5]).max() < 0.03
    assert abs(energy[0] - [0, 0.5]).max() > 0.05
    uneven = np.concatenate([rng.random(1500), 0.3 + 0.1 * rng.random(1500)])
    z = np.cos(2 * np.pi * 3 * uneven)
    errors = [
        abs(error_spectrum(uneven, z, 0 * z, period=1.0, weights=w).target_energy[3] - 0.5) for w in (None, "density")
    ]
    assert errors[1] < errors[0]


def test_a_density_estimate_does_not_fall_at_the_edges_of_the_points():
    rng = np.random.default_rng(4)
    for d in (1, 2):
        x = rng.random((2000, d))
        weights, _ = scattered.as_weights("density", x, 0)  # of an even density: 1 / n each
        edge = (np.minimum(x, 1 - x) < 0.03).any(axis=1)
        assert weights[edge].mean() / weights[~edge].mean() == pytest.approx(1, abs=0.1)


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


def test_class_ids_are_one_hot_against_the_softmax():
    rng = np.random.default_rng(7)
    x, ids, logits = np.arange(30.0), rng.integers(0, 3, 30), rng.standard_normal((30, 3))
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = error_spectrum(x, ids, logits)
    for other in (error_spectrum(x, np.eye(3)[ids], share), error_spectrum(x, ids, share)):
        np.testing.assert_allclose(other.error_energy, found.error_energy, atol=1e-14)
    assert any("softmax" in note for note in found.notes)


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
        ((X, np.where(Y == 3, np.nan, Y), Y), {}, "targets: NaN or infinite in 1 of 30"),
        ((X, Y, np.where(Y == 3, np.inf, Y)), {}, "outputs: NaN or infinite in 1 of 30"),
        ((np.where(X == 3, np.nan, X), Y, Y), {}, "inputs: NaN"),
        ((X[1:], Y[1:], Y[1:]), {"method": "grid"}, "inputs: 1 of the 30 places of the grid of 5 x 6 are empty"),
        ((X[:1], Y[:1], Y[:1]), {}, "inputs: one point"),
        ((X[[0, 0, 0]], Y[:3], Y[:3]), {}, "inputs: all 3 points are in one place"),
        ((np.r_[X, X[:2]], np.arange(32.0), np.zeros(32)), {}, "inputs: 2 of 32 points are in the place of another"),
        ((np.r_[X, X[:2]], np.arange(32.0), np.zeros(32)), {"method": "grid"}, "inputs: 2 of 32 points"),
        ((X, Y + 1j, Y), {}, "targets: torch.complex128"),
        ((X, Y, Y + 1j), {}, "outputs: torch.complex128"),
        ((X, Y, Y[:-1]), {}, "outputs: 29 for 30 points"),
        ((X, Y, np.zeros((30, 2))), {}, "outputs: 2 columns for targets of 1"),
        ((X, np.zeros(30, int) + 4, np.zeros((30, 3))), {}, "outputs: 3 columns for class ids up to 4"),
        ((X, Y, Y, [1.0, 6.4]), {"method": "grid"}, "frequencies: 6.4 is beyond 6.28319"),
        ((X[:9], Y[:9], Y[:9], [1.0, 99.0]), {"method": "scattered"}, "frequencies: 99 is beyond"),
        ((X, Y, Y, [1.0, 99.0]), {"method": "projection"}, "frequencies: 99 is beyond"),
        ((X, Y, Y, [2.0, 1.0]), {}, "frequencies: 2 is followed by 1"),
        ((X, Y, Y, [-1.0]), {}, "frequencies: -1 is not a finite number"),
        ((X, Y, Y, [0.0, 1.0]), {"method": "filter"}, "frequencies: 0 is not a valid cutoff"),
        ((X, Y, Y, [True]), {}, "frequencies: cannot be read as numbers"),
        ((X, Y, Y, ["a"]), {}, "frequencies: cannot be read as numbers"),
        ((X, Y, Y, []), {}, "frequencies: empty"),
        ((X, Y, Y), {"window": np.ones(30)}, "window: array([1., 1"),
        ((X, Y, Y), {"window": 3}, "window: 3 is not the name"),
        ((X, Y, Y), {"center": "no"}, "center: 'no' is neither True nor False"),
        ((X, Y, Y), {"phase_blind": np.ones(2)}, "phase_blind: array([1., 1.]) is neither"),
        ((X, Y, Y), {"method": "scattered", "floor": None}, "floor: None is neither"),
        ((X, Y, Y), {"method": "scattered", "period": 9j}, "period: cannot be read as numbers"),
        ((X, Y, Y), {"method": "scattered", "period": [9.0] * 3}, "period: 3 sides for 2 dimensions"),
        ((X, Y, Y), {"method": "scattered", "period": np.inf}, "period: inf is not finite, or shorter"),
        ((X, Y, Y), {"method": "scattered", "weights": 1j * Y}, "weights: cannot be read as numbers"),
        ((X, Y, Y), {"method": "scattered", "weights": 1 + 1e30 * (Y == 4)}, "weights: one point has 100% of them"),
        ((X, Y, Y), {"method": "projection", "direction": [1j, 0]}, "direction: cannot be read as numbers"),
        ((X * 1e200, Y, Y), {}, "inputs: they range over 4e+200"),
        ((X * 1e-200, Y, Y), {"method": "projection"}, "inputs: they range over 4e-200"),
        ((X, Y * 1e-200, Y * 1e-200), {}, "targets and outputs: at most 3e-199"),
        ((X, Y * 1e160, Y), {}, "targets or outputs: 3e+161"),
        ((X, Y, Y), {"method": "fft"}, "method: unknown 'fft'"),
        ((X, Y, Y), {"window": "hamster"}, "window: 'hamster' is none of SciPy's"),
        ((X, Y, Y), {"weights": "density"}, "weights: method 'grid' has no such option"),
        ((X, Y, Y), {"method": "scattered", "weights": Y}, "weights: 30 for 30 points, or not all finite and > 0"),
        ((X, Y, Y), {"method": "scattered", "period": 2.0}, "period: 2.0 is not finite, or shorter"),
        ((X, Y, Y), {"method": "projection", "direction": [1, 0, 0]}, "direction: 3 numbers for 2"),
        (
            (np.random.default_rng(0).random((30, 4)), Y, Y),
            {"method": "grid"},
            "method: 'grid' takes 1 to 3 dimensions",
        ),
        ((np.r_[0.0, 1.0, 2.5], Y[:3], Y[:3]), {"method": "grid"}, "inputs: no regular grid, steps along dimension 0"),
    ],
)
def test_bad_input_is_one_line(arguments, options, said):
    with pytest.raises(InputError) as caught:
        error_spectrum(*arguments, **options)
    assert said in str(caught.value)
    assert ";" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_given_is_changed_and_random_states_stay():
    x, y, out = (torch.rand(40, generator=torch.Generator().manual_seed(i)) for i in range(3))
    before, state, numpys = (x.clone(), y.clone(), out.clone()), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for method in ("scattered", "filter", "projection"):
        error_spectrum(x, y, out, method=method)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, out), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])  # noqa: NPY002


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
