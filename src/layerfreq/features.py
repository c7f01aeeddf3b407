"""The features that a network computes at its layers, gathered over all its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.inputs import batches, call, count
from layerfreq.network import Layer, choose_layers, on_device, probe_of, reject_one_pass, unmeasurable, unwrap
from layerfreq.taps import Event, Tap, first_tensor
from layerfreq.untouched import sharded_modules, untouched


class _Reached(Exception):
    pass


def layer_features(
    model: nn.Module, inputs: Any, layers: Sequence[str] | str | None = None, *, stream: bool = False
) -> dict[str, Tensor] | Iterator[tuple[str, Tensor]]:
    """Return the features at layers: their outputs in eval mode, without gradients, flattened to (n, d).

    Of a module that returns several tensors, the first floating one is taken.

    Args:
        model: Any module; it is left as it was.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        layers: Names as from `hidden_layers`, or any other module of the model; None means the hidden layers.
        stream: Return an iterator of (name, features) that holds one layer at a time, at the cost of one
            forward pass (up to the layer) for each.

    Returns:
        name -> (n, d) tensor on the model's device, or the iterator.

    Raises:
        InputError: For a layer that is unknown or cannot be measured, with the reason.
    """
    model = unwrap(model)
    if stream:
        reject_one_pass(inputs)
    with untouched(model, inputs):
        chosen = choose_layers(model, probe_of(model, inputs), layers)
    if stream:
        return ((layer.name, collect(model, inputs, None, [layer])[0][layer.name]) for layer in chosen)
    return collect(model, inputs, None, chosen)[0]


def collect(
    model: nn.Module, inputs: Any, targets: Any, layers: Sequence[Layer]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Run the model over all batches and gather some layers' features, and the targets in the same order."""
    features: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    labels: list[Tensor] = []
    wanted = {(layer.base, layer.number): layer.name for layer in layers}
    whole = bool(sharded_modules(model))  # what is left half-way would not be shared out over the ranks again
    with untouched(model, inputs):
        for x, y in batches(inputs, targets):
            x = on_device(model, x)
            missing = dict(wanted)
            n = count(x)

            def keep(event: Event, missing: dict[tuple[str, int], str] = missing, n: int = n) -> None:
                name = missing.pop((event.name, event.number), None)
                if name is None:
                    return
                value = first_tensor(event.output)
                reason = unmeasurable(value, n)
                if reason or value is None:
                    raise InputError(f"layer {name!r}: {reason}")
                features[name].append(value.detach().reshape(n, -1).clone())
                if not missing and not whole:
                    raise _Reached

            with Tap(model, keep):
                try:
                    call(model, x)
                except _Reached:
                    pass
            if missing:
                raise InputError(f"layer {next(iter(missing.values()))!r}: not reached for every batch; choose another")
            if y is not None:
                labels.append(torch.as_tensor(y).detach().cpu())
    joined = {}
    for name in list(features):  # one at a time, so that no two copies of everything are held
        parts = features.pop(name)
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError(f"layer {name!r}: its width differs between batches; pad the inputs to one size")
        joined[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return joined, torch.cat(labels) if labels else None
