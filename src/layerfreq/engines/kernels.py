"""Compiled loops of the CPU engine: inner products to bins, bins to curves.

Every loop here runs without the interpreter's lock, one row of a tile at a time. Vectorised steps write to small
buffers that stay in the first-level cache, and one scalar step adds to the bins.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from layerfreq.engines.basis import PLACE_BITS, PLACE_SHIFT

CHUNK = 512  # pairs whose three moments fit a 64-bit word: 10 + 21 + 33 bits
FEW = 32  # pairs below which a table of bins does not pay
_PLACES = (1 << PLACE_BITS) - 1
_COUNT, _FIRST = np.uint64(54), np.uint64(33)
_FIRST_MASK, _SECOND_MASK = np.uint64((1 << 21) - 1), np.uint64((1 << 33) - 1)
_CLOSE = 1 / 32  # of |x|^2 + |y|^2: nearer pairs have lost digits in the product


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _difference(x, y, gain):
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        step = (x[k] - y[k]) * gain
        total += step * step
    return total


@njit(nogil=True, cache=True)
def _distances(products, size, sizes, close, raw, row, columns, gain, squared):
    """Turn the inner products of a row into squared distances in float32; |x - y|^2 itself where they are close."""
    two, found = products.dtype.type(2), np.int32(0)
    for j in range(products.shape[0]):
        both = size + sizes[j]
        value = both - two * products[j]
        found |= np.int32(value < close * both)
        squared[j] = np.float32(value)
    if found:
        for j in range(products.shape[0]):
            both = size + sizes[j]
            if both - two * products[j] < close * both:
                squared[j] = np.float32(_difference(raw[row], raw[columns[j]], gain))


@njit(nogil=True, cache=True)
def _to_bins(squared, lowest, highest, bins, places):
    """Split the bit patterns into bin and place; return the first and last bin."""
    bits = squared.view(np.int32)
    first, last = np.int32(1 << 30), np.int32(0)
    for j in range(bits.shape[0]):
        pattern = min(max(bits[j], lowest), highest) - lowest
        k = pattern >> np.int32(PLACE_SHIFT + PLACE_BITS)
        bins[j] = np.uint32(k)
        places[j] = np.uint32((pattern >> np.int32(PLACE_SHIFT)) & np.int32(_PLACES))
        first, last = min(first, k), max(last, k)
    return first, last


@njit(nogil=True, cache=True)
def _count(bins, places, words, table):
    """Add count, place and squared place of every pair to its bin, in one 64-bit addition each."""
    for j in range(bins.shape[0]):
        place = np.uint64(places[j])
        words[j] = (np.uint64(1) << _COUNT) + (place << _FIRST) + place * place
    # Neighbours in the row often share a bin: additions to two tables do not wait for each other.
    even, odd = table[0], table[1]
    for j in range(0, bins.shape[0] - 1, 2):
        even[bins[j]] += words[j]
        odd[bins[j + 1]] += words[j + 1]
    if bins.shape[0] % 2:
        even[bins[-1]] += words[-1]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _add(sums, n, p, q, moments):
    for g in range(sums.shape[0]):
        sums[g] += n * moments[0, g] + p * moments[1, g] + q * moments[2, g]


@njit(nogil=True, cache=True)
def _empty(table, first, last, moments, sums):
    """Move the counted moments on to the functions' sums."""
    for k in range(first, last + 1):
        word = table[0, k] + table[1, k]
        if word:
            n = np.float64(np.int64(word >> _COUNT))
            p = np.float64(np.int64((word >> _FIRST) & _FIRST_MASK))
            _add(sums, n, p, np.float64(np.int64(word & _SECOND_MASK)), moments[k])
            table[0, k] = table[1, k] = np.uint64(0)


@njit(nogil=True, cache=True)
def _leave_out(own, squared, start):
    """Give the row's own point the bin of a neighbour, so that it widens no range, and return where it is."""
    at = own - start
    if at < 0 or at >= squared.shape[0]:
        return -1
    if squared.shape[0] > 1:
        squared[at] = squared[at - 1 if at else 1]
    return at


