"""How filter centres meet all points, whether these are held, spread over ranks or recomputed on every pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layerfreq.data.source import Source
from layerfreq.data.targets import Targets
from layerfreq.data.validation import Curve, Scale
from layerfreq.engines import Engine, RowCurves, pick_engine, read_points
from layerfreq.engines.base import FEWEST, chunks
from layerfreq.errors import Code
from layerfreq.isolation.memory import reserve
from layerfreq.measure.grid import CUTOFFS, Reach, a_few

HELD = 1 << 24  # numbers held for filter centres that meet columns of other ranks in one pass
SHARE = 0.75  # share of the room that goes to filter centres; the rest is for columns
DRIFT = 1e-3  # relative to a point's largest number: how far its features may differ between passes (on accelerators)


class Meeting:
    """Filter centres, and all points that come to them block by block.

    If the features are held and there is room for copies, one engine takes all points, and centres are some of them.
    Otherwise centres are copied, as many as there is room for, and each such lot gets an engine of its own.

    Args:
        source: Where the points come from.
        make_engine: Makes an engine for some points.
        targets: The targets of all points.
        scale: As in `read_points`.
        room: Bytes for copies of centres and columns; None means no limit. If points are spread over ranks, each rank
            prepares all of its own anyway.
        first: The filter centres that will be asked for first.
        cutoffs: Number of cutoffs; None means those of `own_grid`.

    Attributes:
        points: Centre and size of the features, found in a first pass.
    """

    def __init__(
        self,
        source: Source,
        make_engine: type[Engine],
        targets: Targets,
        scale: Scale = "raw",
        *,
        room: int | None = None,
        first: Tensor | None = None,
        cutoffs: int | None = None,
    ) -> None:
        self._source, self._make_engine, self._targets = source, make_engine, targets
        self._n, self._room = len(targets.energy), room or 0
        self._inv_delta = torch.zeros(CUTOFFS if cutoffs is None else cutoffs)
        tight = room is not None and source.shards.alone
        held = source.features
        self._copied = held is None or (tight and _copies(held, make_engine) > self._room)
        self._work: Engine | None = None
        self._centres = first
        self._some = Gather(lambda block: source.shards.parts(a_few(self._n, block, first))[source.shards.rank])
        self._lot = Gather(lambda block: torch.arange(0) if first is None else first[: self._height(block)])
        watching = [*([self._some] if cutoffs is None else []), *([self._lot] if self._copied else [])]
        self.points = read_points(source, scale, *(one.see for one in watching))

    def own_grid(self) -> Curve:
        """Return cutoffs of the scaled points that cover their distances; takes a pass."""
        shards, few = self._source.shards, a_few(self._n, self.points.features, self._centres)
        rows = shards.join(self._some.rows, [len(part) for part in shards.parts(few)])
        reach = Reach(self.points, few, rows, self._n)
        self._source.visit_own(reach.see)
        return reach.grid(shards)

    def begin(self, cutoffs: Tensor) -> None:
        """Prepare for these cutoffs, of the scaled points."""
        self._inv_delta = cutoffs
        del self._some
        if not self._copied and len(self.points):
            self._work = self._make_engine(self.points, self._targets, cutoffs)

    def curves(self, index: Tensor) -> Iterator[RowCurves]:
        """Compute the curves of those filter centres that this rank holds, against the points of all ranks.

        The centres' sums stay, and columns pass by: all points once for each lot of centres, or twice if the lot has to
        be gathered first. Every rank goes through the same number of passes.

        Args:
            index: (r,) the centres among all points, the same on all ranks.
        """
        if self._work is not None and self._source.shards.alone:  # the engine has all points
            yield from self._work.run(index)
            return
        for lot in self._copied_lots(index) if self._copied else self._own_lots(index):
            yield from self._meet(lot)

    def _own_lots(self, index: Tensor) -> list[Tensor]:
        """Cut this rank's centres, as indices into its points, into as many lots as the other ranks have."""
        work, shards = self._work, self._source.shards
        own = shards.parts(index)[shards.rank] - shards.first
        lots: list[Tensor] = []
        if work is not None and len(own):
            each = self.points.features.shape[1] + _sums(len(self._inv_delta), self._targets.width)
            lots = list(own.split(work.height * max(1, HELD // (work.height * each))))
        passes = round(shards.largest(float(len(lots))))
        return lots + [own[:0]] * (passes - len(lots))

    def _copied_lots(self, index: Tensor) -> Iterator[Tensor]:
        """Cut centres into lots for which there is room; the first may be gathered already."""
        ready = self._lot.index
        ready = ready if torch.equal(ready, index[: len(ready)]) else index[:0]
        rest = index[len(ready) :].split(self._height(self.points.features))
        return (lot for lot in (ready, *rest) if len(lot))

    def _meet(self, lot: Tensor) -> Iterator[RowCurves]:
        """Let all points pass by some filter centres."""
        work, place, numbers = self._work, lot, None
        if self._copied:
            if lot is not self._lot.index:
                self._lot = Gather(lambda _: lot)
                self._source.visit(self._lot.see)
            centres = replace(self.points, features=self._lot.rows, index=lot)
            work, place = self._make_engine(centres, self._targets, self._inv_delta), torch.arange(len(lot))
            numbers = max(1, int((1 - SHARE) * self._room) // self._bytes_each(centres.features))
        rows = [] if work is None else [work.begin(part) for part in place.split(work.height) if len(part)]

        def see(first: int, block: Tensor) -> None:
            if self._source.features is None:
                self._lot.check(first, block)
            for s in chunks(len(block), block.shape[1], numbers or block.numel()) if rows else ():
                assert work is not None
                columns = work.prepare(replace(self.points, features=block[s], first=first + s.start, index=None))
                for part in rows:
                    work.add(part, columns)

        self._source.visit(see)
        yield from () if work is None else map(work.finish, rows)

    def _bytes_each(self, kind: Tensor) -> int:
        return self._make_engine.bytes_each(kind.element_size())

    def _height(self, kind: Tensor) -> int:
        """Return the number of filter centres for which there is room."""
        sums = _sums(len(self._inv_delta), self._targets.width)
        return max(FEWEST, int(SHARE * self._room) // (kind.shape[1] * self._bytes_each(kind) + 8 * sums))


class Gather:
    """Copies chosen points as a source passes by, or checks that they have not changed.

    Args:
        choose: Gets the first block, whose width says how many points fit, and returns the indices (r,) of points that
            this process will see.

    Attributes:
        index: (r,) indices of the points.
        rows: (r, d) the copies.
    """

    index: Tensor
    rows: Tensor

    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        self._choose: Callable[[Tensor], Tensor] | None = choose

    def see(self, first: int, block: Tensor) -> None:
        """Copy the chosen points in a block."""
        if self._choose is not None:
            self.index, self._choose = self._choose(block), None
            self.rows = reserve(len(self.index), block.shape[1], block.dtype, block.device)
        to, at = self._inside(first, block)
        for s in chunks(len(to), block.shape[1]):
            self.rows[to[s]] = block[at[s]]

    def check(self, first: int, block: Tensor) -> None:
        """Compare the chosen points in a block with their copies.

        Raises:
            InputError: If one differs.
        """
        to, at = self._inside(first, block)
        for s in chunks(len(to), block.shape[1]):
            kept, now = self.rows[to[s]], block[at[s]]
            if not bool(((kept - now).abs().amax(1) <= DRIFT * kept.abs().amax(1)).all()):
                raise Code.CONFLICT(
                    "inputs: points or their features change from one pass to the next, and several are needed; pass a "
                    "loader that does not shuffle and a model without noise, or raise `memory` to hold all features"
                )

    def _inside(self, first: int, block: Tensor) -> tuple[Tensor, Tensor]:
        to = torch.nonzero((self.index >= first) & (self.index < first + len(block)))[:, 0]
        return to.to(block.device), (self.index[to] - first).to(block.device)


def count_passes(points: int, rows: int | None, kind: Tensor, room: int, columns: int) -> int:
    """Return about how many passes a `Meeting` makes over features that are recomputed: more for more centres.

    Args:
        points: Number of points.
        rows: Filter centres; None means all points.
        kind: (0, d) features, for their width, dtype and device.
        room: Bytes, as for `Meeting`.
        columns: Number of columns of the targets.
    """
    _, engine = pick_engine("auto", kind.device, points)
    each = kind.shape[1] * engine.bytes_each(kind.element_size()) + 8 * _sums(CUTOFFS, columns)
    fit = max(FEWEST, int(SHARE * room) // each)
    return 1 + 2 * math.ceil(min(rows or points, points) / fit)  # statistics; then gather and meet for each lot


def work_on(size: int, points: int, options: Mapping[str, Any]) -> int:
    """Return the bytes for copies of a layer's features while they are measured: of all, or of drawn centres.

    Args:
        size: Bytes of the features.
        points: Number of points.
        options: Options of `spectrum`.
    """
    rows = options.get("rows")
    if isinstance(rows, int):
        return min(size, int(2 / SHARE * size * rows / max(1, points)))
    return size if options.get("rtol") is None else size // 2


def _sums(cutoffs: int, columns: int) -> int:
    """Return about how many sums an engine keeps per filter centre."""
    return 2 * cutoffs * (columns + 2)


def _copies(features: Tensor, make_engine: type[Engine]) -> int:
    """Return the bytes that an engine takes in addition to the features if it prepares all of them."""
    return make_engine.bytes_each(features.element_size()) * features.numel() - features.nbytes
