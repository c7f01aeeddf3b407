"""Centre and size of features, which have to be known before points are compared; found in one pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from layerfreq.data.source import See, Source
from layerfreq.data.validation import Scale, as_features
from layerfreq.engines.base import Points, chunks, piece
from layerfreq.engines.coincidence import coincident, fingerprints, mean_count
from layerfreq.engines.rounding import rounded, squares_of
from layerfreq.engines.threads import hands, parts, threads
from layerfreq.errors import Code, InputError

COMPILED = 1 << 20  # numbers from which compiled loops pay on the CPU
ENOUGH = 400  # points from which they pay, too, since "auto" loads the loops in any case
WORK = 8  # operations per number in these loops
CACHED = 1 << 17  # numbers converted at a time, so that they stay in the cache
LARGEST, CAUTIOUS = 1022, 500  # powers of two that features are scaled by at most: when all are known, and before
OVERFLOW = "features: differences overflow float64; scale the features down"


def read_points(source: Source, scale: Scale = "raw", *others: See) -> Points:
    """Find the centre and the size of a source's features, in one pass over them; two if they may be rounding alone.

    Args:
        source: Source of the features; the points of all its ranks are one set.
        scale: "maxabs" scales every dimension by itself; "raw" and "rms" keep their proportions.
        others: Also called with this rank's blocks.

    Returns:
        The points, without features if the source does not hold them.

    Raises:
        InputError: If the features are so large that their differences overflow, or if computed ones are not finite.
    """
    statistics = Statistics(source, scale)

    def see(first: int, block: Tensor) -> None:
        statistics.see(first, block)
        for other in others:
            other(first, block)

    source.visit_own(see)
    expected = source.shards.counts[source.shards.rank]
    if statistics.n != expected:
        raise Code.CONFLICT(
            f"inputs: {statistics.n} points in one pass, but {expected} targets; pass a fixed probe set"
        )
    points, shards = statistics.points(), source.shards

    def squares(points: Points) -> Tensor:
        total = torch.zeros_like(points.shift)

        def add(first: int, block: Tensor) -> None:
            del first
            total.add_(squares_of(replace(points, features=block)))

        source.visit_own(add)
        return shards.sum(total)

    return replace(points, rounded=rounded(points, shards.n, squares))


class Statistics:
    """Sum, extent and sizes of features that pass by once, in blocks.

    Sum and extent are those of differences to a point of the set: constant features become exact zeros, whatever their
    offset. Sizes are about the mean of the first block. If the features are held, they are one block, and this is the
    mean of all.

    Args:
        source: Where the features come from.
        scale: As in `read_points`.

    Attributes:
        n: Points so far.
    """

    _origin: Tensor
    _total: Tensor
    _low: Tensor
    _high: Tensor
    _near: Points  # centred on the mean of the first block

    def __init__(self, source: Source, scale: Scale) -> None:
        self._features, self._shards = source.features, source.shards
        self._scale: Scale = scale
        self.n, self._sum, self._largest = 0, 0.0, 0.0
        self._marks: list[Tensor] = []  # numbers that show which points coincide

    def see(self, first: int, block: Tensor) -> None:
        """Take in a block of this rank's points."""
        del first
        held, begins = self._features is not None, not self._marks
        block = block if held else as_features(block)
        if begins:
            self._origin = self._common_point(block)
            self._total, self._low, self._high = (torch.zeros_like(self._origin) for _ in range(3))
        total, low, high = extent(block, self._origin)
        self.n += len(block)
        self._total += total
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        if begins:  # later blocks may be larger, or vary in dimensions that are constant here
            kind = block[:0].clone()
            self._near = self._centred(kind, self._scale) if held else self._centred(kind, "raw", CAUTIOUS)
        squares = sizes(replace(self._near, features=block))
        if len(block):  # one wait for both, where they are on a GPU
            total_size, largest = torch.stack([squares.sum(), squares.max()]).tolist()
            self._sum, self._largest = self._sum + total_size, max(self._largest, largest)
        self._marks.append(squares if held else fingerprints(block).cpu())

    def points(self) -> Points:
        """Return the points, about their centre; if the features pass by, the radius is an upper bound.

        Raises:
            InputError: If differences overflow.
        """
        if self._features is None:
            return self._moved()
        spread = float(self._shards.sum(torch.tensor(self._sum, dtype=torch.float64))) / self._shards.n
        return replace(
            self._near,
            features=self._features,
            spread=0.0 if self._scale == "maxabs" else spread,
            radius=math.sqrt(self._shards.largest(self._largest)),
            coincident=coincident(self._features, self._marks[0], self._shards),
        )

    def _moved(self) -> Points:
        """Convert sizes about the first block's mean to sizes about the mean of all."""
        near, together = self._near, mean_count(torch.cat(self._marks))
        points = self._centred(near.features, self._scale)
        if self._scale == "maxabs":  # no coordinate is larger than one
            return replace(points, radius=math.sqrt(int((points.gain > 0).sum())), coincident=together)
        if not math.isfinite(self._sum):
            raise InputError(OVERFLOW)
        # From differences to the origin, which have digits that the two centres may have lost.
        away = (self._total / self.n - (near.shift - self._origin)) * near.gain
        offset, change = float(away.square().sum()), float(points.gain[0] / near.gain[0])
        return replace(
            points,
            spread=max(0.0, self._sum / self.n - offset) * change * change,
            radius=(math.sqrt(self._largest) + math.sqrt(offset)) * change,
            coincident=together,
        )

    def _common_point(self, block: Tensor) -> Tensor:
        """Return the first point of all ranks, in the widest float of the device."""
        shards, wide = self._shards, torch.float32 if block.device.type == "mps" else torch.float64
        holder = next(rank for rank, count in enumerate(shards.counts) if count)
        one = [int(rank == holder) for rank in range(shards.ranks)]
        return shards.join(block[: one[shards.rank]], one)[0].to(wide)

    def _centred(self, kind: Tensor, scale: Scale, limit: int = LARGEST) -> Points:
        """Return the centre and the gain of all points so far; `kind` is empty, with the features' width and dtype."""
        shards = self._shards
        mean = shards.sum(self._total) / (self.n if shards.alone else shards.n)
        largest = shards.max(torch.maximum(self._high - mean, mean - self._low).nan_to_num(math.inf, math.inf))
        gain = gains(largest, kind.dtype, scale, limit)
        return Points(kind, self._origin + mean, gain, 0.0, 0.0, shards.first)


