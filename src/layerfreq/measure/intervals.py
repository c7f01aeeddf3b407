"""How far a sample of filter centres may be off: the standard error of a ratio, and what few centres cannot know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

LEAST = 8  # centres below which a stratum may have met nothing but its usual points
STUDENT = 1.21  # by which the 95% quantile of Student's t exceeds the normal one, times the degrees of freedom
# The same for skewed sums, times the squared skewness (Edgeworth's expansion has 1.08): twice, for a sample shows too
# little of its population's tail.
SKEWED = 2.16
FAINT = 0.01  # LFR below which errors are not held to be relative any more
WIDE = 0.05  # error, relative to LFR, from which it is worth a warning that it comes from what the centres have not met
NARROW = 0.02  # and what more rows should bring it to


@dataclass(frozen=True)
class Residuals:
    """What the centres' filtered energies differ by from LFR times their target energies, by strata.

    Attributes:
        sizes: (s, 1) how many points each stratum has.
        count: (s, 1) how many of these were centres.
        total: (s, m) their sum.
        square: (s, m) the sum of their squares.
        cube: (s, m) of their third powers.
        unseen: (s, m) the square of one as large as it may be of a centre not met.
    """

    sizes: Float64[Tensor, "s 1"]
    count: Float64[Tensor, "s 1"]
    total: Float64[Tensor, "s m"]
    square: Float64[Tensor, "s m"]
    cube: Float64[Tensor, "s m"]
    unseen: Float64[Tensor, "s m"]

    @property
    def rows(self) -> int:
        """How many centres there were."""
        return int(self.count.sum())

    def variance(self, unseen: float) -> Float64[Tensor, " m"]:
        """Return the variance of the weighted sum of all residuals, with some share of one more centre, not met."""
        within = (self.square - self.total.square() / self.count.clamp(min=1)).clamp(min=0)
        within = (within + unseen * self.unseen) / (self.count - 1 + unseen).clamp(min=1)
        return (self._weight.square() * self.count * self._left_out * within).sum(dim=0)

    def error(self) -> Float64[Tensor, " m"]:
        """Return the standard error of the weighted sum, such that 1.96 of it make a 95% interval."""
        # As if one more centre had been drawn, that errs as much as one may, of few: these can be alike by chance.
        variance = self.variance(self.one_more)
        freedom = max(1, self.rows - int((self.count > 0).sum()))
        wider = 1 + STUDENT / freedom + SKEWED * self._skewness(variance)
        return wider * variance.sqrt()

    @property
    def one_more(self) -> float:
        """The share of one more centre that counts."""
        return min(1.0, LEAST / max(1, self.rows))

    @property
    def _weight(self) -> Float64[Tensor, "s 1"]:
        return torch.where(self.count > 0, self.sizes / self.count.clamp(min=1), 0.0)

    @property
    def _left_out(self) -> Float64[Tensor, "s 1"]:
        return 1 - self.count / self.sizes

    def _skewness(self, variance: Float64[Tensor, " m"]) -> Float64[Tensor, " m"]:
        """Squared skewness of the weighted sum, at most one, which is that of the most skewed sample there can be."""
        mean = self.total / self.count.clamp(min=1)
        third = self.cube - 3 * mean * self.square + 2 * self.count * mean**3
        unbiased = self.count.square() / ((self.count - 1) * (self.count - 2)).clamp(min=1)
        third = (self._weight**3 * self._left_out * unbiased * third).sum(dim=0)
        # Not third^2 / variance^3, whose powers leave float64's range where LFR is small.
        return (third.abs().pow(1 / 3) / variance.sqrt().clamp(min=1e-150)).clamp(max=1.0).pow(6)


def rows_needed(left: Residuals, energy: Float64[Tensor, " m"], n: int) -> int | None:
    """Return how many rows it takes until the error comes from what they show, or None if that is so.

    It is not where what the centres have not met more than doubles the error, and this matters. That part of the error
    falls as 1 / rows, and the rest as 1 / sqrt(rows): enough are the rows with which they are equal, or which
    bring the former to 2 % of LFR.

    Args:
        left: The residuals.
        energy: (m,) LFR times the target energy of all points, at least `FAINT` of this.
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
