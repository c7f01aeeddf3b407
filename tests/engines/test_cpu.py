"""The CPU engine's own parts: the table of bins, tiles, threads, and rows that are done again."""

import sys

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.engines.basis import BIN_SHIFT, PLACE_BITS, PLACE_SHIFT, kernel_basis
from tests.brute import brute, one_hot

cpu = sys.modules["layerfreq.engines.cpu"]


@pytest.mark.parametrize("inv_delta", [np.geomspace(0.005, 30, 50), np.array([1.0]), np.geomspace(1e-9, 1e9, 7)])
def test_basis_spans_kernel_derivative_and_square(inv_delta):
    basis = kernel_basis(inv_delta, 4.0, 1e-11)
    lowest = float(np.int32(basis.lowest).view(np.float32))
    d = np.geomspace(lowest, 4, 5000).astype(np.float32)
    pattern = d.view(np.int32) - basis.lowest
    place = (pattern >> PLACE_SHIFT) & (2**PLACE_BITS - 1)
    moments = np.stack([np.ones(len(d)), place, place.astype(float) ** 2], axis=1)
    functions = np.einsum("np,npr->nr", moments, basis.moments[pattern >> BIN_SHIFT])
    exact, m = np.exp(-np.outer(d.astype(float), inv_delta) / 2), len(inv_delta)
    values = functions @ basis.values
    assert np.abs(values[:, :m] - exact).max() < 1e-5
    assert np.abs((values[:, m:] + exact * d[:, None] / 2) * inv_delta).max() < 1e-5
    assert np.abs(functions @ basis.square - exact**2).max() < 1e-5
    gone = exact < 1e-14
    assert not gone.any() or np.abs(values[:, :m][gone]).max() < 1e-10


def cloud(n, d, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, classes, n)


@pytest.mark.parametrize("classes", [3, 120])
def test_tiles_and_symmetry_do_not_show(monkeypatch, classes):
    x, y = cloud(300, 9, classes)
    whole = spectrum(x, y, engine="cpu")
    lfr = brute(x, one_hot(y), whole.inv_delta)[0]
    monkeypatch.setattr(cpu, "TILE", 70)
    monkeypatch.setattr(cpu, "STRIP", 16)
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5
    monkeypatch.setattr(cpu, "SUMS_LIMIT", 0)  # no symmetry
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5


def test_rows_with_a_twin_are_done_again():
    x, y = cloud(600, 64, 5)
    x[301] = x[17]  # no sample is likely to see this pair
    s = spectrum(x, y, engine="cpu")
    lfr, rdf, *_ = brute(x, one_hot(y), s.inv_delta)
    assert np.abs(s.lfr - lfr).max() < 1e-5
    assert np.abs(s.rdf - rdf).max() < 1e-4 * rdf.max()


def test_threads_do_not_show():
    x, y = cloud(700, 5, 4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = spectrum(x, y, engine="cpu")
        torch.set_num_threads(3)
        three = spectrum(x, y, one.inv_delta, engine="cpu")
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(three.lfr, one.lfr, rtol=1e-12)


def test_half_precision_features():
    x, y = cloud(200, 6, 3)
    half = torch.from_numpy(x).bfloat16()
    s = spectrum(half, y, engine="cpu")
    assert np.abs(s.lfr - brute(half.float().numpy(), one_hot(y), s.inv_delta)[0]).max() < 1e-5
