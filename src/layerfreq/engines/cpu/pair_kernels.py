"""Compiled loops over the pairs of a tile, without the interpreter's lock: inner products to distances, and to bins.

They take one row of a tile at a time: vectorised steps write to small buffers that stay in the first-level cache, and
one scalar step adds to the bins. The constants of this file are compiled into the loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layerfreq.engines.compiling import loop

CHUNK = 512  # most pairs whose three moments fit a 64-bit word: 10 + 25 + 29 bits
FEW = 32  # pairs; for fewer, counting in bins does not pay
MANTISSA = 23  # bits of a float32 below its exponent
BIN_BITS = 5  # 32 bins an octave: the top bits of a float32 pattern are a logarithm
PLACE_BITS = 16  # resolution of a distance inside its bin: nearly all that float32 has
SQUARE_SHIFT = 12  # low bits of a place's square that are dropped
BIN_SHIFT = MANTISSA - BIN_BITS
PLACE_SHIFT = BIN_SHIFT - PLACE_BITS
_PLACES = (1 << PLACE_BITS) - 1
_COUNT, _FIRST = np.uint64(54), np.uint64(29)
_FIRST_MASK, _SECOND_MASK = np.uint64((1 << 25) - 1), np.uint64((1 << 29) - 1)
CLOSE = 1 / 32  # of |x|^2 + |y|^2: squared distances below have lost digits in the product


class Table(NamedTuple):
    """A table of bins, as `bins.Basis` describes it."""

    lowest: np.int32
    highest: np.int32
    moments: np.ndarray  # (bins, 3, r)


@loop(fastmath={"reassoc", "contract", "nsz"})
def _difference(x, y, gain):
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        step = (x[k] - y[k]) * gain[k]
        total += step * step
    return total


@loop()
def distances(products, i, start, width, size, sizes, squared):
    """Turn inner products of a row into squared distances; return whether some have lost digits."""
    two, close, found = products.dtype.type(2), products.dtype.type(CLOSE), np.int32(0)
    # Slices, since the compiler does not vectorise with an index that it cannot prove not to be negative.
    inner, others = products[i, start : start + width], sizes[start : start + width]
    for j in range(width):
        both = size + others[j]
        value = both - two * inner[j]
        found |= np.int32(value < close * both)
        squared[j] = np.float32(value)
    return found


@loop()
def close_distances(tile, i, start, width, squared):
    """Replace the distances that have lost digits by those from the features themselves."""
    products, size, sizes = tile.products, tile.rows.sizes[i], tile.columns.sizes
    close, x = products.dtype.type(CLOSE), tile.rows.raw[tile.rows.place[i]]
    raw, place = tile.columns.raw, tile.columns.place
    for j in range(start, start + width):
        both = size + sizes[j]
        if both - products.dtype.type(2) * products[i, j] < close * both:
            squared[j - start] = np.float32(_difference(x, raw[place[j]], tile.gain))


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
def _square(place):
    """Return the square of a place as bins count it, exact in float32."""
    return np.float64(np.uint64(place) * np.uint64(place) >> np.uint64(SQUARE_SHIFT))


@loop()
def _count(bins, places, width, words, counts):
    """Add count, place and squared place of every pair to its bin, in one 64-bit addition per pair."""
    for j in range(width):
        place = np.uint64(places[j])
        words[j] = (np.uint64(1) << _COUNT) + (place << _FIRST) + (place * place >> np.uint64(SQUARE_SHIFT))
    # Neighbours often share a bin, so they are added to two rows of counts and do not wait for each other.
    even, odd = counts[0], counts[1]
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
def _empty(counts, first, last, moments, sums):
    """Add the counted moments to the functions' sums, and clear the counts."""
    for k in range(first, last + 1):
        word = counts[0, k] + counts[1, k]
        if word:
            n = np.float64(np.int64(word >> _COUNT))
            p = np.float64(np.int64((word >> _FIRST) & _FIRST_MASK))
            _add(sums, n, p, np.float64(np.int64(word & _SECOND_MASK)), moments[k])
            counts[0, k] = counts[1, k] = np.uint64(0)


