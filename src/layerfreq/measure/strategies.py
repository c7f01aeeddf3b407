"""How filter centres meet all points: in one piece, rank by rank, or with points that pass by again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.source import Source
from layerfreq.data.targets import Targets
from layerfreq.data.validation import Curve, Scale
from layerfreq.engines import Engine, Points, RowCurves, as_points, pick_engine
from layerfreq.engines.base import FEWEST, chunks
from layerfreq.engines.blocked import squared_distances
from layerfreq.errors import InputError
from layerfreq.measure.sampling import Draw
from layerfreq.measure.sources import Extent, Gather, Held

HELD = 1 << 24  # numbers kept for the filter centres that columns pass by at once, where they come from other ranks
SAMPLE = 256  # points whose distances the grid of cutoffs has to cover
NUMBERS = 1 << 22  # in the features of these points; of wide features, fewer points have to do
WIDE = 1 << 26  # numbers in all features from which float32 has to do for that
SHARE = 0.75  # of the room for work that goes to filter centres; the rest to the columns that come to them
CUTOFFS = 257  # most cutoffs of an own grid


class Whole:
    """All features are held, by this process or its group, and prepared in one piece.

    Args:
        features: (count, d) this rank's.
        shards: The ranks.
        make_engine: Makes an engine for this rank's points.
        targets: The targets of all points.
        scale: As in `as_points`.
    """

    def __init__(
        self, features: Tensor, shards: Shards, make_engine: type[Engine], targets: Targets, scale: Scale = "raw"
    ) -> None:
        self.points, self._shards = as_points(features, shards, scale), shards
        self._make_engine, self._targets = make_engine, targets
        self._work: Engine | None = None

    def own_grid(self) -> Curve:
        """Return cutoffs that cover the distances of the points."""
        points, shards = self.points, self._shards
        some = _some(shards.n, points.features)
        edges = torch.tensor([0, *shards.counts], device=some.device).cumsum(0)
        owned = torch.searchsorted(some, edges)  # how many of them lie before each rank's first point
        mine = some[owned[shards.rank] : owned[shards.rank + 1]] - points.first
        reach = Reach(points, some, shards.join(points.features[mine], owned.diff().tolist()), shards.n)
        reach.see(points.first, points.features)
        return reach.grid(shards)

    def begin(self, cutoffs: Tensor) -> None:
        """Prepare for these cutoffs, of the scaled points."""
        self._work = self._make_engine(self.points, self._targets, cutoffs) if len(self.points) else None

    def curves(self, index: Tensor) -> Iterator[RowCurves]:
        """Compute the curves of those filter centres that this rank holds, against the points of all ranks.

        The centres' sums stay, and columns come by; every rank goes through the same number of passes over all columns.

        Args:
            index: (r,) the centres among all points, the same on all ranks.
        """
        work, points, shards = self._work, self.points, self._shards
        if shards.alone and work is not None:
            yield from work.run(index)
            return
        own = index[(index >= points.first) & (index < points.first + len(points))] - points.first
        some: tuple[Tensor, ...] = ()
        if work is not None and len(own):
            some = own.split(work.height)
        held = 1
        if work is not None:
            each = points.features.shape[1] + _sums(len(work.inv_delta), work.targets.width)
            held = max(1, HELD // (work.height * each))
        passes = round(shards.largest(float(-(-len(some) // held))))
        for at in range(0, passes * held, held):
            rows = [] if work is None else [work.begin(part) for part in some[at : at + held]]
            for first, block in shards.blocks(points.features):
                if rows and work is not None:
                    columns = work.prepare(replace(points, features=block, first=first))
                    for part in rows:
                        work.add(part, columns)
            yield from () if work is None else map(work.finish, rows)


class Passing:
    """Only some filter centres are held, as many as there is room for; all points pass by them block by block.

    Args:
        source: Where the points come from.
        draw: The filter centres.
        room: Bytes for the centres, and for blocks that are prepared as columns.
        make_engine: Makes an engine for some centres.
        targets: The targets of all points.
        cutoffs: How many there will be, at most.
        scale: As in `as_points`.
    """

    def __init__(
        self,
        source: Source,
        draw: Draw,
        room: int,
        make_engine: type[Engine],
        targets: Targets,
        cutoffs: int = CUTOFFS,
        scale: Scale = "raw",
    ) -> None:
        self._source, self._room, self._targets, self._make_engine = source, room, targets, make_engine
        self._draw, self._n = draw, len(targets.energy)
        self._cutoffs = torch.zeros(cutoffs)
        self._gathered: Gather | None = None
        self._samples: Gather | None = None
        if isinstance(source, Held):
            self.points = as_points(source.features, scale=scale)
            return
        extent = Extent(scale)

        def see(first: int, block: Tensor) -> None:
            extent.see(first, block)
            if self._gathered is None or self._samples is None:
                self._gathered = Gather(next(draw.batches())[: self._height(block)])
                self._samples = Gather(_some(self._n, block))
            self._gathered.see(first, block)
            self._samples.see(first, block)

        source.visit(see)
        if extent.n != self._n:
            raise InputError(
                f"inputs: {extent.n} points in one pass, but {self._n} targets; pass a probe set that stays as it is"
            )
        self.points = extent.points()

    def own_grid(self) -> Curve:
        """See `Whole.own_grid`; takes a pass."""
        samples = self._samples or self._gather(_some(self._n, self.points.features))
        reach = Reach(self.points, samples.index, samples.rows, self._n)
        self._source.visit(reach.see)
        return reach.grid(Shards(count=self._n))

    def begin(self, cutoffs: Tensor) -> None:
        """See `Whole.begin`."""
        self._cutoffs, self._samples = cutoffs, None

    def curves(self, index: Tensor) -> Iterator[RowCurves]:
        """Compute the curves of filter centres; takes a pass, or two where they have to be gathered before."""
        while len(index):
            held, self._gathered = self._gathered, None
            if held is None or not torch.equal(held.index, index[: len(held.index)]):
                held = self._gather(index[: self._height(self.points.features)])
            index = index[len(held.index) :]
            yield from self._meet(held)

    def _meet(self, held: Gather) -> Iterator[RowCurves]:
        points = replace(self.points, features=held.rows, index=held.index)
        work = self._make_engine(points, self._targets, self._cutoffs)
        rows = [work.begin(part) for part in torch.arange(len(points)).split(work.height)]
        room = max(1, int((1 - SHARE) * self._room) // self._bytes_each(held.rows))

        def see(first: int, block: Tensor) -> None:
            if not isinstance(self._source, Held):
                held.check(first, block)
            for s in chunks(len(block), block.shape[1], room):
                columns = work.prepare(replace(points, features=block[s], first=first + s.start, index=None))
                for part in rows:
                    work.add(part, columns)

        self._source.visit(see)
        yield from map(work.finish, rows)

    def _gather(self, index: Tensor) -> Gather:
        found = Gather(index)
        self._source.visit(found.see)
        return found

    def _bytes_each(self, kind: Tensor) -> int:
        return self._make_engine.bytes_each(kind.element_size())

    def _height(self, kind: Tensor) -> int:
        """How many filter centres there is room for."""
        sums = _sums(len(self._cutoffs), self._targets.width)
        return max(FEWEST, int(SHARE * self._room) // (kind.shape[1] * self._bytes_each(kind) + 8 * sums))


def count_passes(points: int, rows: int | None, kind: Tensor, room: int, columns: int) -> int:
    """Return about how many times `Passing` goes through a source: it grows with the filter centres.

    Args:
        points: Number of points.
        rows: Filter centres; None means all points.
        kind: (0, d) features of that width, dtype and device.
        room: Bytes, as of `Passing`.
        columns: Of the targets.
    """
    _, engine = pick_engine("auto", kind.device, points)
    each = kind.shape[1] * engine.bytes_each(kind.element_size()) + 8 * _sums(CUTOFFS, columns)
    fit = max(FEWEST, int(SHARE * room) // each)
    return 1 + 2 * math.ceil(min(rows or points, points) / fit)  # what they look like, their grid; gather, meet


def _sums(cutoffs: int, columns: int) -> int:
    """About how many sums an engine keeps for a filter centre."""
    return 2 * cutoffs * (columns + 2)


def _wide(n: int, features: Tensor) -> bool:
    return n * features.shape[1] > WIDE


def _some(n: int, features: Tensor) -> Tensor:
    """Return the numbers of a few points, spread over all."""
    most = min(SAMPLE, max(32, NUMBERS // max(1, features.shape[1])))
    return torch.linspace(0, n - 1, min(n, most), device=features.device, dtype=torch.float64).round().long()


class Reach:
    """How far a few points are from all others, found as these pass by.

    Args:
        points: Centre and gain.
        some: (s,) the numbers of the few.
        features: (s, d) theirs.
        n: How many points there are.
    """

    def __init__(self, points: Points, some: Tensor, features: Tensor, n: int) -> None:
        single = _wide(n, features) and not points.double
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
        step = max(16, min(4096, NUMBERS // 2 // max(1, block.shape[1])))
        for start in range(0, len(block), step):
            raw = block[start : start + step]

            def difference(i: Tensor, j: Tensor, raw: Tensor = raw) -> Tensor:
                return self._points.difference(self._raw[i], raw[j])

            squared = squared_distances(self._x, self._scaled(raw), self._some, first + start, difference)
            self._farthest = max(self._farthest, float(squared.max()))
            squared[squared == 0] = math.inf
            self._nearest = torch.minimum(self._nearest, squared.min(dim=1).values)

    def grid(self, shards: Shards) -> Curve:
        """Return cutoffs of the scaled points that cover these distances: from 'all alike' to 'each on its own'."""
        farthest, nearest = shards.largest(self._farthest), shards.min(self._nearest)
        nearest = nearest[torch.isfinite(nearest)].double().cpu()
        if farthest == 0 or len(nearest) == 0:
            return np.geomspace(0.01, 100, 33)
        low, high = 0.02 / farthest, 30 / max(float(torch.quantile(nearest, 0.05)), 1e-300)
        high = min(max(high, low * 16), 1e300)
        return np.geomspace(low, high, max(17, min(CUTOFFS, 1 + math.ceil(6 * math.log2(high / low)))))