@njit(nogil=True, cache=True)
def deposit_labels(
    products, size, sizes, raw, rows, columns, gain, own, starts, labels, low, high, moments, sums, nearest
):
    """Add the pairs of a tile to the functions' sums, class by class.

    Args:
        products: (h, w) inner products of centred points.
        size: (h,) |x|^2 of the rows.
        sizes: (w,) |x|^2 of the columns, which are sorted by class.
        raw: (n, d) features as they came.
        rows: (h,) the rows' places in `raw`.
        columns: (w,) the columns' places in `raw`.
        gain: The scale of distances against those of `raw`.
        own: (h,) each row's own column, which is left out, or a number outside 0 .. w - 1.
        starts: (runs + 1,) where the classes begin among the columns.
        labels: (runs,) the classes.
        low: `Basis.lowest`.
        high: `Basis.highest`.
        moments: (bins, 3, r) `Basis.moments`.
        sums: (h, classes + 1, r) float64, added to; the last row is that of all classes together.
        nearest: (h,) int32, lowered to the lowest bin of each row.
    """
    squared = np.empty(CHUNK, np.float32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    table = np.zeros((2, moments.shape[0]), np.uint64)
    close = products.dtype.type(_CLOSE)
    for i in range(products.shape[0]):
        for run in range(labels.shape[0]):
            into = sums[i, labels[run]]
            for a in range(starts[run], starts[run + 1], CHUNK):
                b = min(a + CHUNK, starts[run + 1])
                w = b - a
                d, k, p = squared[:w], bins[:w], places[:w]
                _distances(products[i, a:b], size[i], sizes[a:b], close, raw, rows[i], columns[a:b], gain, d)
                mine = _leave_out(own[i], d, a)
                first, last = _to_bins(d, low, high, k, p)
                if mine < 0 or w > 1:
                    nearest[i] = min(nearest[i], first)
                if w < FEW:
                    for j in range(w):
                        if j != mine:
                            t = np.float64(p[j])
                            _add(into, 1.0, t, t * t, moments[k[j]])
                    continue
                _count(k, p, words[:w], table)
                if mine >= 0:
                    table[mine % 2, k[mine]] -= words[mine]
                _empty(table, first, last, moments, into)


@njit(nogil=True, cache=True)
def deposit_vectors(products, size, sizes, raw, rows, columns, gain, own, targets, low, high, moments, sums, nearest):
    """Add the pairs of a tile to the functions' sums, weighted by each target column and by one.

    Args:
        products: (h, w) inner products of centred points.
        size: (h,) |x|^2 of the rows.
        sizes: (w,) |x|^2 of the columns.
        raw: (n, d) features as they came.
        rows: (h,) the rows' places in `raw`.
        columns: (w,) the columns' places in `raw`.
        gain: The scale of distances against those of `raw`.
        own: (h,) each row's own column, which is left out, or a number outside 0 .. w - 1.
        targets: (w, c) float32.
        low: `Basis.lowest`.
        high: `Basis.highest`.
        moments: (bins, 3, r) `Basis.moments`.
        sums: (h, c + 1, r) float64, added to; the last row is that of the weight one.
        nearest: (h,) int32, lowered to the lowest bin of each row.
    """
    squared = np.empty(CHUNK, np.float32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    table = np.zeros((2, moments.shape[0]), np.uint64)
    c = targets.shape[1]
    weighted = np.zeros((moments.shape[0], 3, c), np.float32)
    close = products.dtype.type(_CLOSE)
    for i in range(products.shape[0]):
        begin, end = np.int32(1 << 30), np.int32(0)
        for a in range(0, products.shape[1], CHUNK):
            b = min(a + CHUNK, products.shape[1])
            w = b - a
            d, k, p = squared[:w], bins[:w], places[:w]
            _distances(products[i, a:b], size[i], sizes[a:b], close, raw, rows[i], columns[a:b], gain, d)
            mine = _leave_out(own[i], d, a)
            first, last = _to_bins(d, low, high, k, p)
            if mine < 0 or w > 1:
                nearest[i] = min(nearest[i], first)
            _count(k, p, words[:w], table)
            if mine >= 0:
                table[mine % 2, k[mine]] -= words[mine]
            _empty(table, first, last, moments, sums[i, c])
            for j in range(w):
                if j != mine:
                    t = np.float32(p[j])
                    for q in range(c):
                        y = targets[a + j, q]
                        weighted[k[j], 0, q] += y
                        weighted[k[j], 1, q] += t * y
                        weighted[k[j], 2, q] += t * t * y
            begin, end = min(begin, first), max(end, last)
        for k in range(begin, end + 1):
            part = weighted[k]
            for q in range(c):
                _add(sums[i, q], np.float64(part[0, q]), np.float64(part[1, q]), np.float64(part[2, q]), moments[k])
            part[:] = 0


@njit(nogil=True, cache=True, fastmath={"contract"})
def curves(values, squares, targets, offset, energy, change, self_weight):
    """Turn the sums over the other points at all cutoffs into the energies of every row.

    Args:
        values: (h, c + 1, 2 m) sums of kernel times target, then of the kernel's derivative times target; the
            last row is that of the weight one.
        squares: (h, m) sums of the squared kernel.
        targets: (h, c) the rows' own targets, before `offset`.
        offset: (c,) added to the filtered targets.
        energy: (h, m) takes |y_low|^2.
        change: (h, m) takes its derivative with respect to 1/delta.
        self_weight: (h, m) takes sum_j w_ij^2.
    """
    c, m = targets.shape[1], energy.shape[1]
    weight = np.empty(m)
    for i in range(values.shape[0]):
        total, slow = values[i, c, :m], values[i, c, m:]
        e, s, square, own = energy[i], change[i], squares[i], self_weight[i]
        for k in range(m):
            weight[k] = 1.0 / (1.0 + max(total[k], 0.0))
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


@njit(nogil=True, cache=True)
def transpose(block, out):
    """Write the transpose of a block, a few cache lines at a time."""
    step = 64
    for a in range(0, block.shape[0], step):
        for i in range(out.shape[0]):
            for j in range(a, min(a + step, block.shape[0])):
                out[i, j] = block[j, i]
