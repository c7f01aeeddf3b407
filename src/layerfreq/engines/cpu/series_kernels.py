"""Compiled loops from the pairs of a tile to sums of Chebyshev polynomials, each filter centre in a lane of its own.

Lanes run along the centres and loops along the points, so that classes may be of any length: sums stay in registers
until a class ends. Where the points of a tile are centres too, the places of its pairs serve once more, turned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layerfreq.engines.compiling import loop
from layerfreq.engines.cpu.lanes import LANES, larger, load, outside, spread, store, turn
from layerfreq.engines.cpu.pair_kernels import CLOSE, close_distances, distances

HEIGHT, WIDTH = 128, 512  # pairs whose places stay in the second-level cache, both ways round
GAP = 16  # float32 between the rows of these, so that a column of them falls on many sets of the cache
TOGETHER = 64  # points that float32 sums go over before they are added up
FIRST = 10  # polynomials of the first pass over the pairs: T_0 .. T_9
STEP = 8  # and of each that follows
ROOM = (WIDTH + GAP) * HEIGHT + (HEIGHT + GAP) * WIDTH + 2 * TOGETHER * LANES  # float32 of scratch, beside the sums


class Places(NamedTuple):
    """The map from squared distances to places of polynomials, as `chebyshev.Series` describes it."""

    lowest: np.float32
    highest: np.float32
    centre: np.float32
    offset: np.float32
    slope: np.float32


class Runs(NamedTuple):
    """Weights of points, and the sums that they go to: a class is a run of ones, a target column is a run of all."""

    first: np.ndarray  # (runs,) where each begins among the points
    last: np.ndarray  # (runs,) and ends; in order
    into: np.ndarray  # (runs,) which of the centre's sums it adds to
    weight: np.ndarray  # (runs,) which row of the weights it has
    weights: np.ndarray  # (k, points) float32


@loop()
def _quick_places(products, size, sizes, width, places, out, at):
    """Write the places of a row's pairs; return whether some are strays, or so close that they have lost digits.

    All is float32, and the width at least that of lanes.
    """
    centre, offset, slope = spread(places.centre), spread(places.offset), spread(places.slope)
    lowest, highest, own, two = spread(places.lowest), spread(places.highest), spread(size), spread(np.float32(2))
    share, some = spread(np.float32(CLOSE)), False
    for k in range(0, width, LANES):
        j = min(k, width - LANES)  # the last ones once more, rather than some that are not there
        both = own + load(sizes, j)
        squared = both - two * load(products, j)
        some |= outside(squared, larger(lowest, share * both), highest)
        store(out, at + j, offset + slope / (squared + centre))
    return some


@loop()
def _careful_places(tile, i, start, width, places, out, at, strays, count):
    """Do the same for any features and pairs: with 0 for the row's own point and for strays, which are listed."""
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
def _first(t, stride, begin, end, lane, weights, state, sums):
    """Add T_1 .. T_9 of some points, times their weights, and keep the last two of each."""
    s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = spread(np.float32(0))
    for j in range(begin, end):
        place = load(t, j * stride + lane)
        twice = place + place
        a = spread(weights[j])
        b = a * place
        s1 += b
        a = twice * b - a
        s2 += a
        b = twice * a - b
        s3 += b
        a = twice * b - a
        s4 += a
        b = twice * a - b
        s5 += b
        a = twice * b - a
        s6 += a
        b = twice * a - b
        s7 += b
        a = twice * b - a
        s8 += a
        b = twice * a - b
        s9 += b
        store(state, 2 * LANES * (j - begin), a)
        store(state, 2 * LANES * (j - begin) + LANES, b)
    store(sums, LANES, load(sums, LANES) + s1)
    store(sums, 2 * LANES, load(sums, 2 * LANES) + s2)
    store(sums, 3 * LANES, load(sums, 3 * LANES) + s3)
    store(sums, 4 * LANES, load(sums, 4 * LANES) + s4)
    store(sums, 5 * LANES, load(sums, 5 * LANES) + s5)
    store(sums, 6 * LANES, load(sums, 6 * LANES) + s6)
    store(sums, 7 * LANES, load(sums, 7 * LANES) + s7)
    store(sums, 8 * LANES, load(sums, 8 * LANES) + s8)
    store(sums, 9 * LANES, load(sums, 9 * LANES) + s9)


