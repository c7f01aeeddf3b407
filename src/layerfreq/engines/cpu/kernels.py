"""Compiled loops over points, without the interpreter's lock: centring, products, and curves from sums."""

from __future__ import annotations

import numpy as np

from layerfreq.engines.compiling import FINITE, loop
from layerfreq.engines.cpu.lanes import LANES, add_outer, keep_rows, load_each, nothing, turn, write_rows
from layerfreq.engines.threads import scratch

ROWS, PANELS = 8, 3  # of a tile of products, whose 24 sums stay in registers; a panel is as wide as the lanes
COLUMNS = PANELS * LANES
ALL, LAST = ((0,) * (ROWS * PANELS), (0,) * PANELS), ((0,) * LANES, (0,))  # tuples as long as sums and panels
PACKED = 1 << 23  # most numbers that are copied into panels
DEEP = 128  # numbers of a point per float32 sum, before sums are added up


def multiply(x, y, out, start=0, own=False):
    """Write the inner products `x @ y.T` of points (h, d) and (w, d) to `out`, (h, w).

    BLAS libraries choose loops by the processor's name, and for some processors with AVX-512 those of half the width.
    Here, 3 loads of lanes and 8 of single numbers serve 24 multiplications with addition.

    Args:
        x: (h, d), or wider: its columns from `start` on are used.
        y: (w, d).
        out: (h, w).
        start: The first of x's columns.
        own: Whether y is x. Products right of the diagonal may then not be written.
    """
    h, (w, d) = len(x), y.shape
    room = (-(-h // LANES) + (0 if own else -(-w // LANES)) + 1) * LANES * d
    if LANES < 16 or x.dtype != np.float32 or min(h, w, d) < LANES or room > PACKED:
        np.matmul(x[:, start : start + d], y.T, out=out)
    else:
        _multiply(x, start, y, own, scratch(1, room, np.float32, 4)[0], out)


@loop()
def _pack(x, start, d, out):
    """Write d columns of points (n, ...) as flat panels (n / 16, d, 16); the last panel has the last 16 points."""
    n, stride = x.shape
    flat = x.reshape(-1)
    for panel in range(-(-n // LANES)):
        first = min(panel * LANES, n - LANES) * stride + start
        for k in range(0, d, LANES):
            at = min(k, d - LANES)
            turn(flat, first + at, stride, out, (panel * d + at) * LANES, LANES)


@loop()
def _multiply(x, start, y, own, room, out):
    """Write the products; those at the end are written twice if points do not fill whole panels."""
    h, (w, d) = x.shape[0], y.shape
    left, right, behind = room, room, -(-h // LANES) * LANES * d
    _pack(x, start, d, left)
    if not own:
        right, behind = room[behind:], -(-w // LANES) * LANES * d
        _pack(y, 0, d, right)
    for column in range(0, w // COLUMNS * COLUMNS, COLUMNS):
        _strip(left, right, column * d, column, d, own, out, ALL)
    for begin in range(w // COLUMNS * COLUMNS, w, LANES):
        column = min(begin, w - LANES)
        _pack(y[column : column + LANES], 0, d, right[behind:])
        _strip(left, right, behind, column, d, own, out, LAST)


@loop()
def _strip(left, right, first, column, d, own, out, shape):
    """Write the products of all rows, or those from the diagonal on, with the points of some panels."""
    (h, w), (like, each) = out.shape, shape
    panel, flat, rows = LANES * d, out.reshape(-1), len(like) // len(each)
    for i in range(column // rows * rows if own else 0, h, rows):
        row = min(i, h - rows)
        which = (row + rows - 1) // LANES
        one = which * panel + row - min(which * LANES, h - LANES)
        for deep in range(0, d, DEEP):
            sums = nothing(like)
            for k in range(deep * LANES, min(deep + DEEP, d) * LANES, LANES):
                sums = add_outer(sums, left, one + k, load_each(right, first + k, panel, each))
            if deep:
                keep_rows(flat, row * w + column, w, sums, each)
            else:
                write_rows(flat, row * w + column, w, sums, each)


@loop(fastmath={"contract"})
def curves(values, squares, targets, offset, energy, change, self_weight, by_column):
    """Turn sums over the other points, at all cutoffs, into the energies of every row.

    Args:
        values: (h, c + 1, 2 m) sums of kernel times target, then of the kernel's derivative times target; the
            last row is that of the weight one.
        squares: (h, m) sums of the squared kernel.
        targets: (h, c) the rows' own targets, before `offset`.
        offset: (c,) added to the filtered targets.
        energy: (h, m) takes |y_low|^2.
        change: (h, m) takes its derivative with respect to 1/delta.
        self_weight: (h, m) takes sum_j w_ij^2.
        by_column: (4, c, m), added to: each column's energy and change, the energy that the filter takes away, and what
            it keeps; or (0, 0, 0).
    """
    c, m = targets.shape[1], energy.shape[1]
    weight = np.empty(m)
    for i in range(values.shape[0]):
        total, slow = values[i, c, :m], values[i, c, m:]
        e, s, square, own = energy[i], change[i], squares[i], self_weight[i]
        for k in range(m):
            # Rounding gives sums near zero either sign: raised to zero, they would no longer average out over rows.
            weight[k] = 1.0 / (1.0 + max(total[k], -0.5))
        for k in range(m):
            own[k] = min((1.0 + square[k]) * weight[k] * weight[k], 1.0)
        e[:], s[:] = 0.0, 0.0
        for q in range(c):
            y, shift, a, b = targets[i, q], offset[q], values[i, q, :m], values[i, q, m:]
            for k in range(m):
                low = (a[k] + y) * weight[k]
                speed = (b[k] - low * slow[k]) * weight[k]
                low += shift
                e[k] += low * low
                s[k] += 2.0 * low * speed
            if by_column.shape[0]:  # in a separate loop, so that both loops vectorise
                kept, change_of_it, taken, mean = by_column[0, q], by_column[1, q], by_column[2, q], by_column[3, q]
                for k in range(m):
                    low = (a[k] + y) * weight[k]
                    speed = (b[k] - low * slow[k]) * weight[k]
                    away = (y * total[k] - a[k]) * weight[k]
                    low += shift
                    kept[k] += low * low
                    change_of_it[k] += 2.0 * low * speed
                    taken[k] += away * away
                    mean[k] += low


@loop()
def add_classes(sums):
    """Write the total over classes of the sums (h, classes + 1, r) to their last row."""
    for i in range(sums.shape[0]):
        whole = sums[i, -1]
        whole[:] = 0.0
        for q in range(sums.shape[1] - 1):
            for k in range(whole.shape[0]):
                whole[k] += sums[i, q, k]


@loop()
def transpose(block, out):
    """Write the transpose of a block, a few cache lines at a time."""
    step = 64
    for a in range(0, block.shape[0], step):
        for i in range(out.shape[0]):
            for j in range(a, min(a + step, block.shape[0])):
                out[i, j] = block[j, i]


@loop(fastmath=FINITE)
def centre(raw, order, shift, gain, x, sizes):
    """Write centred and scaled points in another order, and their squared sizes.

    Args:
        raw: (n, d) features as they came.
        order: (k,) the points to take.
        shift: (d,) float64, subtracted.
        gain: (d,) float64, multiplied with the difference.
        x: (k, d) takes the points.
        sizes: (k,) takes |x|^2.
    """
    for i in range(order.shape[0]):
        given, out, size = raw[order[i]], x[i], x.dtype.type(0)
        for k in range(given.shape[0]):
            value = x.dtype.type((np.float64(given[k]) - shift[k]) * gain[k])
            out[k] = value
            size += value * value
        sizes[i] = size


@loop(fastmath=FINITE)
def extent_of(x, start, origin, total, low, high):
    """Add up the differences of points to an origin, column by column, and find their smallest and largest.

    Args:
        x: (n, d) features as they came.
        start: The first of the w columns.
        origin: (w,) float64.
        total: (w,) float64, added to.
        low: (w,) float64, lowered.
        high: (w,) float64, raised.
    """
    for i in range(x.shape[0]):
        point = x[i, start : start + origin.shape[0]]
        for k in range(point.shape[0]):
            value = np.float64(point[k]) - origin[k]
            total[k] += value
            low[k] = min(low[k], value)
            high[k] = max(high[k], value)


@loop(fastmath=FINITE)
def centre_of(x, start, shift, gain, out, sizes):
    """Write some columns of all points, centred and scaled, to `out` (n, w), and add their squares to `sizes` (n,)."""
    for i in range(x.shape[0]):
        point, row, size = x[i, start : start + shift.shape[0]], out[i], 0.0
        for k in range(point.shape[0]):
            value = (np.float64(point[k]) - shift[k]) * gain[k]
            row[k] = value
            size += value * value
        sizes[i] += size


@loop(fastmath=FINITE)
def total_of(x, start, origin, total):
    """Add up the differences of some columns of points, from `start` on, to an origin, which is (w,) as `total` is."""
    for i in range(x.shape[0]):
        point = x[i, start : start + origin.shape[0]]
        for k in range(point.shape[0]):
            total[k] += np.float64(point[k]) - origin[k]


@loop(fastmath=FINITE - {"nnan", "ninf"})
def centre_and_add(x, start, shift, out, sizes, across, total):
    """Do what `centre_of` does at a gain of one, and add up, in float64, what centring another point takes.

    Args:
        x: (n, d) features as they came; sizes are not finite where these are not.
        start: The first of some columns.
        shift: (w,) float64, subtracted.
        out: (n, w) takes the centred columns.
        sizes: (n,), added to: their squares.
        across: (n,), added to: their products with the shift.
        total: (w,), added to: the sum of the points.
    """
    for i in range(x.shape[0]):
        point, row, size, product = x[i, start : start + shift.shape[0]], out[i], 0.0, 0.0
        for k in range(point.shape[0]):
            value = np.float64(point[k]) - shift[k]
            row[k] = value
            size += value * value
            product += value * shift[k]
            total[k] += value
        sizes[i] += size
        across[i] += product


@loop()
def fingerprints(bits, start, weight, out):
    """Add sum_k (b_k ^ b_k >> 16 ^ b_k >> 32) weight_k modulo 2^64, over some columns, to a number of every point.

    Args:
        bits: (n, d) the features' bits; those of -0.0 count as those of 0.0.
        start: The first of the columns.
        weight: (w,) int64.
        out: (n,) int64, added to.
    """
    least = bits.dtype.type(np.iinfo(bits.dtype).min)
    for i in range(bits.shape[0]):
        row, total = bits[i, start : start + weight.shape[0]], np.int64(0)
        for k in range(row.shape[0]):
            b = np.int64(0) if row[k] == least else np.int64(row[k])
            total += (b ^ (b >> 16) ^ (b >> 32)) * weight[k]
        out[i] += total


@loop(fastmath=FINITE)
def differences(x, y, first, second, gain, out):
    """Write |(x_i - y_j) gain|^2 of pairs of points, in float64; differences of float32 are exact there."""
    for p in range(out.shape[0]):
        one, other, total = x[first[p]], y[second[p]], 0.0
        for k in range(one.shape[0]):
            step = (np.float64(one[k]) - np.float64(other[k])) * gain[k]
            total += step * step
        out[p] = total


@loop(fastmath=FINITE)
def sizes(x, shift, gain, out):
    """Write |(x - shift) gain|^2 of every point in float64."""
    for i in range(x.shape[0]):
        point, size = x[i], 0.0
        for k in range(point.shape[0]):
            value = (np.float64(point[k]) - shift[k]) * gain[k]
            size += value * value
        out[i] = size
