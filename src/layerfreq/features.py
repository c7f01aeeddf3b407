"""The features that a network computes at its layers, gathered over all its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError, blame
from layerfreq.inputs import batches, call, count
from layerfreq.network import (
    Layer,
    choose_layers,
    on_device,
    probe_of,
    reject_one_pass,
    unmeasurable,
    unwrap,
    with_readings,
)
from layerfreq.taps import Event, Tap, first_tensor
from layerfreq.untouched import sharded_modules, untouched


class _Reached(Exception):
    pass


def layer_features(
    model: nn.Module,
    inputs: Any,
    layers: Sequence[str] | str | None = None,
    *,
    reading: str | Mapping[str, str] = "flatten",
    stream: bool = False,
) -> dict[str, Tensor] | Iterator[tuple[str, Tensor]]:
    """Return the features at layers: their outputs in eval mode, without gradients, flattened to (n, d).

    Of a module that returns several tensors, the first floating one is taken.

    Args:
        model: Any module; it is left as it was.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        layers: Names as from `hidden_layers`, or any other module of the model; None means the hidden layers.
        reading: How outputs with positions (pixels, tokens) become feature vectors: "flatten", "mean" or "max" over the
            positions (padding is one like any other), or "positions", every one a row of its own, those of the first
            sample first. One name, or a mapping from layers to names, others being flattened. Features are on axis 1
            of what convolutions, batch norms and poolings return, on the last axis of what linear, embedding,
            attention and recurrent modules and layer norms return; "mean:1" or "positions:-1" says it where it cannot
            be told. Outputs (n, d) have no positions: one name for all leaves them as they are, a mapping must not
            name them.
        stream: Return an iterator of (name, features) that holds one layer at a time, at the cost of one
            forward pass (up to the layer) for each.

    Returns:
        name -> (n, d) tensor on the model's device, (n x positions, d) with "positions", or the iterator.

    Raises:
        InputError: For a layer that is unknown or cannot be measured, with the reason.
    """
    model = unwrap(model)
    if stream:
        reject_one_pass(inputs)
    with untouched(model, inputs):
        probe = probe_of(model, inputs)
        chosen = with_readings(model, probe, choose_layers(model, probe, layers), reading)
    if stream:
        return ((layer.name, collect(model, inputs, None, [layer])[0][layer.name]) for layer in chosen)
    return collect(model, inputs, None, chosen)[0]


def collect(
    model: nn.Module, inputs: Any, targets: Any, layers: Sequence[Layer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run the model over all batches and gather some layers' features, and for each the targets in the same order."""
    features: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    labels: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    wanted = {(layer.base, layer.number): layer for layer in layers}
    whole = bool(sharded_modules(model))  # what is left half-way would not be shared out over the ranks again
    with untouched(model, inputs):
        for x, y in batches(inputs, targets):
            x = on_device(model, x)
            missing = dict(wanted)
            n = count(x)

            def keep(event: Event, missing: dict[tuple[str, int], Layer] = missing, n: int = n, y: Any = y) -> None:
                layer = missing.pop((event.name, event.number), None)
                if layer is None:
                    return
                value = first_tensor(event.output)
                with blame(layer.name):
                    reason = unmeasurable(value, n)
                    if reason or value is None:
                        raise InputError(reason)
                    rows, layout = layer.reading.read(value.detach())
                    if y is not None:
                        label, kept = layout.label(y)
                        labels[layer.name].append(label)
                        rows = rows if kept is None else rows[kept.to(rows.device)]
                features[layer.name].append(rows.clone())
                if not missing and not whole:
                    raise _Reached

            with Tap(model, keep):
                try:
                    call(model, x)
                except _Reached:
                    pass
            if missing:
                name = next(iter(missing.values())).name
                raise InputError(f"layer {name!r}: not reached for every batch; choose another")
    joined = {}
    for name in list(features):  # one at a time, so that no two copies of everything are held
        parts = features.pop(name)
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError(
                f"layer {name!r}: its width differs between batches; pad the inputs to one size, or pass reading='mean'"
            )
        joined[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return joined, {name: torch.cat(parts) for name, parts in labels.items() if parts}
