"""A published panel beside one's own spectra: peaks, and the area between the curves.

Like is compared with like. The authors draw difference quotients on a grid of their own, which flatten a peak and move
it; so ours are the same quotients on the same grid, and both peaks are found in the same way. The maximum of our exact
RDF, which theirs cannot have, stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from layerfreq.data.validation import Curve
from layerfreq.errors import Code, InputError, unknown
from layerfreq.experiments.figures.published import Line, Panel
from layerfreq.measure.result import Spectrum

NEAR = 0.15  # a peak agrees whose place and height are both within this share of the published ones
FEWEST = 3  # cells; with fewer there is no peak
Edges = Float64[np.ndarray, " n"]  # where cells meet
Cells = Float64[np.ndarray, " n-1"]  # a value in each
FINE = 4001  # cutoffs on which the exact maximum is looked for


@dataclass(frozen=True, eq=False)
class Comparison:
    """One published panel beside ours.

    Attributes:
        panel: The published one.
        peaks: A row for each curve. place, height: of our quotients' peak on their grid. their_place, their_height: of
            their curve on the same cells. place_ratio, height_ratio: ours over theirs. agrees: whether both are within
            `NEAR`. at_edge: whether a peak is only a bound, at the first or last cell. hidden: whether their highest
            point lies behind other curves. exact_place, exact_height: of our exact RDF's maximum over the same range.
            area: see `area_between`. cells, of: how many of the grid's cells our cutoffs cover, and how many there are.
        ours: curve -> (m,) our quotients; NaN in cells that our cutoffs do not cover.
    """

    panel: Panel
    peaks: Any
    ours: Mapping[str, Curve]


def averaged(spectrum: Spectrum, edges: Edges) -> Cells:
    """Return the RDF averaged over cells of 1/delta, the quotient (LFR(b) - LFR(a)) / (b - a).

    Args:
        spectrum: Whose cutoffs cover the cells.
        edges: (n,) increasing, where the cells meet.

    Raises:
        InputError: If an edge lies outside the spectrum's cutoffs.
    """
    return np.diff(spectrum.at(edges).lfr) / np.diff(edges)


def summit(x: Curve, y: Curve) -> tuple[float, float]:
    """Return place and height of the highest point, refined by the parabola through it and its two neighbours.

    A highest point at either end is returned as it is.
    """
    top = int(np.argmax(y))
    if top in (0, len(y) - 1):
        return float(x[top]), float(y[top])
    left, right = x[top - 1] - x[top], x[top + 1] - x[top]
    down, up = (y[top - 1] - y[top]) / left, (y[top + 1] - y[top]) / right
    bend = (up - down) / (right - left)
    if bend == 0:  # three equal heights
        return float(x[top]), float(y[top])
    slope = down - bend * left
    return float(x[top] - slope / (2 * bend)), float(y[top] - slope**2 / (4 * bend))


def area_between(edges: Edges, one: Cells, other: Cells) -> float:
    """Return the area between two curves, each divided by its own area, halved: 0 for the same, 1 for disjoint ones.

    A curve is taken as constant in each cell, where it is the average of an RDF; its area is then the rise of LFR from
    the first edge to the last, exactly. So this is half the sum over cells of the difference between the two shares
    of that rise (the total variation distance, where no RDF is negative), and common factors do not matter.

    Args:
        edges: (n,) increasing.
        one: (n - 1,) heights.
        other: (n - 1,) heights.

    Raises:
        InputError: If a curve's area is not positive.
    """
    width = np.diff(edges)
    shares = []
    for name, curve in (("one", one), ("other", other)):
        total = float(width @ curve)
        if not total > 0:
            raise InputError(f"{name}: its area is {total:.3g}; only curves of positive area can be compared")
        shares.append(width * curve / total)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def mean_gap(x: Curve, one: Curve, other: Curve) -> float:
    """Return the mean distance over x of two curves of values in [0, 1], by the trapezoidal rule."""
    from scipy.integrate import trapezoid

    return float(trapezoid(np.abs(one - other), x) / (x[-1] - x[0]))


def rank_correlation(ours: Any, theirs: Any) -> float:
    """Return Spearman's rank correlation; NaN of fewer than three pairs, or where one side does not vary."""
    from scipy.stats import spearmanr

    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(ours) < 3 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return float("nan")
    found: Any = spearmanr(ours, theirs)
    return float(found.statistic)


