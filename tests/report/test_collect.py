"""What a report keeps of runs: curves within their rounding, numbers exactly, and only once."""

import base64
import json
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfreq import Run
from layerfreq.data.validation import SCALES
from layerfreq.report.collect import METRIC_POINTS, collect
from layerfreq.report.escaping import for_script, plain, text
from layerfreq.report.pack import LEVELS, Pack, code, decode
from tests.helpers.rows import CASES, spectrum_of

from .conftest import FACTOR, OTHER, frequency, make, spectrum

numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_a_curve_comes_back_within_half_a_step(values):
    curve = np.array(values)
    low, high = curve.min(), curve.max()
    back = decode(code(curve, low, high), low, high)
    assert np.abs(back - curve).max() <= (high - low) / LEVELS * 0.5000001 + 1e-9 * np.abs(curve).max()


def test_arrays_come_back_from_the_text():
    pack = Pack()
    kept = {"a": (np.arange(3.0), "f8"), "b": (np.array([1, 2, 255]), "u1"), "c": (np.array([-1.5]), "f4")}
    for name, (values, dtype) in kept.items():
        pack.add(name, values, dtype)
    raw = zlib.decompress(base64.b64decode(pack.text()))
    for name, (values, dtype) in kept.items():
        kind, first, length = pack.index[name]
        assert (kind, first % 8, length) == (dtype, 0, len(values))
        np.testing.assert_array_equal(np.frombuffer(raw, "<" + kind, length, first), values)


@pytest.mark.parametrize("scales", CASES, ids="+".join)
def test_raw_and_rms_share_their_curves_and_every_scale_has_the_numbers_of_its_own_spectra(tmp_path, scales):
    run = make(tmp_path / "run", steps=(0, 10), scales=scales)
    found = collect([run], ["run"], ["run"])
    assert len(found.curves) == 6 * len({"raw" if scale == "rms" else scale for scale in scales})
    assert len(found.records) == 6 * len(scales)
    assert {SCALES[record.scale] for record in found.records} == set(scales)
    frame = run.spectra
    for record in found.records:
        step, scale = found.runs[0].steps[record.step], SCALES[record.scale]
        part = frame[(frame["step"] == step) & (frame["depth"] == record.layer + 1) & (frame["scale"] == scale)]
        one = spectrum_of(part, frame.attrs)
        ours = (record.peak, record.median, record.resolution, record.low, record.high)
        theirs = (one.peak, one.median, one.resolution, *np.log2(one.inv_delta[[0, -1]]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        assert (record.edge != 0) == one.peak_at_edge
        curves = found.curves[record.curve]
        np.testing.assert_allclose(curves.density, one.rdf * one.inv_delta * np.log(2), rtol=1e-12)
        np.testing.assert_array_equal(curves.lfr, one.lfr)
        k = frequency(step, record.layer + 1) * (OTHER if scale == "maxabs" else 1)
        assert record.median == pytest.approx(k**2 / np.log(2) * (FACTOR if scale == "rms" else 1), rel=1e-3)


def test_scales_that_were_measured_apart_keep_their_own_curves(tmp_path):
    run = Run.create(tmp_path / "run")
    frames = [spectrum(k, scale).to_frame().assign(scale=scale) for k, scale in ((3.0, "raw"), (5.0, "rms"))]
    run.write_spectra(0, pd.concat(frames, ignore_index=True).assign(layer="a", depth=1))
    found = collect([run], ["run"], ["run"])
    assert len(found.curves) == 2
    assert np.isnan(found.records[0].floor)  # the run does not say it, so nothing is claimed that rests on it
    assert np.isnan(found.records[0].median)


def test_a_run_says_of_measurements_that_differ_what_the_last_one_says(tmp_path):
    run = Run.create(tmp_path / "run")
    for step, rows in ((0, 100), (1, 300)):
        frame = spectrum(3.0).to_frame().assign(layer="a", depth=1, scale="raw")
        frame.attrs = {"n": 500, "rows": rows, "floor": 0.1, "refused": {"b": "why"}}
        run.write_spectra(step, frame)
    assert run.spectra.attrs == {"n": 500, "rows": 300, "floor": 0.1, "refused": {"b": "why"}}


def test_long_metrics_are_thinned_with_their_end_and_words_are_left_out(tmp_path):
    run = Run.create(tmp_path / "run")
    for step in range(2 * METRIC_POINTS + 5):
        run.log(step, loss=float("nan") if step % 2 else float(step))
    run.flush()
    shown = collect([run], ["run"], ["run"]).runs[0]
    assert shown.thinned
    assert len(shown.metrics["step"]) <= METRIC_POINTS + 1
    assert shown.metrics["step"][-1] == 2 * METRIC_POINTS + 4


@given(st.text(st.characters(), max_size=40))
def test_names_are_no_markup(name):
    assert not {"<", ">", '"', "'"} & set(text(name))
    inside = for_script({"name": plain(name)})
    assert not {"<", ">", "&", "\u2028"} & set(inside)
    assert json.loads(inside)["name"] == plain(name)
    plain(name).encode("utf-8")


def test_halves_of_pairs_and_control_characters_are_replaced():
    assert plain("a\ud800b\x00\x1b[31m\n") == "a?b  [31m "
