"""Compiled loops from the pairs of a tile to sums of the functions of a `chebyshev.Series`, a filter centre per lane.

Lanes run along the centres and loops along the points, so classes may have any length: sums stay in registers until a
class ends. If the points of a tile are centres, too, the places of its pairs are used again, transposed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layerfreq.engines.compiling import loop
from layerfreq.engines.cpu.lanes import (
    LANES,
    add_products,
    add_turned,
    keep,
    larger,
    load,
    nothing,
    outside,
    spread,
    store,
    turn,
)
from layerfreq.engines.cpu.pair_kernels import CLOSE, close_distances, distances

HEIGHT, WIDTH = 128, 512  # of a block whose places, and their transpose, stay in the second-level cache
GAP = 16  # float32 between the rows of a block, so that a column spreads over many sets of the cache
TOGETHER = 64  # points per float32 sum, before sums are added up
SIZES = 13, 17, 21, 25, 33, 41, 49  # functions: a constant, and those that one or two loops over pairs add up
TWELVE, SIXTEEN, TWENTY, TWENTY_FOUR = (0,) * 12, (0,) * 16, (0,) * 20, (0,) * 24  # tuples as long as these
ROOM = (WIDTH + GAP) * HEIGHT + (HEIGHT + GAP) * WIDTH  # float32 of scratch, without the sums


class Places(NamedTuple):
    """The map from squared distances to twice the places of polynomials, as `chebyshev.Series` describes it."""

    lowest: np.float32
    highest: np.float32
    centre: np.float32
    offset: np.float32
    slope: np.float32


class Runs(NamedTuple):
    """Weights of points, and their sums: a class is a run of ones, a target column is a run of all points."""

    first: np.ndarray  # (runs,) where each run begins among the points
    last: np.ndarray  # (runs,) where it ends, in increasing order
    into: np.ndarray  # (runs,) which of the centre's sums it adds to
    weight: np.ndarray  # (runs,) its row of the weights
    weights: np.ndarray  # (k, points) float32
    ones: np.ndarray  # (runs,) whether all of its weights are one


@loop()
def _quick_places(products, size, sizes, width, places, out, at):
    """Write the places of a row's pairs; return whether some are strays, or so close that they have lost digits.

    All arrays are float32, and there are at least as many pairs as lanes.
    """
    centre, offset, slope = spread(places.centre), spread(places.offset), spread(places.slope)
    lowest, highest, own, two = spread(places.lowest), spread(places.highest), spread(size), spread(np.float32(2))
    share, some = spread(np.float32(CLOSE)), False
    for k in range(0, width, LANES):
        j = min(k, width - LANES)  # some of the last pairs twice, rather than beyond the end
        both = own + load(sizes, j)
        squared = both - two * load(products, j)
        some |= outside(squared, larger(lowest, share * both), highest)
        store(out, at + j, offset + slope / (squared + centre))
    return some


@loop()
def _careful_places(tile, i, start, width, places, out, at, strays, count):
    """Do the same for any dtype and pairs; the row's own point and strays get 0, and strays are listed."""
    row, own = out[at : at + width], tile.own[i] - start
    if distances(tile.products, i, start, width, tile.rows.sizes[i], tile.columns.sizes, row):
        close_distances(tile, i, start, width, row)
    for j in range(width):
        if j == own:
            row[j] = 0
        elif places.lowest <= row[j] <= places.highest:
            row[j] = places.offset + places.slope / (row[j] + places.centre)
        else:
            strays.row[count], strays.column[count], strays.squared[count] = i, start + j, row[j]
            row[j] = 0
            count += 1
    return count


@loop()
def _ones(shape, t, stride, begin, end, lane, found):
    """Add the first functions of some points, as many as `shape` has places; `t` holds 2 t."""
    sums, two = nothing(shape), spread(np.float32(2))
    for j in range(begin, end):
        d1 = load(t, j * stride + lane)
        d2 = d1 * d1 - two
        d3, d4 = d1 * d2 - d1, d2 * d2 - two
        sums = add_products(sums, (d1, d2, d3), (d1, d2, d3), d4, d4, d4 * d4 - two)
    keep(found, LANES, sums)


@loop()
def _weighted(shape, t, stride, begin, end, lane, weights, found, quarter):
    """Do the same, times the points' weights, for the functions after the first `4 * quarter`."""
    sums, two = nothing(shape), spread(np.float32(2))
    for j in range(begin, end):
        d1, now = load(t, j * stride + lane), spread(weights[j])
        d2 = d1 * d1 - two
        d3, d4 = d1 * d2 - d1, d2 * d2 - two
        one, before, then = now, now + now, now * d4
        for _ in range(quarter):
            one, before, then = then, then, d4 * then - before
        low = one * d1, one * d2, one * d3
        sums = add_products(sums, low, (d1, d2, d3), d4, then, d4 * then - before)
    keep(found, (4 * quarter + 1) * LANES, sums)


@loop()
def _add_some(quarters, ones, t, stride, begin, end, lane, weights, found, quarter):
    """Do either, for `4 * quarters` functions."""
    if ones:
        if quarters == 3:
            _ones(TWELVE, t, stride, begin, end, lane, found)
        elif quarters == 4:
            _ones(SIXTEEN, t, stride, begin, end, lane, found)
        elif quarters == 5:
            _ones(TWENTY, t, stride, begin, end, lane, found)
        else:
            _ones(TWENTY_FOUR, t, stride, begin, end, lane, found)
    elif quarters == 3:
        _weighted(TWELVE, t, stride, begin, end, lane, weights, found, quarter)
    elif quarters == 4:
        _weighted(SIXTEEN, t, stride, begin, end, lane, weights, found, quarter)
    elif quarters == 5:
        _weighted(TWENTY, t, stride, begin, end, lane, weights, found, quarter)
    else:
        _weighted(TWENTY_FOUR, t, stride, begin, end, lane, weights, found, quarter)


