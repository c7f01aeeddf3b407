"""Spectra beside published curves: closed forms, invariances, and the truth that a published curve is like itself."""

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerfreq.experiments.figures import published
from layerfreq.experiments.figures.comparison import area_between, averaged, compare, mean_gap, rank_correlation, summit
from layerfreq.experiments.figures.comparison_figures import _finish, _grid
from layerfreq.measure.result import Spectrum
from tests.helpers.refusals import Code, refuses

HEIGHTS = arrays(np.float64, 6, elements=st.floats(0.01, 10))
EDGES = np.array([0.1, 0.3, 0.4, 1.0, 2.0, 5.0, 7.0])


def spectrum_of(u, lfr, rdf):
    one = np.ones_like(u)
    curves = {"inv_delta": u, "lfr": lfr, "rdf": rdf, "chance": 0.1 * one, "neighbours": 2 * one}
    about = {"n": 100, "d": 1, "rows": 100, "scale": "raw", "floor": 0.1, "spread": 1.0, "engine": ""}
    return Spectrum(**curves, stderr=None, **about)


def sine(k, u):
    """The closed form of sin(k pi x): LFR = exp(-(k pi)^2 / u)."""
    c = (k * np.pi) ** 2
    return spectrum_of(u, np.exp(-c / u), np.exp(-c / u) * c / u**2)


def from_cells(edges, heights, start=0.1):
    """A spectrum whose LFR rises linearly in each cell; cutoffs at the edges alone, where no cubic is in between."""
    lfr = start + np.concatenate([[0.0], np.cumsum(np.diff(edges) * heights)])
    return spectrum_of(np.array(edges), lfr, np.interp(edges, edges[1:], heights))


def published_as_ours(figure, name, widen=1.0):
    panel = published.panel(figure, name)
    ours = {curve: from_cells(panel.edges * widen, line.y / widen) for curve, line in panel.lines.items()}
    return panel, ours


