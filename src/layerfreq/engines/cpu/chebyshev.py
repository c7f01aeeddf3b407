"""Kernels at all cutoffs as polynomials of the distance, for points that keep some distance from each other.

If distances span few octaves, as they do in many dimensions, the kernels exp(-d u / 2), their derivatives and their
squares are sums of 13 to 49 Chebyshev polynomials of a place t in [-1, 1], which is a rational function of the squared
distance d. Instead of the T_k(t), products of few of them are added up over the pairs, which span the same: most cost
one multiplication with addition per pair, and they vectorise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64

from layerfreq.engines.cpu.expansion import Across, Classes, Expansion, Strays, Tile, Weights
from layerfreq.engines.threads import scratch

NODES = 64
WIDEST = 1e7  # ratio of squared distances; beyond, no node lies where the finest kernel falls


@dataclass(frozen=True)
class Series(Expansion):
    """Polynomials of t = offset + slope / (d + centre), up to degree r - 1, that span the kernels at all cutoffs.

    With D_k = 2 T_k, they are 1, D_1, D_2, D_3, D_4, D_4 D_1, D_4 D_2, D_4 D_3, D_8, D_8 D_1, and so on.

    Attributes:
        lowest: Shortest squared distance for which the series holds.
        highest: Longest one.
        centre: Centre of the map from squared distances d to t.
        offset: Offset of the map.
        slope: Slope of the map.
        values: (r, 2 m) turns sums of these functions into sums of the kernel, and of its derivative in 1/delta.
        square: (r, m) turns them into sums of its square.
    """

    lowest: float
    highest: float
    centre: float
    offset: float
    slope: float
    values: Float64[np.ndarray, "r two_m"]
    square: Float64[np.ndarray, "r m"]

    def ready(self, targets: Weights) -> Any:
        """See `Expansion.ready`: a class is a run of ones, a target column is a run of all points."""
        from layerfreq.engines.cpu.series_kernels import Runs

        if isinstance(targets, Classes):
            edges, labels = targets
            ones = np.ones((1, int(edges[-1])), np.float32)
            every = np.ones(len(labels), bool)
            return Runs(edges[:-1], edges[1:], labels, np.zeros(len(labels), np.int64), ones, every)
        w, c = targets.shape
        into, weights = np.arange(c + 1), np.ones((c + 1, w), np.float32)
        weights[:c] = targets.T
        return Runs(np.zeros(c + 1, np.int64), np.full(c + 1, w), into, into, weights, into == c)

    @cached_property
    def _places(self) -> Any:
        from layerfreq.engines.cpu.series_kernels import Places

        return Places(*np.array([self.lowest, self.highest, self.centre, 2 * self.offset, 2 * self.slope], np.float32))

    def deposit(
        self, tile: Tile, targets: Any, sums: Float64[np.ndarray, "h c_1 r"], across: Across | None = None
    ) -> Strays | None:
        """See `Expansion.deposit`; the series holds within its range of distances."""
        from layerfreq.engines.cpu import series_kernels as kernels

        pairs = tile.products.size
        strays = Strays(*(scratch(1, pairs, kind, which)[0] for which, kind in enumerate(("i4", "i4", "f4"))))
        room = scratch(1, kernels.ROOM + kernels.LANES * (len(self.square) + kernels.LANES), np.float32, 3)[0]
        turned = (True, *across) if across else (False, targets, sums)
        count = kernels.add_tile(tile, targets, sums, *turned, self._places, strays, room)
        return Strays(*(part[:count] for part in strays)) if count else None


def kernel_series(
    inv_delta: Float64[np.ndarray, " m"], nearest: float, farthest: float, tolerance: float
) -> Series | None:
    """Find the polynomials for some cutoffs and a range of squared distances.

    Args:
        inv_delta: (m,) increasing cutoffs.
        nearest: The shortest squared distance.
        farthest: The longest one.
        tolerance: The absolute error that a kernel may have.

    Returns:
        The series, or None if it would take more polynomials than loops are made for: then bins are cheaper.
    """
    from layerfreq.engines.cpu.series_kernels import SIZES

    farthest = max(farthest, 1e-30)
    # The map is finest around `centre`, which lies between the ends, and not nearer than the finest kernel resolves nor
    # beyond the far end, where the map would lose all digits.
    finest = min(max(nearest, 6 / float(inv_delta[-1]), 1e-30), farthest)
    if farthest > WIDEST * finest:
        return None
    # Loops compute the map in float32, so the polynomials are found for its rounded parameters.
    centre = float(np.float32(math.sqrt(finest * farthest)))
    low, high = ((d - centre) / (d + centre) for d in (nearest, farthest))
    middle, half = (low + high) / 2, (high - low) / 2
    if not half > 0:
        return None
    angles, transform = _nodes()
    offset, slope = float(np.float32((1 - middle) / half)), float(np.float32(-2 * centre / half))
    distances = np.maximum(slope / (np.cos(angles) - offset) - centre, 0)
    with np.errstate(over="ignore"):
        kernel = np.exp(-np.outer(distances, inv_delta / 2))
    m = len(inv_delta)
    functions = np.hstack([kernel, kernel * (-distances[:, None] / 2), np.square(kernel)])
    terms = transform @ functions
    size = np.abs(terms)
    size[:, m : 2 * m] *= inv_delta  # derivative times cutoff, which has no unit, like the kernel itself
    left_out = np.cumsum(size.max(axis=1)[::-1])[::-1]
    r = next((size for size in SIZES if left_out[size] < tolerance), None)
    if r is None:
        return None
    terms = _of_products(terms[:r])
    return Series(
        lowest=nearest,
        highest=farthest,
        centre=centre,
        offset=offset,
        slope=slope,
        values=np.ascontiguousarray(terms[:, : 2 * m]),
        square=np.ascontiguousarray(terms[:, 2 * m :]),
    )


def _of_products(terms: Float64[np.ndarray, "r k"]) -> Float64[np.ndarray, "r k"]:
    """Turn coefficients of T_0, T_1, ... into those of the functions of `Series`.

    D_4b D_a = D_(4b+a) + D_(4b-a), so each product leaves something to one of the polynomials before.
    """
    out = terms / 2
    out[0] *= 2
    for k in range(len(out) - 1, 4, -1):
        if k % 4:
            out[k - 2 * (k % 4)] -= out[k]
    return out


@cache
def _nodes() -> tuple[Float64[np.ndarray, " nodes"], Float64[np.ndarray, "nodes nodes"]]:
    """Return the angles of the nodes, and the matrix that turns values there into coefficients."""
    angles = math.pi * (np.arange(NODES) + 0.5) / NODES
    transform = np.cos(np.outer(np.arange(NODES), angles)) * (2 / NODES)
    transform[0] /= 2
    return angles, transform
