"""All cutoffs from one table, whatever the range of distances: logarithmic bins, and kernels as few functions.

The kernel exp(-d u / 2), over the squared distances d and the cutoffs u, is a matrix of low rank: its values at any
number of cutoffs, its derivative and its square (the kernel at 2u) follow from about twenty functions of d. Inside a
bin, each of them is a parabola in d, so the number of pairs in a bin, their mean place and their mean squared place are
all that has to be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from layerfreq.engines.cpu.expansion import Across, Classes, Expansion, Strays, Tile
from layerfreq.engines.threads import scratch

SAMPLES = 8  # distances and cutoffs per octave from which the functions are found
NEAR = 1e-7  # u d / 2 below which the kernel is taken as one
FAR = 45.0  # u d / 2 above which it is taken as zero
SHORTEST = 2.0**-120  # squared distance, near float32's smallest, below which points coincide
FEW_DISTANCES = 8  # so many count as few
OFTEN = 8  # so many pairs at one distance, of those that are looked at, are no chance
SOME = 1 << 14  # about how many of all distances are looked at
SAME = 1e-5  # relative difference of distances that are equal up to rounding
NOWHERE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Basis(Expansion):
    """Functions phi of the squared distance that span the kernels at all cutoffs.

    With the moments M = (count, sum of places, sum of their squares without the last bits) of the pairs in each bin,
    sum over pairs of phi = sum over bins of M @ moments[bin], and sums of kernels are that times the last two.

    Attributes:
        lowest: Bit pattern of the float32 at which the first bin begins; shorter distances count as it.
        highest: The last bit pattern in the last bin; longer distances count as it.
        moments: (bins, 3, r) the parabolas of the r functions.
        values: (r, 2 m) for the kernel, and for its derivative with respect to 1/delta.
        square: (r, m) for its square.
    """

    lowest: int
    highest: int
    moments: Float64[np.ndarray, "bins 3 r"]
    values: Float64[np.ndarray, "r two_m"]
    square: Float64[np.ndarray, "r m"]

    def deposit(
        self, tile: Tile, targets: Any, sums: Float64[np.ndarray, "h c_1 r"], across: Across | None = None
    ) -> Strays | None:
        """See `Expansion.deposit`; it holds for every pair."""
        from layerfreq.engines.cpu import kernels, pair_kernels

        table = pair_kernels.Table(np.int32(self.lowest), np.int32(self.highest), self.moments)
        if isinstance(targets, Classes):
            pair_kernels.classes_to_bins(tile, targets, table, sums)
        else:
            pair_kernels.vectors_to_bins(tile, targets, table, sums)
        if across is not None:
            height, width = tile.products.shape
            turned = scratch(width, height, tile.products.dtype, 1)
            kernels.transpose(tile.products, turned)
            nowhere = np.full(len(turned), -1)
            self.deposit(tile._replace(products=turned, rows=tile.columns, columns=tile.rows, own=nowhere), *across)


def kernel_basis(
    inv_delta: Float64[np.ndarray, " m"],
    farthest: float,
    tolerance: float,
    only: Float32[np.ndarray, " k"] = NOWHERE,
) -> Basis:
    """Find the functions for some cutoffs, and distances up to `farthest`.

    Args:
        inv_delta: (m,) increasing cutoffs.
        farthest: An upper bound of the squared distances, within float32's range.
        tolerance: The absolute error of a kernel that may be left by leaving functions out.
        only: Squared distances that many pairs share: parabolas are exact there.
    """
    from layerfreq.engines.cpu.pair_kernels import BIN_SHIFT, PLACE_BITS, SQUARE_SHIFT

    farthest = max(farthest, 2.0**-100)
    shortest = min(max(NEAR / float(inv_delta[-1]), SHORTEST), farthest / 4)
    # Nothing changes beyond these cutoffs; points closer than the shortest distance count as coincident.
    inv_delta = np.clip(inv_delta, NEAR / farthest, NEAR / shortest)
    first, last = float(inv_delta[0]), 2 * float(inv_delta[-1])
    farthest = max(min(farthest, 2 * FAR / first), 4 * shortest)
    lowest = _bits(shortest) >> BIN_SHIFT
    bins = (_bits(farthest) >> BIN_SHIFT) - lowest + 1
    edges = ((np.arange(bins + 1) + lowest) << BIN_SHIFT).astype(np.int32).view(np.float32).astype(np.float64)

    octaves = np.log2(farthest / shortest), np.log2(last / first)
    distances = np.geomspace(shortest, edges[-1], 8 + int(SAMPLES * octaves[0]))
    cutoffs = np.geomspace(first, last, 8 + int(SAMPLES * octaves[1]))
    left, sizes, right = np.linalg.svd(_kernel(distances, cutoffs), full_matrices=False)
    rank = max(1, int(np.sum(sizes > tolerance)))
    left = left[:, :rank]

    # At Gauss-Legendre points, the error of a parabola averages out over pairs that are spread smoothly in a bin.
    points, _ = np.polynomial.legendre.leggauss(3)
    places = np.tile((points + 1) / 2, (bins, 1))
    free = np.ones(places.shape, bool)
    for distance in only.tolist():
        # Integers lie at edges of bins, and rounding puts them on either side.
        for k in {(_bits(distance * side) >> BIN_SHIFT) - lowest for side in (1 - SAME, 1 + SAME)}:
            if 0 <= k < bins and free[k].any():
                place = min(max(0.0, (distance - edges[k]) / (edges[k + 1] - edges[k])), 1.0)
                nearest = np.where(free[k], np.abs(places[k] - place), np.inf).argmin()
                places[k, nearest], free[k, nearest] = place, False
    inside = (edges[:-1, None] + np.diff(edges)[:, None] * places).reshape(-1)
    functions = (_kernel(inside, cutoffs) @ (right[:rank] / sizes[:rank, None]).T).reshape(bins, 3, rank)
    # Mean place and mean square of all places that are rounded down to the same number.
    at = places * 2**PLACE_BITS
    counted = np.stack([np.ones_like(at), at - 0.5, (at**2 - at + 1 / 3) / 2**SQUARE_SHIFT - 0.5], axis=2)
    kernel = _kernel(distances, inv_delta)
    return Basis(
        lowest=lowest << BIN_SHIFT,
        highest=((lowest + bins) << BIN_SHIFT) - 1,
        moments=np.linalg.solve(counted, functions),
        values=left.T @ np.hstack([kernel, kernel * distances[:, None] / -2]),
        square=left.T @ _kernel(distances, 2 * inv_delta),
    )


def few(squared: Shaped[np.ndarray, "s n"]) -> tuple[Float32[np.ndarray, " k"], float]:
    """Return the squared distances that many pairs share, as of integer, binary or quantised features.

    If there are no more than `FEW_DISTANCES`, up to rounding, these are all of them. Of more, they are those that occur
    `OFTEN`, in bins that hold no more distances than a parabola passes through.

    Returns:
        The squared distances, and the share of all pairs that have one of them.
    """
    from layerfreq.engines.cpu.pair_kernels import BIN_SHIFT

    some = np.sort(squared[:, :: 1 + squared.size // SOME].astype(np.float32), axis=None)
    some = some[np.isfinite(some)]
    some = some[some > SAME * some[-1:]]  # the others are of points in one place, up to rounding
    starts = np.flatnonzero(np.diff(some, prepend=0) > SAME * some)
    if len(starts) <= FEW_DISTANCES:
        return some[starts], 1.0
    counts = np.diff(starts, append=len(some))
    if counts.max() < OFTEN:  # as of most features
        return some[:0], 0.0
    middle = some[starts + counts // 2]
    narrow = some[starts + counts - 1] - some[starts] <= 4 * SAME * middle
    _, bin_of, inside = np.unique(middle.view(np.int32) >> BIN_SHIFT, return_inverse=True, return_counts=True)
    shared = (counts >= OFTEN) & narrow & (inside[bin_of] <= 3)
    return middle[shared], float(counts[shared].sum() / len(some))


def _kernel(distances: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    return np.exp(-np.outer(distances, cutoffs) / 2)


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))