def gains(largest: Float[Tensor, " d"], dtype: torch.dtype, scale: Scale, limit: int = LARGEST) -> Float[Tensor, " d"]:
    """Return the factors for centred features.

    Args:
        largest: (d,) the largest absolute value of each centred dimension.
        dtype: dtype of the features.
        scale: "maxabs" brings every dimension that varies to a largest absolute value of one; the others bring the
            largest of all dimensions near one, by a power of two.
        limit: Limit of that power.

    Raises:
        InputError: If differences of the features overflow.
    """
    if not bool(torch.isfinite(largest).all()):
        raise InputError(OVERFLOW)
    if scale != "maxabs":
        return torch.full_like(largest, _power_of_two(float(largest.max()), largest.dtype, limit))
    # Below the smallest normal number the reciprocal overflows: such dimensions count as constant.
    least = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).tiny
    return torch.where(largest >= least, 1 / largest.clamp(min=least), 0.0)


def _power_of_two(largest: float, wide: torch.dtype, limit: int) -> float:
    """Return the power of two, up to a limit, that brings the largest of some numbers near one."""
    exponent = math.frexp(largest)[1] if largest > 0 and math.isfinite(largest) else 0
    limit = limit if wide == torch.float64 else 60
    return math.ldexp(1.0, max(-limit, min(limit, -exponent)))


def extent(features: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sum, smallest and largest of the differences to an origin, (d,) each; of no points 0, 0 and 0."""
    total, low, high = (torch.zeros_like(origin) for _ in range(3))
    if _compiled(features):
        from layerfreq.engines.cpu import kernels

        def part(at: slice) -> np.ndarray:
            found = np.zeros((3, len(origin)))
            kernels.extent_of(features[at].numpy(), 0, origin.numpy(), found[0], found[1], found[2])
            return found

        count = hands(WORK * features.numel())
        with threads(count) as run:
            found = np.array(list(run(part, parts(len(features), len(features), count=count))))
        total, low, high = torch.from_numpy(np.array([found[:, 0].sum(0), found[:, 1].min(0), found[:, 2].max(0)]))
        return total, low, high
    for s in chunks(len(features), features.shape[1], piece(features.device, CACHED)):
        difference = features[s].to(origin.dtype) - origin
        total += difference.sum(dim=0)
        low, high = torch.minimum(low, difference.amin(dim=0)), torch.maximum(high, difference.amax(dim=0))
    return total, low, high


def sizes(points: Points) -> Float[Tensor, " n"]:
    """Return |x|^2 of the centred and scaled points."""
    squares = torch.empty(len(points), dtype=points.wide, device=points.features.device)
    if _compiled(points.features):
        from layerfreq.engines.cpu import kernels

        x, shift, gain, out = (t.numpy() for t in (points.features, points.shift, points.gain, squares))
        count = hands(WORK * x.size)
        with threads(count) as run:
            list(run(lambda s: kernels.sizes(x[s], shift, gain, out[s]), parts(len(x), len(x), count=count)))
        return squares
    for s in chunks(len(points), points.features.shape[1], piece(points.features.device, CACHED)):
        squares[s] = points.block(s).square_().sum(dim=1)
    return squares


def _compiled(features: Tensor) -> bool:
    """Whether compiled loops can read the features and are worth their import."""
    plain = features.device.type == "cpu" and features.dtype in (torch.float32, torch.float64)
    return plain and features.is_contiguous() and (features.numel() > COMPILED or len(features) > ENOUGH)
