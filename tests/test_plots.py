"""What figures show: the numbers behind the lines, not their looks."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from layerfreq import InputError, error_spectrum, plots, related, spectrum
from layerfreq.data.curves import resolution
from layerfreq.layers import LayerSpectra
from tests.helpers.refusals import Code, refuses
from tests.helpers.rows import CASES


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def spectra():
    """Three 'layers' of different frequency and resolution."""
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    return LayerSpectra({f"layer{k}": spectrum(k * x, (x[:, 0] > 0).long()) for k in (1, 2, 6)})


@pytest.fixture(scope="module")
def frame(spectra):
    both = [spectra.to_scale(scale).to_frame() for scale in ("raw", "rms")]
    return pd.concat([part.assign(step=step) for step in range(0, 90, 10) for part in both], ignore_index=True)


def area(line):
    """The integral of a drawn curve over octaves."""
    x, y = line.get_data()
    return np.trapezoid(y, np.log2(x))


def energies(ax, spectra):
    """For each layer: area under the drawn density, both its parts; area under chance."""
    curves = [line for line in ax.lines if len(line.get_xdata()) > 1]
    assert len(curves) == 3 * len(spectra)
    for (clear, faint, chance), one in zip(zip(*[iter(curves)] * 3, strict=True), spectra.values(), strict=True):
        assert clear.get_xdata()[-1] <= one.resolution < faint.get_xdata()[1]
        assert clear.get_xdata()[-1] == faint.get_xdata()[0]
        assert (clear.get_alpha(), faint.get_alpha()) == (None, plots.FAINT)
        yield area(clear) + area(faint), one.lfr[-1] - one.lfr[0], area(chance), one.chance[-1] - one.chance[0]


def shade(ax):
    (patch,) = ax.patches
    return patch.get_x()


def test_areas_are_energies_and_chance_is_drawn(spectra):
    ax = spectra.plot()
    for drawn, lfr, drawn_chance, chance in energies(ax, spectra):
        assert drawn == pytest.approx(lfr, abs=5e-3)
        assert drawn_chance == pytest.approx(chance, abs=5e-3)
    assert "octave" in ax.get_ylabel()
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {*spectra, "by chance", "all unresolved"}


def test_peaks_are_marked_and_hollow_where_unresolved(spectra):
    for one, mark in zip(spectra.values(), [m for m in spectra.plot().lines if len(m.get_xdata()) == 1], strict=True):
        density = one.rdf * one.inv_delta * np.log(2)
        assert mark.get_xdata()[0] == one.inv_delta[np.argmax(density)]
        assert mark.get_ydata()[0] == density.max()
        assert (mark.get_markerfacecolor() == "white") == (mark.get_xdata()[0] > one.resolution)


def test_shading_starts_where_the_last_layer_is_resolved(spectra, frame):
    last = max(one.resolution for one in spectra.values())
    assert shade(spectra.plot()) == pytest.approx(last)
    assert shade(plots.figure_epochs(frame).axes[0]) == pytest.approx(last)
    one = spectra["layer1"]
    assert shade(one.plot()) == pytest.approx(one.resolution)


@pytest.mark.parametrize(("neighbours", "expected"), [([9.0, 5, 3], 4.0), ([1.9, 1.5, 1], 0.0), ([4.0, 1, 1], 2**0.5)])
def test_resolution_at_the_ends_and_between_cutoffs(neighbours, expected):
    assert resolution(np.array([1.0, 2, 4]), np.array(neighbours)) == pytest.approx(expected)


def test_one_spectrum_shows_lfr_density_chance_floor_and_errors(spectra):
    one = spectrum(torch.randn(200, 2), torch.arange(200) % 2, rows=50)
    ax = one.plot()
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["LFR"].get_ydata(), one.lfr)
    np.testing.assert_array_equal(lines["LFR by chance (shuffled labels)"].get_ydata(), one.chance)
    assert area(lines[plots.DENSITY]) == pytest.approx(one.lfr[-1] - one.lfr[0], abs=5e-3)
    assert lines["floor"].get_ydata()[0] == one.floor
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((one.lfr + 2 * one.stderr).max())


def test_the_second_axis_is_k(spectra):
    ax = spectra.plot()
    ax.figure.canvas.draw()
    (top,) = ax.child_axes
    np.testing.assert_allclose(np.square(top.get_xlim()), ax.get_xlim())
    assert top.get_xlabel().startswith("k = ")
    assert ax.get_xlabel() == "1/δ"


def test_panels_are_scales_by_at_most_six_steps_first_and_last_among_them(frame, spectra):
    figure = plots.figure_epochs(frame, "epoch")
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 2 * plots.PANELS
    assert (titles[0], titles[plots.PANELS - 1]) == ("epoch 0", "epoch 80")
    assert {ax.get_xlabel() for ax in figure.axes} == {plots.LABELS["raw"], plots.LABELS["rms"]}
    for ax, scale in ((figure.axes[0], "raw"), (figure.axes[-1], "rms")):
        for drawn, lfr, *_ in energies(ax, spectra.to_scale(scale)):
            assert drawn == pytest.approx(lfr, abs=5e-3)
    assert len(plots.figure_epochs(frame[frame["step"] == 0]).axes) == 2


@pytest.mark.parametrize("scales", CASES, ids="+".join)
def test_a_row_a_measured_scale_the_papers_first_whatever_the_order_of_rows(frame, spectra, scales):
    paper = LayerSpectra({name: replace(one, scale="maxabs", lfr=one.lfr**2) for name, one in spectra.items()})
    third = pd.concat([paper.to_frame().assign(step=step) for step in (0, 10)])
    whole = pd.concat([frame[frame["step"] <= 10], third], ignore_index=True)
    given = whole[whole["scale"].isin(scales)]
    figure = plots.figure_epochs(given)
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels == [plots.LABELS[scale] for scale in plots.LABELS if scale in scales for _ in range(2)]
    assert all(ax.lines for ax in figure.axes)
    other = plots.figure_epochs(given.sample(frac=1, random_state=0))
    for ax, same in zip(figure.axes, other.axes, strict=True):
        for line, again in zip(ax.lines, same.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), again.get_xydata())


def test_a_panel_that_was_not_measured_says_so(frame):
    partly = frame[(frame["scale"] == "raw") | (frame["step"] == 0)]
    texts = [[text.get_text() for text in ax.texts] for ax in plots.figure_epochs(partly).axes]
    assert texts == [[]] * (plots.PANELS + 1) + [["not measured"]] * (plots.PANELS - 1)


def test_medians_are_means_with_the_range_over_seeds():
    summary = pd.DataFrame(
        [(s, t, "a", 1, "raw", 10.0 ** (1 + s) + t, 100.5) for s in (0, 1) for t in (0, 5)],
        columns=["seed", "step", "layer", "depth", "scale", "median", "resolution"],
    )
    ax = plots.figure_medians(summary, "epoch").axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [55, 60])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (10, 105)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "median 1/δ", "log")


def test_medians_beyond_the_resolution_are_hollow():
    summary = pd.DataFrame(
        [(0, step, "a", 1, "raw", median, 10.0) for step, median in enumerate((2.0, 20.0, 4.0, 40.0))],
        columns=["seed", "step", "layer", "depth", "scale", "median", "resolution"],
    )
    line, hollow = plots.figure_medians(summary).axes[0].lines
    assert line.get_markerfacecolor() != hollow.get_markerfacecolor() == "white"
    assert hollow.get_xydata().tolist() == [[1, 20], [3, 40]]


def test_medians_that_are_nowhere_are_told():
    summary = pd.DataFrame(
        {"seed": 0, "step": [0, 1], "layer": "a", "depth": 1, "scale": "raw", "median": np.nan, "resolution": 1.0}
    )
    figure = plots.figure_medians(summary)
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["no median within the cutoffs"]


def test_the_median_of_one_spectrum_is_marked_and_hollow_where_unresolved(spectra):
    one = spectra["layer1"]
    few = replace(one, neighbours=np.ones_like(one.lfr))
    for given, label, fill in ((one, "median", "black"), (few, "median (unresolved)", "white")):
        (mark,) = [line for line in given.plot().lines if line.get_label() == label]
        assert mark.get_xydata().tolist() == [[one.median, (1 + one.floor) / 2]]
        assert mark.get_markerfacecolor() == fill


@pytest.mark.parametrize("layers", [5, 24, 100])
@pytest.mark.parametrize("where", ["own", "given", "epochs", "medians"])
def test_legends_of_many_layers_stay_within_the_figure(spectra, layers, where):
    """With names as long as transformers have them, and one that begins with an underscore."""
    names = ["_stem", *(f"transformer.encoder.layers.{i}.attention.output" for i in range(1, layers))]
    many = LayerSpectra(dict.fromkeys(names, spectra["layer1"]))
    if where in ("own", "given"):
        ax = many.plot(None if where == "own" else plt.subplots(figsize=(6.4, 4.8))[1])
        figure, legend = ax.figure, ax.get_legend()
    elif where == "epochs":
        figure = plots.figure_epochs(many.to_frame().assign(step=0))
        (legend,) = figure.legends
    else:
        table = {"seed": 0, "step": 0, "layer": names, "depth": range(1, layers + 1), "scale": "raw"}
        figure = plots.figure_medians(pd.DataFrame(table).assign(median=1.0, resolution=2.0))
        (legend,) = figure.legends
    figure.canvas.draw()
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= 0
    assert box.x1 <= whole.x1 + 1
    assert box.y0 >= 0
    assert box.y1 <= whole.y1 + 1
    said = [text.get_text() for text in legend.get_texts()]
    shown = [text for text in said if "stem" in text or "…" in text]
    assert shown[0].endswith("_stem")
    assert shown[-1].startswith(f"{layers}: ")
    assert len(shown) == len(set(shown)) <= plots.FEW
    assert (len(shown) == layers) == (layers == 5)
    assert legend.get_title().get_text() == ("layer" if layers == 5 else f"{len(shown)} of {layers} layers")


def test_metrics_have_a_panel_each_and_a_line_for_each_seed():
    metrics = pd.DataFrame(
        {"seed": [0, 0, 1, 1], "step": [0, 1, 0, 1], "loss": [2.0, 1, 4, 3], "accuracy": [0, 0.5] * 2}
    )
    loss, accuracy = plots.figure_metrics(metrics).axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[2, 1], [4, 3]]
    assert (loss.get_ylabel(), loss.get_yscale(), accuracy.get_ylabel()) == ("loss", "log", "accuracy")


def test_layers_are_apart_without_colour():
    looks = [plots.style(depth, 5) for depth in range(1, 6)]
    grey = np.array([np.dot(look["color"][:3], (0.299, 0.587, 0.114)) for look in looks])
    assert (np.diff(grey) > 0.08).all()
    assert grey[-1] < 0.85
    assert len({str(look["linestyle"]) for look in looks}) == len({look["marker"] for look in looks}) == 5


def test_saved_files_are_whole_and_alone(tmp_path, spectra):
    before = plt.get_fignums()
    paths = plots.save(spectra.plot().figure, tmp_path / "figures", "name")
    assert plt.get_fignums() == before
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["name.pdf", "name.png"]
    png, pdf = paths
    with Image.open(png) as picture:
        picture.load()
        assert min(picture.size) > 300
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.read_bytes().rstrip().endswith(b"%%EOF")


WAVE = torch.linspace(0, 1, 50)
CONDENSED = pd.DataFrame({"step": [0], "layer": "1", "depth": 1, "similarity": 0.5, "chance": 0.2})
ON_AXES = {
    "Spectrum": lambda spectra: spectra["layer1"].plot,
    "LayerSpectra": lambda spectra: spectra.plot,
    "ErrorSpectrum": lambda _: error_spectrum(WAVE, torch.sin(9 * WAVE), 0 * WAVE).plot,
    "Change": lambda _: related.output_change(WAVE, torch.sin(9 * WAVE), torch.cos(9 * WAVE)).plot,
    "Suspects": lambda _: related.suspects(WAVE[:, None], (WAVE > 0.5).long()).plot,
    "plot_condensation": lambda _: lambda ax: related.plot_condensation(CONDENSED, ax),
}


@pytest.mark.parametrize("name", ON_AXES)
def test_what_is_not_axes_is_one_line(spectra, name):
    plot = ON_AXES[name](spectra)
    for ax in ("x", 3, [1, 2], np.zeros(3), pd.DataFrame()):
        with refuses("ax", Code.VALUE):
            plot(ax)
    ax = plt.subplots()[1]
    assert plot(ax) is ax
    assert plot(None) is not ax


@pytest.mark.parametrize("draw", ["figure_epochs", "figure_medians", "figure_metrics", "axis", "condensation"])
def test_what_is_not_a_data_frame_of_a_run_is_one_line(frame, draw):
    plot = {"axis": related.plot_axis_frequencies, "condensation": related.plot_condensation}.get(draw)
    plot = plot or getattr(plots, draw)
    for value in ("x", 3, None, [1], np.zeros(3), pd.DataFrame({"other": [1]}), frame.iloc[:0].assign(seed=0)):
        with pytest.raises(InputError, match=r"^(frame|summary|metrics): .*; pass "):
            plot(value)


def test_what_is_not_a_spectrum_is_one_line():
    for value in ("x", 3, None, [1], np.zeros(3)):
        with refuses("spectrum", Code.VALUE):
            plots.plot_spectrum(value)
        with refuses("spectra", Code.VALUE):
            plots.plot_layers(value)
    with refuses("spectra", Code.EMPTY):
        LayerSpectra({}, failed={"1": "NaN"}).plot()
