"""Which points are filter centres, and what a sample of them says about all of them.

Centres are drawn without replacement from strata. These are classes (small ones share a stratum), or for vectors
intervals of the target energy, which is known before. Strata get centres in proportion to their target energy, but not
fewer than `LEAST`, so that no variance rests on a pair of centres. Vectors with so much energy that a proportional draw
would hardly miss them are all taken. The estimator is the ratio of the strata's weighted sums, and its standard error
that of the linearised ratio (the delta method; see `intervals`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.sketch import unsketch
from layerfreq.data.targets import Targets
from layerfreq.engines.base import RowCurves
from layerfreq.errors import Code
from layerfreq.measure.intervals import FAINT, LEAST, Residuals, rows_needed
from layerfreq.measure.options import check_rows

FIRST_BATCH = 256  # centres before the standard error is first looked at
MOST = 8  # most strata of vector targets


@dataclass(frozen=True)
class Draw:
    """Filter centres in the order in which they are used.

    Attributes:
        order: (limit,) indices of points; every prefix holds each stratum's quota.
        stratum: (n,) the stratum of every point.
        sizes: (s,) number of points in each stratum.
        rtol: The relative standard error at which to stop, or None.
    """

    order: Int64[Tensor, " limit"]
    stratum: Int64[Tensor, " n"]
    sizes: Int64[Tensor, " s"]
    rtol: float | None

    def batches(self) -> Iterator[Tensor]:
        """Cut the order into batches after which the measurement may end, each as large as all before it."""
        done, n = 0, len(self.order)
        while done < n:
            size = n if self.rtol is None else max(FIRST_BATCH, done)
            yield self.order[done : done + size]
            done += size


def draw(targets: Targets, n: int, rows: int | None, rtol: float | None, seed: int) -> Draw:
    """Choose the filter centres of a measurement.

    Args:
        targets: The targets, whose classes or energies make the strata.
        n: Number of points.
        rows: Number of centres; None means all points.
        rtol: Relative standard error of LFR to reach, instead of `rows`.
        seed: Seed for the draw.

    Raises:
        InputError: If `rows` or `rtol` is out of range.
    """
    limit = row_limit(rows, rtol, n)
    if limit == n and rtol is None:
        return Draw(torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.tensor([n]), None)
    early = min(limit, FIRST_BATCH) if rtol is not None else limit
    # A centre may add more to the sums the larger its target energy; half is for the energy of its neighbours.
    size = 0.5 + 0.5 * targets.energy / targets.energy.mean()
    _, stratum, sizes = torch.unique(_strata(targets, size, early), return_inverse=True, return_counts=True)
    quota = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, stratum, size) / n
    quota = quota.clamp(min=min(1 / len(sizes), LEAST / early))
    if len(certain := _certain(targets, size, early)):
        quota[stratum[certain[0]]] = n  # these come before all others
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")
    shuffled = shuffled[torch.argsort(stratum[shuffled], stable=True)]
    # The k-th point of a stratum is placed at (k + 1/2) / quota: every prefix holds each stratum's quota, or all of it.
    place = torch.arange(n) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    share = (place.double() + 0.5) / quota.repeat_interleave(sizes)
    return Draw(shuffled[torch.argsort(share, stable=True)][:limit], stratum, sizes, rtol)


def _certain(targets: Targets, size: Float64[Tensor, " n"], early: int) -> Int64[Tensor, " k"]:
    """Return the points larger than the share of one of the first centres, at most half as many as those."""
    if targets.labels is not None or targets.sketch:  # a sketch's error needs centres of equal weight
        return torch.zeros(0, dtype=torch.int64)
    largest, index = size.topk(early // 2)
    return index[largest * early > len(size)]


def _strata(targets: Targets, size: Float64[Tensor, " n"], early: int) -> Int64[Tensor, " n"]:
    """Return each point's stratum; a stratum can expect `LEAST` of the first centres, or is taken whole."""
    n = len(size)
    if targets.labels is not None:
        total = torch.zeros(targets.width, dtype=torch.float64).index_add_(0, targets.labels, size)
        own = total * early >= LEAST * n
        return (own.cumsum(0) * own)[targets.labels]
    stratum = torch.zeros(n, dtype=torch.int64)
    if targets.sketch:
        return stratum
    certain = _certain(targets, size, early)
    rest = size.index_fill(0, certain, 0.0)
    count = max(1, min(MOST, (early - len(certain)) // (2 * LEAST)))
    order = torch.argsort(rest, stable=True)
    stratum[order] = (rest[order].cumsum(0) * (count / rest.sum())).long().clamp(max=count - 1)
    return stratum.index_fill_(0, certain, count)


def row_limit(rows: int | None, rtol: float | None, n: int) -> int:
    """Return the largest number of filter centres among n points.

    Raises:
        InputError: If `rows` or `rtol` is out of range.
    """
    check_rows(rows, rtol, n)
    return n if rows is None else rows


class Tally:
    """Sums over filter centres, stratum by stratum, and the estimates that they give.

    Args:
        draw: Where the centres come from.
        targets: The targets of all points.
        cutoffs: Number m of cutoffs.
        shards: The ranks that the centres are spread over.
    """

    def __init__(self, draw: Draw, targets: Targets, cutoffs: int, shards: Shards) -> None:
        strata, sketch = len(draw.sizes), targets.sketch or 0
        self._draw, self._targets, self._shards = draw, targets, shards
        # Number of centres, their target energy b, b^2, b^3.
        here = [torch.zeros(4, strata, dtype=torch.float64)]
        # Energy a, slope, self-weight s, neighbours, and for the standard error a^2, a b, a^3, a^2 b, a b^2, s^2.
        here += [torch.zeros(10, strata, cutoffs, dtype=torch.float64)]
        # Sketched targets: energy and slope by column; the unfiltered energy of the sums, after what it stands for.
        here += [torch.zeros(2, cutoffs, sketch + 1, dtype=torch.float64), torch.zeros(sketch + 1, dtype=torch.float64)]
        self._here, self._all = here, here
        self._most_here = self._most = torch.zeros(cutoffs, dtype=torch.float64)  # the largest a

    def add(self, found: RowCurves) -> None:
        """Add the curves of some centres."""
        a, device = found.energy, found.energy.device
        stratum, b = (part[found.rows].to(device) for part in (self._draw.stratum, self._targets.energy))
        self._here = [part.to(device) for part in self._here]  # where the curves are, so that only totals are moved
        self._most_here = self._most_here.to(device)
        counts, sums, by_column, own = self._here
        parts = [(counts[0], torch.ones_like(b)), (counts[1], b), (counts[2], b.square()), (counts[3], b**3)]
        parts += [(sums[0], a), (sums[1], found.slope), (sums[2], found.self_weight)]
        parts += [(sums[3], found.self_weight.reciprocal())]
        if self._draw.rtol is not None or len(self._draw.order) < len(self._targets.energy):
            of_b = b[:, None]
            parts += [(sums[4], a * a), (sums[5], a * of_b), (sums[6], a**3), (sums[7], a * a * of_b)]
            parts += [(sums[8], a * of_b * of_b), (sums[9], found.self_weight.square())]
            self._most_here = torch.maximum(self._most_here, a.amax(dim=0)) if len(a) else self._most_here
        for total, part in parts:
            if len(total) == 1:
                total += part.sum(dim=0)
            else:
                total.index_add_(0, stratum, part)
        if self._targets.rest is not None:
            assert found.by_column is not None
            assert self._targets.vectors is not None
            by_column += found.by_column[:2]
            own[1:] += self._targets.vectors[found.rows, 1:].square().sum(dim=0).to(device)
            own[0] += self._targets.rest[found.rows].sum().to(device)

    def share(self) -> None:
        """Add up what the ranks found so far; everything below refers to it."""
        self._all = [self._shards.sum(part.cpu()) for part in self._here]
        self._most = self._shards.max(self._most_here.cpu())

    @property
    def rows(self) -> int:
        """Number of centres so far."""
        return int(self._all[0][0].sum())

    @property
    def target(self) -> float:
        """Mean target energy of all points, estimated from the centres."""
        return float(self._weight @ self._all[0][1]) / float(self._weight @ self._all[0][0])

    @property
    def exact(self) -> bool:
        """Whether every point was a centre."""
        return self.rows == len(self._targets.energy)

    def estimates(self) -> dict[str, Any]:
        """Return lfr, slope, self_weight, neighbours and stderr, arrays (m,); stderr is None if exact.

        Raises:
            InputError: If all targets of the centres are zero.
        """
        lfr, slope, sketch_error, target = self._ratios()
        self_weight, neighbours = (self._weight @ part for part in self._all[1][2:4])
        n = float(self._weight @ self._all[0][0])
        stderr = None
        if not self.exact or self._targets.sketch:
            stderr = (self._rows_error(lfr, target).square() + sketch_error.square()).sqrt().numpy()
        return {
            "lfr": lfr.numpy(),
            "slope": slope.numpy(),
            "self_weight": (self_weight / n).numpy(),
            "neighbours": (neighbours / n).numpy(),
            "stderr": stderr,
        }

    def done(self) -> bool:
        """Whether LFR has the standard error asked for at every cutoff, or more centres cannot reduce it."""
        if self._draw.rtol is None or self.exact:
            return self.exact
        if self.rows < 2 or float(self._all[0][1].sum()) <= 0:
            return False
        lfr, _, _, target = self._ratios()
        return bool((self._rows_error(lfr, target) / lfr.clamp(min=FAINT)).max() <= self._draw.rtol)

    def rows_needed(self) -> int | None:
        """Return how many rows are needed if the standard error comes mostly from centres not drawn; else None."""
        if self.exact:
            return None
        lfr, _, _, target = self._ratios()
        return rows_needed(self._residuals(lfr), target * lfr.clamp(min=FAINT), len(self._targets.energy))

    @property
    def _weight(self) -> Float64[Tensor, " s"]:
        """Number of points that a centre of each stratum stands for."""
        count = self._all[0][0]
        return torch.where(count > 0, self._draw.sizes / count.clamp(min=1), 0.0)

    def _ratios(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Return lfr and slope, the standard error of lfr due to a sketch, and the target energy of all points."""
        weight, (counts, sums, by_column, own) = self._weight, self._all
        target = float(weight @ counts[1])
        if target <= 0:
            raise Code.CONSTANT(f"rows: all targets among the {self.rows} rows drawn are zero; draw more rows")
        energy, slope = weight @ sums[0], weight @ sums[1]
        error = torch.zeros_like(energy)
        if self._targets.sketch:  # sketched targets are one stratum, so all centres have one weight
            kept, error = unsketch(by_column, own[1:], float(own[0]))
            energy, slope = kept * weight[0]
            error *= weight[0]
        return energy / target, slope / target, error / target, target

    def _rows_error(self, lfr: Float64[Tensor, " m"], target: float) -> Float64[Tensor, " m"]:
        """Return the standard error of sum a / sum b, from the weighted sum of the residuals a - lfr b."""
        return self._residuals(lfr).error() / target

    def _residuals(self, lfr: Float64[Tensor, " m"]) -> Residuals:
        (counts, sums, _, _), draw = self._all, self._draw
        count, b, b_square, b_cube = counts[:, :, None]
        square = sums[4] - 2 * lfr * sums[5] + lfr**2 * b_square
        cube = sums[6] - 3 * lfr * sums[7] + 3 * lfr**2 * sums[8] - lfr**3 * b_cube
        return Residuals(draw.sizes.double()[:, None], count, sums[0] - lfr * b, square, cube, self._unseen(lfr))

    def _unseen(self, lfr: Float64[Tensor, " m"]) -> Float64[Tensor, "s m"]:
        """Return the largest squared residual that a centre of each stratum may have, on either side."""
        energy, sizes = self._targets.energy, self._draw.sizes
        mean = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, self._draw.stratum, energy) / sizes
        usual = lfr * mean[:, None]
        low = (lfr * mean.clamp(min=float(energy.mean()))[:, None] - self._targets.bounds[0]).clamp(min=0)
        if self._targets.sketch:
            return low.square()
        # A window gives its neighbours less than 1 - s of the weight, since its centre has at least s. They are no
        # larger than the longest target in its own window: as found, or as much of it as other windows keep.
        n = float(self._weight @ self._all[0][0])
        s, s_square = self._weight @ self._all[1][2] / n, self._weight @ self._all[1][9] / n
        longest = torch.maximum(self._most, s_square * float(energy.max()))
        high = ((1 - 2 * s + s_square).clamp(min=0) * longest - usual).clamp(min=0) / 3  # it is rarely that large
        return torch.maximum(low, high).square()
