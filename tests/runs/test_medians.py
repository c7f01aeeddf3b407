"""A run's medians, steps and layers as they are asked for, next to closed forms and to what was measured."""

import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

import layerfreq
from layerfreq import InputError, Monitor, Run, spectrum
from layerfreq.plots import LABELS
from layerfreq.runs.summary import layer_table, summarise
from tests.helpers.refusals import Code, refuses
from tests.runs.test_summary import WAVES, run_of

SCALES = ("raw", "rms", "maxabs")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of three steps at all scales, and what the monitor returned."""
    torch.manual_seed(0)
    x = torch.randn(80, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    path, known = tmp_path_factory.mktemp("run") / "run", {}
    with Monitor(model, x, (x[:, 0] > 0).long(), run=path, scale=("maxabs", "raw")) as monitor:
        for step in (0, 5, 20):
            known[step] = monitor.measure(step)
            with torch.no_grad():
                model[0].weight *= 1.5
    return Run(path), known


@pytest.fixture
def run(measured):
    yield measured[0]
    plt.close("all")


def test_a_row_for_each_step_layer_and_scale_with_the_numbers_of_the_closed_form(tmp_path):
    """LFR = exp(-k^2 / u) is half at k^2 / ln 2, and its RDF is largest at k^2 / 2; resolved is what lies below 50."""
    found = run_of(tmp_path / "run", SCALES, resolved=50.0).medians
    assert len(found) == len(found[["step", "layer", "scale"]].drop_duplicates()) == 3 * 5 * 3
    k = found["scale"].map(WAVES) * found["depth"]
    np.testing.assert_allclose(found["median"], k**2 / np.log(2), rtol=1e-3)
    np.testing.assert_allclose(found["peak"], k**2 / 2, rtol=6e-3)
    np.testing.assert_allclose(found["resolution"], 50, rtol=1e-3)
    assert (found["resolved"] == (k**2 / np.log(2) < 50)).all()
    assert found["error"].isna().all()
    assert not found["at_edge"].any()


def test_a_run_without_measurements_has_an_empty_table_of_the_same_columns(tmp_path):
    empty = Run.create(tmp_path / "run")
    assert list(empty.medians.columns) == list(run_of(tmp_path / "other", ["raw"]).medians.columns)
    assert len(empty.medians) == 0
    assert empty.medians["median"].dtype == np.float64
    assert "nothing measured yet" in empty._repr_html_()


def test_a_median_that_the_cutoffs_do_not_reach_is_nan_and_not_resolved(tmp_path):
    run = Run.create(tmp_path / "run")
    frame = run_of(tmp_path / "other", ["raw"], steps=(0,), layers=1).spectra
    part = frame[frame["inv_delta"] < 0.5]
    part.attrs = frame.attrs
    run.write_spectra(0, part)
    assert run.medians["median"].isna().tolist() == [True]
    assert run.medians["resolved"].tolist() == [False]
    assert layer_table(summarise({0: run}), "step")[1][0][4] == "-"


def test_the_table_marks_medians_beyond_the_resolution(tmp_path):
    rows = layer_table(summarise({0: run_of(tmp_path / "run", ["raw"], steps=(0,), resolved=10.0)}), "step")[1]
    assert [row[4].endswith("*") for row in rows] == [k**2 / np.log(2) > 10 for k in range(1, 6)]
    assert [row[3].endswith("*") for row in rows] == [k**2 / 2 > 10 for k in range(1, 6)]


def test_the_error_of_the_median_is_that_of_lfr_over_its_slope():
    """With centres drawn at random, medians scatter about the exact one as their errors say."""
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
    y = torch.sin(3 * x)
    exact = spectrum(x, y, engine="reference")
    drawn = [spectrum(x, y, exact.inv_delta, rows=60, seed=seed, engine="reference") for seed in range(12)]
    off = np.array([np.log2(one.median / exact.median) / one.median_error for one in drawn])
    assert exact.median_error is None
    assert 0.4 < np.sqrt((off**2).mean()) < 1.5
    assert "(unresolved)" not in repr(exact)


def test_an_unresolved_median_says_so():
    """Neighbours on a line of the other class: LFR rises only where windows hold no second point."""
    one = spectrum(torch.arange(40.0)[:, None], torch.arange(40) % 2, engine="reference")
    assert one.median > one.resolution
    assert not one.resolved
    assert "(unresolved)" in repr(one).split("median")[1]
    assert "(unresolved)" in one._repr_html_()


@pytest.mark.parametrize("scale", [None, *SCALES])
def test_a_step_is_what_the_monitor_returned(measured, scale):
    run, known = measured
    for step, at in ((0, 0), (5, 5), (20, -1)):
        found = run[at] if scale is None else run[at, scale]
        first = known[step]
        assert list(found) == list(first)
        for name, one in found.items():
            assert one.scale == (scale or "maxabs")
            if one.scale == "maxabs":
                np.testing.assert_array_equal(one.lfr, first[name].lfr)
                assert (one.median, one.resolution) == (first[name].median, first[name].resolution)


def test_raw_and_rms_of_a_step_turn_into_one_another(run):
    for name, one in run[5, "raw"].to_scale("rms").items():
        assert one.median == pytest.approx(run[5, "rms"][name].median, rel=1e-9)


def test_steps_and_scales_that_were_not_measured_are_told(run):
    with refuses("step", Code.MISSING):
        run[7]
    with refuses("step", Code.VALUE):
        run[-4]
    with refuses("scale", Code.UNKNOWN, "'max'"):
        run[5, "max"]
    with pytest.raises(TypeError, match="not iterable"):
        list(run)


@pytest.mark.parametrize(
    ("asked", "panels", "labels"),
    [
        ({}, 9, {"1", "3"}),
        ({"steps": 5, "scale": "raw"}, 1, {"1", "3"}),
        ({"steps": [0, -1], "layers": -1}, 6, {"3"}),
        ({"layers": "[12]", "scale": ["raw", "maxabs"]}, 6, {"1"}),
        ({"layers": ["3", "1"]}, 9, {"1", "3"}),
    ],
)
def test_figures_of_some_steps_layers_and_scales_share_their_y_axis(run, asked, panels, labels):
    figure = run.plot(**asked)
    assert len(figure.axes) == panels
    assert {line.get_label() for ax in figure.axes for line in ax.lines if line.get_label()[0] != "_"} == labels
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    scales = asked.get("scale", SCALES)
    assert {ax.get_xlabel() for ax in figure.axes} == {LABELS[s] for s in ([scales] if scales == "raw" else scales)}


def test_what_cannot_be_drawn_is_one_line(run, tmp_path):
    for asked, said in (
        ({"layers": 7}, ("layers", Code.UNKNOWN)),
        ({"layers": "fc*"}, ("layers", Code.UNKNOWN)),
        ({"layers": nn.ReLU()}, ("layers", Code.VALUE)),
        ({"steps": []}, ("steps", Code.EMPTY)),
        ({"scale": "x"}, ("scale", Code.UNKNOWN)),
    ):
        with refuses(*said):
            run.plot(**asked)
    with refuses("run", Code.MISSING):
        Run.create(tmp_path / "run").plot()
    raw = run_of(tmp_path / "other", ["raw"])
    with refuses("scale", Code.MISSING, "'maxabs'"):
        raw.plot(scale="maxabs")


def test_notebooks_show_tables_and_names_as_text(run, measured):
    spectra = measured[1][0]
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", spectra._repr_html_())
    assert cells[:4] == ["", "peak", "median", "resolution"]
    medians = {name: float(median) for name, median in zip(cells[4::4], cells[6::4], strict=True)}
    assert medians == pytest.approx({name: one.median for name, one in spectra.items()}, rel=1e-3)
    assert "<script>" not in layerfreq.LayerSpectra({"<script>": spectra["1"]})._repr_html_()
    assert "step 20" in run._repr_html_()


def test_layers_left_out_for_one_reason_take_one_line(measured):
    one = measured[1][0]["1"]
    spectra = layerfreq.LayerSpectra({"1": one}, {"a": "no rows", "b": "way around", "c": "no rows"}, {"d": "NaN"})
    assert repr(spectra).splitlines()[-3:] == [
        "not a cut: 'a', 'c': no rows",
        "not a cut: 'b': way around",
        "not measured: 'd': NaN",
    ]


def test_the_first_words_are_at_the_top():
    assert layerfreq.InputError is InputError
    assert layerfreq.verdict.verdict is layerfreq.verdict.depth.verdict


def test_the_verdict_can_be_called_by_its_modules_name(run):
    assert str(layerfreq.verdict(run)) == str(layerfreq.verdict.verdict(run))
    with pytest.raises(AttributeError, match="nothing"):
        _ = layerfreq.nothing