@loop()
def _leave_out(own, squared, start, width):
    """Give the row's own point a neighbour's distance, which keeps ranges narrow; return its index, or -1."""
    at = own - start
    if at < 0 or at >= width:
        return -1
    if width > 1:
        squared[at] = squared[at - 1 if at else 1]
    return at


@loop()
def classes_to_bins(tile, classes, table, sums):
    """Add the pairs of a tile to the bins' sums, class by class.

    Args:
        tile: A `Tile`, whose columns are sorted by class.
        classes: The `Classes` of its columns.
        table: The `Table` of bins.
        sums: (h, classes + 1, r) float64, added to; the last row, for all classes together, is not changed.
    """
    squared = np.empty(CHUNK, np.float32)
    bits = squared.view(np.int32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    low, high, moments = table.lowest, table.highest, table.moments
    starts, labels = classes.starts, classes.labels
    counts = np.zeros((2, moments.shape[0]), np.uint64)
    products, sizes, column_sizes, own = tile.products, tile.rows.sizes, tile.columns.sizes, tile.own
    for i in range(products.shape[0]):
        size = sizes[i]
        for run in range(labels.shape[0]):
            into = sums[i, labels[run]]
            for a in range(starts[run], starts[run + 1], CHUNK):
                w = min(CHUNK, starts[run + 1] - a)
                if distances(products, i, a, w, size, column_sizes, squared):
                    close_distances(tile, i, a, w, squared)
                mine = _leave_out(own[i], squared, a, w)
                first, last = _to_bins(bits, w, low, high, bins, places)
                if w < FEW:
                    for j in range(w):
                        if j != mine:
                            _add(into, 1.0, np.float64(places[j]), _square(places[j]), moments[bins[j]])
                    continue
                _count(bins, places, w, words, counts)
                if mine >= 0:
                    counts[mine % 2, bins[mine]] -= words[mine]
                _empty(counts, first, last, moments, into)


@loop()
def vectors_to_bins(tile, targets, table, sums):
    """Add the pairs of a tile to the bins' sums, weighted by each target column and by one.

    Args:
        tile: A `Tile`.
        targets: (w, c) float32, of its columns.
        table: The `Table` of bins.
        sums: (h, c + 1, r) float64, added to; the last row is for the weight one.
    """
    squared = np.empty(CHUNK, np.float32)
    bits = squared.view(np.int32)
    bins, places, words = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint64)
    low, high, moments, c = table.lowest, table.highest, table.moments, targets.shape[1]
    counts = np.zeros((2, moments.shape[0]), np.uint64)
    weighted = np.zeros((moments.shape[0], 3, c), np.float32)
    products, sizes, column_sizes, own = tile.products, tile.rows.sizes, tile.columns.sizes, tile.own
    for i in range(products.shape[0]):
        size = sizes[i]
        begin, end = np.int32(1 << 30), np.int32(0)
        for a in range(0, targets.shape[0], CHUNK):
            w = min(CHUNK, targets.shape[0] - a)
            if distances(products, i, a, w, size, column_sizes, squared):
                close_distances(tile, i, a, w, squared)
            mine = _leave_out(own[i], squared, a, w)
            first, last = _to_bins(bits, w, low, high, bins, places)
            _count(bins, places, w, words, counts)
            if mine >= 0:
                counts[mine % 2, bins[mine]] -= words[mine]
            _empty(counts, first, last, moments, sums[i, c])
            for j in range(w):
                if j != mine:
                    t, square, k = np.float32(places[j]), np.float32(_square(places[j])), bins[j]
                    for q in range(c):
                        y = targets[a + j, q]
                        weighted[k, 0, q] += y
                        weighted[k, 1, q] += t * y
                        weighted[k, 2, q] += square * y
            begin, end = min(begin, first), max(end, last)
        for k in range(begin, end + 1):
            part = weighted[k]
            for q in range(c):
                _add(sums[i, q], np.float64(part[0, q]), np.float64(part[1, q]), np.float64(part[2, q]), moments[k])
            part[:] = 0
