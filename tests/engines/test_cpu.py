"""The CPU engine's own parts: the table of bins, series, tiles and threads."""

import itertools
import sys
import warnings

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from layerfreq import spectrum
from layerfreq.data.targets import as_targets
from layerfreq.engines.cpu import kernels
from layerfreq.engines.cpu.bins import kernel_basis
from layerfreq.engines.cpu.chebyshev import Series, kernel_series
from layerfreq.engines.cpu.expansion import Across, Classes, Side, Tile
from layerfreq.engines.cpu.pair_kernels import BIN_SHIFT, PLACE_BITS, PLACE_SHIFT, SQUARE_SHIFT
from layerfreq.engines.cpu.series_kernels import SIZES
from layerfreq.engines.threads import parts
from tests.helpers.brute import brute, one_hot
from tests.helpers.points import points_of
from tests.helpers.refusals import Code, refuses

cpu, statistics = (sys.modules[f"layerfreq.engines.{name}"] for name in ("cpu.engine", "statistics"))


@pytest.mark.parametrize("inv_delta", [np.geomspace(0.005, 30, 50), np.array([1.0]), np.geomspace(1e-9, 1e9, 7)])
def test_basis_spans_kernel_derivative_and_square(inv_delta):
    basis = kernel_basis(inv_delta, 4.0, 1e-11)
    lowest = float(np.int32(basis.lowest).view(np.float32))
    d = np.geomspace(lowest, 4, 5000).astype(np.float32)
    pattern = d.view(np.int32) - basis.lowest
    place = (pattern >> PLACE_SHIFT) & (2**PLACE_BITS - 1)
    moments = np.stack([np.ones(len(d)), place, place.astype(np.int64) ** 2 >> SQUARE_SHIFT], axis=1)
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


def test_binary_features_in_units_of_their_own_do_not_add_up_errors():
    rng = np.random.default_rng(0)
    x, y = (rng.random((20_000, 24)) < 0.3).astype(np.float32), rng.integers(0, 5, 20_000)
    options = {"rows": 16, "scale": "maxabs", "inv_delta": np.geomspace(0.5, 16, 4)}
    found, exact = (spectrum(x, y, engine=name, **options) for name in ("cpu", "reference"))
    assert np.abs(found.lfr - exact.lfr).max() < 2e-6


@pytest.mark.parametrize("kind", ["binary", "quantised", "grid"])
@pytest.mark.parametrize("vectors", [False, True])
def test_distances_that_many_pairs_share_do_not_add_up_errors(kind, vectors):
    rng = np.random.default_rng(0)
    x = {
        "binary": lambda: (rng.random((1000, 24)) < 0.3) / 3,  # not a power of two, so that distances are rounded
        "quantised": lambda: np.round(4 * np.clip(rng.normal(size=(600, 3)) @ rng.normal(size=(3, 6)), 0, 4)) / 4,
        "grid": lambda: np.stack(np.meshgrid(*2 * [np.arange(25.0)]), axis=-1).reshape(-1, 2),
    }[kind]().astype(np.float32)
    y = rng.normal(size=(len(x), 2)) if vectors else rng.integers(0, 5, len(x))
    cutoffs = np.geomspace(0.3, 50, 9)
    found, exact = (spectrum(x, y, cutoffs, engine=name, center=False) for name in ("cpu", "reference"))
    assert np.abs(found.lfr - exact.lfr).max() < 1e-6
    assert np.abs((found.rdf - exact.rdf) * cutoffs).max() < 2e-6


@pytest.mark.parametrize("classes", [3, 120])
def test_tiles_and_symmetry_do_not_show(monkeypatch, classes):
    x, y = cloud(300, 9, classes)
    whole = spectrum(x, y, engine="cpu")
    lfr = brute(x, one_hot(y), whole.inv_delta)[0]
    monkeypatch.setattr(cpu, "STRIP", 37)
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5
    monkeypatch.setattr(cpu, "SUMS_LIMIT", 1 << 20)  # some rows at a time, and no symmetry
    assert np.abs(spectrum(x, y, whole.inv_delta, engine="cpu").lfr - lfr).max() < 1e-5


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("rows", [None, 150])
def test_many_classes_are_folded_and_mean_the_same(monkeypatch, center, rows):
    """Unequal classes, equal points, centring, some centres: the curves from SᵀS are those of each class on its own."""
    x, y = cloud(260, 12, 90)
    y = np.minimum(y, 70)
    x[3], x[200] = x[9], 30 * x[200]
    u = np.geomspace(1e-3, 10, 20)
    points, targets = points_of(torch.from_numpy(x)), as_targets(y, len(x))
    assert cpu.Cpu(points, targets, torch.from_numpy(u))._folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few centres
        folded = spectrum(x, y, u, engine="cpu", center=center, rows=rows)
        exact = spectrum(x, y, u, engine="reference", center=center, rows=rows)
        monkeypatch.setattr(cpu.Cpu, "_folds", False)
        each = spectrum(x, y, u, engine="cpu", center=center, rows=rows)
    for one in (folded, each):
        assert np.abs(one.lfr - exact.lfr).max() < 1e-6
        assert np.abs(one.rdf - exact.rdf).max() < 1e-5 * exact.rdf.max()
        np.testing.assert_allclose(one.neighbours, exact.neighbours, rtol=1e-5)
    np.testing.assert_allclose(folded.lfr, each.lfr, rtol=1e-9)


