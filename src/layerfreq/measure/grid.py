"""The default cutoffs, which cover the distances of the features."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.validation import Curve
from layerfreq.engines import Points
from layerfreq.engines.base import piece
from layerfreq.engines.blocked import squared_distances

SAMPLE, LEAST = 256, 32  # most and fewest points whose distances the grid has to cover
NUMBERS = 1 << 22  # most numbers in the features of these points: if features are wide, there are fewer points
WIDE = 1 << 26  # numbers in all features; from here on, distances for the grid are taken in float32
CUTOFFS = 257  # most cutoffs of a default grid


def a_few(n: int, features: Tensor, centres: Tensor | None = None) -> Tensor:
    """Return the indices of a few of n points, in order, whose distances the grid has to cover.

    If filter centres are drawn, these are some of them, since their distances are found anyway; else evenly chosen.

    Args:
        n: Number of points.
        features: (k, d), for their width and device.
        centres: The filter centres, if they are known and fewer than the points.
    """
    most = min(SAMPLE, max(LEAST, NUMBERS // max(1, features.shape[1])))
    if centres is None or len(centres) >= n:
        few = _spread(n, most)
    elif len(centres) < LEAST:
        few = torch.unique(torch.cat([centres, _spread(n, LEAST)]))
    else:
        few = centres.sort().values[_spread(len(centres), most)]
    return few.to(features.device)


def _spread(n: int, most: int) -> Tensor:
    """Return at most `most` of the numbers below n, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64, device="cpu").round().long()


class Reach:
    """Shortest and longest distances of a few points to all others, found as these pass by.

    Args:
        points: Centre and gain.
        some: (s,) the indices of the few points.
        features: (s, d) their features.
        n: Number of points.
    """

    def __init__(self, points: Points, some: Tensor, features: Tensor, n: int) -> None:
        single = n * features.shape[1] > WIDE and not points.double
        self._points, self._some, self._dtype = points, some, torch.float32 if single else points.wide
        self._raw = features
        self._x = torch.empty(features.shape, dtype=self._dtype, device=features.device)
        self._x[:] = self._scaled(features)
        self._farthest = 0.0
        self._nearest = torch.full((len(some),), math.inf, dtype=self._dtype, device=features.device)

    def _scaled(self, features: Tensor) -> Tensor:
        return replace(self._points, features=features).block(slice(None)).to(self._dtype)

    def see(self, first: int, block: Tensor) -> None:
        """Take in a block."""
        most = piece(block.device, NUMBERS // 2)
        step = max(16, min(4096, most // max(1, block.shape[1])))
        for start in range(0, len(block), step):
            raw = block[start : start + step]

            def difference(i: Tensor, j: Tensor, raw: Tensor = raw) -> Tensor:
                return self._points.difference(self._raw[i], raw[j])

            squared = squared_distances(self._x, self._scaled(raw), self._some, first + start, difference)
            self._farthest = max(self._farthest, float(squared.max()))
            squared[squared == 0] = math.inf
            self._nearest = torch.minimum(self._nearest, squared.min(dim=1).values)

    def grid(self, shards: Shards) -> Curve:
        """Return cutoffs of the scaled points that cover these distances."""
        farthest, nearest = shards.largest(self._farthest), shards.min(self._nearest)
        return covering(farthest, nearest.double().cpu().numpy())


def covering(farthest: float, nearest: Float64[np.ndarray, " s"]) -> Curve:
    """Return cutoffs that cover squared distances, from all points in one window to each in its own.

    Args:
        farthest: The longest squared distance.
        nearest: (s,) squared distances of some points to their nearest neighbours; infinite if there is none.
    """
    nearest = nearest[np.isfinite(nearest)]
    if farthest == 0 or len(nearest) == 0:
        return np.geomspace(0.01, 100, 33)
    low, high = 0.02 / farthest, 30 / max(float(np.quantile(nearest, 0.05)), 1e-300)
    high = min(max(high, low * 16), 1e300)
    return np.geomspace(low, high, max(17, min(CUTOFFS, 1 + math.ceil(6 * math.log2(high / low)))))