def compare(panel: Panel, ours: Mapping[str, Spectrum]) -> Comparison:
    """Set spectra beside a published panel of RDF.

    Where the cutoffs of a spectrum do not cover the grid, both curves are compared on the cells that they do cover, and
    `cells` says how many these are.

    Args:
        panel: One that has `edges`.
        ours: Name of a published curve -> the spectrum that it is to be compared with.

    Raises:
        InputError: If a name is not in the panel, or fewer than three cells are covered.
    """
    import pandas as pd

    if panel.edges is None:
        raise Code.MISSING(f"panel: {panel.figure} {panel.name} holds no RDF; choose one that does")
    rows, quotients = [], {}
    for name, spectrum in ours.items():
        if name not in panel.lines:
            raise unknown("ours", name, panel.lines)
        cells = _covered(panel.edges, spectrum, name)
        row, quotient = _one(panel, panel.lines[name], spectrum, cells)
        rows.append({"figure": panel.figure, "panel": panel.name, "curve": name, **row})
        quotients[name] = np.full(len(panel.x), np.nan)
        quotients[name][cells] = quotient
    return Comparison(panel, pd.DataFrame(rows), quotients)


def _covered(edges: Curve, spectrum: Spectrum, name: str) -> slice:
    """Return the cells that lie within a spectrum's cutoffs."""
    slack, u = 1e-12, spectrum.inv_delta  # as `Spectrum.at` has it
    inside = np.flatnonzero((edges >= u[0] * (1 - slack)) & (edges <= u[-1] * (1 + slack)))
    if len(inside) <= FEWEST:
        grid = f"the published grid {edges[0]:.4g} .. {edges[-1]:.4g}"
        raise InputError(f"ours: {name!r} at {u[0]:.4g} .. {u[-1]:.4g} leaves {grid}; measure on a wider grid")
    return slice(int(inside[0]), int(inside[-1]))


def _one(panel: Panel, line: Line, spectrum: Spectrum, cells: slice) -> tuple[dict[str, Any], Curve]:
    """Return a curve's row, and our quotients in the covered cells."""
    assert panel.edges is not None
    edges, x, theirs = panel.edges[cells.start : cells.stop + 1], panel.x[cells], line.y[cells]
    quotient = averaged(spectrum, edges)
    if not quotient.max() > 0:
        raise Code.CONSTANT("ours: an LFR does not rise over the published grid; pass one whose target varies there")
    area = area_between(edges, quotient, theirs)
    fine = np.geomspace(edges[0], edges[-1], FINE)
    exact = summit(fine, spectrum.at(fine).rdf)
    if panel.relative:  # each over its maximum, as it is drawn: no parabola, which would exceed it
        quotient, theirs = quotient / quotient.max(), theirs / theirs.max()
        place, height = x[np.argmax(quotient)], 1.0
        their_place, their_height = x[np.argmax(theirs)], 1.0
    else:
        (place, height), (their_place, their_height) = summit(x, quotient), summit(x, theirs)
    ratios = place / their_place, height / their_height
    ends = (0, len(x) - 1)
    row = {
        "place": float(place),
        "their_place": float(their_place),
        "place_ratio": float(ratios[0]),
        "height": height,
        "their_height": their_height,
        "height_ratio": ratios[1],
        "agrees": bool(max(abs(ratio - 1) for ratio in ratios) <= NEAR),
        "at_edge": bool(np.argmax(quotient) in ends or np.argmax(theirs) in ends),
        "hidden": bool(line.hidden[cells][np.argmax(theirs)]),
        "exact_place": exact[0],
        "exact_height": exact[1],
        "area": area,
        "cells": len(x),
        "of": len(panel.x),
    }
    return row, quotient
