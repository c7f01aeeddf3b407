"""Two runs compared: differences in closed form, intervals next to SciPy's, and what cannot be compared."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from layerfreq import Run, compare
from layerfreq.measure.result import Spectrum
from tests.helpers.refusals import Code, refuses

GRID = np.geomspace(1e-3, 1e5, 400)


def write(path, ks, steps=(0, 10), error=0.0, resolved=1e4, config=None):
    """A run of layers whose effective targets are sin(kx): LFR = exp(-k^2 / u), half at k^2 / ln 2."""
    run = Run.create(path, config)
    for step in steps:
        parts = []
        for depth, (layer, k) in enumerate(ks.items(), start=1):
            lfr = np.exp(-(k**2) / GRID)
            curves = {"lfr": lfr, "rdf": k**2 / GRID**2 * lfr, "chance": 0 * GRID, "stderr": np.full(len(GRID), error)}
            rest = {"n": 9, "d": 1, "rows": 9, "scale": "raw", "floor": 0.0, "spread": 1.0, "engine": ""}
            one = Spectrum(inv_delta=GRID.copy(), neighbours=4 / (1 + GRID / resolved), **curves, **rest)
            parts.append(one.to_frame().assign(step=step, layer=layer, depth=depth, scale="raw"))
        frame = pd.concat(parts, ignore_index=True)
        frame.attrs = {"n": 9, "rows": 9, "floor": 0.0}
        run.write_spectra(step, frame)
    return run


def test_differences_are_those_of_the_closed_form(tmp_path):
    found = compare(write(tmp_path / "a", {"x": 2, "y": 4}), tmp_path / write(tmp_path / "b", {"x": 4, "y": 2}).path)
    assert found["layer"].tolist() == ["x", "y"]
    np.testing.assert_allclose(found["median_a"], np.array([4, 16]) / np.log(2), rtol=1e-3)
    np.testing.assert_allclose(found["octaves"], [2, -2], atol=1e-3)
    assert found[["low", "high"]].isna().to_numpy().all()
    assert found["answer"].tolist() == ["undecided"] * 2
    assert found[["resolved_a", "resolved_b"]].to_numpy().all()


def test_single_runs_have_intervals_from_the_errors_of_drawn_centres(tmp_path):
    """The error of log2 of the median is LFR's over its slope there, ln 2 * k^2 / u * LFR = (ln 2)^2 / 2."""
    a, b = (write(tmp_path / name, {"x": k, "y": 3}, error=0.02) for name, k in (("a", 2), ("b", 8)))
    found = compare(a, b)
    half = 1.96 * math.sqrt(2) * 0.02 * 2 / math.log(2) ** 2
    np.testing.assert_allclose(found["high"] - found["octaves"], half, rtol=1e-2)
    np.testing.assert_allclose(found["octaves"] - found["low"], half, rtol=1e-2)
    assert found["answer"].tolist() == ["higher", "undecided"]
    assert compare(b, a)["answer"].tolist() == ["lower", "undecided"]


def test_several_seeds_have_the_interval_of_welchs_t(tmp_path):
    sides = [(2, 2.2, 1.7), (2.9, 3.4)]
    runs = [
        [write(tmp_path / f"{side}-{seed}", {"x": k}, steps=(0,)) for seed, k in enumerate(ks)]
        for side, ks in enumerate(sides)
    ]
    found = compare(*runs).iloc[0]
    logs = [np.log2(np.square(ks)) for ks in sides]
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=2e-2)
    assert found["octaves"] == pytest.approx(logs[1].mean() - logs[0].mean(), abs=1e-3)
    assert found["median_b"] == pytest.approx(2.9 * 3.4 / np.log(2), rel=1e-3)
    assert math.isnan(compare(runs[0], runs[1][0])["low"].iloc[0])


def test_what_is_not_resolved_is_undecided(tmp_path):
    a = write(tmp_path / "a", {"x": 2}, error=0.001)
    found = compare(a, write(tmp_path / "b", {"x": 8}, error=0.001, resolved=10.0)).iloc[0]
    assert (found["resolved_a"], found["resolved_b"], found["answer"]) == (True, False, "undecided")
    assert found["low"] > 0


def test_the_last_shared_step_or_those_asked_for(tmp_path):
    a, b = write(tmp_path / "a", {"x": 2}, steps=(0, 10, 20)), write(tmp_path / "b", {"x": 2}, steps=(0, 10, 30))
    assert [compare(a, b).attrs[side]["step"] for side in "ab"] == [10, 10]
    assert [compare(a, b, (20, 30)).attrs[side]["step"] for side in "ab"] == [20, 30]
    assert compare(a, a, (0, 20))["octaves"].tolist() == [0]
    with refuses("step", Code.MISSING):
        compare(a, b, 20)
    with refuses("runs", Code.CONFLICT):
        compare(a, write(tmp_path / "c", {"x": 2}, steps=(5,)))


def test_layers_of_one_side_stay_and_runs_without_a_shared_one_are_refused(tmp_path):
    a, b = write(tmp_path / "a", {"x": 2, "y": 2}), write(tmp_path / "b", {"y": 2, "z": 2})
    found = compare(a, b).set_index("layer")
    assert found.index.tolist() == ["x", "y", "z"]
    assert found["median_b"].isna().tolist() == [True, False, False]
    assert found["resolved_a"].tolist() == [True, True, False]
    with refuses("runs", Code.CONFLICT):
        compare(a, write(tmp_path / "c", {"other": 2}))


def test_different_probe_sets_are_told(tmp_path):
    a, b = (write(tmp_path / str(n), {"x": 2}, config={"points": n}) for n in (100, 200))
    with pytest.warns(UserWarning, match="points 100 in .*, 200 in .*; medians can be compared only where"):
        compare(a, b)
