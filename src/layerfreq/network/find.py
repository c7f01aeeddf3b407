"""The layers of any module, found and chosen by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import count, is_loader, one_pass
from layerfreq.errors import (
    Code,
    LayerWarning,
    Refusal,
    Refused,
    a_kind,
    blame,
    did_you_mean,
    first_line,
    is_not,
    warn_caller,
)
from layerfreq.isolation.preserve import untouched
from layerfreq.network.cuts import Cut, Cuts, Kinds, choose, cut_of
from layerfreq.network.labelled import for_model
from layerfreq.network.naming import Layers, as_layers, is_number, is_pattern, none_of, pick
from layerfreq.network.reading import FLATTEN, TOKENS, Reading, assign, axis_in, read_reading
from layerfreq.trace.above import Above, read_above
from layerfreq.trace.hooks import STATE, Event, first_tensor
from layerfreq.trace.row_order import fault_of_rows, sample_of, turned
from layerfreq.trace.trace import Trace, Value, run_again, trace

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def hidden_layers(model: nn.Module, inputs: Any, *, whole: bool = False) -> list[str]:
    """Return the names of the layers to cut after, from input to output.

    A cut is the output of an activation (module or function), of a block that contains one (a residual or attention
    block), or a sum in a `forward` (`x = x + f(x)`), such that the network's output depends on the points only through
    it, and parameters follow. A function is named `<module before it>.<function>`, such as `fc.sin` or `fc.add`; if
    none is before it in that `forward`, `<module>.forward.<function>`, or in the model's own, `<function>`. The final
    state of a recurrent module is `<module>.h_n`, and the k-th of several calls ends in `:k`. The data flow is traced
    in one forward pass; it depends neither on the values of weights nor on the points. Inputs that are not points
    (masks, lengths and positions) stay as they are; they are recognised as inputs of whole numbers, zeros and ones, or
    zeros and very negative numbers that meet no parameter before they meet the points.

    The model is run twice, on at most four points, or on the first batch if it does not run on so few. Layers that
    return points in a different order are not cuts; a warning names layers at which a point's features depend on the
    other points of the batch.

    Args:
        model: Any module.
        inputs: What its forward takes (tensor, array, dict, tuple), or an iterable of (inputs, targets) batches.
        whole: Run the model on all inputs at once (of batches, on the first one), as needed for graph networks, whose
            points depend on one another.

    Raises:
        InputError: If the model has no cut, with the reasons.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> hidden_layers(model, x)
        ['1', '3']
    """
    model = unwrap(model)
    inputs = for_model(model, inputs)
    with untouched(model, inputs):
        return [cut.name for cut in find_cuts(model, inputs, whole=whole).layers]


def find_cuts(model: nn.Module, inputs: Any, *, whole: bool = False, some: bool = True) -> Cuts:
    """Find the cuts of a model, not yet read in any way; call it inside `untouched`.

    Args:
        model: The model, unwrapped.
        inputs: What its forward takes, or an iterable of batches.
        whole: See `hidden_layers`.
        some: Raise an InputError if there is no cut.
    """
    found, chosen, refused = _hidden(model, inputs, whole, some, "flatten")
    return Cuts([cut_of(value, found) for value in chosen], refused, found)


@dataclass(frozen=True)
class Plan:
    """Where a model is measured.

    Attributes:
        layers: The cuts, input to output.
        refused: name -> reason, for activations and blocks of the model that are not cuts.
        hidden: How many hidden layers the model has, measured or not.
        gradients: Whether the model runs only with gradients.
    """

    layers: list[Cut]
    refused: dict[str, Refused]
    hidden: int
    gradients: bool = False


def plan(
    model: nn.Module, inputs: Any, layers: Layers, group: Any = None, reading: Any = "flatten", *, some: bool = True
) -> Plan:
    """Find the layers to measure, once for many measurements; without `some`, there may be none.

    Raises:
        InputError: If there are none, or the ranks of the group find different ones.
    """
    shards = Shards(group)
    with shards.together(), untouched(model, inputs):
        layers = [] if none_of(layers, some) else as_layers(layers)
        cuts = choose_layers(model, inputs, layers, reading, some=some)
    found = shards.gather([layer.name for layer in cuts.layers])
    other = next((rank for rank, names in enumerate(found) if names != found[0]), None)
    if other is not None:
        on = f"{', '.join(found[0])} on rank 0, but {', '.join(found[other])} on rank {other}"
        raise Code.CONFLICT(f"layers: {on}; name the layers yourself")
    hidden = len(cuts.layers) if layers is None else len(choose(cuts.trace, {})[0])
    return Plan(cuts.layers, cuts.refused, hidden, cuts.trace.gradients)


def choose_layers(
    model: nn.Module,
    inputs: Any,
    layers: Layers,
    reading: Any = "flatten",
    *,
    own_rows: bool = True,
    whole: bool = False,
    some: bool = True,
) -> Cuts:
    """Turn names into cuts, or find the hidden layers if none are named; call it inside `untouched`.

    Args:
        model: The model, unwrapped.
        inputs: What its forward takes, or an iterable of batches.
        layers: Names, patterns, numbers or modules, or None.
        reading: How they are read, see `layer_features`.
        own_rows: Whether to check that each point has its own row in their outputs.
        whole: See `hidden_layers`.
        some: Whether no layer at all is an error.

    Raises:
        InputError: For an unknown name, with similar ones; for a pattern that matches nothing; for a module called
            several times, with its calls; for a layer that returns points in another order, or has no such reading.
    """
    layers = [] if none_of(layers, some) else as_layers(layers)
    if layers is None:
        found, chosen, refused = _hidden(model, inputs, whole, some, reading)
    else:
        found, chosen, refused = *_named(model, inputs, layers, whole, own_rows), {}
        if isinstance(reading, str) and reading != "flatten":
            _tell_of_tokens(chosen, found, reading)
    readings = assign(reading, [value.name for value in chosen])
    return Cuts([_as_read(found, value, readings[value.name]) for value in chosen], refused, found)


def _hidden(
    model: nn.Module, inputs: Any, whole: bool, some: bool, reading: Any
) -> tuple[Trace, list[Value], dict[str, Refused]]:
    """Trace a model, and choose among its values; warn of layers that cannot be measured, or not as it seems."""
    reject_one_pass(inputs)
    found = trace(model, inputs, whole)
    faults = _faults(model, found, found.values)
    chosen, refused = choose(found, faults)
    for name, reason in refused.items():
        # The model's author knows that a layer is bypassed or an expert, but not that its rows are no points.
        if (found.by_name[name].refused or reason.why is Refusal.OTHER_ORDER) and reason.why is not Refusal.ROUTED:
            warn_caller(f"layer {name!r} cannot be measured: {reason}", LayerWarning)
    _warn_of_company([value.name for value in chosen if value.name in faults])
    _tell_of_tokens(chosen, found, reading)
    if not chosen and some:
        why = _why_none(found, refused)
        raise Code.UNSUPPORTED(f"model: no hidden layer found in {type(model).__name__} ({why}); name layers yourself")
    return found, chosen, refused


def _why_none(found: Trace, refused: Mapping[str, Refused]) -> str:
    """Say why a model has no cut: its output, what is wrong with values that nearly are cuts, or no activation."""
    flow, kinds = found.flow, Kinds(found)
    if not flow.sinks:
        return "its output has nothing of the inputs that can be followed; let forward return tensors"
    if not refused and flow.derivatives:
        return Refusal.DERIVATIVES.long
    mute = {v.name: v.refused for v in found.values if v.refused and kinds.is_activation(v)}
    why = [f"{name!r}: {reason}" for name, reason in (refused or mute).items()]
    return "; ".join(why[:3]) or "no activation before parameters"


def _named(
    model: nn.Module, inputs: Any, layers: Sequence[Any], whole: bool, own_rows: bool
) -> tuple[Trace, list[Value]]:
    """Trace a model, and return the named values; with `own_rows`, each must have one row per point."""
    reject_one_pass(inputs)
    found = trace(model, inputs, whole)
    hidden: list[str] = []
    if any(is_number(one) or (is_pattern(one) and one not in found.by_name) for one in layers):
        hidden = [value.name for value in choose(found, _faults(model, found, found.values))[0]]
    names = pick(layers, hidden, list(found.by_name), model) if layers else []
    chosen = [_known(model, name, found.by_name) for name in names]
    if own_rows:
        _try_rows(model, found, chosen)
    return found, chosen


def _known(model: nn.Module, name: str, known: Mapping[str, Value]) -> Value:
    first = _first_name(model, name)
    if first in known:
        return known[first]
    # A layer that is called several times has only names with numbers, and one of them must be chosen.
    calls = [other for other, value in known.items() if value.call.layer == first]
    if calls:
        tied = "" if first == name else f", as {first!r}, which is the same module"
        raise Code.UNKNOWN(f"layers: {name!r} is called {len(calls)} times{tied}; choose among {', '.join(calls)}")
    raise Code.UNKNOWN(f"layers: {_why_unknown(model, name, known)}")


def _first_name(model: nn.Module, name: str) -> str:
    """Return the first name of a module that has several; any other name as it is."""
    base, colon, number = name.partition(":")
    module = dict(model.named_modules(remove_duplicate=False)).get(base)
    first = next((other for other, one in model.named_modules() if one is module), base)
    return f"{first}{colon}{number}" if module is not None else name


def _why_unknown(model: nn.Module, name: str, known: Mapping[str, Value]) -> str:
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if isinstance(module, torch.jit.ScriptModule):
        return f"{name!r} is scripted (torch.jit), and what it returns cannot be seen; pass the module as it was before"
    if module is not None:
        return f"module {name!r} is not called when the model runs; choose one that is, such as the one around it"
    return f"no layer {name!r} in {type(model).__name__}; {did_you_mean(name, known)}"


def _try_rows(model: nn.Module, found: Trace, values: Sequence[Value]) -> None:
    for value in values:
        if value.refused:
            raise Code.UNSUPPORTED(f"layer {value.name!r}: {value.refused}")
    faults = _faults(model, found, values)
    for name, fault in faults.items():
        if fault is not Refusal.TOGETHER:
            raise Code.UNSUPPORTED(f"layer {name!r}: {fault.long}")
    _warn_of_company(list(faults))


def _faults(model: nn.Module, found: Trace, values: Sequence[Value]) -> dict[str, Refusal]:
    """Run some of the points again in another order, and return what is wrong with the rows of some values.

    A single point is run again, too: if parameters are sharded, ranks with more points wait for this rank.
    """
    wanted = {value.call: value for value in values if value.sample is not None}
    faults: dict[str, Refusal] = {}
    some, again = turned(found.probe, count(found.probe))

    def compare(event: Event) -> None:
        before, value = wanted.get(event.call), first_tensor(event.output)
        if before is None or before.sample is None or value is None:
            return
        # If there is no row for each point now, the rows of the first run were no points either.
        ours = value.ndim > 0 and value.shape[0] == len(again)
        after = sample_of(value) if ours else None
        fault = fault_of_rows(before.sample, before.shape, after, tuple(value.shape), again)
        if fault is not None:
            faults[before.name] = fault

    try:
        run_again(model, found, some, compare)
    except Exception as error:  # a model may need batches of one size; faults found until then count
        if not found.whole:
            warn_caller(
                f"inputs: {type(model).__name__} does not run on some of the points in another order "
                f"({first_line(error, kind=True)}), so that it is not known whether the rows of its layers are those "
                "of the points; pass whole=True if points belong together"
            )
    return faults


def _warn_of_company(names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warn_caller(f"layer {names[0]!r}{more}: {Refusal.TOGETHER.long}")


def _tell_of_tokens(chosen: Sequence[Value], found: Trace, reading: Any) -> None:
    """Warn of layers whose tokens the network above reads otherwise, unless the user has said how to read a layer."""
    said = reading if isinstance(reading, Mapping) else {}
    default = FLATTEN if isinstance(reading, Mapping) else read_reading(reading)
    assert isinstance(default, Reading)
    if default.function is not None:
        return
    for value in chosen:
        if value.name in said or value.refused or len(value.shape) != 3:
            continue
        axis = axis_in(value, found) if default.axis is None else default.axis % 3
        above = read_above(value, found, axis)
        if above is not None and (told := _otherwise(value, above, default.name, axis)):
            warn_caller(f"layer {value.name!r}: what is above {told}", LayerWarning)


def _otherwise(value: Value, above: Above, reading: str, axis: int | None) -> str:
    """Say how the network above reads the tokens of a layer, and which reading does; empty if this one does."""
    other = "" if reading == "flatten" else f", and {reading!r} is another function"
    if above.pooled:
        if reading not in (*TOKENS, "mean", "max") or reading == above.pooled:
            return ""
        what = "mean" if above.pooled == "mean" else "maximum"
        return f"takes the {what} of all tokens{other}; reading={{{value.name!r}: {above.pooled!r}}} measures that"
    if not above.tokens:  # what is read of them is not known, and may be what this reading reads
        instead = f"reading={{{value.name!r}: 'cls'}} (or 'last', or a function) measures that alone"
        known = not other or (above.single and reading not in TOKENS)
        return f"reads a part of it, such as one token{other}; {instead}" if known else ""
    same = {0: "cls", above.of - 1: "last"}.get(above.tokens[0], "") if len(above.tokens) == 1 else ""
    if reading == same:
        return ""
    first, end = above.tokens[0], above.tokens[-1] + 1
    part = f"{first}:{end}" if end - first == len(above.tokens) else list(above.tokens)
    if value.call.layer.endswith(f".{STATE}"):  # its axis 1 is the module's layers, not tokens
        what, instead = "some of the module's layers", f"lambda state: state[:, {part}]"
    else:
        what = {"cls": "the first", "last": "the last"}.get(same, f"{len(above.tokens)}") + f" of {above.of} tokens"
        instead = repr(same) if same else f"lambda out: out[:, {':, ' if axis == 1 else ''}{part}]"
    return f"reads a part of it, {what}{other}; reading={{{value.name!r}: {instead}}} measures that alone"


def _as_read(found: Trace, value: Value, reading: Reading) -> Cut:
    """Return the cut at a value with its reading, and how large its features are.

    Raises:
        InputError: If it cannot be read so.
    """
    if value.refused:  # it was named, and rows do not matter
        return cut_of(value, found)
    with blame(value.name):
        reading, features = reading.on(value, found)
    return cut_of(value, found, reading, features.nbytes // count(found.probe))


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's, Fabric's, (Distributed)DataParallel's and AveragedModel's wrappers.

    Hooks added to a compiled module after its compilation are ignored, so its original is the one to watch.

    Raises:
        InputError: If it is not a module, or one whose parameters have no values yet.
    """
    if not isinstance(model, nn.Module):
        raise is_not("model", type(model), "a torch.nn.Module", "the module itself")
    while True:
        inner = getattr(model, "_orig_mod", getattr(model, "_original_module", None))
        if inner is None and isinstance(model, WRAPPERS):
            inner = model.module
        if not isinstance(inner, nn.Module):
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise Code.UNSUPPORTED(f"model: {a_kind(model)} takes no hooks; pass the module before torch.jit")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise Code.UNSUPPORTED(f"model: {name!r} is lazy and has no shape yet; run the model once on a batch")
        if tensor.is_meta and any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise Code.UNSUPPORTED(f"model: {name!r} is offloaded; load it onto one device, without a device_map")
        if tensor.is_meta:
            raise Code.UNSUPPORTED(f'model: {name!r} is on device "meta", without values; load weights first')
    return model


def reject_one_pass(inputs: Any) -> None:
    """Raise an InputError for an iterator that cannot be gone through twice."""
    if is_loader(inputs) and isinstance(inputs, Iterator):  # not by iter(), which may start workers and draw a seed
        raise one_pass()
