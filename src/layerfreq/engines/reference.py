"""The oracle: float64, dense, differences taken before squaring. Slow, and as simple as the formula."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from layerfreq.data.targets import Targets
from layerfreq.engines.base import Engine, Points, RowCurves, chunks

CPU = torch.device("cpu")


@dataclass
class Sums:
    """Sums over columns, for r filter centres and m cutoffs.

    Attributes:
        index: (r,) the centres' indices among all points.
        kept: (m, c + 1, r) of the kernel times the targets and, last, times one.
        slow: (m, c + 1, r) of the kernel times the squared distance times the same.
        square: (m, r) of the squared kernel.
    """

    index: Tensor
    kept: Tensor
    slow: Tensor
    square: Tensor

    @classmethod
    def zeros(cls, index: Tensor, like: Tensor, cutoffs: int, width: int) -> Sums:
        """Return sums of zero for targets of some width, in the dtype and on the device of `like`."""
        kept = like.new_zeros(cutoffs, width + 1, len(index))
        return cls(index, kept, torch.zeros_like(kept), torch.zeros_like(kept[:, 0]))

    def curves(self, targets: Targets) -> RowCurves:
        """Divide by the total weight, and differentiate the quotient."""
        total = self.kept[:, -1:]
        low = self.kept[:, :-1] / total
        own = None if targets.sketch is None else targets.block(self.index.cpu(), low.dtype, low.device).T
        away = None if own is None else (own - low).square_().sum(dim=2)  # before `offset`, which would cost digits
        change = (self.slow[:, :-1] - low * self.slow[:, -1:]) / (-2 * total)
        low = low + targets.offset.to(low)[:, None]
        energy, slope = low.square().sum(dim=1), 2 * (low * change).sum(dim=1)
        self_weight = self.square / total[:, 0].square()
        found = RowCurves(self.index.cpu(), *(_doubled(part.T) for part in (energy, slope, self_weight)))
        if away is None:
            return found
        by_column = torch.stack([low.square().sum(dim=2), 2 * (low * change).sum(dim=2), away, low.sum(dim=2)])
        return replace(found, by_column=_doubled(by_column))


def _doubled(part: Tensor) -> Tensor:
    return part.cpu().double() if part.device.type == "mps" else part.double()


@dataclass
class Centres:
    """Filter centres and their sums.

    Attributes:
        place: (r,) their indices among the available points.
        x: (r, d) their features.
        sums: The columns' contributions so far.
    """

    place: Tensor
    x: Tensor
    sums: Sums


class Reference(Engine[Centres, Points]):
    """The formula with dense (rows, n) matrices, in float64 on the CPU."""

    @property
    def height(self) -> int:
        """See `Engine.height`."""
        return 256

    def begin(self, index: Tensor) -> Centres:
        """See `Engine.begin`; features are not centred, so that differences lose nothing."""
        x = self.points.features[index.to(self.points.features.device)].cpu().double()
        sums = Sums.zeros(self.points.numbers(index), x, len(self.inv_delta), self.targets.width)
        return Centres(index, x, sums)

    def prepare(self, points: Points) -> Points:
        """See `Engine.prepare`."""
        return points

    def add(self, rows: Centres, columns: Points) -> None:
        """See `Engine.add`."""
        sums, gain = rows.sums, self.points.gain.tolist()
        for at in chunks(len(columns), len(rows.x), 1 << 20):
            others = columns.features[at].cpu().double()
            squared = torch.zeros(len(rows.x), len(others), dtype=torch.float64)
            for coordinate in range(others.shape[1]):
                difference = (rows.x[:, coordinate, None] - others[:, coordinate]).mul_(gain[coordinate])
                squared.addcmul_(difference, difference)
            y = self.targets.block(slice(columns.first + at.start, columns.first + at.stop), torch.float64, CPU)
            y = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
            for k, u in enumerate(self.inv_delta):
                # Negligible weights become zero: products with denormal numbers take many times longer.
                kernel = nn.functional.threshold(torch.exp(-squared * (u / 2)), 1e-150, 0.0)
                sums.kept[k] += (kernel @ y).T
                sums.slow[k] += ((kernel * squared) @ y).T
                sums.square[k] += kernel.square().sum(dim=1)

    def finish(self, rows: Centres) -> RowCurves:
        """See `Engine.finish`."""
        return rows.sums.curves(self.targets)
