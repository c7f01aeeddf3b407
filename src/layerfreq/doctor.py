"""Every module of a model: measured, or why not, and what measuring it takes."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.inputs import call, count, on_device, take
from layerfreq.data.validation import Scale
from layerfreq.errors import InputError
from layerfreq.isolation.memory import HELD, read_memory
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.costs import count_measurements, engine_seconds
from layerfreq.measure.strategies import count_passes
from layerfreq.network.cuts import Cuts, Kinds
from layerfreq.network.find import find_cuts, unwrap
from layerfreq.network.reading import Reading, read_reading
from layerfreq.trace.hooks import Event, Tap
from layerfreq.trace.trace import Trace, Value

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
    with untouched(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cuts = find_cuts(model, inputs, some=False)
        found = cuts.trace
        assert found is not None
        some, n = _timed_points(model, inputs, found)
        times = [_time(model, some, found) for _ in range(1 + REPEATS)][1:]
    kinds = Kinds(found.values, found)
    measured = {cut.name for cut in cuts.layers}
    device = next((p.device.type for p in model.parameters()), "cpu")
    reports, made_by = [], []
    for value in found.values:
        made_by.extend([] if value.module is None else [value.module])
        told = value.made and kinds.is_activation(value) and kinds.tells(value)
        if value.module is None and not told and value.name not in measured and value.name not in cuts.refused:
            continue
        kind = "function" if value.module is None else type(value.module).__name__
        reason = "" if value.name in measured else _reason(value, cuts, kinds, measured)
        if value.trouble:
            reports.append(ModuleReport(value.name, kind, reason))
            continue
        shape = value.shape[1:]
        read = _as_read(value, made_by, wanted)
        if read is None:
            reports.append(ModuleReport(value.name, kind, reason or "axis unclear", shape))
            continue
        d, m = read.shape[1], points * len(read) // count(found.probe)
        size, runs, measurements = m * d * read.element_size(), 1, count_measurements(scales)
        if size > HELD * budget:  # else the measurements share what one run gives
            runs = measurements * (count_passes(m, rows, read[:0], budget, classes) + (wanted.name == "positions"))
        forward = statistics.median(one.get((value.base, value.number), 0.0) for one in times) / n * points
        seconds = forward * runs + measurements * engine_seconds(m, d, rows, classes, device)
        reports.append(ModuleReport(value.name, kind, reason, shape, d, size, seconds, runs))
    called = {value.base for value in found.values}
    for name, module in model.named_modules():
        if name and name not in called:
            inside = any(other.startswith(f"{name}.") for other in called)
            reports.append(ModuleReport(name, type(module).__name__, "container" if inside else "not called"))
    return reports


def _timed_points(model: nn.Module, inputs: Any, found: Trace) -> tuple[Any, int]:
    """The points of the timed passes: more than of the trace, if the model runs on them."""
    n = count(inputs)
    some = on_device(model, take(inputs, slice(0, TIMED), n))
    try:
        call(model, some, found.gradients)
    except Exception:  # a model that takes its points in one batch
        return found.probe, count(found.probe)
    return some, min(n, TIMED)


def _time(model: nn.Module, inputs: Any, found: Trace) -> dict[tuple[str, int], float]:
    """Run the model once, and note when what returned."""
    at: dict[tuple[str, int], float] = {}

    def note(event: Event) -> None:
        at[event.name, event.number] = time.perf_counter() - started

    with Tap(model, note):
        started = time.perf_counter()
        call(model, inputs, found.gradients)
    return at


def _as_read(value: Value, made_by: list[nn.Module], reading: Reading) -> Tensor | None:
    """The features of a value as they are read, without numbers; None where the axis cannot be told."""
    try:
        whole = torch.empty(value.shape, dtype=value.dtype, device="meta")
        return torch.empty_like(reading.settle(value.shape, made_by).read(whole)[0], device="cpu")
    except InputError:
        return None


def _reason(value: Value, cuts: Cuts, kinds: Kinds, measured: set[str]) -> str:
    assert cuts.trace is not None
    flow = cuts.trace.flow
    if value.trouble:
        return "no floats" if "floating" in value.trouble else "no sample axis"
    if value.name in cuts.refused:
        return _in_short(cuts.refused[value.name])
    twins = [v.name for v in cuts.trace.values if v.node == value.node and v is not value]
    twin = next((name for name in twins if name in measured), None)
    if twin is not None:
        return f"same as {twin}"
    if value.node >= flow.last_weight:
        return "nothing above"
    twin = next((name for name in twins if name in cuts.refused), None)
    if twin is not None:
        return _in_short(cuts.refused[twin])
    before = [v for v in cuts.trace.values if v.node == value.node and v.module is not None]
    if before and before[0] is not value:
        return f"same as {before[0].name}"
    return "activation next" if value.made and kinds.is_candidate(value) else "no activation"


def _in_short(refusal: str) -> str:
    return next((reason for words, reason in IN_SHORT.items() if words in refusal), refusal)
