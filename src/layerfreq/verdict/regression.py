"""Slopes over depth with intervals: seeds are the clusters; a single run has only the scatter of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval
NORMAL = 1.96  # the standard errors that an interval of `LEVEL` has on either side


@dataclass(frozen=True)
class Line:
    """A least-squares line through the values of one run.

    Attributes:
        slope: Change of the value per unit of x.
        variance: Variance of the slope, from the scatter about the line, or from the values' own errors if these are
            larger.
        freedom: Degrees of freedom of the scatter; 0 for two points.
    """

    slope: float
    variance: float
    freedom: int


@dataclass(frozen=True)
class Effect:
    """A mean slope with its interval.

    Attributes:
        slope: Mean over the clusters.
        interval: Holds the true slope with probability `LEVEL`; None if it cannot be estimated.
        clusters: Number of clusters (seeds).
        how: What the interval is based on, in words.
    """

    slope: float
    interval: tuple[float, float] | None
    clusters: int
    how: str

    @property
    def sign(self) -> int:
        """-1 or 1 if the whole interval lies on that side of 0, else 0."""
        if self.interval is None:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


def fit_line(x: Any, y: Any, errors: Any = None) -> Line | None:
    """Fit a line through points; None without two different x.

    Args:
        x: (k,) numbers.
        y: (k,) numbers.
        errors: (k,) standard errors of y, NaN if unknown; None means all unknown.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(np.unique(x)) < 2:
        return None
    away = x - x.mean()
    spread = float(away @ away)
    slope = float(away @ y) / spread
    residuals = y - y.mean() - slope * away
    freedom = len(x) - 2
    scatter = float(residuals @ residuals) / freedom if freedom else 0.0
    own = 0.0 if errors is None else float(np.nan_to_num(np.asarray(errors, dtype=np.float64) ** 2).mean())
    return Line(slope, max(scatter, own) / spread, freedom)


def mean_slope(clusters: Sequence[Sequence[Line]]) -> Effect | None:
    """Return the mean of the clusters' mean slopes; None if there is no line.

    With two or more clusters, the interval is Student's, from the clusters' slopes. With one, it comes from the scatter
    of the points about their lines.

    Args:
        clusters: For each cluster (seed), the lines of its runs.
    """
    from scipy.special import stdtrit

    filled = [lines for lines in clusters if lines]
    if not filled:
        return None
    slopes = np.array([np.mean([line.slope for line in lines]) for lines in filled])
    mean = float(slopes.mean())
    if len(slopes) > 1:
        freedom, error = len(slopes) - 1, float(slopes.std(ddof=1)) / len(slopes) ** 0.5
        how = f"from {len(slopes)} seeds"
    else:
        freedom = sum(line.freedom for line in filled[0])
        error = sum(line.variance for line in filled[0]) ** 0.5 / len(filled[0])
        how = "from one seed: the layers' scatter alone, other seeds may differ"
    if freedom == 0:
        return Effect(mean, None, 1, "one seed and too few layers for an interval")
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Effect(mean, (mean - half, mean + half), len(slopes), how)
