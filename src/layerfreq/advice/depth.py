"""Whether another layer would still lower the frequency of what is left to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from layerfreq.advice.heads import shuffled
from layerfreq.measure.measure import spectrum
from layerfreq.measure.result import Spectrum

Answer = Literal["more", "enough", "too much", "unknown"]
ROWS = 1000  # most filter centres
PARTS, LEAST = 5, 20  # disjoint parts of the points, whose scatter gives the interval; fewest points in each


@dataclass(frozen=True)
class Depth:
    """What frequencies say about the number of layers.

    Attributes:
        answer: "more" if the last layer still lowers the rms median frequency; "too much" if an earlier cut has a lower
            one than the last; "enough" if neither is certain; "unknown" if medians are not resolved or points are too
            few.
        octaves: By how many octaves the last layer changes the rms median.
        low: Lower end of the 95% interval of `octaves` (Student's t over `PARTS` disjoint parts of the points).
        high: Upper end of that interval.
        lowest: The cut with the lowest rms median.

    Examples:
        >>> found = judge_depth(["1", "3", "5"], np.array([[8.0, 4.0, 2.0], [8.0, 4.1, 2.0], [8.0, 4.0, 2.1]]))
        >>> found.answer, found.lowest, round(found.octaves)
        ('more', '5', -1)
    """

    answer: Answer
    octaves: float
    low: float
    high: float
    lowest: str


def judge_depth(layers: Sequence[str], medians: np.ndarray) -> Depth:
    """Judge the number of layers.

    Args:
        layers: (k,) names of cuts, input to output.
        medians: (parts, k) rms median frequencies at the cuts, of disjoint parts of the points; NaN if unknown.
    """
    nothing = float("nan")
    if len(layers) < 2 or len(medians) < 2 or not np.isfinite(medians).all():
        return Depth("unknown", nothing, nothing, nothing, "")
    octaves = np.log2(medians)
    lowest = int(octaves.mean(axis=0).argmin())
    change, low, high = student(octaves[:, -1] - octaves[:, -2])
    above = student(octaves[:, -1] - octaves[:, lowest])[1] > 0
    answer: Answer = "too much" if above else "more" if high < 0 else "enough"
    return Depth(answer, change, low, high, layers[lowest])


def medians_of_parts(features: Tensor, targets: Tensor, seed: int, groups: Tensor | None = None) -> np.ndarray:
    """Return the rms median of each part of the points, (parts,); NaN if there is none, empty if they are few.

    Args:
        features: (n, d).
        targets: (n,) class ids, or (n,) or (n, c) floats.
        seed: Seed for the parts.
        groups: As for `held_out`; a part has all points of some.
    """
    order = shuffled(torch.arange(len(features)) if groups is None else groups, seed)
    if len(order) < PARTS * LEAST:
        return np.empty(0)
    parts = [torch.cat(order[int(at[0]) : int(at[-1]) + 1]) for at in torch.arange(len(order)).tensor_split(PARTS)]
    return np.array([_median(features[at], targets[at]) for at in parts])


def _median(features: Tensor, targets: Tensor) -> float:
    return resolved(spectrum(features, targets, scale="rms", rows=drawn(len(features))))


def drawn(n: int) -> int | None:
    """Return how many of n points are filter centres; None if all are."""
    return ROWS if n > ROWS else None


def resolved(found: Spectrum) -> float:
    """Return the median of a spectrum; NaN if there is none, or windows of its size hold no second point."""
    return found.median if found.median is not None and found.median <= found.resolution else float("nan")


def student(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of a few values and its 95% interval."""
    from scipy.stats import t

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half
