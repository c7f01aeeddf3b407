"""Kernels from exponentials at fixed rates: errors everywhere, and beside kernels that are nearly gone."""

import numpy as np
import pytest

from layerfreq.engines.cuda.exponentials import CHAIN, STEPS, ladder

FARTHEST = 4.0
GRIDS = {
    "own": np.geomspace(0.005, 30, 50),
    "one": np.array([1.0]),
    "apart": np.geomspace(1e-9, 1e9, 7),
    "flat": np.geomspace(1e-6, 1e-3, 5),
    "fine": np.geomspace(1e4, 1e6, 40),
}


def distances(inv_delta):
    near = np.outer(1 / inv_delta, np.geomspace(1e-3, 100, 100)).ravel()
    return np.unique(np.concatenate([[0], np.geomspace(1e-18, FARTHEST, 3000), near[near < FARTHEST]]))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("n", [100, 60000, 10**6])
def test_kernel_derivative_and_square(name, n):
    inv_delta = GRIDS[name]
    found, d, m = ladder(inv_delta, FARTHEST, n), distances(inv_delta), len(inv_delta)
    functions = found.functions(d)
    exact = np.exp(-np.outer(d, inv_delta) / 2)
    size = np.minimum(2 / inv_delta, FARTHEST)  # of D times the kernel
    kernel = functions @ found.values[:, :m] - exact
    slow = (functions @ found.values[:, m:] - exact * d[:, None]) / size
    square = functions @ found.square - exact**2
    assert max(np.abs(error).max() for error in (kernel, slow, square)) <= 1e-6
    # Where a kernel is about to vanish, n errors must stay small against a point's own kernel, one.
    assert np.abs(kernel / (exact + 1 / n)).max() <= 3e-6
    assert np.abs(slow / (exact + 1 / n)).max() <= 2e-4
    assert np.abs(square / (exact**2 + 1 / n)).max() <= 3e-6


@pytest.mark.parametrize("name", GRIDS)
def test_coefficients_amplify_no_rounding(name):
    inv_delta = GRIDS[name]
    found, m = ladder(inv_delta, FARTHEST, 60000), len(inv_delta)
    assert np.abs(found.values[:-2, :m]).max() <= 1.01
    assert np.abs(found.values[:-2, m:] / np.minimum(2 / inv_delta, FARTHEST)).max() <= 10


def test_number_of_exponentials_grows_with_the_range_not_with_the_cutoffs():
    sizes = [len(ladder(np.geomspace(0.005, 30, m), FARTHEST, 5000).rates) for m in (50, 500)]
    assert sizes[0] == sizes[1] == 48
    rates = np.sort(ladder(GRIDS["own"], FARTHEST, 5000).rates)
    np.testing.assert_allclose(np.diff(np.log2(rates)), 1 / STEPS, atol=1e-6)
    assert len(rates) % (CHAIN * STEPS) == 0


def test_extreme_cutoffs():
    d = np.array([0.0, 1e-4, 1.0])
    found = ladder(np.array([1e-300, 1e300]), 4.0, 100)
    values = found.functions(d) @ found.values
    np.testing.assert_allclose(values[:, :2], [[1, 1], [1, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(values[:, 2], d, atol=1e-6)
    same = ladder(np.array([0.1, 1.0]), 0.0, 5)  # all points alike
    np.testing.assert_allclose(same.functions(d[:1]) @ same.values, [[1, 1, 0, 0]], atol=1e-6)
