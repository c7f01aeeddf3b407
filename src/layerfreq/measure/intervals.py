"""The standard error of LFR from a sample of filter centres, and whether the sample is too small to tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

LEAST = 8  # centres; with fewer, a stratum may have met only its usual points
STUDENT = 1.21  # relative excess of Student's 95% quantile over the normal one, times the degrees of freedom
# Relative excess for skewed sums over the squared skewness. Edgeworth's expansion has 1.08; it is doubled, since a
# sample shows too little of its population's tail.
SKEWED = 2.16
FAINT = 0.01  # smaller LFR have errors relative to this
WIDE = 0.05  # error relative to LFR from which a warning says that it comes from points the centres have not met
NARROW = 0.02  # error relative to LFR that the rows of this warning should reach


@dataclass(frozen=True)
class Residuals:
    """Residuals of the filter centres: filtered energy less LFR times target energy, by strata.

    Attributes:
        sizes: (s, 1) number of points in each stratum.
        count: (s, 1) number of centres among these.
        total: (s, m) sum of the residuals.
        square: (s, m) sum of their squares.
        cube: (s, m) sum of their third powers.
        unseen: (s, m) the largest square that the residual of a centre not drawn may have.
    """

    sizes: Float64[Tensor, "s 1"]
    count: Float64[Tensor, "s 1"]
    total: Float64[Tensor, "s m"]
    square: Float64[Tensor, "s m"]
    cube: Float64[Tensor, "s m"]
    unseen: Float64[Tensor, "s m"]

    @property
    def rows(self) -> int:
        """Number of centres."""
        return int(self.count.sum())

    def variance(self, unseen: float) -> Float64[Tensor, " m"]:
        """Return the variance of the weighted sum of all residuals, plus a share `unseen` of one centre not drawn."""
        within = (self.square - self.total.square() / self.count.clamp(min=1)).clamp(min=0)
        within = (within + unseen * self.unseen) / (self.count - 1 + unseen).clamp(min=1)
        return (self._weight.square() * self.count * self._left_out * within).sum(dim=0)

    def error(self) -> Float64[Tensor, " m"]:
        """Return the standard error of the weighted sum, scaled so that +- 1.96 of it is a 95% interval."""
        # Few centres can be alike by chance, so one more with the largest possible residual is added to them.
        variance = self.variance(self.one_more)
        freedom = max(1, self.rows - int((self.count > 0).sum()))
        wider = 1 + STUDENT / freedom + SKEWED * self._skewness(variance)
        return wider * variance.sqrt()

    @property
    def one_more(self) -> float:
        """The share with which one more centre counts."""
        return min(1.0, LEAST / max(1, self.rows))

    @property
    def _weight(self) -> Float64[Tensor, "s 1"]:
        return torch.where(self.count > 0, self.sizes / self.count.clamp(min=1), 0.0)

    @property
    def _left_out(self) -> Float64[Tensor, "s 1"]:
        return 1 - self.count / self.sizes

    def _skewness(self, variance: Float64[Tensor, " m"]) -> Float64[Tensor, " m"]:
        """Return the squared skewness of the weighted sum, at most one: no sample has more."""
        mean = self.total / self.count.clamp(min=1)
        third = self.cube - 3 * mean * self.square + 2 * self.count * mean**3
        unbiased = self.count.square() / ((self.count - 1) * (self.count - 2)).clamp(min=1)
        third = (self._weight**3 * self._left_out * unbiased * third).sum(dim=0)
        # Not third^2 / variance^3: these powers leave float64's range if LFR is small.
        return (third.abs().pow(1 / 3) / variance.sqrt().clamp(min=1e-150)).clamp(max=1.0).pow(6)


def rows_needed(left: Residuals, energy: Float64[Tensor, " m"], n: int) -> int | None:
    """Return how many rows are needed for an error that the centres themselves show; None if there are enough.

    There are too few if centres not drawn more than double an error that is not small. Their part falls as 1 / rows,
    the rest as 1 / sqrt(rows): enough are rows with which the two are equal, or the former is 2 % of LFR.

    Args:
        left: The residuals.
        energy: (m,) LFR, but at least `FAINT`, times the target energy of all points.
        n: Number of points.
    """
    seen = left.variance(0.0)
    unseen = (left.variance(left.one_more) - seen).clamp(min=0)
    blind = (unseen > 3 * seen) & (unseen.sqrt() > WIDE * energy)
    if not bool(blind.any()):
        return None
    equal, small = unseen / seen.clamp(min=1e-300), unseen.sqrt() / (NARROW * energy)
    needed = left.rows * float(torch.minimum(equal, small)[blind].max())
    digit = 10 ** math.floor(math.log10(needed))
    return min(n, math.ceil(needed / digit) * digit)
