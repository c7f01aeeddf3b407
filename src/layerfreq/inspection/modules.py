"""Every module of a model: measured, or why not, and what measuring it takes."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from layerfreq.data.inputs import call, count, on_device, owned, take
from layerfreq.data.validation import Scale
from layerfreq.errors import InputError, LayerWarning, Refusal
from layerfreq.isolation.memory import HELD, read_memory
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.costs import count_measurements, engine_seconds
from layerfreq.measure.strategies import count_passes
from layerfreq.network.cuts import Cuts, Kinds
from layerfreq.network.find import find_cuts, unwrap
from layerfreq.network.reading import Reading, read_reading
from layerfreq.trace.hooks import Call, Event, Tap
from layerfreq.trace.trace import Trace, Value

TIMED = 32  # points of the forward passes that are timed
REPEATS = 3


@dataclass(frozen=True)
class ModuleReport:
    """A report on one module, or on one call of an activation function.

    Attributes:
        name: As `layers` takes it.
        kind: The class of the module, or "function".
        refusal: Why it is not measured; None if it is.
        twin: For `Refusal.SAME_AS`, the other layer's name.
        shape: Shape of the output for one point; None if there is no sample axis.
        d: Number of features, as they are read; None likewise, or where it cannot be read so.
        memory: Bytes of the features of all points; None likewise.
        seconds: An estimate of the time that measuring it takes; None likewise.
        passes: About how often the model is run for it: more than once where the features are more than the budget.
    """

    name: str
    kind: str
    refusal: Refusal | None
    twin: str = ""
    shape: tuple[int, ...] | None = None
    d: int | None = None
    memory: int | None = None
    seconds: float | None = None
    passes: int = 1

    @property
    def reason(self) -> str:
        """Why it is not measured, in a few words; empty if it is."""
        return "" if self.refusal is None else f"{self.refusal.short} {self.twin}".strip()


@dataclass(frozen=True)
class _Asked:
    """What the costs are asked for; see `inspect_model`."""

    points: int
    rows: int | None
    classes: int
    reading: Reading
    budget: int
    measurements: int
    device: str


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
        points: Number of points to plan for.
        rows: Filter centres; None means all points.
        classes: Number of classes of the targets.
        reading: One name, as for `layer_spectra`.
        memory: As for `layer_spectra`.
        scales: To measure at; raw and rms are one measurement.

    Raises:
        InputError: If `reading` or `memory` is not valid, or the model does not run on the inputs.
    """
    model, wanted, budget = unwrap(model), read_reading(reading), read_memory(memory)
    assert isinstance(wanted, Reading)
    device = next((p.device.type for p in model.parameters()), "cpu")
    asked = _Asked(points, rows, classes, wanted, budget, count_measurements(scales), device)
    with untouched(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerWarning)  # every layer is listed, with the reason
            cuts = find_cuts(model, inputs, some=False)
        seconds = _seconds(model, inputs, cuts.trace)
    reports = [
        _report(value, refusal, twin, cuts.trace, asked, seconds.get(value.call, 0.0))
        for value, refusal, twin in _told(cuts)
    ]
    called = {value.call.layer for value in cuts.trace.values}
    for name, module in model.named_modules():
        if name and name not in called and not isinstance(module, (nn.ParameterList, nn.ParameterDict)):
            inside = any(other.startswith(f"{name}.") for other in called)
            refusal = Refusal.CONTAINER if inside else Refusal.NOT_CALLED
            reports.append(ModuleReport(name, type(module).__name__, refusal))
    return reports


def _told(cuts: Cuts) -> Iterator[tuple[Value, Refusal | None, str]]:
    """Iterate over the values of all modules and of functions that a person may ask about, each with why it is no cut.

    The text is the name of the layer that returns the same, where that is why.
    """
    kinds, measured = Kinds(cuts.trace), {cut.name for cut in cuts.layers}
    for value in cuts.trace.values:
        activation = value.made and kinds.is_activation(value) and kinds.tells(value)
        if value.name in measured:
            yield value, None, ""
        elif value.module is not None or activation or value.name in cuts.refused:
            yield value, *_why_not(value, cuts, kinds, measured)


