"""Scattered points held to the grid's transform, the plain formula, and draws of random points."""

import numpy as np
import pytest

from layerfreq import error_spectrum
from layerfreq.response import scattered
from tests.helpers.places import lattice, mesh, noise


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
