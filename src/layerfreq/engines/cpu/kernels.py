"""Compiled loops of the CPU engine: features to centred points, inner products to sums, sums to curves.

Every loop here runs without the interpreter's lock, one row of a tile at a time. Vectorised steps write to small
buffers that stay in the first-level cache; with bins, one scalar step adds to them.
"""

from __future__ import annotations

import numpy as np

from layerfreq.engines.compiling import loop
from layerfreq.engines.cpu.bins import PLACE_BITS, PLACE_SHIFT
from layerfreq.engines.cpu.chebyshev import STEP

CHUNK = 512  # pairs whose three moments fit a 64-bit word: 10 + 21 + 33 bits
FEW = 32  # pairs below which a table of bins does not pay
# Compiled code is cached with the constants of `basis` and `series` in it: touch this file when one of them changes.
_PLACES = (1 << PLACE_BITS) - 1
_COUNT, _FIRST = np.uint64(54), np.uint64(33)
_FIRST_MASK, _SECOND_MASK = np.uint64((1 << 21) - 1), np.uint64((1 << 33) - 1)
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}  # all that is computed here is finite
_CLOSE = 1 / 32  # of |x|^2 + |y|^2: nearer pairs have lost digits in the product


@loop(fastmath={"reassoc", "contract", "nsz"})
def _difference(x, y, gain):
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        step = (x[k] - y[k]) * gain[k]
        total += step * step
    return total


@loop()
def _distances(products, i, start, width, size, sizes, squared):
    """Turn inner products of a row into squared distances; return whether some have lost digits."""
    two, close, found = products.dtype.type(2), products.dtype.type(_CLOSE), np.int32(0)
    # Slices, since an index that might be negative for all that the compiler knows keeps it from vectorising.
    inner, others = products[i, start : start + width], sizes[start : start + width]
    for j in range(width):
        both = size + others[j]
        value = both - two * inner[j]
        found |= np.int32(value < close * both)
        squared[j] = np.float32(value)
    return found


@loop()
def _close_distances(products, i, start, width, rows, columns, squared):
    """Take the distances that have lost digits from the features themselves."""
    sizes, place, raw = columns
    close, size, x, gain = products.dtype.type(_CLOSE), rows[0][i], rows[3][rows[2][i]], rows[4]
    for j in range(start, start + width):
        both = size + sizes[j]
        if both - products.dtype.type(2) * products[i, j] < close * both:
            squared[j - start] = np.float32(_difference(x, raw[place[j]], gain))


@loop()
def _to_bins(bits, width, lowest, highest, bins, places):
    """Split the bit patterns of distances into bin and place; return the first and last bin."""
    first, last = np.int32(1 << 30), np.int32(0)
    for j in range(width):
        pattern = min(max(bits[j], lowest), highest) - lowest
        k = pattern >> np.int32(PLACE_SHIFT + PLACE_BITS)
        bins[j] = np.uint32(k)
        places[j] = np.uint32((pattern >> np.int32(PLACE_SHIFT)) & np.int32(_PLACES))
        first, last = min(first, k), max(last, k)
    return first, last


@loop()
def _count(bins, places, width, words, table):
    """Add count, place and squared place of every pair to its bin, in one 64-bit addition each."""
    for j in range(width):
        place = np.uint64(places[j])
        words[j] = (np.uint64(1) << _COUNT) + (place << _FIRST) + place * place
    # Neighbours in the row often share a bin: additions to two tables do not wait for each other.
    even, odd = table[0], table[1]
    for j in range(0, width - 1, 2):
        even[bins[j]] += words[j]
        odd[bins[j + 1]] += words[j + 1]
    if width % 2:
        even[bins[width - 1]] += words[width - 1]


@loop(fastmath={"contract"})
def _add(sums, n, p, q, moments):
    for g in range(sums.shape[0]):
        sums[g] += n * moments[0, g] + p * moments[1, g] + q * moments[2, g]


@loop()
def _empty(table, first, last, moments, sums):
    """Move the counted moments on to the functions' sums."""
    for k in range(first, last + 1):
        word = table[0, k] + table[1, k]
        if word:
            n = np.float64(np.int64(word >> _COUNT))
            p = np.float64(np.int64((word >> _FIRST) & _FIRST_MASK))
            _add(sums, n, p, np.float64(np.int64(word & _SECOND_MASK)), moments[k])
            table[0, k] = table[1, k] = np.uint64(0)


@loop()
def _leave_out(own, squared, start, width):
    """Give the row's own point the distance of a neighbour, so that it widens no range, and return where it is."""
    at = own - start
    if at < 0 or at >= width:
        return -1
    if width > 1:
        squared[at] = squared[at - 1 if at else 1]
    return at


