"""Engines: interchangeable ways to compute the filter's sums, checked against the reference by one shared test."""

from __future__ import annotations

from typing import Any

import torch

from layerfreq.engines.base import Engine, Points, RowCurves, enough_memory
from layerfreq.engines.blocked import Blocked
from layerfreq.engines.cpu.engine import Cpu
from layerfreq.engines.cuda.device import can_run
from layerfreq.engines.cuda.engine import Cuda
from layerfreq.engines.reference import Reference
from layerfreq.engines.statistics import read_points
from layerfreq.errors import unknown

ENGINES: dict[str, type[Engine[Any, Any]]] = {
    "reference": Reference,
    "blocked": Blocked,
    "cpu": Cpu,
    "cuda": Cuda,
}
KERNEL = 30  # operations of "blocked" per pair and cutoff, beside one per feature (docs/engines.md)
USUAL = 64  # number of cutoffs if the grid is not known yet
# Operations up to which "cpu" does not pay: loading its loops takes 0.6 s per process (docs/benchmarks.md). They are
# those of 300 points with 512 features, which "blocked" does in some 25 ms.
SMALL = 300**2 * (512 + KERNEL * USUAL)
SMALL_ON_GPU = 1024  # points up to which "cuda" was no faster than "blocked", when its coefficients took the host 20 ms


def pick_engine(name: str, device: torch.device, n: int, d: int = 0, cutoffs: int = USUAL) -> tuple[str, type[Engine]]:
    """Return the engine with that name, or for "auto" the fastest one for the device and the work.

    Args:
        name: One of `ENGINES`, or "auto".
        device: Where the features are.
        n: Number of points.
        d: Number of features.
        cutoffs: Number of cutoffs.

    Raises:
        InputError: If no engine has that name.
    """
    if isinstance(name, str) and name == "auto":
        name = "blocked"
        if device.type == "cpu" and n**2 * (d + KERNEL * cutoffs) > SMALL:
            name = "cpu"
        elif n > SMALL_ON_GPU and can_run(device):
            name = "cuda"
    if not isinstance(name, str) or name not in ENGINES:
        raise unknown("engine", name, ["auto", *ENGINES])
    return name, ENGINES[name]


__all__ = ["ENGINES", "Engine", "Points", "RowCurves", "enough_memory", "pick_engine", "read_points"]
