"""How much memory features may take, and which layers fit into it together."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from layerfreq.errors import is_not

SHARE = 4  # without a stated budget, features get a quarter of the free memory
MOST = 4 << 30  # bytes; the most that they get then
HELD = 0.75  # share of the budget that one layer's features may take; the rest is for work on them
UNITS = " KMGT"
Item = TypeVar("Item")


def read_memory(memory: Any = None) -> int:
    """Return a budget in bytes.

    Args:
        memory: Bytes, or text such as "500MB", "2GB" or "1.5GiB"; None means a quarter of the free memory, and at most
            4 GiB.

    Raises:
        InputError: If it is neither.
    """
    if memory is None:
        return min(free_memory() // SHARE, MOST)
    found = None
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", memory.upper())
        if match and (match[2] or not match[3]):
            found = float(match[1]) * (1024 if match[3] else 1000) ** (UNITS.index(match[2]) if match[2] else 0)
    elif isinstance(memory, (int, float)) and not isinstance(memory, bool):
        found = memory
    if found is None or not 1 <= found < float("inf"):
        raise is_not("memory", memory, "a valid amount", "bytes, or text such as '500MB' or '2GiB'")
    return min(int(found), 1 << 60)  # more than any machine has; fits a float and an int64


def free_memory() -> int:
    """Return the bytes that this process can still take: those free in the system, or within a container's limit."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")))
    except (OSError, StopIteration, ValueError):
        try:
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
        except (AttributeError, OSError, ValueError):
            free.append(4 << 30)
    group = Path("/sys/fs/cgroup")
    try:
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or one without a limit
    return max(1, min(free))


def group_by_memory(sizes: Sequence[tuple[Item, int, int]], memory: int) -> list[tuple[list[Item], bool]]:
    """Split a sequence of layers into groups whose features fit into the budget together.

    Groups are filled from the output's end: the pass for the deepest layers costs most, and should serve the most
    layers.

    Args:
        sizes: (layer, bytes of its features, bytes of work on them), input to output.
        memory: The budget in bytes.

    Returns:
        (layers, whether their features can be held) for each group, input to output; a layer that cannot be held is
        alone in its group.
    """
    groups: list[tuple[list[Item], bool]] = []
    total = most = 0
    for item, size, work in reversed(sizes):
        held = size <= HELD * memory
        if groups and groups[-1][1] and held and total + size + max(most, work) <= memory:
            groups[-1][0].insert(0, item)
            total, most = total + size, max(most, work)
        else:
            groups.append(([item], held))
            total, most = size, work
    return groups[::-1]


def reserve(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an uninitialised (rows, width) tensor.

    In host memory NumPy allocates it, because it gets large pages from the system, which are three times faster.
    """
    if device.type != "cpu" or rows * width == 0:
        return torch.empty(rows, width, dtype=dtype, device=device)
    room = torch.from_numpy(np.empty(rows * width * dtype.itemsize, np.uint8))
    return room.view(dtype).view(rows, width)
