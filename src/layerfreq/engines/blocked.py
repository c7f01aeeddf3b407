"""Blocked PyTorch: any device, tiles of the kernel instead of an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from layerfreq.engines.base import Engine, Points, RowCurves, chunks
from layerfreq.engines.reference import Centres, Sums
from layerfreq.isolation.torch_settings import PLAIN, plain_products

TILE = 1 << 18  # kernel entries in a tile, which should stay in the cache
HEIGHT = 256  # most rows in a tile
ACCUMULATORS = 1 << 23  # numbers held for one block of rows
MOST_IN_FLOAT32 = 1e30  # larger cutoffs distinguish distances below float32's range


class Blocked(Engine[Centres, Points]):
    """Sums computed tile by tile on the features' device.

    Squared distances are computed in float64 by a matrix product on centred points, and directly where that product
    cancels; kernels and sums use float32 unless the features are float64 or the cutoffs need its range. Memory beyond
    the features is bounded by the tile size, independent of n.
    """

    @property
    def height(self) -> int:
        """See `Engine.height`."""
        return max(1, min(HEIGHT, ACCUMULATORS // (2 * len(self.inv_delta) * (self.targets.width + 2))))

    def begin(self, index: Tensor) -> Centres:
        """See `Engine.begin`."""
        place = index.to(self.points.features.device)
        x = self.points.block(place)
        sums = Sums.zeros(self.points.numbers(index), x, len(self.inv_delta), self.targets.width)
        return Centres(place, x, sums)

    def prepare(self, points: Points) -> Points:
        """See `Engine.prepare`."""
        return points

    def add(self, rows: Centres, columns: Points) -> None:
        """See `Engine.add`."""
        x, sums = rows.x, rows.sums
        wide = columns.double or float(self.inv_delta[-1]) > MOST_IN_FLOAT32
        narrow = x.dtype if wide else torch.float32
        # Finite exponents avoid inf * 0; those that underflow would take ten times longer, and add nothing.
        largest, smallest_exponent = (1e300, -700.0) if narrow == torch.float64 else (1e30, -87.0)
        cutoffs = self.inv_delta.clamp(max=largest).tolist()
        own = sums.index.to(x.device) - columns.first
        with _full_precision(x.device.type):
            for at in chunks(len(columns), len(x), TILE):
                raw = columns.features[at]

                def difference(i: Tensor, j: Tensor, raw: Tensor = raw) -> Tensor:
                    return self.points.difference(self.points.features[rows.place[i]], raw[j])

                squared = squared_distances(x, columns.block(at), own, at.start, difference).to(narrow)
                y = self.targets.block(slice(columns.first + at.start, columns.first + at.stop), narrow, x.device)
                y = torch.cat([y, torch.ones_like(y[:, :1])], dim=1).T.contiguous()
                kernel = torch.empty_like(squared)
                # A point's own weight, one, is added separately: small weights added to it one by one would be rounded
                # to float32's digits of one, and equal weights in the same way.
                here = torch.nonzero((own >= at.start) & (own < at.stop))[:, 0]
                itself = own[here] - at.start
                sums.kept[:, :, here] += y[:, itself]
                sums.square[:, here] += 1
                for k, u in enumerate(cutoffs):
                    torch.mul(squared, -u / 2, out=kernel).clamp_(min=smallest_exponent).exp_()
                    kernel[here, itself] = 0
                    sums.kept[k] += y @ kernel.T
                    sums.square[k] += torch.linalg.vector_norm(kernel, dim=1).square_()
                    sums.slow[k] += y @ kernel.mul_(squared).T

    def finish(self, rows: Centres) -> RowCurves:
        """See `Engine.finish`."""
        return rows.sums.curves(self.targets)


def squared_distances(
    x: Tensor, y: Tensor, rows: Tensor, start: int, difference: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return |x_i - y_j|^2, accurate for close pairs too, and exactly 0 for a point with itself.

    Args:
        x: (r, d) the filter centres.
        y: (k, d) points `start` .. `start` + k - 1 of the set.
        rows: (r,) the indices of the centres in the set.
        start: The index of the first column.
        difference: Returns x_i - y_j for (k,) pairs i, j, (k, d), with more digits than x and y may have.
    """
    size = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squared = torch.addmm(size, x, y.T, alpha=-2)
    # The product has an error of some eps * size: for closer pairs, distances come from differences.
    close = squared < size.mul_(1e-9 if x.dtype == torch.float64 else 1e-3)
    own = torch.nonzero((rows >= start) & (rows < start + y.shape[0]))[:, 0]
    close[own, rows[own] - start] = False
    pairs = torch.nonzero(close)
    for at in chunks(len(pairs), x.shape[1]):
        i, j = pairs[at].T
        squared[i, j] = difference(i, j).square_().sum(dim=1).to(x.dtype)
    squared[own, rows[own] - start] = 0.0
    return squared


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Keep the caller's reduced-precision settings (TF32, bfloat16 products, autocast) out of the sums."""
    with plain_products.at(PLAIN), torch.no_grad(), torch.autocast(device_type=device, enabled=False):
        yield
