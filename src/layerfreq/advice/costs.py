"""What the layers below a cut cost: time and parameters, as shares of the whole network's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from layerfreq.data.inputs import call, count, device_of, on_device, owned, take
from layerfreq.errors import InputError
from layerfreq.isolation.preserve import untouched
from layerfreq.network.split import below, split
from layerfreq.trace.hooks import Tap

WATCHED = ":watched"  # no layer has this name
POINTS, ROUNDS = 64, 7  # most points in a timed pass; number of passes, of which the quickest counts


@dataclass(frozen=True)
class Cost:
    """What running up to a cut takes.

    Attributes:
        time: Share of the whole network's time in eval mode, on the device where the model is.
        parameters: Number of parameters that the cut's value depends on.
    """

    time: float
    parameters: int


def costs(
    model: nn.Module, inputs: Any, layers: Sequence[str], *, gradients: bool = False
) -> tuple[dict[str, Cost], int]:
    """Return what lies below each cut, and the whole network's number of parameters.

    Timed are the parts that `split` makes, in turn with the whole network. A part that is no graph of its own watches
    every call of the model for the cut's, which takes time; it is compared with the whole network under such a watch.

    Args:
        model: The model, unwrapped; left as it was.
        inputs: One batch of what its forward takes.
        layers: Names of cuts.
        gradients: Whether the model runs only with them.
    """
    n = count(inputs)
    inputs = on_device(model, take(inputs, slice(0, POINTS), n))
    with untouched(model):
        parts: dict[str, nn.Module] = {"": model, WATCHED: _Watched(model)}
        for layer in layers:
            try:
                parts[layer] = split(model, layer, inputs)[0]
            except InputError:  # masks go around it, or another branch
                parts[layer] = below(model, layer, inputs)
        seconds = dict.fromkeys(parts, float("inf"))
        for _ in range(ROUNDS):
            for name, part in parts.items():
                seconds[name] = min(seconds[name], _timed(part, inputs, gradients))
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    found = {}
    for layer in layers:
        whole = seconds["" if isinstance(parts[layer], fx.GraphModule) else WATCHED]
        found[layer] = Cost(min(1.0, seconds[layer] / whole), sizes[layer])
    return found, sizes[""]


class _Watched(nn.Module):
    """A model with all its calls watched, for the time that watching takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with Tap(self.model, lambda event: None):
            return self.model(*args, **kwargs)


def _timed(part: nn.Module, inputs: Any, gradients: bool) -> float:
    device, given = device_of(part), owned(inputs)
    start = time.perf_counter()
    with torch.no_grad():  # as a network that is used
        call(part, given, gradients)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