@loop()
def _add_points(t, stride, start, count, centres, at, runs, found, sums):
    """Add points to the sums of centres.

    Args:
        t: Flat float32, the places of the pairs, each point's centres side by side.
        stride: Step in `t` from one point to the next.
        start: Index in `runs` of the first of these points.
        count: Number of points.
        centres: Number of centres.
        at: Index in `sums` of the first centre.
        runs: The points' `Runs`.
        found: Flat, room for the sums of the centres in lanes.
        sums: (h, classes or columns + 1, r) float64, added to.
    """
    r, each, flat = sums.shape[2], sums.shape[1] * sums.shape[2], sums.reshape(-1)
    quarters = r // 4 if r // 4 <= len(TWENTY_FOUR) // 4 else r // 8
    for run in range(np.searchsorted(runs.last, start, side="right"), runs.into.shape[0]):
        first, last = max(runs.first[run], start), min(runs.last[run], start + count)
        if first >= start + count:
            break
        weights, into, total = runs.weights[runs.weight[run], start:], runs.into[run], 0.0
        for j in range(first - start, last - start):
            total += weights[j]
        for lane in range(0, centres, LANES):
            found[: r * LANES] = 0
            for begin in range(first - start, last - start, TOGETHER):
                end = min(begin + TOGETHER, last - start)
                for quarter in range(0, r // 4, quarters):
                    ones = runs.ones[run] and quarter == 0
                    _add_some(quarters, ones, t, stride, begin, end, lane, weights, found, quarter)
            centre = at + lane
            for i in range(min(LANES, centres - lane)):
                sums[centre + i, into, 0] += total
            if lane + LANES <= centres:
                for k in range(1, r, LANES):
                    add_turned(found, k * LANES, flat, centre * each + into * r + k, each, min(LANES, r - k))
            else:
                for i in range(centres - lane):
                    for k in range(1, r):
                        sums[centre + i, into, k] += found[k * LANES + i]


@loop()
def _take_back(centre, point, runs, sums):
    """Subtract a pair at place 0, where the functions are 1, 0, -2, 0, 2, 0, -4, 0, 2, 0, -4, ..."""
    for run in range(np.searchsorted(runs.last, point, side="right"), runs.into.shape[0]):
        if runs.first[run] > point:
            break
        weight, mine = np.float64(runs.weights[runs.weight[run], point]), sums[centre, runs.into[run]]
        mine[0] -= weight
        mine[2] += 2 * weight
        for k in range(4, mine.shape[0], 4):
            mine[k] -= 2 * weight
        for k in range(6, mine.shape[0], 4):
            mine[k] += 4 * weight


@loop()
def add_tile(tile, runs, sums, both, across, across_sums, places, strays, scratch):
    """Add the pairs of a tile to the polynomials' sums, except its strays, which are listed.

    Args:
        tile: A `Tile`.
        runs: The `Runs` of its columns.
        sums: (h, s, r) float64 of its rows, added to.
        both: Whether its rows are points, too, and its columns centres.
        across: The runs of its rows, if `both`.
        across_sums: (w, s, r) the sums of its columns, if `both`.
        places: The map from distances to places.
        strays: Takes the pairs that are not added.
        scratch: Flat float32, `ROOM` and `LANES` for each polynomial.

    Returns:
        The number of strays.
    """
    height, width = tile.products.shape
    plain, turned = WIDTH + GAP, HEIGHT + GAP
    rows, columns = scratch[: plain * HEIGHT], scratch[plain * HEIGHT : plain * HEIGHT + turned * WIDTH]
    found, count, quick = scratch[ROOM:], 0, tile.products.itemsize == 4
    for a in range(0, height, HEIGHT):
        h = min(HEIGHT, height - a)
        for b in range(0, width, WIDTH):
            w = min(WIDTH, width - b)
            for i in range(h):
                hard, own = not quick or w < LANES, tile.own[a + i] - b
                if not hard:
                    row, size, sizes = tile.products[a + i, b:], tile.rows.sizes[a + i], tile.columns.sizes[b:]
                    if 0 <= own < w:  # the row's own point gets a distance within range, so that it is no stray
                        row[own] = (size + sizes[own] - (places.lowest + places.highest) / 2) / 2
                    hard = _quick_places(row, size, sizes, w, places, rows, i * plain)
                    if 0 <= own < w:
                        rows[i * plain + own] = 0
                if hard:
                    count = _careful_places(tile, a + i, b, w, places, rows, i * plain, strays, count)
            for i in range(0, h, LANES):
                for j in range(0, w, LANES):
                    turn(rows, i * plain + j, plain, columns, j * turned + i, turned)
            _add_points(columns, turned, b, w, h, a, runs, found, sums)
            if both:
                _add_points(rows, plain, a, h, w, b, across, found, across_sums)
    for i in range(height):
        if 0 <= tile.own[i] < width:
            _take_back(i, tile.own[i], runs, sums)
    for k in range(count):
        _take_back(strays.row[k], strays.column[k], runs, sums)
        if both:
            _take_back(strays.column[k], strays.row[k], across, across_sums)
    return count