@pytest.mark.parametrize("classes", [10, 100])
def test_rounding_averages_out_where_no_point_has_a_neighbour(classes):
    """There, sums of kernels are nearly zero, and rounding gives them either sign."""
    x, y = cloud(1500, 16, classes)
    u = np.geomspace(1, 20, 6)
    found, exact = (spectrum(x, y, u, engine=name) for name in ("cpu", "reference"))
    assert exact.neighbours[-1] < 1 + 1e-6
    assert np.abs(found.lfr - exact.lfr).max() < 1e-6


@pytest.mark.parametrize("stray", [False, True])
def test_many_classes_of_few_points_in_a_series(stray):
    """Sums of classes shorter than a register, of all their lengths; centres with pairs outside are done once more."""
    x, y = cloud(400, 64, 120)
    y = np.minimum(y, 100)  # most classes have a few points, one has many
    if stray:
        x[301] = x[18]
        x[31] = x[29] + 1e-4
    u = np.geomspace(0.005, 1, 20)
    engine = cpu.Cpu(points_of(torch.from_numpy(x)), as_targets(y, len(x)), torch.from_numpy(u))
    assert engine._series is not None
    assert engine._folds
    s, exact = (spectrum(x, y, u, engine=name) for name in ("cpu", "reference"))
    assert np.abs(s.lfr - exact.lfr).max() < 1e-6
    assert np.abs(s.rdf - exact.rdf).max() < 1e-5 * exact.rdf.max()
    np.testing.assert_allclose(s.neighbours, exact.neighbours, rtol=1e-5)


@pytest.mark.parametrize("shape", [(500, 500, 64), (417, 416, 130), (123, 457, 77), (16, 49, 300), (8, 99, 3)])
def test_products_of_points(shape):
    """Numbers of points that are none of whole tiles, features that are none of whole lanes."""
    h, w, d = shape
    x, y = cloud(h, d, 2)[0], cloud(w, d, 2, seed=1)[0]
    out = np.full((h, w), np.nan, np.float32)
    kernels.multiply(x, y, out)
    exact = x.astype(np.float64) @ y.astype(np.float64).T
    assert np.abs(out - exact).max() < 1e-6 * d


def products_of_polynomials(t, r):
    """Return (..., r) the functions of `chebyshev.Series` at some places, by their definition."""
    doubled = 2 * np.polynomial.chebyshev.chebvander(t, r - 1)
    functions = [np.ones_like(t)]
    for k in range(1, r):
        b, a = divmod(k, 4)
        functions.append(np.prod([doubled[..., n] for n in (4 * b, a) if n], axis=0))
    return np.stack(functions, axis=-1)


