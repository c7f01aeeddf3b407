"""Where features come from: held in memory, or computed anew each time that somebody wants to see them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from layerfreq.data.source import Source
from layerfreq.data.validation import Scale, as_features
from layerfreq.engines.base import Points, chunks, extent, gains, power_of_two, sizes
from layerfreq.engines.coincidence import fingerprints, mean_count
from layerfreq.errors import InputError
from layerfreq.isolation.memory import reserve

DRIFT = 1e-3  # of the largest number of a point, by which its features may differ between passes (accelerators do)


class Held(Source):
    """Features that are in memory."""

    def __init__(self, features: Tensor) -> None:
        self.features, self.device = features, features.device

    def visit(self, see: Callable[[int, Tensor], None]) -> None:
        """See `Source.visit`; all points are one block."""
        see(0, self.features)


class Gather:
    """Copies chosen points out of a source as it passes by, or makes sure that they are still the same.

    Args:
        index: (r,) the numbers of the points.
    """

    def __init__(self, index: Tensor) -> None:
        self.index = index
        self.rows = torch.empty(0)

    def see(self, first: int, block: Tensor) -> None:
        """Copy those that are in the block."""
        if not len(self.rows):
            self.rows = reserve(len(self.index), block.shape[1], block.dtype, block.device)
        to, at = self._inside(first, block)
        for s in chunks(len(to), block.shape[1]):
            self.rows[to[s]] = block[at[s]]

    def check(self, first: int, block: Tensor) -> None:
        """Compare those that are in the block with the copies.

        Raises:
            InputError: If one differs.
        """
        to, at = self._inside(first, block)
        for s in chunks(len(to), block.shape[1]):
            kept, now = self.rows[to[s]], block[at[s]]
            if not bool(((kept - now).abs().amax(1) <= DRIFT * kept.abs().amax(1)).all()):
                raise InputError(
                    "inputs: points or their features change from one pass to the next, and several are needed; pass a "
                    "loader that does not shuffle and a model without noise, or raise `memory` to hold all features"
                )

    def _inside(self, first: int, block: Tensor) -> tuple[Tensor, Tensor]:
        to = torch.nonzero((self.index >= first) & (self.index < first + len(block)))[:, 0]
        return to.to(block.device), (self.index[to] - first).to(block.device)


@dataclass
class Extent:
    """What has to be known of features before they are compared, found in one pass; differences are to the first point.

    Attributes:
        scale: As in `as_points`.
        n: Points so far.
        kind: An empty tensor of the features' width, dtype and device.
    """

    scale: Scale = "raw"
    n: int = 0
    kind: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    _first: Tensor = field(default_factory=lambda: torch.empty(0))
    _total: Tensor | None = None
    _low: Tensor | None = None
    _high: Tensor | None = None
    _gain: float = 1.0
    _sum: float = 0.0
    _largest: float = 0.0
    _prints: list[Tensor] = field(default_factory=list)

    def see(self, first: int, block: Tensor) -> None:
        """Take in a block."""
        del first
        block = as_features(block)
        if self._total is None or self._low is None or self._high is None:
            self.kind = block[:0].clone()
            wide = torch.float32 if block.device.type == "mps" else torch.float64
            self._first = block[0].to(wide)
            self._total, self._low, self._high = extent(block, self._first)
            self._gain = power_of_two(
                float(torch.maximum(self._high, -self._low).max()), wide, 500
            )  # what follows may be larger
        else:
            total, low, high = extent(block, self._first)
            self._total = self._total + total
            self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        self.n += len(block)
        self._prints.append(fingerprints(block).cpu())
        if self.scale == "maxabs":
            return
        squares = sizes(Points(block, self._first, torch.full_like(self._first, self._gain), 0.0, 0.0))
        self._sum += float(squares.sum())
        self._largest = max(self._largest, float(squares.max()))

    def points(self) -> Points:
        """Return what `as_points` would of all features, without the features; the radius may be larger.

        Raises:
            InputError: If differences overflow.
        """
        assert self._total is not None
        assert self._low is not None
        assert self._high is not None
        mean = self._total / self.n
        largest = torch.maximum(self._high - mean, mean - self._low).nan_to_num(math.inf, math.inf)
        if not math.isfinite(self._sum):
            largest[:] = math.inf
        gain, shift = gains(largest, self.kind.dtype, self.scale), self._first + mean
        together = mean_count(torch.cat(self._prints))
        if self.scale == "maxabs":  # no coordinate is larger than one
            return Points(self.kind, shift, gain, 0.0, math.sqrt(int((gain > 0).sum())), coincident=together)
        offset, change = float((mean * self._gain).square().sum()), float(gain[0]) / self._gain
        # The sum of squares about the first point, less what that point is off the mean.
        spread = max(0.0, self._sum / self.n - offset) * change * change
        radius = (math.sqrt(self._largest) + math.sqrt(offset)) * change
        return Points(self.kind, shift, gain, spread, radius, coincident=together)
