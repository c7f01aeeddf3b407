"""The map of error over training says what the measurements do."""

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfreq import Run, error_spectrum
from layerfreq.response.figure import _edges, figure_learning, round_numbers
from tests.helpers.refusals import Code, refuses

T = np.arange(64, dtype=np.float32) / 64
SLOW, FAST = (np.sin(2 * np.pi * c * T) for c in (1, 5))


@pytest.fixture(autouse=True)
def closed():
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


def test_the_map_and_the_lines_are_those_of_the_measurements(tmp_path):
    run = Run.create(tmp_path / "a", {"layers": [], "unit": "epoch"})
    for step, outputs in {0: 0 * T, 10: SLOW, 30: SLOW + FAST, 40: SLOW - FAST}.items():
        run.write_errors(step, error_spectrum(T, SLOW + FAST, outputs, method="grid"))
    figure = run.plot_errors()
    above, below, _ = figure.axes
    shown, blind = (one.get_array() for one in above.collections)
    slow, fast = 1, 5  # bands; all others hold rounding
    assert np.flatnonzero(~shown.mask.all(axis=1)).tolist() == [slow, fast]
    np.testing.assert_allclose(shown[slow], [1, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(shown[fast], [1, 1, 0, 2], atol=1e-5)
    assert not blind.mask[fast, 3]  # the wrong sign is worse than chance
    assert blind.mask[slow, 1:].all()
    lines = [line.get_ydata() for line in below.lines]
    for line in lines:
        np.testing.assert_allclose(line[:3] / (2 * np.pi), [np.nan, 1, 5], rtol=1e-6)
    assert below.get_xlabel() == "epoch"
    low, high = above.get_ylim()
    assert low < 2 * np.pi < 10 * np.pi < high < 2 * np.pi * 32
    figure.savefig(tmp_path / "map.png")


@pytest.mark.parametrize("frequencies", [None, [3.0]])
def test_one_measurement_and_one_band_are_drawn(tmp_path, frequencies):
    method = "filter" if frequencies else "grid"
    found = error_spectrum(T[:, None], SLOW, 0 * T, frequencies, method=method)
    figure_learning([(7, found)]).savefig(tmp_path / "map.png")


def test_a_run_without_errors_says_how_to_measure_them(tmp_path):
    with refuses("run", Code.MISSING):
        Run.create(tmp_path / "a").plot_errors()


def test_edges_lie_between_and_as_far_out():
    np.testing.assert_allclose(_edges([0.0, 10, 30]), [0, 5, 20, 40])
    np.testing.assert_allclose(_edges(np.array([1.0, 4, 16]), log=True), [0.5, 2, 8, 32])


def drawn_of(axes, label):
    return next(line for line in axes.lines if line.get_label().startswith(label))


@pytest.mark.parametrize("method", ["grid", "filter", "projection"])
def test_every_defined_band_lies_inside_the_axes_with_its_chance_and_interval(method):
    x = np.random.default_rng(0).normal(size=(300, 4))
    target = np.sin(x[:, 0]) + np.sin(9 * x[:, 1])
    if method == "grid":  # lines far apart, each between bands that are undefined
        x, target = T, SLOW + FAST + 0.5
    output = 0.7 * target + 0.2 * np.random.default_rng(1).normal(size=target.shape)
    found = error_spectrum(x, target, output, method=method, **({"rows": 60} if method == "filter" else {}))
    axes = found.plot()
    low, high = axes.get_xlim()
    defined = np.isfinite(found.relative)
    assert defined.any()
    assert low < found.k[defined].min()
    assert found.k[defined].max() < high
    chance = drawn_of(axes, "by chance")
    np.testing.assert_array_equal(chance.get_ydata(), found.chance)
    assert chance.get_marker() not in ("", "None", None)  # a line alone does not show one between undefined ones
    if found.stderr is not None:
        bars = np.array([one[:, 1] for one in axes.collections[0].get_segments() if len(one)])
        np.testing.assert_allclose(np.ptp(bars, axis=1), 4 * found.stderr[defined])


def test_ticks_are_plain_numbers_none_below_zero():
    found = error_spectrum(T / 100, SLOW + FAST + 1, SLOW, method="grid")
    ticks = [label.get_text() for label in found.plot().get_xticklabels()]
    assert ticks[0] == "0"
    assert all(float(one) >= 0 and one == f"{float(one):g}" for one in ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.2, 1e8))
def test_round_numbers_are_inside_few_and_of_few_digits(low, ratio):
    found = round_numbers(low, low * ratio)
    assert 2 <= len(found) <= 10
    assert np.all(np.diff(found) > 0)
    assert low * (1 - 1e-6) <= found[0] < found[-1] <= low * ratio * (1 + 1e-6)
    assert all(abs(float(f"{one:.3g}") - one) <= 1e-9 * one for one in found)
