"""The oracle: float64, dense, differences taken before they are squared. Slow, and as plain as the formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from layerfreq.engines.base import PairSums, Points, chunks
from layerfreq.targets import Targets


def reference(points: Points, targets: Targets, inv_delta: Tensor) -> Callable[[Tensor], PairSums]:
    """Prepare the pair sums by the formula, with dense (rows, n) matrices in float64 on the CPU."""
    return partial(_reference, points, targets, inv_delta)


def _reference(points: Points, targets: Targets, inv_delta: Tensor, rows: Tensor) -> PairSums:
    n, r = len(points), len(rows)
    squared = torch.zeros(r, n, dtype=torch.float64)
    for columns in chunks(n, r * 16):
        others = points.block(columns).cpu().double()
        for centres in chunks(r, 16):
            x = points.block(rows[centres].to(points.features.device)).cpu().double()
            for coordinate in range(x.shape[1]):
                difference = x[:, coordinate, None] - others[:, coordinate]
                squared[centres, columns].addcmul_(difference, difference)
    y = targets.block(slice(None), torch.float64, torch.device("cpu"))
    energy, slope, self_weight = (torch.empty(len(inv_delta), r, dtype=torch.float64) for _ in range(3))
    for k, u in enumerate(inv_delta):
        kernel = torch.exp(-squared * (u / 2))
        slow = kernel * squared / -2  # its derivative with respect to 1/delta
        total = kernel.sum(dim=1, keepdim=True)
        low = kernel @ y / total
        change = (slow @ y - low * slow.sum(dim=1, keepdim=True)) / total
        low = low + targets.offset
        energy[k] = low.square().sum(dim=1)
        slope[k] = 2 * (low * change).sum(dim=1)
        self_weight[k] = (kernel / total).square().sum(dim=1)
    return PairSums.of_rows(energy, slope, self_weight, targets.energy[rows])
