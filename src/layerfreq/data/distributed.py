"""Points spread over the ranks of a process group: what the ranks agree on, and how features travel between them.

Everything small (targets, sums, decisions) is made equal on all ranks; features stay where they are, and visit the
other ranks in blocks. A single process takes the same path, with no communication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from layerfreq.errors import Code, InputError, is_not, none_given

BLOCK = 1 << 22  # numbers in a block of features that travels; two of them are in memory at a time


class Shards:
    """The ranks of a group, and how many of all points each of them holds.

    Attributes:
        rank: This process's rank in the group.
        ranks: Number of processes.
        counts: Number of points of each rank; points are numbered in the order of the ranks.

    Args:
        group: A `torch.distributed` process group, or None for this process alone.
        count: Number of points of this process, if it is alone.

    Raises:
        InputError: If `group` is something else, or this process does not belong to it.
    """

    def __init__(self, group: Any = None, count: int = 0) -> None:
        self.rank, self.ranks, self.counts = 0, 1, [count]
        self._group, self._home, self._backends = group, torch.device("cpu"), {}
        if group is None:
            return
        if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
            raise is_not("group", group, "a torch.distributed group that this process belongs to", "one, or None")
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.counts = [count] * self.ranks
        self._global = [dist.get_global_rank(group, rank) for rank in range(self.ranks)]
        self._backends = dict(part.split(":") for part in dist.get_backend_config(group).split(","))
        if "cpu" not in self._backends:
            kind = next(iter(self._backends))
            self._home = torch.device(kind, torch.get_device_module(kind).current_device())

    @property
    def alone(self) -> bool:
        """Whether this is the only rank."""
        return self.ranks == 1

    @property
    def first(self) -> int:
        """The number of this rank's first point among all points."""
        return sum(self.counts[: self.rank])

    @property
    def n(self) -> int:
        """Number of points of all ranks."""
        return sum(self.counts)

    def parts(self, index: Tensor) -> list[Tensor]:
        """Split points, (r,) indices among all points, by the rank that holds them."""
        edges = [0, *accumulate(self.counts)]
        return [index[(index >= start) & (index < stop)] for start, stop in pairwise(edges)]

    def meet(self, features: Tensor, targets: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Register this rank's points, and check that the ranks' parts fit together.

        Args:
            features: (count, d) checked features.
            targets: (count,) class ids or (count, c) floats.
            options: Options that must be equal on all ranks, plain and comparable.

        Returns:
            Features and targets; a rank without points gets empty ones of the others' kind.

        Raises:
            InputError: The same on all ranks, if parts or options do not fit together.
        """
        if self.alone:
            self.counts = [len(features)]
            return features, targets
        ids = targets.ndim == 1
        kinds = {
            "features": f"{features.shape[1]} columns of {features.dtype} on {features.device.type}",
            "targets": "class ids" if ids else f"{targets.shape[1]} columns of {targets.dtype}",
        }
        like = (features.shape[1], features.dtype, features.device.type, targets.shape[1:], targets.dtype)
        said = self.gather((len(features), kinds, options, like))
        self.counts = [count for count, *_ in said]
        holders = [rank for rank, count in enumerate(self.counts) if count]
        if not holders:
            raise none_given("features", "(n, ...) with n > 0 points on some rank")
        for what, ranks in ((1, holders), (2, range(self.ranks))):
            first = said[ranks[0]][what]
            for rank in ranks:
                for name, value in first.items():
                    if said[rank][what][name] != value:
                        raise Code.CONFLICT(
                            f"{name}: {value} on rank {ranks[0]}, but {said[rank][what][name]} on rank {rank}; "
                            "every rank must pass the same" + (" kind" if what == 1 else "")
                        )
        if len(features):
            return features, targets
        d, dtype, device, shape, target_dtype = said[holders[0]][3]
        return torch.empty(0, d, dtype=dtype, device=device), torch.empty(0, *shape, dtype=target_dtype)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all ranks raise if one of them fails inside the block.

        The block must not communicate with other ranks.

        Raises:
            InputError: The same on all ranks, if the input of a rank is bad.
        """
        failure = None
        try:
            yield
        except Exception as error:
            if self.alone:
                raise
            failure = error
        if self.alone:
            return
        code = failure.code if isinstance(failure, InputError) else None
        said = self.gather(failure and (code, str(failure) or type(failure).__name__))
        if failure is not None and not isinstance(failure, InputError):
            raise failure
        faults = [(rank, *one) for rank, one in enumerate(said) if one]
        if not faults:
            return
        rank, code, text = next((fault for fault in faults if not fault[1]), faults[0])
        everywhere = len(faults) == self.ranks and len({text for _, _, text in faults}) == 1
        where = "" if everywhere else f" (on rank {rank})"
        text = f"{text.splitlines()[0]}{where}"
        raise (InputError(text, code) if code else RuntimeError(text)) from None

    def gather(self, thing: Any) -> list[Any]:
        """Return each rank's small plain Python object, in the order of the ranks."""
        if self.alone:
            return [thing]
        said: list[Any] = [None] * self.ranks
        dist.all_gather_object(said, thing, group=self._group)
        return said

    def sum(self, part: Tensor) -> Tensor:
        """Add up over the ranks; the result may be the argument itself."""
        return self._reduce(part, "SUM")

    def max(self, part: Tensor) -> Tensor:
        """Return the largest of the ranks, element by element."""
        return self._reduce(part, "MAX")

    def min(self, part: Tensor) -> Tensor:
        """Return the smallest of the ranks, element by element."""
        return self._reduce(part, "MIN")

    def largest(self, number: float) -> float:
        """Return the largest of the ranks' numbers."""
        return number if self.alone else float(self.max(torch.tensor(number, dtype=torch.float64)))

    def join(self, part: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Return the concatenated rows of all ranks, on the device of this rank's.

        Args:
            part: (k, ...) this rank's rows, of one dtype and width on all ranks.
            counts: How many rows each rank has; None means one for each of its points.
        """
        if self.alone:
            return part
        counts = self.counts if counts is None else counts
        parts = []
        for rank, count in enumerate(counts):
            if count:
                buffer = part if rank == self.rank else part.new_empty((count, *part.shape[1:]))
                parts.append(self._send(buffer.to(self._home), rank)[0].to(part.device))
        return torch.cat(parts) if parts else part

    def blocks(self, features: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Let the features of all ranks pass by, in blocks; every rank must go through all of them.

        Args:
            features: (count, d) this rank's features, of one dtype and width on all ranks.

        Yields:
            The index of the block's first point among all points, and the block (k, d), which is valid until the next
            one is asked for.
        """
        if self.alone:
            yield 0, features
            return
        pending = None
        for rank, start, stop in self._bounds(features.shape[1]):  # sent one block ahead, while the reader works
            offset = sum(self.counts[:rank])
            own = features[start:stop] if rank == self.rank else None
            direct = self._backends.get(features.device.type, "gloo") != "gloo"
            via = features.device if direct else self._home
            buffer = features.new_empty((stop - start, features.shape[1]), device=via) if own is None else own.to(via)
            sent = (offset + start, own, *self._send(buffer, rank, wait=False))
            if pending is not None:
                yield self._arrived(pending, features.device)
            pending = sent
        if pending is not None:
            yield self._arrived(pending, features.device)

    def _bounds(self, width: int) -> Iterator[tuple[int, int, int]]:
        """Yield rank, start and stop of every block, in the order in which all ranks send them."""
        step = max(1, BLOCK // max(1, width))
        for rank, count in enumerate(self.counts):
            for start in range(0, count, step):
                yield rank, start, min(count, start + step)

    def _arrived(self, sent: tuple[int, Tensor | None, Tensor, Any], device: torch.device) -> tuple[int, Tensor]:
        first, own, buffer, travel = sent
        travel.wait()
        return first, buffer.to(device) if own is None else own

    def _send(self, buffer: Tensor, rank: int, *, wait: bool = True) -> tuple[Tensor, Any]:
        """Send a rank's buffer to all, or receive it, as bytes: every backend can carry them."""
        buffer = buffer.contiguous()
        raw = buffer.view(-1).view(torch.uint8)
        travel = dist.broadcast(raw, self._global[rank], group=self._group, async_op=not wait)
        return buffer, travel

    def _reduce(self, part: Tensor, operation: str) -> Tensor:
        if self.alone:
            return part
        whole = part.to(self._home, copy=True).contiguous()
        dist.all_reduce(whole, getattr(dist.ReduceOp, operation), group=self._group)
        return whole.to(part.device)
