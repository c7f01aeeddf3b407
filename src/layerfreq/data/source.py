"""Where features come from: what every source of them can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class Source(ABC):
    """Features (n, d) that pass by in blocks, as often as asked.

    Attributes:
        device: Where the blocks are.
    """

    device: torch.device

    @abstractmethod
    def visit(self, see: Callable[[int, Tensor], None]) -> None:
        """Show all points once, in the same order every time.

        Args:
            see: Gets the number of a block's first point and the block (k, d), which it must not keep.
        """