def _why_not(value: Value, cuts: Cuts, kinds: Kinds, measured: set[str]) -> tuple[Refusal, str]:
    found, refused = cuts.trace, cuts.refused
    if value.refused is not None:
        return value.refused.why, ""
    if value.name in refused:
        return refused[value.name].why, ""
    # The same value may have a name that says more: that of the cut, that of what was refused, or its first one.
    same = [v for v in found.values if v.node == value.node]
    twin = next((v.name for v in same if v.name in measured), None)
    if twin is not None:
        return Refusal.SAME_AS, twin
    if value.node >= found.flow.last_weight:
        return Refusal.NOTHING_ABOVE, ""
    twin = next((v.name for v in same if v.name in refused), None)
    if twin is not None:
        return refused[twin].why, ""
    first = next((v for v in same if v.module is not None), value)
    if first is not value:
        return Refusal.SAME_AS, first.name
    return (Refusal.ACTIVATION_NEXT if value.made and kinds.is_candidate(value) else Refusal.NO_ACTIVATION), ""


def _report(
    value: Value, refusal: Refusal | None, twin: str, found: Trace, asked: _Asked, seconds: float
) -> ModuleReport:
    """Say what measuring a value takes, of which a forward pass takes so many seconds for one point."""
    kind = "function" if value.module is None else type(value.module).__name__
    if value.refused:
        return ModuleReport(value.name, kind, refusal)
    try:
        _, read = asked.reading.on(value, found)
    except InputError as error:
        if error.refused is None:
            raise
        return ModuleReport(value.name, kind, refusal or error.refused.why, twin, value.shape[1:])
    d, m = read.shape[1], asked.points * len(read) // count(found.probe)
    size, passes = m * d * read.element_size(), _passes(m, read, asked)
    engine = engine_seconds(m, d, asked.rows, asked.classes, asked.device)
    seconds = seconds * asked.points * passes + asked.measurements * engine
    return ModuleReport(value.name, kind, refusal, twin, value.shape[1:], d, size, seconds, passes)


def _passes(m: int, read: Tensor, asked: _Asked) -> int:
    """Return about how often the model is run for m features like some that were read."""
    if m * read.shape[1] * read.element_size() <= HELD * asked.budget:
        return 1  # which all measurements share
    of_one = count_passes(m, asked.rows, read.new_empty((0, read.shape[1]), device="cpu"), asked.budget, asked.classes)
    return asked.measurements * (of_one + (asked.reading.name == "positions"))


def _seconds(model: nn.Module, inputs: Any, found: Trace) -> dict[Call, float]:
    """Return for each call the seconds from the beginning of a forward pass to its return, for one point.

    They are of more points than the trace, if the model runs on them.
    """
    n = min(count(inputs), TIMED)
    some = on_device(model, take(inputs, slice(0, n), count(inputs)))
    try:
        _timed(model, some, found)  # the first pass takes longer than others
    except Exception:  # a model that takes its points in one batch
        some, n = found.probe, count(found.probe)
        _timed(model, some, found)
    passes = [_timed(model, some, found) for _ in range(REPEATS)]
    return {at: statistics.median(one.get(at, 0.0) for one in passes) / n for at in passes[0]}


def _timed(model: nn.Module, inputs: Any, found: Trace) -> dict[Call, float]:
    """Run the model once, and note when what returned."""
    at: dict[Call, float] = {}

    def note(event: Event) -> None:
        at[event.call] = time.perf_counter() - started

    given = owned(inputs, found.gradients)
    with Tap(model, note):
        started = time.perf_counter()
        call(model, given, found.gradients)
    return at