@pytest.mark.parametrize("r", SIZES)
def test_sums_of_a_series_over_a_tile(r):
    """Classes, columns and their totals, of rows and of columns, against float64 sums of the functions as defined."""
    h, w = 150, 101
    x, y = cloud(h, 24, 2)[0], cloud(w, 24, 2, seed=1)[0]
    sizes = [np.square(each).sum(axis=1) for each in (x, y)]
    squared = (sizes[0][:, None] + sizes[1] - 2 * x @ y.T).astype(np.float64)
    series = Series(0.5 * squared.min(), 2 * squared.max(), 40.0, 0.1, -50.0, np.zeros((r, 2)), np.zeros((r, 1)))
    exact = products_of_polynomials(series.offset + series.slope / (squared + series.centre), r)
    weights = np.random.default_rng(0).standard_normal((w, 2)).astype(np.float32)
    edges = np.array([0, 3, 20, w])
    of_classes, of_targets, of_columns = np.zeros((h, 4, r)), np.zeros((h, 3, r)), np.zeros((w, 2, r))
    every = series.ready(Classes(np.array([0, h]), np.array([1])))
    sides = [Side(size, np.arange(len(size)), each) for size, each in zip(sizes, (x, y), strict=True)]
    tile = Tile(x @ y.T, *sides, np.full(h, -1), np.ones(24, np.float32))
    ready = series.ready(Classes(edges, np.array([0, 1, 3])))
    assert series.deposit(tile, ready, of_classes, Across(every, of_columns)) is None
    assert series.deposit(tile, series.ready(weights), of_targets) is None
    classes = np.stack([exact[:, a:b].sum(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
    columns = np.einsum("hwr,wc->hcr", exact, np.hstack([weights, np.ones((w, 1))]))
    scale = 1e-5 * np.abs(exact).sum(axis=1).max()
    assert np.abs(of_classes[:, [0, 1, 3]] - classes).max() < scale
    assert not of_classes[:, 2].any()
    assert np.abs(of_targets - columns).max() < scale
    assert np.abs(of_columns[:, 1] - exact.sum(axis=0)).max() < scale


@pytest.mark.parametrize("reach", [0.0, 0.3, 1.2])
def test_series_spans_kernel_derivative_and_square(reach):
    inv_delta = np.geomspace(0.01, 100, 50) if reach else np.geomspace(0.01, 20, 30)
    series = kernel_series(inv_delta, reach, 4.0, 1e-10)
    d = np.linspace(series.lowest, series.highest, 3001)
    t = series.offset + series.slope / (d + series.centre)
    assert np.abs(t).max() < 1 + 1e-6
    for number in (series.centre, series.offset, series.slope):  # rounding one of them would move all places alike
        assert number == np.float32(number)
    functions = products_of_polynomials(t, len(series.square))
    exact, m = np.exp(-np.outer(d, inv_delta) / 2), len(inv_delta)
    values = functions @ series.values
    assert np.abs(values[:, :m] - exact).max() < 1e-9
    assert np.abs((values[:, m:] + exact * d[:, None] / 2) * inv_delta).max() < 1e-9
    assert np.abs(functions @ series.square - exact**2).max() < 1e-9


def test_a_range_too_wide_for_a_series_gets_bins():
    assert kernel_series(np.geomspace(1e-3, 1e6, 50), 0.0, 4.0, 1e-10) is None


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 1024, 2049, 7001])
def test_parts_cover_all_rows_once_and_fairly(monkeypatch, count, n):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    for even in (1, 2):
        found = parts(n, 1000, even)
        assert [i for part in found for i in range(n)[part]] == list(range(n))
        assert len(found) % (even * count) == 0 or len(found) == max(1, n // even * even)
        assert all(p.start < p.stop for p in found)
        assert max(p.stop - p.start for p in found) <= min(1000, n // len(found) + 1)


@pytest.mark.filterwarnings("ignore:rows=2")
@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("targets", ["classes", "vectors", "many classes"])
def test_there_may_be_more_threads_than_points(monkeypatch, targets, rows):
    monkeypatch.setattr("layerfreq.engines.threads.SMALL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for n in (2, 3, 7, 9):
        x, y = cloud(n, 5, n if targets == "many classes" else 2)
        y = x[:, :3] if targets == "vectors" else y
        s, exact = (spectrum(x, y, [0.01, 0.1, 1], rows=rows, engine=engine) for engine in ("cpu", "reference"))
        np.testing.assert_allclose(s.lfr, exact.lfr, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1.0, 1e-150, 1e150])
@pytest.mark.parametrize("grid", [[1e-320], [1e-300, 1.0, 1e300], [5e-324, 1.7e308]], ids=str)
def test_extreme_cutoffs_are_right_and_quiet(size, grid):
    x, y = cloud(300, 64, 3)
    x = x.astype(np.float64) * size
    s, exact = (spectrum(x, y, grid, engine=engine) for engine in ("cpu", "reference"))
    np.testing.assert_allclose(s.lfr, exact.lfr, atol=1e-8)
    # Of the largest that a derivative can be at its cutoff: LFR lies between 0 and 1.
    np.testing.assert_allclose(s.rdf * grid, exact.rdf * grid, atol=1e-6)


def test_a_series_has_finite_derivatives_at_every_cutoff():
    with np.errstate(all="raise", under="ignore"):
        series = kernel_series(np.geomspace(1e-313, 1e288, 7), 1.0, 8.0, 1e-10)
    assert np.isfinite(series.values).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_loops_find_the_same_centre_and_size(monkeypatch, dtype):
    x = (torch.randn(301, 7, generator=torch.Generator().manual_seed(0)) * 3 + 50).to(dtype)
    plain = points_of(x)
    monkeypatch.setattr(statistics, "COMPILED", 0)
    compiled = points_of(x)
    torch.testing.assert_close(compiled.shift, x.double().mean(dim=0), rtol=1e-13, atol=0)
    assert torch.equal(compiled.gain, plain.gain)
    assert compiled.spread == pytest.approx(plain.spread, rel=1e-12)
    assert compiled.radius == pytest.approx(plain.radius, rel=1e-12)
    assert points_of(torch.full((9, 3), 0.1, dtype=dtype)).spread == 0


@pytest.mark.parametrize("rows", [None, 599])
def test_pairs_that_the_series_does_not_hold_for_are_exact(rows):
    x, y = cloud(600, 64, 5)
    x[301] = x[17]  # no sample is likely to see these pairs
    x[450] = x[30] + 1e-4
    x[451] *= 40
    u = np.geomspace(0.005, 1, 30)
    points, targets = points_of(torch.from_numpy(x)), as_targets(y, len(x))
    assert cpu.Cpu(points, targets, torch.from_numpy(u))._series is not None
    s = spectrum(x, y, u, engine="cpu", rows=rows)
    exact = spectrum(x, y, u, engine="reference", rows=rows)
    assert np.abs(s.lfr - exact.lfr).max() < 1e-5
    assert np.abs(s.rdf - exact.rdf).max() < 1e-4 * exact.rdf.max()


@pytest.mark.parametrize("d", [150, 2100])  # from 2048 on, all distances are looked at
def test_a_pair_in_one_place_that_the_sample_sees_does_not_add_up_errors(d):
    x, y = cloud(1200, d, 3)
    x[0], y[:2] = x[1], 0  # the first of its class is among the points looked at
    cutoffs = np.array([2, 10, 20, 30]) / d
    found, exact = (spectrum(x, y, cutoffs, engine=name) for name in ("cpu", "reference"))
    assert np.abs(found.lfr - exact.lfr).max() < 1e-6
    np.testing.assert_allclose(found.neighbours, exact.neighbours, rtol=1e-6)


@pytest.mark.parametrize("short", [MemoryError("bins"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_is_answered_with_fewer_rows_at_a_time(monkeypatch, short):
    x, y = cloud(200, 6, 3)
    exact, zeros, limit = spectrum(x, y, engine="cpu"), np.zeros, 40

    def scarce(shape, *args, **kwargs):
        if isinstance(shape, tuple) and len(shape) == 3 and shape[0] > limit:
            raise short
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(cpu.np, "zeros", scarce)
    s = spectrum(x, y, exact.inv_delta, engine="cpu")
    np.testing.assert_allclose(s.lfr, exact.lfr, atol=1e-7)
    limit = 5
    with refuses("engine", Code.MEMORY):
        spectrum(x, y, engine="cpu")

    def none(*_):
        raise short

    monkeypatch.setattr(cpu.Cpu, "_centred", none)
    with refuses("features", Code.MEMORY):
        spectrum(x, y, engine="cpu")


def test_threads_do_not_show(monkeypatch):
    monkeypatch.setattr(sys.modules["layerfreq.engines.threads"], "SMALL", 0)
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


def test_small_work_stays_with_the_caller_and_blas_is_as_it_was(monkeypatch):
    """Threads to wake cost a small spectrum more than they save; so does looking for BLAS again."""
    controller = ThreadpoolController()
    before = [library.num_threads for library in controller.lib_controllers]
    monkeypatch.setattr(sys.modules["layerfreq.engines.threads"], "_together", None)
    x, y = cloud(300, 20, 4)
    s = spectrum(x, y, engine="cpu")
    assert np.abs(s.lfr - brute(x, one_hot(y), s.inv_delta)[0]).max() < 1e-5
    assert [library.num_threads for library in controller.lib_controllers] == before


def test_half_precision_features():
    x, y = cloud(200, 6, 3)
    half = torch.from_numpy(x).bfloat16()
    s = spectrum(half, y, engine="cpu")
    assert np.abs(s.lfr - brute(half.float().numpy(), one_hot(y), s.inv_delta)[0]).max() < 1e-5
