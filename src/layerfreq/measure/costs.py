"""How long a measurement takes on this machine, estimated from a few small ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from layerfreq.data.validation import Scale
from layerfreq.measure.measure import spectrum

POINTS = 2048  # in the small measurements
FEW = 64  # filter centres in those that show which part of the time does not grow with centres
WIDTHS = (16, 256, 1024, 4096)
REPEATS = 3


def engine_seconds(n: int, d: int, rows: int | None = None, classes: int = 10, device: str = "cpu") -> float:
    """Estimate how many seconds the spectrum of n points in d dimensions takes.

    Random features of a few widths are measured with few and with many filter centres: one part of the time grows with
    the points, the other with the pairs of a point and a centre. Widths in between are interpolated.

    Args:
        n: Number of points.
        d: Number of features.
        rows: Filter centres; None means all points.
        classes: Number of classes of the targets.
        device: Where to compute.
    """
    m = min(n, POINTS)
    widths = [w for i, w in enumerate(WIDTHS) if i == 0 or d > WIDTHS[i - 1]]
    found = np.array([_small(m, width, min(classes, m), device) for width in widths])
    at = np.maximum(found, 1e-12)
    a_point, a_pair = (np.exp(np.interp(np.log(d), np.log(widths), np.log(column))) for column in at.T)
    beyond = max(1.0, d / WIDTHS[-1])
    return float((n * a_point + n * min(rows or n, n) * a_pair) * beyond)


def count_measurements(scales: Iterable[Scale]) -> int:
    """Return how many measurements some scales take: raw and rms follow from one another, maxabs does not."""
    return len({"maxabs" if scale == "maxabs" else "raw" for scale in scales})


@lru_cache
def _small(m: int, d: int, classes: int, device: str) -> tuple[float, float]:
    """Return seconds per point and seconds per pair."""
    x = torch.randn(m, d, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.arange(m) % classes
    few = min(FEW, max(1, m // 2))
    times = []
    for rows in (few, None):
        spectrum(x, y, rows=rows)  # the first one loads and compiles
        times.append(min(_seconds(x, y, rows) for _ in range(REPEATS)))
    pair = max(0.0, times[1] - times[0]) / max(1, m * (m - few))
    return max(0.0, times[0] - pair * m * few) / m, pair


def _seconds(x: torch.Tensor, y: torch.Tensor, rows: int | None) -> float:
    started = time.perf_counter()
    spectrum(x, y, rows=rows)
    return time.perf_counter() - started