@given(HEIGHTS, HEIGHTS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_area_is_a_distance_of_shapes(one, other, a, b):
    area = area_between(EDGES, one, other)
    assert 0 <= area <= 1
    assert area == pytest.approx(area_between(EDGES, other, one), abs=1e-12)
    assert area_between(EDGES, one, a * one) == pytest.approx(0, abs=1e-12)
    assert area_between(EDGES, a * one, b * other) == pytest.approx(area, abs=1e-12)  # common factors
    assert area_between(EDGES * a, one, other) == pytest.approx(area, abs=1e-9)  # units of 1/delta
    third = one[::-1]
    assert area <= area_between(EDGES, one, third) + area_between(EDGES, third, other) + 1e-12


@given(st.lists(st.booleans(), min_size=6, max_size=6).filter(lambda f: any(f) and not all(f)), HEIGHTS)
def test_area_of_disjoint_curves_is_one(first, heights):
    first = np.array(first)
    assert area_between(EDGES, heights * first, heights * ~first) == pytest.approx(1, abs=1e-12)


@given(HEIGHTS, HEIGHTS)
def test_area_is_half_the_integral_of_the_difference(one, other):
    """Brute force: both as functions, constant in each cell, on a million points."""
    x = np.linspace(EDGES[0], EDGES[-1], 1_000_001)[:-1]
    cell = np.searchsorted(EDGES, x, side="right") - 1
    f, g = one[cell] / one[cell].sum(), other[cell] / other[cell].sum()
    assert area_between(EDGES, one, other) == pytest.approx(np.abs(f - g).sum() / 2, abs=1e-4)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_quotients_are_those_of_the_closed_form(k):
    c = (k * np.pi) ** 2
    edges = np.geomspace(c / 5, c * 20, 30)
    found = averaged(sine(k, np.geomspace(c / 10, c * 100, 2000)), edges)
    np.testing.assert_allclose(found, np.diff(np.exp(-c / edges)) / np.diff(edges), rtol=1e-6)


def test_quotients_add_up_to_the_rise_and_never_leave_the_cutoffs():
    one = sine(2, np.geomspace(1, 100, 300))
    edges = np.array([1.0, 3.0, 10.0, 100.0])
    assert np.diff(edges) @ averaged(one, edges) == pytest.approx(one.lfr[-1] - one.lfr[0], rel=1e-12)
    with refuses("inv_delta", Code.VALUE):
        averaged(one, np.array([0.5, 3.0, 10.0]))


@given(st.floats(-0.9, 0.9), st.floats(0.1, 10), st.floats(-5, 5), st.floats(0.3, 1.5), st.floats(0.3, 1.5))
def test_the_summit_of_a_parabola_is_its_own(vertex, bend, height, left, right):
    x = np.array([-left - 1, -left, 0, right, right + 1])
    vertex *= min(left, right) / 2  # so that the middle point is the highest
    place, top = summit(x, height - bend * (x - vertex) ** 2)
    assert place == pytest.approx(vertex, abs=1e-7)
    assert top == pytest.approx(height, abs=1e-7)


def test_a_summit_at_an_end_or_on_a_plateau_is_left_there():
    x = np.array([1.0, 2.0, 4.0])
    assert summit(x, np.array([3.0, 2.0, 1.0])) == (1, 3)
    assert summit(x, np.array([1.0, 2.0, 3.0])) == (4, 3)
    assert summit(x, np.array([2.0, 2.0, 2.0])) == (1, 2)


@given(arrays(np.float64, 8, elements=st.integers(0, 1000), unique=True), st.permutations(range(8)))
def test_rank_correlation_is_spearmans(values, order):
    """Without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    other = values[list(order)]
    d = np.argsort(np.argsort(values)) - np.argsort(np.argsort(other))
    assert rank_correlation(values, other) == pytest.approx(1 - 6 * (d**2).sum() / (8 * 63))


def test_rank_correlation_of_what_has_no_order_is_not_a_number():
    assert np.isnan(rank_correlation([1, 2], [2, 1]))
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_mean_gap_of_parallel_lines_is_their_distance():
    x = np.array([0.0, 1.0, 5.0])
    assert mean_gap(x, 0.1 * x, 0.1 * x + 0.25) == pytest.approx(0.25)


@pytest.mark.parametrize("name", [f"epoch{e}" for e in (0, 200, 400, 600, 800)])
def test_a_published_curve_is_like_itself(name):
    panel, ours = published_as_ours(published.MNIST, name)
    peaks = compare(panel, ours).peaks
    np.testing.assert_allclose(peaks[["place_ratio", "height_ratio"]], 1, rtol=1e-9)
    np.testing.assert_allclose(peaks["area"], 0, atol=1e-9)
    assert peaks["agrees"].all()
    assert (peaks["cells"] == 39).all()


@given(st.floats(0.01, 100))
def test_heights_take_a_factor_of_lfr_and_places_and_areas_do_not(factor):
    panel, ours = published_as_ours(published.RESNET, "epoch15")
    scaled = {c: spectrum_of(s.inv_delta, s.lfr * factor, s.rdf * factor) for c, s in ours.items()}
    peaks = compare(panel, scaled).peaks
    np.testing.assert_allclose(peaks["place_ratio"], 1, rtol=1e-9)
    np.testing.assert_allclose(peaks["height_ratio"], factor, rtol=1e-9)
    np.testing.assert_allclose(peaks["area"], 0, atol=1e-9)
    assert peaks["agrees"].all() == (abs(factor - 1) <= 0.15)


def test_sines_lie_on_the_published_ones():
    panel = published.panel(published.SINE, "RDF")
    ours = {f"k={k}": sine(k, np.geomspace(1, 2500, 3000)) for k in (1, 5, 9, 13)}
    found = compare(panel, ours)
    np.testing.assert_allclose(found.peaks["place_ratio"], 1)
    assert (found.peaks["area"] < 0.03).all()
    for k, exact in zip((5, 9, 13), found.peaks["exact_place"][1:], strict=True):
        assert exact == pytest.approx((k * np.pi) ** 2 / 2, rel=1e-3)
    assert all(np.nanmax(curve) == 1 for curve in found.ours.values())


def test_cells_that_are_not_covered_are_left_out_and_counted():
    panel, ours = published_as_ours(published.MNIST, "epoch0")
    part = {}
    for curve, one in ours.items():
        keep = slice(5, 31)
        part[curve] = spectrum_of(one.inv_delta[keep].copy(), one.lfr[keep].copy(), one.rdf[keep].copy())
    found = compare(panel, part)
    assert (found.peaks["cells"] == 25).all()
    assert (found.peaks["of"] == 39).all()
    np.testing.assert_allclose(found.peaks["area"], 0, atol=1e-9)  # theirs too is cut there
    for curve, line in panel.lines.items():
        covered = np.isfinite(found.ours[curve])
        assert np.flatnonzero(covered).tolist() == list(range(5, 30))
        np.testing.assert_allclose(found.ours[curve][covered], line.y[covered], rtol=1e-9)


def test_refusals_are_one_line():
    panel = published.panel(published.MNIST, "epoch0")
    flat = spectrum_of(np.array([0.01, 0.1, 2.0]), np.full(3, 0.1), np.zeros(3))
    refused = [
        (panel, {"layer9": flat}, ("ours", Code.UNKNOWN, "layer9")),
        (panel, {"layer1": sine(1, np.geomspace(2, 9, 50))}, ("ours", Code.VALUE, "published grid")),
        (panel, {"layer1": sine(1, np.array([0.9, 1.0, 2.0]))}, ("ours", Code.VALUE, "published grid")),
        (panel, {"layer1": flat}, ("ours", Code.CONSTANT)),
        (published.panel(published.ACCURACY, "val"), {}, ("panel", Code.MISSING)),
    ]
    for given_panel, ours, words in refused:
        with refuses(*words):
            compare(given_panel, ours)
    with refuses("one", Code.VALUE):
        area_between(EDGES, np.zeros(6), np.ones(6))


def test_title_and_legend_of_a_single_panel_do_not_meet():
    mpl.use("agg")
    from matplotlib import pyplot as plt

    drawn, grid = _grid(1, 1)
    grid[0, 0].plot([0, 1], [0, 1], label="sin(13πx)")
    _finish(drawn, grid[0, 0], "sine, preset small: 20001 points")
    drawn.draw_without_rendering()
    title, legend = (one.get_window_extent() for one in (drawn._suptitle, drawn.legends[0]))
    assert not title.overlaps(legend)
    assert title.x0 >= 0
    plt.close(drawn)
