"""The map of error over training says what the measurements do."""

import matplotlib as mpl
import numpy as np
import pytest

from layerfreq import Run, error_spectrum
from layerfreq.response.figure import _edges, figure_learning
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
