"""Points in one piece, which a model can be run on in any order: some have to be seen before the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from layerfreq.data.inputs import (
    BATCH,
    as_loader,
    batches,
    count,
    is_loader,
    map_tensors,
    owned,
    take,
    tensors_of,
)
from layerfreq.data.validation import drift
from layerfreq.network.extract import Buffer, while_read
from layerfreq.network.reading import Layout

OFTEN = 64  # points for which one is run again


@dataclass(frozen=True)
class Pieces:
    """Points that can be run in any order.

    Attributes:
        inputs: All n points, as the model's forward takes them.
        targets: Theirs.
        n: Number of points.
        size: Points in a batch.
    """

    inputs: Any
    targets: Any
    n: int
    size: int

    @classmethod
    def of(cls, model: nn.Module, inputs: Any, targets: Any, room: int, most: int = BATCH) -> Pieces | None:
        """Bring several batches together; None for a single one, or where they cannot be, or are not small.

        Args:
            model: That they are for.
            inputs: As of `layer_features`; a loader is gone through once.
            targets: In the shape of the inputs, or None with a loader.
            room: Bytes for copies of what a loader brings.
            most: Points of a batch at most; points in one piece that are more are several batches.
        """
        if not is_loader(inputs):
            x, y = next(batches(inputs, targets, whole=True))
            n = count(x)
            size = min(BATCH, most)
            return None if n <= size else cls(x, Layout(n).label(y)[0], n, size)
        if isinstance(inputs, Iterator):
            return None
        number = length_hint(as_loader(inputs), 1)
        parts, labels, sizes, taken = [], [], [], 0
        with while_read(model, inputs):
            for x, y in batches(inputs):
                taken += sum(t.nbytes for t in tensors_of(x))
                if y is None or not _is_plain(x) or (taken if parts else taken * number) > room:
                    return None
                parts.append(owned(x))  # a loader may write the next batch into the same memory
                sizes.append(count(x))
                labels.append(Layout(sizes[-1]).label(y)[0].clone())
        joined = _joined(parts, sizes) if len(parts) > 1 else None
        return None if joined is None else cls(joined, torch.cat(labels), sum(sizes), min(most, max(sizes)))

    def beginning_with(self, first: Int64[Tensor, " r"], turn: int = 0) -> Iterator[tuple[Any, Tensor]]:
        """Iterate over batches, inputs and their points' numbers, some points before all others.

        Some of these come a second time behind others, so that their features show whether they depend on what else is
        in a batch: one for every `OFTEN` points, each a different one as long as there are any, evenly spread.

        Args:
            first: The numbers of these points.
            turn: How often the points were run before: then others come again, until all have.
        """
        others = torch.ones(self.n, dtype=torch.bool, device="cpu")
        others[first] = False
        order, start, told = torch.cat([first, torch.nonzero(others)[:, 0]]), 0, 0
        skipped = turn * max(1, self.n // OFTEN) % len(first)
        turns = itertools.islice(itertools.cycle(_spread(len(first))), skipped, None)
        while start < self.n:
            again, end = 0, min(start + self.size, self.n)
            if start >= len(first):  # before, one of them might meet itself
                due = max(end // OFTEN - told, int(end == self.n))
                again = min(due, max(1, self.size // 2), len(first))
            stop = min(end, start + max(1, self.size - again))
            piece = torch.cat([order[start:stop], first[[*itertools.islice(turns, again)]]])
            yield take(self.inputs, piece, self.n), piece
            start, told = stop, told + again


def _spread(n: int) -> list[int]:
    """Return 0 .. n - 1 in an order of which every beginning is spread evenly: in steps of the golden section."""
    step = next(k for k in range(max(1, round(0.618 * n)), 2 * n + 1) if math.gcd(k, n) == 1)
    return [i * step % n for i in range(n)]


class Held:
    """Features of one layer, held in the order of the points' numbers, in whatever order they come.

    Args:
        n: How many points there are.

    Attributes:
        drift: How far apart the features of one point were that came twice, relative to how far points are spread.
    """

    def __init__(self, n: int) -> None:
        self.drift = 0.0
        self._buffer, self._place, self._used = Buffer(n), torch.full((n,), -1), 0

    def see(self, numbers: Int64[Tensor, " k"], block: Float[Tensor, "k d"]) -> None:
        """Take in some points, of these numbers."""
        again = self._place[numbers] >= 0
        if bool(again.any()):
            sample = self._buffer.whole()[:OFTEN].double()
            spread = float((sample - sample.mean(dim=0)).square().sum(dim=1).mean())
            self.drift = max(self.drift, drift(self._buffer.whole()[self._place[numbers[again]]], block[again], spread))
            numbers, block = numbers[~again], block[~again]
        self._place[numbers] = self._used + torch.arange(len(numbers))
        self._used += len(numbers)
        self._buffer.put(block, len(block))

    def features(self) -> Float[Tensor, "n d"]:
        """Return the features of all points."""
        return self._buffer.whole()[self._place]


def _is_plain(x: Any) -> bool:
    """Whether inputs are tensors with a row for each point, and nothing else."""
    values = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, (tuple, list)) else [x]
    return all(isinstance(one, Tensor) and one.ndim and len(one) == count(x) for one in values)


def _joined(parts: list[Any], sizes: list[int]) -> Any:
    """Put batches of plain inputs one under the other; None if they are not alike."""
    each = [tensors_of(x) for x in parts]
    kinds = {tuple((t.shape[1:], t.dtype, t.device) for t in tensors) for tensors in each}
    if len(kinds) > 1 or len({_names(x) for x in parts}) > 1:
        return None
    whole = iter([torch.cat(column) for column in zip(*each, strict=True)])
    return map_tensors(lambda _: next(whole), parts[0])


def _names(x: Any) -> Any:
    return (type(x), *x) if isinstance(x, Mapping) else type(x)
