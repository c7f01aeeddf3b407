"""The layers of any module, and the features that the network computes at them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError, did_you_mean
from layerfreq.inputs import batches, call, count, is_loader, map_tensors, take
from layerfreq.taps import Event, Tap, all_tensors, first_tensor, replace_first
from layerfreq.untouched import untouched

PROBE = 4  # points on which the structure of a model is found out


@dataclass(frozen=True)
class Layer:
    """One value inside a network at which it can be cut.

    Attributes:
        name: Module name; with `:k` for the k-th of several calls.
        base: The name without the number of the call.
        number: The number of the call, from 1.
    """

    name: str
    base: str
    number: int


@dataclass(frozen=True)
class Cuts:
    """What was found out about a model.

    Attributes:
        layers: The cuts that make sense, input to output.
        refused: name -> reason, for activations and blocks that are no cut.
        known: Every name at which features exist, hidden layers or not.
    """

    layers: list[Layer]
    refused: dict[str, str]
    known: dict[str, Layer]


def hidden_layers(model: nn.Module, inputs: Any) -> list[str]:
    """Return the cuts that make sense, input to output, by module name.

    A cut is the output of an activation (module or function), or of a block that contains one (a residual or
    attention block), such that the network's output depends on the input through it alone, and parameters
    follow. A function's name is `<module before it>.<function>`, the k-th of several calls ends in `:k`.

    Args:
        model: Any module.
        inputs: What its forward takes (tensor, array, dict, tuple), or an iterable of (inputs, targets) batches.

    Raises:
        InputError: If the model has no such cut, with the reasons.
    """
    model = unwrap(model)
    with untouched(model, inputs):
        return [layer.name for layer in find_cuts(model, probe_of(model, inputs)).layers]


def choose_layers(model: nn.Module, probe: Any, layers: Sequence[str] | str | None) -> list[Layer]:
    """Turn names into layers, or find the hidden layers where none are named.

    Raises:
        InputError: For an unknown name, with near ones; for a module called several times, with its calls.
    """
    if layers is None:
        return find_cuts(model, probe).layers
    known = find_cuts(model, probe, names_only=True).known
    chosen = []
    for name in [layers] if isinstance(layers, str) else layers:
        if name not in known:
            calls = [other for other, layer in known.items() if layer.base == name]
            if calls:
                raise InputError(f"layers: {name!r} is called {len(calls)} times; choose among {', '.join(calls)}")
            raise InputError(f"layers: no layer {name!r} in {type(model).__name__}; {did_you_mean(name, known)}")
        chosen.append(known[name])
    if not chosen:
        raise InputError("layers: empty; name at least one, or pass None for all hidden layers")
    return chosen


def find_cuts(model: nn.Module, probe: Any, *, names_only: bool = False, some: bool = True) -> Cuts:
    """Find the cuts of a model by running it on a few points; call it inside `untouched`.

    Whether a value determines the output is tried, not guessed: the model is run on other points with the
    value put in place, and its output must be that of the first run.

    Args:
        model: The model, unwrapped.
        probe: A few points, as from `probe_of`.
        names_only: Skip the trials, which cost a forward pass each, and fill `known` alone.
        some: Raise an InputError if there is no cut.
    """
    events: list[tuple[Event, Tensor | None, int]] = []

    def note(event: Event) -> None:
        value = first_tensor(event.output)
        events.append((event, value, -1 if value is None else value._version))

    values: dict[int, Tensor] = {}

    def note_and_keep(event: Event) -> None:
        note(event)
        value = events[-1][1]
        if value is not None and not names_only and _is_candidate(event, [e for e, _, _ in events]):
            values[len(events) - 1] = value.detach().clone()

    with Tap(model, note_and_keep) as tap:
        output = [t.clone() for t in all_tensors(_run(model, probe))]
    calls = Counter(event.name for event, _, _ in events)
    named = [Layer(e.name if calls[e.name] == 1 else f"{e.name}:{e.number}", e.name, e.number) for e, _, _ in events]
    known = {layer.name: layer for layer in named}
    if names_only:
        return Cuts([], {}, known)

    groups: dict[tuple[int, int], list[int]] = {}  # the events that return one and the same value
    for i, (_, value, version) in enumerate(events):
        if value is not None:
            groups.setdefault((id(value), version), []).append(i)
    activated = {
        id(value)
        for i in values
        if _is_activation(events[i][0]) and events[i][1] is not events[i][0].arguments[0]
        for value in events[i][0].arguments[:1]
    }
    layers, refused = [], {}
    other = _other_points(probe)
    blind = _agree(all_tensors(_run(model, other)), output)  # other points, same output: nothing can be told apart
    for (identity, _), members in groups.items():
        if not any(i in values for i in members):
            continue
        once = [i for i in members if events[i][0].module is not None and calls[events[i][0].name] == 1]
        best = [i for i in once if i in values] or once or members
        layer = named[best[0]]
        first = min(i for i in members if i in values)
        event, value, _ = events[first]
        if event.ended > tap.parameters_used or (identity in activated and not _is_activation(event)):
            continue
        reason = unmeasurable(value, count(probe))
        if reason:
            warnings.warn(f"layer {layer.name!r} cannot be measured: {reason}", stacklevel=4)
        elif not blind and not _determines(model, other, events[first][0], values[first], output):
            reason = "the output depends on the input by another way too (a skip connection or a second branch)"
        if reason:
            refused[layer.name] = reason
        else:
            layers.append(layer)
    if not layers and some:
        why = "; ".join(f"{name!r}: {reason}" for name, reason in list(refused.items())[:3])
        raise InputError(
            f"model: no hidden layer found in {type(model).__name__} ({why or 'no activation before parameters'}); "
            "name layers yourself"
        )
    return Cuts(layers, refused, known)


def probe_of(model: nn.Module, inputs: Any) -> Any:
    """Return the first few points of the inputs, on the model's device."""
    if is_loader(inputs) and iter(inputs) is inputs:
        reject_one_pass(inputs)
    x, _ = next(iter(batches(inputs)))
    n = count(x)
    return on_device(model, take(x, slice(0, min(n, PROBE)), n))


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers.

    Hooks added to a compiled module after its compilation are ignored, so its original is the one to watch.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: a {type(model).__name__} is not a torch.nn.Module; pass the module itself")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _is_activation(event: Event) -> bool:
    module = event.module
    if module is None:
        return True
    if isinstance(module, nn.RNNBase):
        return True  # what a recurrent module returns is gated by activations inside it
    if any(True for _ in module.children()):
        return False
    if type(module).__module__.startswith("torch.nn"):
        return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
    value, given = first_tensor(event.output), first_tensor(event.arguments)
    return (
        not any(True for _ in module.parameters())
        and value is not None
        and given is not None
        and value.shape == given.shape
        and not torch.equal(value, given)
    )


