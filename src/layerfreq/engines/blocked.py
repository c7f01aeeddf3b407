"""Blocked PyTorch: any device, tiles of the kernel instead of an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from layerfreq.engines.base import PairSums, Points, chunks
from layerfreq.targets import Targets

TILE = 1 << 18  # kernel entries in a tile: it should stay in cache
HEIGHT = 256  # rows in a tile
ACCUMULATORS = 1 << 23  # numbers held for one block of rows


def blocked(points: Points, targets: Targets, inv_delta: Tensor) -> Callable[[Tensor], PairSums]:
    """Prepare the pair sums, computed tile by tile on the features' device.

    Squared distances are taken in float64 by a matrix product on centred points, and directly where that
    product cancels; kernels and sums run in float32 unless the features are float64. Memory beyond the
    features is bounded by the tile, whatever n.
    """
    return partial(_blocked, points, targets, inv_delta)


def _blocked(points: Points, targets: Targets, inv_delta: Tensor, rows: Tensor) -> PairSums:
    n, m, c = len(points), len(inv_delta), targets.width
    height = max(1, min(len(rows), HEIGHT, ACCUMULATORS // (2 * m * (c + 2))))
    width = max(1, TILE // height)
    parts = []
    with _full_precision(points.features.device.type):
        for start in range(0, len(rows), height):
            block = rows[start : start + height]
            sums = _row_block(points, targets, inv_delta, block.to(points.features.device), width, n)
            parts.append(PairSums.of_rows(*sums, targets.energy[block]))
    return sum(parts[1:], parts[0])


def _row_block(
    points: Points, targets: Targets, inv_delta: Tensor, rows: Tensor, width: int, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    device, wide = points.features.device, points.wide
    narrow = wide if points.double else torch.float32
    # Staying finite keeps inf * 0 away; exponents that underflow take a path ten times slower, and add nothing.
    largest, smallest_exponent = (1e300, -700.0) if narrow == torch.float64 else (1e30, -87.0)
    cutoffs = inv_delta.clamp(max=largest).tolist()
    shape = (len(cutoffs), targets.width + 1, len(rows))
    kept, slow = (torch.zeros(shape, dtype=wide, device=device) for _ in range(2))
    square = torch.zeros(len(cutoffs), len(rows), dtype=wide, device=device)
    x = points.block(rows)
    for start in range(0, n, width):
        columns = slice(start, min(n, start + width))
        squared = squared_distances(x, points.block(columns), rows, start).to(narrow)
        y = targets.block(columns, narrow, device)
        y = torch.cat([y, torch.ones_like(y[:, :1])], dim=1).T.contiguous()
        kernel = torch.empty_like(squared)
        for k, u in enumerate(cutoffs):
            torch.mul(squared, -u / 2, out=kernel).clamp_(min=smallest_exponent).exp_()
            kept[k] += y @ kernel.T
            square[k] += torch.linalg.vector_norm(kernel, dim=1).square_()
            slow[k] += y @ kernel.mul_(squared).T
    total = kept[:, -1:]
    low = kept[:, :-1] / total
    change = (slow[:, :-1] - low * slow[:, -1:]) / (-2 * total)
    low = low + targets.offset.to(device=device, dtype=wide)[:, None]
    return low.square().sum(dim=1), 2 * (low * change).sum(dim=1), square / total[:, 0].square()


def squared_distances(x: Tensor, y: Tensor, rows: Tensor, start: int) -> Tensor:
    """Return |x_i - y_j|^2, accurate for close pairs too, and exactly 0 for a point with itself.

    Args:
        x: (r, d) the filter centres.
        y: (k, d) points `start` .. `start` + k - 1 of the set.
        rows: (r,) the indices of the centres in the set.
        start: The index of the first column.
    """
    size = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squared = torch.addmm(size, x, y.T, alpha=-2)
    # The product leaves an error of some eps * size: pairs closer than this get their differences taken directly.
    close = squared < size.mul_(1e-9 if x.dtype == torch.float64 else 1e-3)
    own = torch.nonzero((rows >= start) & (rows < start + y.shape[0]))[:, 0]
    close[own, rows[own] - start] = False
    pairs = torch.nonzero(close)
    for at in chunks(len(pairs), x.shape[1]):
        i, j = pairs[at].T
        squared[i, j] = (x[i] - y[j]).square_().sum(dim=1)
    squared[own, rows[own] - start] = 0.0
    return squared


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Keep the caller's reduced-precision settings (TF32, bfloat16 products, autocast) out of the sums."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device_type=device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
