"""Where features come from: held in memory, spread over several processes, or recomputed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from layerfreq.data.distributed import Shards

# Gets the index of a block's first point among all points, and the block (k, d), which it must not keep.
See = Callable[[int, Tensor], None]


class Source(ABC):
    """Features (n, d) that pass by in blocks, as often as asked.

    Attributes:
        device: Where the blocks are.
        shards: The ranks that the points are spread over.
        features: (count, d) of this process, if it holds them; None if every pass computes them.
    """

    def __init__(self, device: torch.device, shards: Shards, features: Tensor | None = None) -> None:
        self.device, self.shards, self.features = device, shards, features

    @abstractmethod
    def visit(self, see: See) -> None:
        """Show all points once, in the same order every time; every rank must take part."""

    def visit_own(self, see: See) -> None:
        """Show this process's points once, without the other ranks."""
        self.visit(see)


class InMemory(Source):
    """Features (n, d) that this process holds, all of them as one block."""

    def __init__(self, features: Tensor) -> None:
        super().__init__(features.device, Shards(count=len(features)), features)
        self._own = features

    def visit(self, see: See) -> None:
        """See `Source.visit`."""
        see(0, self._own)


class OverRanks(Source):
    """Features that several processes hold, each its own part, which visit the others in blocks.

    Args:
        features: (count, d) this rank's part, which may be empty.
        shards: The ranks, which have met.
    """

    def __init__(self, features: Tensor, shards: Shards) -> None:
        super().__init__(features.device, shards, features)
        self._own = features

    def visit(self, see: See) -> None:
        """See `Source.visit`."""
        for first, block in self.shards.blocks(self._own):
            see(first, block)

    def visit_own(self, see: See) -> None:
        """See `Source.visit_own`; one block, which may be empty."""
        see(self.shards.first, self._own)