@loop()
def deposit_labels(products, rows, columns, starts, labels, low, high, moments, sums):
    """Add the pairs of a tile to the bins' sums, class by class.

    Args:
        products: (h, w) inner products of centred points.
        rows: (size, own, place, raw, gain): (h,) |x|^2; (h,) each row's own column, which is left out, or a number
            outside 0 .. w - 1; (h,) places in the features as they came; these; (d,) the scale of their differences.
        columns: (size, place, raw): the same of the w columns, which are sorted by class.
        starts: (runs + 1,) where the classes begin among the columns.
        labels: (runs,) the classes.
        low: `Basis.lowest`.
        high: `Basis.highest`.
        moments: (bins, 3, r) `Basis.moments`.
        sums: (h, classes + 1, r) float64, added to; the last row, that of all classes together, is left alone.
    """
    sizes, own, column_sizes = rows[0], rows[1], columns[0]
    squared = np.empty(CHUNK, np.float32)
    bits = squared.view(np.int32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    table = np.zeros((2, moments.shape[0]), np.uint64)
    for i in range(products.shape[0]):
        for run in range(labels.shape[0]):
            into = sums[i, labels[run]]
            for a in range(starts[run], starts[run + 1], CHUNK):
                w = min(CHUNK, starts[run + 1] - a)
                if _distances(products, i, a, w, sizes[i], column_sizes, squared):
                    _close_distances(products, i, a, w, rows, columns, squared)
                mine = _leave_out(own[i], squared, a, w)
                first, last = _to_bins(bits, w, low, high, bins, places)
                if w < FEW:
                    for j in range(w):
                        if j != mine:
                            t = np.float64(places[j])
                            _add(into, 1.0, t, t * t, moments[bins[j]])
                    continue
                _count(bins, places, w, words, table)
                if mine >= 0:
                    table[mine % 2, bins[mine]] -= words[mine]
                _empty(table, first, last, moments, into)


@loop()
def deposit_vectors(products, rows, columns, targets, low, high, moments, sums):
    """Add the pairs of a tile to the bins' sums, weighted by each target column and by one.

    Args:
        products: (h, w) inner products of centred points.
        rows: As in `deposit_labels`.
        columns: As in `deposit_labels`, in any order.
        targets: (w, c) float32.
        low: `Basis.lowest`.
        high: `Basis.highest`.
        moments: (bins, 3, r) `Basis.moments`.
        sums: (h, c + 1, r) float64, added to; the last row is that of the weight one.
    """
    sizes, own, column_sizes = rows[0], rows[1], columns[0]
    squared = np.empty(CHUNK, np.float32)
    bits = squared.view(np.int32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    table = np.zeros((2, moments.shape[0]), np.uint64)
    c = targets.shape[1]
    weighted = np.zeros((moments.shape[0], 3, c), np.float32)
    for i in range(products.shape[0]):
        begin, end = np.int32(1 << 30), np.int32(0)
        for a in range(0, products.shape[1], CHUNK):
            w = min(CHUNK, products.shape[1] - a)
            if _distances(products, i, a, w, sizes[i], column_sizes, squared):
                _close_distances(products, i, a, w, rows, columns, squared)
            mine = _leave_out(own[i], squared, a, w)
            first, last = _to_bins(bits, w, low, high, bins, places)
            _count(bins, places, w, words, table)
            if mine >= 0:
                table[mine % 2, bins[mine]] -= words[mine]
            _empty(table, first, last, moments, sums[i, c])
            for j in range(w):
                if j != mine:
                    t, k = np.float32(places[j]), bins[j]
                    for q in range(c):
                        y = targets[a + j, q]
                        weighted[k, 0, q] += y
                        weighted[k, 1, q] += t * y
                        weighted[k, 2, q] += t * t * y
            begin, end = min(begin, first), max(end, last)
        for k in range(begin, end + 1):
            part = weighted[k]
            for q in range(c):
                _add(sums[i, q], np.float64(part[0, q]), np.float64(part[1, q]), np.float64(part[2, q]), moments[k])
            part[:] = 0


@loop(fastmath=_FAST, error_model="numpy")
def _to_places(squared, bits, width, low, high, centre, offset, slope, place, before, last):
    """Write t, T_0 and T_1 of every pair; return the sum of t, and whether a distance is out of range."""
    total, one = np.float32(0), np.float32(1)
    for j in range(width):
        t = offset + slope / (squared[j] + centre)
        place[j], before[j], last[j] = t, one, t
        total += t
    shortest, longest = high, low
    for j in range(width):  # positive floats are ordered as their bit patterns are, and these vectorise
        shortest, longest = min(shortest, bits[j]), max(longest, bits[j])
    return total, shortest < low or longest > high


@loop(fastmath=_FAST)
def _next_eight(place, before, last, width, sums, run, k):
    """Add the next eight Chebyshev polynomials of all pairs to sums[run, k:], by T_(k+1) = 2 t T_k - T_(k-1)."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
    for j in range(width):
        twice, a, b = place[j] + place[j], before[j], last[j]
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
        before[j], last[j] = a, b
    sums[run, k] += s0
    sums[run, k + 1] += s1
    sums[run, k + 2] += s2
    sums[run, k + 3] += s3
    sums[run, k + 4] += s4
    sums[run, k + 5] += s5
    sums[run, k + 6] += s6
    sums[run, k + 7] += s7


@loop()
def deposit_series(products, rows, columns, starts, labels, low, high, centre, offset, slope, sums, beyond):
    """Add the pairs of a tile to the polynomials' sums, class by class.

    Args:
        products: (h, w) inner products of centred points.
        rows: As in `deposit_labels`.
        columns: As in `deposit_labels`.
        starts: (runs + 1,) where the classes begin among the columns.
        labels: (runs,) the classes.
        low: Bit pattern of `Series.lowest` in float32.
        high: Bit pattern of `Series.highest`.
        centre: `Series.centre`.
        offset: `Series.offset`.
        slope: `Series.slope`.
        sums: (h, classes + 1, r) float64, added to; the last row, that of all classes together, is left alone.
        beyond: (h,) set where a row has a distance that the series does not hold for; nothing of it is added.
    """
    sizes, own, column_sizes = rows[0], rows[1], columns[0]
    squared, place = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    bits = squared.view(np.int32)
    before, last = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    found = np.empty((labels.shape[0], sums.shape[2]))
    for i in range(products.shape[0]):
        found[:] = 0
        for run in range(labels.shape[0]):
            for a in range(starts[run], starts[run + 1], CHUNK):
                w = min(CHUNK, starts[run + 1] - a)
                if _distances(products, i, a, w, sizes[i], column_sizes, squared):
                    _close_distances(products, i, a, w, rows, columns, squared)
                mine = _leave_out(own[i], squared, a, w)
                if mine >= 0 and w == 1:
                    continue
                total, out = _to_places(squared, bits, w, low, high, centre, offset, slope, place, before, last)
                beyond[i] |= out
                found[run, 0] += w
                if mine >= 0:
                    found[run, 0] -= 1
                    total -= place[mine]
                    before[mine] = last[mine] = 0
                found[run, 1] += total
                for k in range(2, found.shape[1], STEP):
                    _next_eight(place, before, last, w, found, run, k)
        if not beyond[i]:
            for run in range(labels.shape[0]):
                for k in range(found.shape[1]):
                    sums[i, labels[run], k] += found[run, k]


@loop(fastmath={"contract"})
def curves(values, squares, targets, offset, energy, change, self_weight, by_column):
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
        by_column: (4, m, c) gets what each column has of energy and change added, its own product with what is kept of
            it, and that itself; or (0, 0, 0).
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
                if by_column.shape[0]:
                    by_column[0, k, q] += low * low
                    by_column[1, k, q] += 2.0 * low * speed
                    by_column[2, k, q] += low * (y + shift)
                    by_column[3, k, q] += low


@loop()
def transpose(block, out):
    """Write the transpose of a block, a few cache lines at a time."""
    step = 64
    for a in range(0, block.shape[0], step):
        for i in range(out.shape[0]):
            for j in range(a, min(a + step, block.shape[0])):
                out[i, j] = block[j, i]


@loop(fastmath=_FAST)
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


@loop(fastmath=_FAST)
def extent(x, origin, total, low, high):
    """Add up the differences of points to an origin, column by column, and find their smallest and largest.

    Args:
        x: (n, d) features as they came.
        origin: (d,) float64.
        total: (d,) float64, added to.
        low: (d,) float64, lowered.
        high: (d,) float64, raised.
    """
    for i in range(x.shape[0]):
        point = x[i]
        for k in range(point.shape[0]):
            value = np.float64(point[k]) - origin[k]
            total[k] += value
            low[k] = min(low[k], value)
            high[k] = max(high[k], value)


@loop(fastmath=_FAST)
def sizes(x, shift, gain, out):
    """Write |(x - shift) gain|^2 of every point in float64."""
    for i in range(x.shape[0]):
        point, size = x[i], 0.0
        for k in range(point.shape[0]):
            value = (np.float64(point[k]) - shift[k]) * gain[k]
            size += value * value
        out[i] = size
