"""Whether the rows of a layer's output are those of the points that went in, one each and in their order.

It is tried on a few points: some of them go in again, in another order, and every row has to come out as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.inputs import count, map_tensors
from layerfreq.taps import Event, Tap, first_tensor

Call = tuple[str, int]  # a module's or function's name, and which call of it

ELSEWHERE = (
    "it returns points in another order than they came in (sorted, shuffled, or another axis than the first is the "
    "batch), so that targets would go to other points; keep the order, or choose another layer"
)
TOGETHER = (
    "its features of a point change with the other points of a batch (attention or statistics over the batch, or "
    "noise), so that what is measured depends on the batches, too"
)


def unmeasurable(value: Tensor | None, n: int) -> str:
    """Return why a layer's output cannot be features of n points, or an empty string."""
    if value is None:
        return "it returns no floating tensor (of complex ones torch.view_as_real makes floats)"
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


def faults_of_rows(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], probe: Any, values: Mapping[Call, Tensor]
) -> dict[Call, str]:
    """Return `ELSEWHERE` or `TOGETHER` for the layers whose rows are not their points' own; call it in `untouched`.

    Args:
        model: The model.
        run: Calls it.
        probe: A few points.
        values: What layers returned for the probe.
    """
    n = count(probe)
    if n < 2:
        return {}
    again = [*range(1, n - 1), 0] if n > 2 else [1, 0]  # of four points: the second, the third, the first
    some = map_tensors(lambda t: t[again] if t.ndim and t.shape[0] == n else t, probe)
    found: dict[Call, str] = {}

    def compare(event: Event) -> None:
        before, value = values.get((event.name, event.number)), first_tensor(event.output)
        if before is not None and value is not None:
            fault = _fault(before, value.detach(), again)
            if fault:
                found[event.name, event.number] = fault

    try:
        with Tap(model, compare):
            run(model, some)
    except Exception:
        # A model may want batches of one size, which is no fault of its rows; those that came before it are known.
        return found
    return found


def _fault(before: Tensor, value: Tensor, again: list[int]) -> str:
    if value.ndim == 0 or value.shape[0] != len(again):
        return ELSEWHERE
    if value.shape[1:] != before.shape[1:]:
        return ""  # padded to another length
    if before.numel() == 0:
        return ""
    noise = 64 * torch.finfo(torch.float32).eps if before.dtype.itemsize >= 4 else 8 * torch.finfo(before.dtype).eps
    before, value = (torch.nan_to_num(t.flatten(1).float()) for t in (before, value))
    limit = 1e-3 * float((before - before.mean(dim=0)).abs().max()) + noise * float(before.abs().max())

    def alike(i: int, j: int) -> bool:
        return bool((value[i] - before[j]).abs().max() <= limit)

    if all(alike(i, j) for i, j in enumerate(again)):
        return ""
    return ELSEWHERE if all(any(alike(i, j) for j in range(len(before))) for i in range(len(again))) else TOGETHER
