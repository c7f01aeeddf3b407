"""What a model puts out for its points, gathered by the pass that reads its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.data.arraylike import as_array
from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import count, tensors_of
from layerfreq.errors import InputError
from layerfreq.trace.hooks import first_tensor


class Outputs:
    """Inputs, targets and outputs, batch by batch."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def seen(self) -> bool:
        """Whether there are some."""
        return bool(self._parts)

    def see(self, inputs: Any, targets: Any, output: Any) -> None:
        """Take in a batch."""
        x, value = coordinates(inputs), tensor_of(output)
        if value.ndim == 0 or len(value) != len(x):
            raise InputError(f"error: the model returns {tuple(value.shape)} for {len(x)} points; error=None")
        self._parts.append((x, labels_of(targets), value.detach().clone()))

    def whole(self, shards: Shards) -> tuple[Tensor, Tensor, Tensor]:
        """Return (n, d) inputs, (n, ...) targets and (n, ...) outputs of all batches, of all ranks."""
        found = [torch.cat(parts) for parts in zip(*self._parts, strict=True)]
        if not shards.alone:
            said = shards.gather([one.cpu() for one in found])
            found = [torch.cat(parts) for parts in zip(*said, strict=True)]
        return found[0], found[1], found[2]


def coordinates(inputs: Any) -> Tensor:
    """Return a batch's inputs as points (n, d) that have frequencies.

    Raises:
        InputError: If they are several tensors.
    """
    tensors = tensors_of(inputs)
    if len(tensors) != 1:
        raise InputError(
            f"error: inputs are {len(tensors)} tensors, and frequencies are those over one; pass error=None, and "
            "outputs to error_spectrum"
        )
    return tensors[0].detach().reshape(count(inputs), -1)


def labels_of(targets: Any) -> Tensor:
    """Return a batch's targets as a tensor on the CPU."""
    if targets is None:
        raise InputError("targets: None, and an error needs them; pass one target for each input")
    return torch.as_tensor(as_array(targets, "targets")).detach().cpu()


def tensor_of(output: Any) -> Tensor:
    """Return what counts of a model's output: its `logits`, or the first floating tensor.

    Raises:
        InputError: If there is none.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = logits if isinstance(logits, Tensor) else first_tensor(output)
    if found is None:
        raise InputError(f"error: the model returns a {type(output).__name__} without floats; pass error=None")
    return found


class Function(nn.Module):
    """A plain function of the inputs, as a module without layers.

    Args:
        function: Makes (n, ...) outputs, a tensor or an array, of (n, ...) inputs.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the function's outputs, arrays as tensors."""
        found = self.function(*inputs, **named)
        if isinstance(found, Tensor) or first_tensor(found) is not None:
            return found
        return torch.as_tensor(np.array(as_array(found, "outputs")))
