"""Whether the rows of a layer's output are those of the points that went in, one each and in their order.

It is tried on a few points: some of them go in again, in another order, and every row has to come out as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from layerfreq.data.inputs import map_tensors

COLUMNS = 4096  # numbers of each point that are compared
SOUGHT = 8  # rows that are looked for among the others

ELSEWHERE = (
    "it returns points in another order than they came in (sorted, shuffled, or another axis than the first is the "
    "batch), so that targets would go to other points; keep the order, or choose another layer"
)
PAIRS = (
    "its columns are the points of a batch as its rows are (such as the similarities of all with all), so that it has "
    "no features of one point; choose a layer before it"
)
TOGETHER = (
    "its features of a point change with the other points of a batch (attention or statistics over the batch, or "
    "noise), so that what is measured depends on the batches, too"
)


def unmeasurable(value: Tensor | None, n: int) -> str:
    """Return why a layer's output cannot be features of n points, or an empty string."""
    if value is None:
        return "it returns no floating tensor (of complex ones torch.view_as_real makes floats)"
    if torch._C._functorch.is_batchedtensor(value):  # pyright: ignore[reportAttributeAccessIssue]
        return "inside torch.func.vmap a module sees one point at a time; call it on all of them"
    if value.is_nested or value.layout != torch.strided:
        return "it returns a nested or sparse tensor; make it dense in the model, or choose another layer"
    shape = tuple(value.shape)
    if value.ndim and value.shape[0] == n:
        return ""
    first = "the first dimension must be the batch"
    if n in shape[1:]:
        return (
            f"its output {shape} has {n} samples on axis {shape.index(n, 1)}, but {first}; "
            "pass batch_first=True where a module knows it, or choose another layer"
        )
    return f"its output {shape} has not one row for each of {n} inputs; {first}, so choose another layer"


def sample_of(value: Tensor) -> Tensor:
    """Return some of each point's numbers (n, at most `COLUMNS`), evenly chosen, as a copy."""
    flat = value.detach().reshape(value.shape[0], -1)
    step = -(-flat.shape[1] // COLUMNS) or 1
    return flat[:, ::step].clone()


def turned(probe: Any, n: int) -> tuple[Any, list[int]]:
    """Return some of n points in another order, with all that belongs to them, and which they are."""
    again = [*range(1, n - 1), 0] if n > 2 else [1, 0][-n:]  # of four points: the second, the third, the first
    return map_tensors(lambda t: t[again] if t.ndim and t.shape[0] == n else t, probe), again


def fault_of_rows(
    before: Tensor, shape: tuple[int, ...], after: Tensor | None, then: tuple[int, ...], again: list[int]
) -> str:
    """Return `ELSEWHERE`, `PAIRS` or `TOGETHER` where rows are not their points' own, else "".

    Args:
        before: (n, c) sample of a layer's rows.
        shape: Of the output.
        after: (k, c) sample of its rows when points `again` went in; None if there is not one row for each.
        then: Shape of that output.
        again: Which points those were.
    """
    if after is None:
        return ELSEWHERE
    if (shape, then) == ((len(before),) * 2, (len(again),) * 2) and shape != then:
        return PAIRS
    if shape[1:] != then[1:] or before.numel() == 0:
        return ""  # padded to another length
    noise = 64 * torch.finfo(torch.float32).eps if before.dtype.itemsize >= 4 else 8 * torch.finfo(before.dtype).eps
    before, after = (torch.nan_to_num(t.double()) for t in (before, after))
    limit = 1e-3 * float((before - before.mean(dim=0)).abs().max()) + noise * float(before.abs().max())
    wrong = ((after - before[again]).abs().amax(dim=1) > limit).nonzero().flatten().tolist()
    if not wrong:
        return ""
    elsewhere = all(bool(((before - after[i]).abs().amax(dim=1) <= limit).any()) for i in wrong[:SOUGHT])
    return ELSEWHERE if elsewhere else TOGETHER
