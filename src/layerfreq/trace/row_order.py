"""Whether the rows of a layer's output are those of the points that went in, one each and in their order.

Some of the points go in again, in another order, and every row has to come out as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from layerfreq.data.inputs import take
from layerfreq.errors import Refusal, Refused
from layerfreq.trace.hooks import first_tensor

COLUMNS = 4096  # most numbers of each point that are compared
SOUGHT = 8  # most wrong rows that are looked for among the others


def unmeasurable(output: Any, n: int) -> Refused | None:
    """Return why what a layer returned cannot be features of n points; None if it can."""
    value, first = first_tensor(output), output
    while isinstance(first, (tuple, list)) and first and not isinstance(first, PackedSequence):
        first = first[0]
    if isinstance(first, PackedSequence):
        return Refusal.PACKED.of()
    if value is None:
        return Refusal.NO_FLOATS.of()
    if torch._C._functorch.is_batchedtensor(value):  # pyright: ignore[reportAttributeAccessIssue]
        return Refusal.IN_VMAP.of()
    if value.is_nested or value.layout != torch.strided:
        return Refusal.NOT_DENSE.of()
    shape = tuple(value.shape)
    if value.ndim and value.shape[0] == n:
        return None
    if n in shape[1:]:
        return Refusal.OTHER_AXIS.of(shape=shape, n=n, axis=shape.index(n, 1))
    return Refusal.NO_ROWS.of(shape=shape, n=n)


def sample_of(value: Tensor) -> Tensor:
    """Return some of each point's numbers (n, at most `COLUMNS`), evenly chosen, as a copy."""
    flat = value.detach().reshape(value.shape[0], -1)
    step = -(-flat.shape[1] // COLUMNS) or 1
    return flat[:, ::step].clone()


def turned(probe: Any, n: int) -> tuple[Any, list[int]]:
    """Return some of n points in another order, with everything that belongs to them, and their indices."""
    again = [*range(1, n - 1), 0] if n > 2 else [1, 0][-n:]  # of four points: the second, the third, the first
    return take(probe, again, n), again


def fault_of_rows(
    before: Tensor, shape: tuple[int, ...], after: Tensor | None, then: tuple[int, ...], again: list[int]
) -> Refusal | None:
    """Return `OTHER_ORDER`, `PAIRS` or `TOGETHER` where rows are not their points' own, else None.

    Args:
        before: (n, c) sample of a layer's rows.
        shape: Shape of the output.
        after: (k, c) sample of its rows when points `again` went in; None if there is not one row for each.
        then: Shape of that output.
        again: Indices of these points.
    """
    if after is None:
        return Refusal.OTHER_ORDER
    if (shape, then) == ((len(before),) * 2, (len(again),) * 2) and shape != then:
        return Refusal.PAIRS
    if shape[1:] != then[1:] or before.numel() == 0:
        return None  # padded to another length
    noise = 64 * torch.finfo(torch.float32).eps if before.dtype.itemsize >= 4 else 8 * torch.finfo(before.dtype).eps
    before, after = (torch.nan_to_num(t.double()) for t in (before, after))
    limit = 1e-3 * float((before - before.mean(dim=0)).abs().max()) + noise * float(before.abs().max())
    wrong = ((after - before[again]).abs().amax(dim=1) > limit).nonzero().flatten().tolist()
    if not wrong:
        return None
    elsewhere = all(bool(((before - after[i]).abs().amax(dim=1) <= limit).any()) for i in wrong[:SOUGHT])
    return Refusal.OTHER_ORDER if elsewhere else Refusal.TOGETHER
