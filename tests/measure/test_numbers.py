"""Data that engines and estimates can get wrong: equal, collapsed and far points, means, few centres."""

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.data.targets import as_targets
from layerfreq.engines import pick_engine
from layerfreq.engines.coincidence import fingerprints
from layerfreq.measure.bounds import within_bounds
from tests.helpers.brute import brute, one_hot
from tests.helpers.fuzz import case, definition
from tests.helpers.refusals import Code, refuses

ENGINES = ["reference", "blocked", "cpu"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [3, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_points_have_the_floor(engine, n, dtype):
    for value in (0.0, 0.1, -1e30):
        x = torch.full((n, 4), value, dtype=dtype)
        for scale in ("raw", "maxabs"):
            s = spectrum(x, np.arange(n) % 3, engine=engine, scale=scale)
            np.testing.assert_allclose(s.lfr, s.floor, rtol=1e-6)
            np.testing.assert_allclose(s.neighbours, n, rtol=1e-6)
            assert (s.peak, s.median, s.resolution) == (None, None, 0.0)


@pytest.mark.parametrize(("engine", "bound"), [("reference", 1e-12), ("blocked", 1e-9), ("cpu", 1e-5)])
@pytest.mark.parametrize("size", [1e-8, 1e-12])
def test_collapsed_clusters_keep_their_structure(engine, bound, size):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120)
    x = rng.normal(size=(4, 5))[labels] + size * rng.normal(size=(120, 5))
    y = rng.integers(0, 3, 120)
    u = np.geomspace(0.1 / size**2, 10 / size**2, 7)
    assert np.abs(spectrum(x, y, u, engine=engine).lfr - brute(x, one_hot(y), u)[0]).max() < bound


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [1e14, -3e14])
def test_one_point_far_away(engine, place):
    x = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    x[7] = place
    y, u = np.arange(150) % 3, np.geomspace(0.01, 1e4, 12)
    assert np.abs(spectrum(x, y, u, engine=engine).lfr - brute(x, one_hot(y), u)[0]).max() < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_duplicates_and_cutoffs_beyond_all_distances(engine):
    x = np.random.default_rng(0).normal(size=(200, 3))
    x[100:] = x[:100]
    y, u = np.arange(200) // 50, np.geomspace(0.1, 1e40, 9)
    for target in (y, np.random.default_rng(1).normal(size=(200, 2))):
        s = spectrum(x, target, u, engine=engine)
        assert np.abs(s.lfr - definition(x, target, u, "raw", target.ndim == 2)[0]).max() < 1e-5
        assert s.neighbours[-1] == pytest.approx(2)


@pytest.mark.parametrize("mean", [0.0, 2000.0, 1e12])
def test_a_mean_of_float_targets_changes_nothing(mean):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(300, 2)), rng.integers(-(2**12), 2**12, 300) / 64.0  # exact beside 1e12 too
    s, plain = spectrum(x, z + mean), spectrum(x, z, center=True)
    assert s.center
    assert "targets centred" in repr(s)
    np.testing.assert_allclose(s.lfr, plain.lfr, atol=1e-12)
    assert s.floor == 0
    kept = spectrum(x, z + mean, center=False)
    assert not kept.center
    assert kept.floor == pytest.approx((z + mean).mean() ** 2 / ((z + mean) ** 2).mean())
    ids = spectrum(x, np.arange(300) % 3)
    assert not ids.center
    assert ids.floor == pytest.approx(1 / 3)


