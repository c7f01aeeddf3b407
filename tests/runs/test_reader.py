"""Spectra read back from runs have the numbers of the whole curves, whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.runs.reader import read_back
from tests.helpers.refusals import Code, refuses
from tests.helpers.rows import CASES, spectrum_of

FACTOR = 3.7


def frame(draw, scales=("raw", "rms", "maxabs"), steps=3, layers=4, m=30):
    """LFR curves that rise at random, those of raw and rms the same but for one layer, stderr in every second step."""
    rng = np.random.default_rng(draw)
    parts = []
    for step in range(steps):
        for depth in range(layers):
            u = np.sort(np.exp(rng.uniform(-5, 5, m)))
            lfr, rdf = np.sort(rng.random(m)), rng.random(m) / u
            for scale in scales:
                factor = FACTOR if scale == "rms" else 1.0
                if scale == "maxabs" or (depth == 1 and scale == "rms"):  # measured apart: other curves
                    lfr = np.sort(rng.random(m))
                curves = {"inv_delta": u * factor, "lfr": lfr, "rdf": rdf / factor, "chance": 0.1 + 0.01 * lfr}
                curves |= {"neighbours": 100 / (1 + u), "stderr": np.full(m, 0.01 * (step % 2))}
                about = {"step": step, "layer": "zyxw"[depth], "depth": depth + 1, "scale": scale}
                parts.append(pd.DataFrame(curves).assign(**about))
    whole = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=draw)
    whole.attrs = {"n": 50, "rows": 20, "floor": 0.1}
    return whole


@pytest.mark.parametrize("scales", CASES, ids="+".join)
@pytest.mark.parametrize("draw", range(5))
def test_numbers_are_those_of_each_spectrum_alone(draw, scales):
    given = frame(draw, scales)
    found = [(one, one.spectrum.median, one.spectrum.resolution, one.spectrum.peak) for one in read_back(given)]
    assert [(one.step, one.depth, one.spectrum.scale) for one, *_ in found] == [
        (step, depth, scale) for step in range(3) for depth in range(1, 5) for scale in scales
    ]
    for one, median, resolution, peak in found:
        keys = given[["step", "layer", "scale"]].apply(tuple, axis=1)
        part = given[keys == (one.step, one.layer, one.spectrum.scale)].sort_values("inv_delta")
        alone = spectrum_of(part, given.attrs)
        np.testing.assert_array_equal(one.spectrum.lfr, alone.lfr)
        np.testing.assert_array_equal(one.spectrum.inv_delta, alone.inv_delta)
        assert (one.spectrum.stderr is None) == (alone.stderr is None) == (one.step % 2 == 0)
        assert one.again == (one.spectrum.scale == "rms" and one.depth != 2)
        assert (one.spectrum.n, one.spectrum.rows, one.spectrum.floor) == (50, 20, 0.1)
        for value, expected in ((median, alone.median), (resolution, alone.resolution), (peak, alone.peak)):
            assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("draw", range(10))
def test_the_median_is_the_root_of_the_whole_spline(draw):
    for one in read_back(frame(draw)):
        s = one.spectrum
        first = int(np.flatnonzero(s.lfr >= 0.55)[0])
        spline = CubicHermiteSpline(np.log(s.inv_delta), s.lfr, s.rdf * s.inv_delta)
        root = brentq(lambda x, spline=spline: spline(x) - 0.55, *np.log(s.inv_delta[first - 1 : first + 1]))
        assert s.median == pytest.approx(np.exp(root), rel=1e-9)


def test_a_frame_without_a_floor_takes_chance_at_the_widest_window():
    given = frame(0)
    given.attrs = {}
    for one in read_back(given):
        assert one.spectrum.floor == one.spectrum.chance[0]
    assert list(read_back(given.iloc[:0])) == []


def test_the_order_of_the_rows_changes_nothing():
    given = frame(3)
    first, again = list(read_back(given)), list(read_back(given.sample(frac=1, random_state=1)))
    for one, other in zip(first, again, strict=True):
        assert (one.step, one.layer, one.again) == (other.step, other.layer, other.again)
        np.testing.assert_array_equal(one.spectrum.rdf, other.spectrum.rdf)
        assert one.spectrum.median == other.spectrum.median


def test_a_scale_that_is_none_is_one_line():
    with refuses("scale", Code.UNKNOWN, "'max'", "'maxabs'"):
        list(read_back(frame(0).replace({"scale": {"rms": "max"}})))


@pytest.mark.parametrize("scale", ["raw", ("maxabs", "raw")], ids=["raw", "maxabs"])
def test_resolution_is_that_of_the_spectrum_in_memory_also_where_points_coincide(tmp_path, scale):
    """Dead units make points coincide, at one layer more than at another, and at one step more than at another."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    x[20:40] = x[0]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    watched = Monitor(model, x, (x[:, 0] > 0).long(), run=tmp_path / "run", scale=scale)
    known = {0: watched.measure(0)}
    with torch.no_grad():
        model[2].bias -= 1.5
    known[1] = watched.measure(1)
    watched.close()
    found = {
        (one.step, one.layer): one.spectrum
        for one in read_back(Run(tmp_path / "run").spectra)
        if one.spectrum.scale == ("raw" if scale == "raw" else "maxabs")
    }
    counted = [known[step][layer].coincident for step in (0, 1) for layer in ("1", "3")]
    assert len(set(counted)) > 2
    for (step, layer), one in found.items():
        assert one.coincident == known[step][layer].coincident > 1
        assert one.resolution == known[step][layer].resolution
        assert one.median == known[step][layer].median
