"""Which points serve as filter centres, and what a sample of them says about all of them.

Centres are drawn without replacement, stratified by class: each class gets its share of every batch. The estimator is
the ratio of the strata's weighted sums, and its standard error that of its linearisation (the delta method).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerfreq.engines.base import RowCurves
from layerfreq.errors import InputError
from layerfreq.targets import Targets

FIRST_BATCH = 256  # centres drawn before the first look at the standard error
OWN_STRATUM = 4  # centres that a class must expect in the first batch to be a stratum of its own


@dataclass(frozen=True)
class Draw:
    """Filter centres in the order in which they are used.

    Attributes:
        order: (limit,) indices of points; any beginning of it is a stratified sample.
        stratum: (n,) the stratum of every point.
        sizes: (s,) how many points each stratum has.
        rtol: The relative standard error at which to stop, or None.
    """

    order: Int64[Tensor, " limit"]
    stratum: Int64[Tensor, " n"]
    sizes: Int64[Tensor, " s"]
    rtol: float | None

    def batches(self) -> Iterator[Tensor]:
        """Cut the order into batches, each as large as all before it, where it may end early."""
        done, n = 0, len(self.order)
        while done < n:
            size = n if self.rtol is None else max(FIRST_BATCH, done)
            yield self.order[done : done + size]
            done += size


def draw(targets: Targets, n: int, rows: int | None, rtol: float | None, seed: int) -> Draw:
    """Choose the filter centres of a measurement.

    Args:
        targets: Whose classes are the strata; those too small for one of their own share one, and so do vectors.
        n: Number of points.
        rows: How many centres; None means all points.
        rtol: Instead, the relative standard error of LFR to reach.
        seed: Of the draw.

    Raises:
        InputError: If `rows` or `rtol` is out of range.
    """
    limit = _row_limit(rows, rtol, n)
    if limit == n and rtol is None:
        return Draw(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.tensor([n]), None)
    stratum = torch.zeros(n, dtype=torch.int64)
    if targets.labels is not None:
        counts = torch.bincount(targets.labels, minlength=targets.width)
        own = counts * min(limit, FIRST_BATCH if rtol is not None else limit) >= OWN_STRATUM * n
        stratum = (own.cumsum(0) * own)[targets.labels]
    _, stratum, sizes = torch.unique(stratum, return_inverse=True, return_counts=True)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")
    shuffled = shuffled[torch.argsort(stratum[shuffled], stable=True)]
    # The k-th of a stratum of N points stands at (k + 1/2) / N, so that every beginning holds each stratum's share.
    place = torch.arange(n) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    share = (place.double() + 0.5) / sizes.repeat_interleave(sizes)
    return Draw(shuffled[torch.argsort(share, stable=True)][:limit], stratum, sizes, rtol)


def _row_limit(rows: int | None, rtol: float | None, n: int) -> int:
    if rows is not None and rtol is not None:
        raise InputError(f"rows={rows}, rtol={rtol}: choose one; rtol draws as many rows as it needs")
    if rtol is not None and not (isinstance(rtol, (int, float)) and 0 < rtol < math.inf):
        raise InputError(f"rtol: {rtol!r} is not a positive number; 0.01 asks for one per cent")
    if rows is None:
        return n
    if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)):
        raise InputError(f"rows: {rows!r} is not an integer; pass a number of filter centres, or None for all")
    if rows > n or rows < min(2, n):
        raise InputError(f"rows: {rows} of {n} points cannot be drawn; pass 2 .. {n}, or None for all")
    return int(rows)


class Tally:
    """Sums over filter centres, stratum by stratum, and the estimates that they give.

    Args:
        draw: Where the centres come from.
        targets: The targets of all points.
        cutoffs: Number m of cutoffs.
    """

    def __init__(self, draw: Draw, targets: Targets, cutoffs: int) -> None:
        strata = len(draw.sizes)
        self._draw, self._energy = draw, targets.energy
        self._count, self._target, self._target_square = torch.zeros(3, strata, dtype=torch.float64)
        # energy, slope, self-weight, neighbours, and for the standard error energy^2 and energy x target energy
        self._sums = torch.zeros(6, strata, cutoffs, dtype=torch.float64)

    def add(self, found: RowCurves) -> None:
        """Add the curves of some centres."""
        stratum, b = self._draw.stratum[found.rows], self._energy[found.rows]
        for total, part in (
            (self._count, torch.ones_like(b)),
            (self._target, b),
            (self._target_square, b.square()),
            (self._sums[0], found.energy),
            (self._sums[1], found.slope),
            (self._sums[2], found.self_weight),
            (self._sums[3], found.self_weight.reciprocal()),
            (self._sums[4], found.energy.square()),
            (self._sums[5], found.energy * b[:, None]),
        ):
            total.index_add_(0, stratum, part)

    @property
    def rows(self) -> int:
        """How many centres there were so far."""
        return int(self._count.sum())

    @property
    def exact(self) -> bool:
        """Whether every point was a centre."""
        return self.rows == len(self._energy)

    def estimates(self) -> dict[str, Any]:
        """Return lfr, slope, self_weight, neighbours and stderr, arrays (m,); stderr is None if exact.

        Raises:
            InputError: If all targets of the centres are zero.
        """
        weight = self._weight
        target = float(weight @ self._target)
        if target <= 0:
            raise InputError(f"rows: all targets among the {self.rows} rows drawn are zero; draw more rows")
        energy, slope, self_weight, neighbours = (weight @ part for part in self._sums[:4])
        n = float(weight @ self._count)
        return {
            "lfr": (energy / target).numpy(),
            "slope": (slope / target).numpy(),
            "self_weight": (self_weight / n).numpy(),
            "neighbours": (neighbours / n).numpy(),
            "stderr": None if self.exact else self._stderr(energy / target, target).numpy(),
        }

    def done(self) -> bool:
        """Whether the standard error asked for is reached at every cutoff."""
        if self._draw.rtol is None or self.exact:
            return self.exact
        if self.rows < 2 or float(self._target.sum()) <= 0:
            return False
        found = self.estimates()
        return bool(np.max(found["stderr"] / np.maximum(found["lfr"], 1e-300)) <= self._draw.rtol)

    @property
    def _weight(self) -> Float64[Tensor, " s"]:
        """How many points a centre of each stratum stands for."""
        return torch.where(self._count > 0, self._draw.sizes / self._count.clamp(min=1), 0.0)

    def _stderr(self, lfr: Float64[Tensor, " m"], target: float) -> Float64[Tensor, " m"]:
        """Of the ratio sum a / sum b: that of the weighted sum of the residuals a - lfr b, by strata."""
        count, b = self._count[:, None], self._target[:, None]
        total = self._sums[0] - lfr * b
        square = self._sums[4] - 2 * lfr * self._sums[5] + lfr.square() * self._target_square[:, None]
        within = (square - total.square() / count.clamp(min=1)).clamp(min=0) / (count - 1).clamp(min=1)
        left_out = 1 - count / self._draw.sizes[:, None]
        return (self._weight[:, None].square() * count * left_out * within).sum(dim=0).sqrt() / target
