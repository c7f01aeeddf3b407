"""The layers of any module, and the features that the network computes at them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from layerfreq.activations import is_activation, is_candidate
from layerfreq.errors import InputError, blame, did_you_mean
from layerfreq.generators import seed_all
from layerfreq.inputs import batches, blaming_inputs, call, count, is_loader, map_tensors, on_device, take
from layerfreq.ownrows import ELSEWHERE, TOGETHER, faults_of_rows, unmeasurable
from layerfreq.readings import FLATTEN, Reading, assign
from layerfreq.taps import Event, Tap, all_tensors, first_tensor, replace_first
from layerfreq.untouched import untouched

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
PROBE = 4  # points on which the structure of a model is found out


@dataclass(frozen=True)
class Layer:
    """One value inside a network at which it can be cut.

    Attributes:
        name: Module name; with `:k` for the k-th of several calls.
        base: The name without the number of the call.
        number: The number of the call, from 1.
        reading: How its output is read as a feature vector.
    """

    name: str
    base: str
    number: int
    reading: Reading = FLATTEN


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

    The model is run on four points at most, once for each cut and three times more. Layers that return points in
    another order than they came in are no cuts; a warning names those whose features of a point change with the other
    points of the batch.

    Args:
        model: Any module.
        inputs: What its forward takes (tensor, array, dict, tuple), or an iterable of (inputs, targets) batches.

    Raises:
        InputError: If the model has no such cut, with the reasons.
    """
    model = unwrap(model)
    with untouched(model, inputs):
        return [layer.name for layer in find_cuts(model, probe_of(model, inputs)).layers]


def choose_layers(
    model: nn.Module, probe: Any, layers: Sequence[str] | str | None, *, own_rows: bool = True
) -> list[Layer]:
    """Turn names into layers, or find the hidden layers where none are named.

    Args:
        model: The model, unwrapped.
        probe: A few points, as from `probe_of`.
        layers: Names, or None.
        own_rows: Whether to try that each point has its own row in their outputs.

    Raises:
        InputError: For an unknown name, with near ones; for a module called several times, with its calls; for a layer
            that returns points in another order.
    """
    if layers is None:
        return find_cuts(model, probe).layers
    known = find_cuts(model, probe, names_only=True).known
    chosen = []
    for name in [layers] if isinstance(layers, str) else layers:
        first = _first_name(model, name)
        if first not in known:
            calls = [other for other, layer in known.items() if layer.base == first]
            if calls:
                tied = "" if first == name else f", as {first!r}, which is the same module"
                raise InputError(
                    f"layers: {name!r} is called {len(calls)} times{tied}; choose among {', '.join(calls)}"
                )
            raise InputError(f"layers: {_why_unknown(model, name, known)}")
        chosen.append(known[first])
    if not chosen:
        raise InputError("layers: empty; name at least one, or pass None for all hidden layers")
    if own_rows:
        _try_rows(model, probe, chosen)
    return chosen


def _first_name(model: nn.Module, name: str) -> str:
    """The name by which a module is known that has several, or the same name."""
    base, colon, number = name.partition(":")
    module = dict(model.named_modules(remove_duplicate=False)).get(base)
    first = next((other for other, one in model.named_modules() if one is module), base)
    return f"{first}{colon}{number}" if module is not None else name


def _why_unknown(model: nn.Module, name: str, known: Mapping[str, Layer]) -> str:
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if isinstance(module, torch.jit.ScriptModule):
        return f"{name!r} is scripted (torch.jit), and what it returns cannot be seen; pass the module as it was before"
    if module is not None:
        return f"module {name!r} is not called when the model runs; choose one that is, such as the one around it"
    return f"no layer {name!r} in {type(model).__name__}; {did_you_mean(name, known)}"


def _try_rows(model: nn.Module, probe: Any, layers: Sequence[Layer]) -> None:
    values: dict[tuple[str, int], Tensor] = {}
    wanted = {(layer.base, layer.number): layer for layer in layers}

    def keep(event: Event) -> None:
        layer = wanted.get((event.name, event.number))
        if layer is not None:
            value = first_tensor(event.output)
            reason = unmeasurable(value, count(probe))
            if reason or value is None:
                raise InputError(f"layer {layer.name!r}: {reason}")
            values[event.name, event.number] = value.detach().clone()

    with Tap(model, keep):
        _run(model, probe)
    faults = faults_of_rows(model, _run, probe, values)
    for at, fault in faults.items():
        if fault == ELSEWHERE:
            raise InputError(f"layer {wanted[at].name!r}: {fault}")
    _warn_of_company([wanted[at].name for at in faults])


