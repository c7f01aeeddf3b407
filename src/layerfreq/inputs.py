"""Inputs in the shapes that people hold them in: a tensor, an array, a dict, a tuple, or a loader of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.errors import InputError, first_line

BATCH = 1024  # points in one forward pass, where the inputs come as one piece


def is_loader(inputs: Any) -> bool:
    """Whether the inputs are an iterable of (inputs, targets) batches rather than one batch."""
    if isinstance(inputs, (Tensor, np.ndarray, Mapping, tuple)):
        return False
    if isinstance(inputs, list):
        return bool(inputs) and isinstance(inputs[0], (tuple, list)) and len(inputs[0]) == 2
    return isinstance(inputs, Iterable)


def batches(inputs: Any, targets: Any = None, *, whole: bool = False) -> Iterator[tuple[Any, Any]]:
    """Iterate over (inputs, targets) batches; targets are None where none were given.

    Args:
        inputs: A tensor or array (n, ...), a dict or tuple of them as the model's forward takes, or an
            iterable of (inputs, targets) batches.
        targets: (n, ...) or None; must be None for an iterable of batches.
        whole: Take what is in one piece as one batch, however many points it has.

    Raises:
        InputError: On empty data, or on batches that are not pairs.
    """
    if is_loader(inputs):
        if targets is not None:
            raise InputError("targets: given beside an iterable of batches, which brings its own; pass None")
        empty = True
        for batch in inputs:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise InputError(
                    f"inputs: a batch is a {type(batch).__name__}, not a pair; batches must be (inputs, targets)"
                )
            empty = False
            yield batch[0], batch[1]
        if empty:
            raise InputError("inputs: no batches; the loader is empty, or was used up by an earlier pass")
        return
    inputs = _as_tensors(inputs)
    n = count(inputs)
    if n == 0:
        raise InputError("inputs: 0 points; pass at least one")
    if targets is not None and len(targets) != n:
        raise InputError(f"targets: {len(targets)} entries for {n} inputs; they need the same length")
    size = n if whole else BATCH
    for start in range(0, n, size):
        at = slice(start, start + size)
        yield take(inputs, at, n), None if targets is None else targets[at]


def count(inputs: Any) -> int:
    """Number of points n in one batch of inputs: the first dimension of its first tensor."""
    for tensor in tensors_of(inputs):
        if tensor.ndim:
            return tensor.shape[0]
    raise InputError(f"inputs: a {type(inputs).__name__} without tensors; pass what the model's forward takes")


def take(inputs: Any, at: slice, n: int) -> Any:
    """Take some of n points: every tensor with n in front is cut, everything else is handed on."""
    return map_tensors(lambda t: t[at] if t.ndim and t.shape[0] == n else t, inputs)


def map_tensors(change: Callable[[Tensor], Any], inputs: Any) -> Any:
    """Apply a function to every tensor in a tensor, dict, tuple or list."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_tensors(change, value) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(map_tensors(change, value) for value in inputs))
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(map_tensors(change, value) for value in inputs)
    return inputs


def call(model: nn.Module, inputs: Any, gradients: bool = False) -> Any:
    """Call a model as its user does: a dict by keyword, a tuple or list by position, else one argument.

    With `gradients`, which a model needs that differentiates inside its forward, they flow from copies of the inputs.
    """
    if gradients:
        with torch.enable_grad():
            return call(model, map_tensors(_differentiable, inputs))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def _differentiable(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_() if x.is_floating_point() else x


def on_device(model: nn.Module, inputs: Any) -> Any:
    """Return the inputs on the device of the model's parameters."""
    tensor = _any_tensor(model)
    return inputs if tensor is None else map_tensors(lambda t: t.to(tensor.device), inputs)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, or the CPU."""
    tensor = _any_tensor(model)
    return torch.device("cpu") if tensor is None else tensor.device


def _any_tensor(model: nn.Module) -> Tensor | None:
    return next(chain(model.parameters(), model.buffers()), None)


@contextmanager
def blaming_inputs(model: nn.Module, inputs: Any, also: str = "") -> Iterator[None]:
    """Say of what a model raises when it is first run which inputs it got, and `also` on what it did not run."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model raises for inputs that are not its own
        given = tensors_of(inputs)
        kinds = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in given[:3]) or "no tensors"
        floats = {t.dtype for t in given if t.is_floating_point()}
        own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        other = own is not None and floats and floats != {own}
        remedy = f"its parameters are {own}, convert the inputs" if other else "pass what its forward takes"
        raise InputError(
            f"inputs: {type(model).__name__} does not run on {kinds}{also} ({first_line(error, kind=True)}); {remedy}"
        ) from error


def _as_tensors(inputs: Any) -> Any:
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "fiub":
            raise InputError(f"inputs: an array of {inputs.dtype}; pass numbers")
        return torch.from_numpy(inputs if inputs.flags.writeable else inputs.copy())
    if isinstance(inputs, Mapping):
        return {key: _as_tensors(value) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        if isinstance(inputs, list) and not any(isinstance(v, (Tensor, np.ndarray)) for v in inputs):
            try:
                return torch.as_tensor(inputs)
            except (TypeError, ValueError, RuntimeError):
                raise InputError("inputs: a list that is not numeric; pass a tensor, array, dict or tuple") from None
        if hasattr(inputs, "_fields"):
            return type(inputs)(*(_as_tensors(value) for value in inputs))
        return type(inputs)(_as_tensors(value) for value in inputs)
    return inputs


def tensors_of(inputs: Any) -> list[Tensor]:
    """Return every tensor in a tensor, dict, tuple or list."""
    found: list[Tensor] = []
    map_tensors(found.append, inputs)
    return found