@loop()
def _next(t, stride, begin, end, lane, state, sums, k):
    """Add the next eight polynomials of the same points, by T_(k+1) = 2 t T_k - T_(k-1)."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = spread(np.float32(0))
    for j in range(begin, end):
        place = load(t, j * stride + lane)
        twice = place + place
        a, b = load(state, 2 * LANES * (j - begin)), load(state, 2 * LANES * (j - begin) + LANES)
        a = twice * b - a
        s0 += a
        b = twice * a - b
        s1 += b
        a = twice * b - a
        s2 += a
        b = twice * a - b
        s3 += b
        a = twice * b - a
        s4 += a
        b = twice * a - b
        s5 += b
        a = twice * b - a
        s6 += a
        b = twice * a - b
        s7 += b
        store(state, 2 * LANES * (j - begin), a)
        store(state, 2 * LANES * (j - begin) + LANES, b)
    at = k * LANES
    store(sums, at, load(sums, at) + s0)
    store(sums, at + LANES, load(sums, at + LANES) + s1)
    store(sums, at + 2 * LANES, load(sums, at + 2 * LANES) + s2)
    store(sums, at + 3 * LANES, load(sums, at + 3 * LANES) + s3)
    store(sums, at + 4 * LANES, load(sums, at + 4 * LANES) + s4)
    store(sums, at + 5 * LANES, load(sums, at + 5 * LANES) + s5)
    store(sums, at + 6 * LANES, load(sums, at + 6 * LANES) + s6)
    store(sums, at + 7 * LANES, load(sums, at + 7 * LANES) + s7)


@loop()
def _add_points(t, stride, start, count, centres, at, runs, state, found, sums):
    """Add points to the sums of centres.

    Args:
        t: Flat float32, the places of the pairs, each point's centres side by side.
        stride: From a point to the next.
        start: The number of the first of these points in `runs`.
        count: Of points.
        centres: Their number.
        at: The first centre's place in `sums`.
        runs: The points' `Runs`.
        state: Flat, room for two polynomials of every centre.
        found: Flat, room for the sums of the centres in lanes.
        sums: (h, classes or columns + 1, r) float64, added to.
    """
    r = sums.shape[2]
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
                _first(t, stride, begin, end, lane, weights, state, found)
                for k in range(FIRST, r, STEP):
                    _next(t, stride, begin, end, lane, state, found, k)
            for i in range(min(LANES, centres - lane)):
                mine = sums[at + lane + i, into]
                mine[0] += total
                for k in range(1, r):
                    mine[k] += found[k * LANES + i]


@loop()
def _take_back(centre, point, runs, sums):
    """Subtract a pair at place 0, where the polynomials are 1, 0, -1, 0 and so on."""
    for run in range(np.searchsorted(runs.last, point, side="right"), runs.into.shape[0]):
        if runs.first[run] > point:
            break
        weight, mine = np.float64(runs.weights[runs.weight[run], point]), sums[centre, runs.into[run]]
        for k in range(0, mine.shape[0], 4):
            mine[k] -= weight
        for k in range(2, mine.shape[0], 4):
            mine[k] += weight


@loop()
def add_tile(tile, runs, sums, both, across, across_sums, places, strays, scratch):
    """Add the pairs of a tile to the polynomials' sums, but for its strays, which it lists.

    Args:
        tile: A `Tile`.
        runs: The `Runs` of its columns.
        sums: (h, s, r) float64 of its rows, added to.
        both: Whether its rows are points, too, and its columns centres.
        across: Then, the runs of its rows.
        across_sums: Then, (w, s, r), the sums of its columns.
        places: Where the polynomials are taken.
        strays: Takes the pairs that are not added.
        scratch: Flat float32, `ROOM` and `LANES` for each polynomial.

    Returns:
        The number of strays.
    """
    height, width = tile.products.shape
    plain, turned = WIDTH + GAP, HEIGHT + GAP
    rows, columns = scratch[: plain * HEIGHT], scratch[plain * HEIGHT : plain * HEIGHT + turned * WIDTH]
    state, found = scratch[ROOM - 2 * TOGETHER * LANES : ROOM], scratch[ROOM:]
    count, quick = 0, tile.products.itemsize == 4
    for a in range(0, height, HEIGHT):
        h = min(HEIGHT, height - a)
        for b in range(0, width, WIDTH):
            w = min(WIDTH, width - b)
            for i in range(h):
                hard = not quick or w < LANES or b <= tile.own[a + i] < b + w
                if not hard:
                    row, size = tile.products[a + i, b:], tile.rows.sizes[a + i]
                    hard = _quick_places(row, size, tile.columns.sizes[b:], w, places, rows, i * plain)
                if hard:
                    count = _careful_places(tile, a + i, b, w, places, rows, i * plain, strays, count)
            for i in range(0, h, LANES):
                for j in range(0, w, LANES):
                    turn(rows, i * plain + j, plain, columns, j * turned + i, turned)
            _add_points(columns, turned, b, w, h, a, runs, state, found, sums)
            if both:
                _add_points(rows, plain, a, h, w, b, across, state, found, across_sums)
    for i in range(height):
        if 0 <= tile.own[i] < width:
            _take_back(i, tile.own[i], runs, sums)
    for k in range(count):
        _take_back(strays.row[k], strays.column[k], runs, sums)
        if both:
            _take_back(strays.column[k], strays.row[k], across, across_sums)
    return count
