"""The CPU engine's own parts: the table of bins, series, tiles and threads."""

import sys

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.engines.basis import BIN_SHIFT, PLACE_BITS, PLACE_SHIFT, kernel_basis
from layerfreq.engines.series import kernel_series
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
    monkeypatch.setattr(cpu, "STRIP", 37)
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5
    monkeypatch.setattr(cpu, "SUMS_LIMIT", 1 << 20)  # some rows at a time, and no symmetry
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5


@pytest.mark.parametrize("reach", [0.0, 0.3, 1.2])
def test_series_spans_kernel_derivative_and_square(reach):
    inv_delta = np.geomspace(0.01, 100, 50) if reach else np.geomspace(0.01, 20, 30)
    series = kernel_series(inv_delta, reach, 4.0, 1e-10)
    d = np.linspace(series.lowest, series.highest, 3001)
    t = series.offset + series.slope / (d + series.centre)
    assert np.abs(t).max() < 1 + 1e-9
    functions = np.polynomial.chebyshev.chebvander(t, len(series.square) - 1)
    exact, m = np.exp(-np.outer(d, inv_delta) / 2), len(inv_delta)
    values = functions @ series.values
    assert np.abs(values[:, :m] - exact).max() < 1e-9
    assert np.abs((values[:, m:] + exact * d[:, None] / 2) * inv_delta).max() < 1e-9
    assert np.abs(functions @ series.square - exact**2).max() < 1e-9


def test_a_range_too_wide_for_a_series_gets_bins():
    assert kernel_series(np.geomspace(1e-3, 1e6, 50), 0.0, 4.0, 1e-10) is None


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 1024, 2049, 7001])
def test_parts_cover_all_rows_once_and_fairly(monkeypatch, threads, n):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for even in (1, 2):
        parts = cpu._parts(n, even)
        assert [i for part in parts for i in range(n)[part]] == list(range(n))
        assert len(parts) % (even * threads) == 0
        assert max(p.stop - p.start for p in parts) <= min(cpu.STRIP, n // len(parts) + 1)


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