@pytest.mark.parametrize("span", [1e-305, 1e-200, 1e200, 1e300])
def test_spans_whose_squares_leave_float64(span):
    x, y = np.random.default_rng(0).uniform(size=(60, 2)), np.arange(60) % 3
    for scale in ("rms", "maxabs"):
        np.testing.assert_allclose(spectrum(x * span, y, scale=scale).lfr, spectrum(x, y, scale=scale).lfr, atol=1e-8)
    with refuses("features", Code.VALUE, "'rms'"):
        spectrum(x * span, y)
    s = spectrum(x * span, y, [1.0])  # cutoffs of the user's own: all alike, or each on its own
    np.testing.assert_allclose(s.lfr, s.floor if span < 1 else 1.0, rtol=1e-12)
    with refuses("scale", Code.VALUE):
        s.to_scale("rms")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_coincident_points_are_counted(dtype):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert spectrum(x, np.arange(50) % 2).coincident == 1
    x[:10] = x[0]
    x[20:23] = 0.0
    x[22] = -0.0
    s = spectrum(x, np.arange(50) % 2)
    assert s.coincident == pytest.approx((100 + 9 + 37) / 50)
    assert len(fingerprints(x).unique()) == 39


def test_resolution_looks_beyond_coincident_points():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 5)), rng.integers(0, 3, 400)
    distinct = spectrum(x, y)
    assert distinct.resolution == pytest.approx(
        float(np.exp(np.interp(-np.log(2), -np.log(distinct.neighbours), np.log(distinct.inv_delta)))), rel=1e-9
    )
    x[:40] = x[0] + 100  # a crowd that is alone: it moves no other window
    alone = spectrum(x, y, distinct.inv_delta)
    assert alone.neighbours[-1] > 2
    assert alone.resolution == pytest.approx(spectrum(x[40:], y[40:], distinct.inv_delta).resolution, rel=0.1)


@pytest.mark.parametrize(("classes", "rows"), [(3, 2), (10, 8)])
def test_few_centres_are_not_without_error(classes, rows):
    rng = np.random.default_rng(0)
    y = np.minimum(rng.geometric(0.9 if classes == 3 else 0.5, 300) - 1, classes - 1)
    x = 0.1 * rng.normal(size=(300, 2)) + 2 * y[:, None]  # classes apart: most centres are alike
    u = [0.3, 3.0, 30.0]
    exact = spectrum(x, y, u).lfr
    found = [spectrum(x, y, u, rows=rows, seed=seed) for seed in range(60)]
    assert min(s.stderr.min() for s in found) > 1e-3
    assert np.mean([np.abs(s.lfr - exact) <= 1.96 * s.stderr for s in found]) > 0.9


def test_the_impossible_is_refused():
    targets = as_targets([0, 1, 1, 0], 4)
    good = {"lfr": np.array([0.5, 1 + 1e-9]), "self_weight": np.ones(2), "neighbours": np.ones(2), "stderr": None}
    assert within_bounds(dict(good), targets, 1.0, "cpu")["lfr"].max() == 1
    for name, value in (("lfr", np.nan), ("lfr", 1.01), ("lfr", 0.4), ("neighbours", 0.9), ("self_weight", 0.2)):
        with refuses("engine", Code.UNSUPPORTED, "'cpu'", name):
            within_bounds({**good, name: np.array([value, 1.0])}, targets, 1.0, "cpu")


@pytest.mark.parametrize(
    ("n", "d", "cutoffs", "name"),
    [
        (500, 65536, 64, "cpu"),
        (300, 8, 64, "blocked"),
        (500, 100, 50, "cpu"),
        (600, 8, 64, "cpu"),
        (300, 8, 2000, "cpu"),
        (40, 65536, 64, "blocked"),
    ],
)
def test_auto_goes_by_work(n, d, cutoffs, name):
    assert pick_engine("auto", torch.device("cpu"), n, d, cutoffs)[0] == name


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_odd_data_against_the_definition(first):
    """More of them: `python -m tests.helpers.fuzz 1000`."""
    tried = [case(number) for number in range(first, first + 10)]
    assert [one for one in tried if one[1] > one[2]] == []


def test_masked_features():
    x = np.ma.array(np.ones((4, 2)), mask=[[1, 0], [0, 0], [0, 0], [0, 1]])
    with refuses("features", Code.VALUE):
        spectrum(x, [0, 1, 0, 1])
    assert spectrum(np.ma.array(np.eye(4)), [0, 1, 0, 1]).n == 4