def _is_candidate(event: Event, before: list[Event]) -> bool:
    """An activation, or a block with an activation inside it that is more than a container."""
    if _is_activation(event):
        return True
    module = event.module
    if module is None or type(module).__module__ == nn.Sequential.__module__:
        return False
    return any(e.started > event.started and e is not event and _is_activation(e) for e in before)


def determines_output(model: nn.Module, probe: Any, layer: Layer) -> bool:
    """Whether the network's output depends on its input through this layer alone; call it inside `untouched`."""
    found: list[tuple[Event, Tensor]] = []

    def keep(event: Event) -> None:
        value = first_tensor(event.output)
        if (event.name, event.number) == (layer.base, layer.number) and value is not None:
            found.append((event, value.clone()))

    with Tap(model, keep):
        output = [t.clone() for t in all_tensors(_run(model, probe))]
    return bool(found) and _determines(model, _other_points(probe), *found[0], output)


def _determines(model: nn.Module, other: Any, at: Event, value: Tensor, output: list[Tensor]) -> bool:
    def put(event: Event) -> Any:
        if (event.name, event.number) == (at.name, at.number):
            return replace_first(event.output, value.clone())
        return None

    with Tap(model, put):
        return _agree(all_tensors(_run(model, other)), output)


def _agree(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _run(model: nn.Module, probe: Any) -> Any:
    torch.manual_seed(0)  # inside `untouched`: the same noise, if there is any, in every run
    return call(model, map_tensors(torch.clone, probe))


def _other_points(probe: Any) -> Any:
    """Points unlike the probe's, still valid inputs: others' order, and for floats another size."""

    def change(x: Tensor) -> Tensor:
        if x.ndim == 0:
            return x
        turned = x.flip(0) if x.shape[0] > 1 else x.roll(1, -1)
        return turned * 0.5 + 0.25 if x.is_floating_point() else turned

    return map_tensors(change, probe)


def unmeasurable(value: Tensor | None, n: int) -> str:
    """Return why a layer's output cannot be features of n points, or an empty string."""
    if value is None:
        return "it returns no floating tensor"
    if value.ndim == 0 or value.shape[0] != n:
        shape = tuple(value.shape)
        return f"its output {shape} has not one row for each of {n} inputs; the first dimension must be the batch"
    return ""


def on_device(model: nn.Module, inputs: Any) -> Any:
    """Return the inputs on the device of the model's parameters."""
    tensor = next(model.parameters(), None)
    tensor = next(model.buffers(), None) if tensor is None else tensor
    return inputs if tensor is None else map_tensors(lambda t: t.to(tensor.device), inputs)


def reject_one_pass(inputs: Any) -> None:
    """Raise an InputError for an iterator that cannot be gone through twice."""
    if is_loader(inputs) and iter(inputs) is inputs:
        raise InputError("inputs: a one-pass iterator, and several passes are needed; pass a list or a DataLoader")