def _warn_of_company(names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(f"layer {names[0]!r}{more}: {TOGETHER}", stacklevel=5)


def with_readings(model: nn.Module, probe: Any, layers: Sequence[Layer], reading: Any) -> list[Layer]:
    """Give layers their readings, from one name for all or a mapping; call it inside `untouched`.

    Raises:
        InputError: For an unknown reading, a mapping that names another layer, or a layer that cannot be read so.
    """
    readings = assign(reading, [layer.name for layer in layers])
    if all(one.name == "flatten" for one in readings.values()):
        return list(layers)
    wanted = {(layer.base, layer.number): layer for layer in layers}
    made_by: list[nn.Module] = []
    found: dict[Layer, Reading] = {}

    def settle(event: Event) -> None:
        made_by.extend([] if event.module is None else [event.module])
        layer, value = wanted.get((event.name, event.number)), first_tensor(event.output)
        if layer is not None and value is not None:
            with blame(layer.name):
                found[layer] = readings[layer.name].settle(value.shape, made_by)

    with Tap(model, settle):
        _run(model, probe)
    return [replace(layer, reading=found.get(layer, FLATTEN)) for layer in layers]


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
        events.append((event, value, _version(value)))

    values: dict[int, Tensor] = {}

    def note_and_keep(event: Event) -> None:
        note(event)
        value = events[-1][1]
        if value is not None and not names_only and is_candidate(event, [e for e, _, _ in events]):
            values[len(events) - 1] = value.detach().clone()

    with Tap(model, note_and_keep) as tap, blaming_inputs(model, probe):
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
        if is_activation(events[i][0]) and events[i][1] is not events[i][0].arguments[0]
        for value in events[i][0].arguments[:1]
    }
    layers, refused, company = [], {}, []
    faults = faults_of_rows(
        model, _run, probe, {(events[i][0].name, events[i][0].number): v for i, v in values.items()}
    )
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
        if event.ended > tap.parameters_used or (identity in activated and not is_activation(event)):
            continue
        fault = faults.get((event.name, event.number), "")
        reason = unmeasurable(value, count(probe)) or (fault if fault == ELSEWHERE else "")
        if reason:
            warnings.warn(f"layer {layer.name!r} cannot be measured: {reason}", stacklevel=4)
        elif not blind and not _determines(model, other, events[first][0], values[first], output):
            reason = "the output depends on the input by another way too (a skip connection or a second branch)"
        if reason:
            refused[layer.name] = reason
        else:
            layers.append(layer)
            company += [layer.name] if fault else []
    _warn_of_company(company)
    if not layers and some:
        why = "; ".join(f"{name!r}: {reason}" for name, reason in list(refused.items())[:3])
        raise InputError(
            f"model: no hidden layer found in {type(model).__name__} ({why or 'no activation before parameters'}); "
            "name layers yourself"
        )
    return Cuts(layers, refused, known)


def probe_of(model: nn.Module, inputs: Any) -> Any:
    """Return the first few points of the inputs, on the model's device."""
    reject_one_pass(inputs)
    x, _ = next(iter(batches(inputs)))
    n = count(x)
    return on_device(model, take(x, slice(0, min(n, PROBE)), n))


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's, Fabric's, (Distributed)DataParallel's and AveragedModel's wrappers.

    Hooks added to a compiled module after its compilation are ignored, so its original is the one to watch.

    Raises:
        InputError: If it is no module, or one whose parameters have no values yet.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: a {type(model).__name__} is not a torch.nn.Module; pass the module itself")
    while True:
        inner = getattr(model, "_orig_mod", getattr(model, "_original_module", None))
        if inner is None and isinstance(model, WRAPPERS):
            inner = model.module
        if not isinstance(inner, nn.Module):
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"model: a {type(model).__name__} of torch.jit takes no hooks; pass the module as it was before scripting"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"model: {name!r} has no shape yet (a lazy module); run the model once on a batch first")
        if tensor.is_meta:
            raise InputError(f'model: {name!r} is on device "meta", without values; load weights first')
    return model


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


def _version(value: Tensor | None) -> int:
    """How often a value has been written into, where that is counted."""
    return -1 if value is None or value.is_inference() else value._version


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
    seed_all()  # inside `untouched`: the same noise, if there is any, in every run
    return call(model, map_tensors(torch.clone, probe))


def _other_points(probe: Any) -> Any:
    """Points unlike the probe's, still valid inputs: others' order, and for floats another size."""

    def change(x: Tensor) -> Tensor:
        if x.ndim == 0:
            return x
        turned = x.flip(0) if x.shape[0] > 1 else x.roll(1, -1)
        return turned * 0.5 + 0.25 if x.is_floating_point() else turned

    return map_tensors(change, probe)


def reject_one_pass(inputs: Any) -> None:
    """Raise an InputError for an iterator that cannot be gone through twice."""
    if is_loader(inputs) and isinstance(inputs, Iterator):  # without iter(), which may start workers and draw a seed
        raise InputError("inputs: a one-pass iterator, and several passes are needed; pass a list or a DataLoader")
