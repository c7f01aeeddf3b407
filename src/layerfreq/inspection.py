"""Every module of a model: measured, or why not, and what measuring it takes."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from layerfreq.checks import Scale
from layerfreq.costs import count_measurements, engine_seconds
from layerfreq.errors import InputError
from layerfreq.inputs import call, count, on_device, take
from layerfreq.memory import HELD, read_memory
from layerfreq.network import find_cuts, probe_of, unmeasurable, unwrap
from layerfreq.passes import count_passes
from layerfreq.readings import Reading, read_reading
from layerfreq.taps import Event, Tap, first_tensor
from layerfreq.untouched import untouched

TIMED = 32  # points of the forward passes that are timed
REPEATS = 3

# Reason in a few words -> what it means.
REASONS = {
    "way around": "the output depends on the input by another way too: a skip connection, or a second branch",
    "no sample axis": "its output has not one row for each input",
    "other order": "it returns points in another order than they came in",
    "no floats": "it returns no floating tensor",
    "nothing above": "no parameters follow, so nothing is left to learn above it",
    "not called": "forward does not call it in eval mode; another module may use its parameters",
    "container": "it is not called itself; see its parts",
    "no activation": "a linear map, a norm, an embedding or the like: what an activation makes of it is the cut",
    "activation next": "its output goes straight into an activation, which is the cut",
    "same as": "it returns the very value of another layer",
    "axis unclear": "it cannot be told which axis holds the features; say it, as in --reading positions:-1",
}

# Words of a refusal -> the reason that they stand for.
IN_SHORT = {
    "another way": "way around",
    "not one row": "no sample axis",
    "another order": "other order",
    "floating": "no floats",
}


@dataclass(frozen=True)
class ModuleReport:
    """What can be said of one module, or of one call of an activation function.

    Attributes:
        name: As `layers` takes it.
        kind: The class of the module, or "function".
        reason: Empty where it is measured; else a key of `REASONS` (of "same as", with the other's name), or a whole
            reason that has no key.
        shape: Of the output for one point; None where there is no sample axis.
        d: Number of features, as they are read; None likewise, or where it cannot be read so.
        memory: Bytes of the features of all points; None likewise.
        seconds: An estimate of the time that measuring it takes; None likewise.
        passes: About how often the model is run for it: more than once where the features are more than the budget.
    """

    name: str
    kind: str
    reason: str
    shape: tuple[int, ...] | None = None
    d: int | None = None
    memory: int | None = None
    seconds: float | None = None
    passes: int = 1


@dataclass(frozen=True)
class _Seen:
    event: Event
    shape: tuple[int, ...]
    kind: Tensor | None  # (0, d) for features as they are read
    rows: int  # of the reading, for each point
    value: tuple[int, int]
    at: float
    trouble: str


def inspect_model(
    model: nn.Module,
    inputs: Any,
    points: int,
    rows: int | None = None,
    classes: int = 10,
    reading: str = "flatten",
    memory: int | str | None = None,
    scales: Sequence[Scale] = ("raw",),
) -> list[ModuleReport]:
    """Return a report on every module and activation function, in the order in which they return.

    The model is left as it was.

    Args:
        model: Any module.
        inputs: A few points, as its forward takes them.
        points: How many points shall be measured.
        rows: Filter centres; None means all points.
        classes: Number of classes of the targets.
        reading: One name, as of `layer_spectra`.
        memory: As of `layer_spectra`.
        scales: To measure at; raw and rms are one measurement.

    Raises:
        InputError: If reading or memory are none, or the model does not run on the inputs.
    """
    model, wanted, budget = unwrap(model), read_reading(reading), read_memory(memory)
    assert isinstance(wanted, Reading)
    n = count(inputs)
    some = on_device(model, take(inputs, slice(0, TIMED), n))
    n = min(n, TIMED)
    with untouched(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cuts = find_cuts(model, probe_of(model, some), some=False)
        passes = [_watch(model, some, n, wanted) for _ in range(1 + REPEATS)][1:]
    tap, seen = passes[0]
    measured = {layer.name for layer in cuts.layers}
    device = next((p.device.type for p in model.parameters()), "cpu")
    reports = []
    for i, one in enumerate(seen):
        event = one.event
        name = _named(event, seen)
        kind = "function" if event.module is None else type(event.module).__name__
        reason = "" if name in measured else _reason(name, i, seen, tap.parameters_used, measured, cuts.refused)
        if one.trouble:
            reports.append(ModuleReport(name, kind, reason))
            continue
        if one.kind is None:
            reports.append(ModuleReport(name, kind, reason or "axis unclear", one.shape))
            continue
        d, m = one.kind.shape[1], points * one.rows
        size, runs, times = m * d * one.kind.element_size(), 1, count_measurements(scales)
        if size > HELD * budget:  # else the measurements share what one run gives
            runs = times * (count_passes(m, rows, one.kind, budget, classes) + (wanted.name == "positions"))
        forward = statistics.median(found[i].at for _, found in passes) / n * points
        seconds = forward * runs + times * engine_seconds(m, d, rows, classes, device)
        reports.append(ModuleReport(name, kind, reason, one.shape, d, size, seconds, runs))
    called = {one.event.name for one in seen}
    for name, module in model.named_modules():
        if name and name not in called:
            inside = any(other.startswith(f"{name}.") for other in called)
            reports.append(ModuleReport(name, type(module).__name__, "container" if inside else "not called"))
    return reports


def _watch(model: nn.Module, inputs: Any, n: int, reading: Reading) -> tuple[Tap, list[_Seen]]:
    """Run the model once, and note what every module returned, and when."""
    seen: list[_Seen] = []
    alive = []  # values whose identities must not be given to others
    made_by: list[nn.Module] = []

    def note(event: Event) -> None:
        at = time.perf_counter() - started
        made_by.extend([] if event.module is None else [event.module])
        value = first_tensor(event.output)
        trouble = unmeasurable(value, n)
        shape = () if value is None or trouble else tuple(value.shape[1:])
        identity = (0, 0) if value is None else (id(value), value._version)
        alive.append(value)
        kind, rows = None, 0
        if value is not None and not trouble:
            try:
                read = reading.settle(value.shape, made_by).read(value)[0]
                kind, rows = read[:0].clone(), len(read) // n
            except InputError:  # the axis of the features cannot be told
                pass
        seen.append(_Seen(event, shape, kind, rows, identity, at, trouble))

    with Tap(model, note) as tap:
        started = time.perf_counter()
        call(model, inputs)
    return tap, seen


def _reason(
    name: str, i: int, seen: list[_Seen], parameters_used: int, measured: set[str], refused: dict[str, str]
) -> str:
    one, event = seen[i], seen[i].event
    if one.trouble:
        return "no floats" if "floating" in one.trouble else "no sample axis"
    if name in refused:
        return _in_short(refused[name])
    twins = [_named(other.event, seen) for other in seen if other.value == one.value and other is not one]
    for twin in twins:
        if twin in measured:
            return f"same as {twin}"
    if event.ended > parameters_used:
        return "nothing above"
    for twin in twins:
        if twin in refused:
            return _in_short(refused[twin])
    before = [_named(other.event, seen) for other in seen[:i] if other.value == one.value]
    if before:
        return f"same as {before[0]}"
    inside = [other.event for other in seen if event.started < other.event.started < event.ended]
    return "activation next" if any(map(_is_activation, inside)) else "no activation"


def _named(event: Event, seen: list[_Seen]) -> str:
    several = sum(other.event.name == event.name for other in seen) > 1
    return f"{event.name}:{event.number}" if several else event.name


def _in_short(refusal: str) -> str:
    return next((reason for words, reason in IN_SHORT.items() if words in refusal), refusal)


def _is_activation(event: Event) -> bool:
    return event.module is None or type(event.module).__module__ == nn.ReLU.__module__
