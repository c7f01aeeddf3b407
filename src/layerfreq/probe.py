"""What is measured: points with their targets, where in a model, and how; and the measuring itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import batches, device_of, is_loader
from layerfreq.data.targets import lots, read_targets
from layerfreq.data.validation import Scale, as_scales
from layerfreq.errors import Code, InputError, alone, blame, is_not, none_given, shown
from layerfreq.isolation.memory import group_by_memory, read_memory
from layerfreq.measure.known import Company, Seen, in_pieces, seen
from layerfreq.measure.measure import measure, measure_several, measure_source
from layerfreq.measure.options import check_options
from layerfreq.measure.result import Spectrum
from layerfreq.measure.strategies import work_on
from layerfreq.network.cuts import Cut
from layerfreq.network.extract import (
    FeatureStream,
    OnOutput,
    collect,
    collect_labels,
    count_points,
    most_points,
    run_through,
)
from layerfreq.network.find import Plan, plan, reject_one_pass, unwrap
from layerfreq.network.labelled import for_model
from layerfreq.network.naming import Layers
from layerfreq.network.outputs import ONE, Function, Outputs, Wanted, about_target, as_wanted
from layerfreq.progress import Progress
from layerfreq.response.measure import as_error_options, error_spectrum
from layerfreq.response.result import ErrorSpectrum

ERROR, TARGETS = "error by frequency", "targets"  # what a failure of them is filed under, next to layers' names


@dataclass(frozen=True)
class Measured:
    """One measurement of a probe, of one target.

    Attributes:
        spectra: For each of the probe's scales, layer -> spectrum.
        failed: layer -> reason, for layers that could not be measured, and `ERROR` or `TARGETS` -> reason.
        error: Error by frequency, where it was asked for.
    """

    spectra: list[dict[str, Spectrum]]
    failed: dict[str, InputError] = field(default_factory=dict)
    error: ErrorSpectrum | None = None


@dataclass(frozen=True)
class _Now:
    """What all layers of one measurement share; the last two are what its passes gather of the model's outputs."""

    model: nn.Module
    points: int
    budget: int
    on_layer: Callable[[str], Any]
    failed: Mapping[Any, dict[str, InputError] | None]
    outputs: Outputs | None
    wanted: Wanted | None


@dataclass(frozen=True)
class Probe:
    """What is measured, checked once for many measurements.

    Attributes:
        inputs: What the model's forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: The points' labels, or None with an iterable of batches.
        plan: Where.
        scales: At which scales; raw and rms follow from one another.
        memory: What the features may take at a time, see `layer_spectra`.
        options: Options of `spectrum`, but for the scale.
        error: Options of `error_spectrum`, or None if it is not asked for.
        wanted: Name -> what is measured instead of the labels, as from `as_wanted`; None if they are.
        told: Which warnings of drawn rows, sketches or rounding were given: each once, however often is measured.
        whole: Whether the model runs on batches only as they come.
        company: What was found of how features depend on the batch.
    """

    inputs: Any
    targets: Any
    plan: Plan
    scales: tuple[Scale, ...] = ("raw",)
    memory: int | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    wanted: Mapping[Any, Any] | None = None
    told: set[str] = field(default_factory=set, compare=False)
    whole: bool = False
    company: Company = field(default_factory=Company, compare=False)

    @classmethod
    def of(
        cls,
        model: nn.Module | Callable[..., Any],
        inputs: Any,
        targets: Any,
        layers: Layers,
        options: Mapping[str, Any],
        *,
        scales: Any = ("raw",),
        reading: Any = "flatten",
        memory: int | str | None = None,
        whole: bool = False,
        error: Any = None,
    ) -> Probe:
        """Check what was asked for, and find the layers; arguments are as for `layer_spectra` and `Monitor`.

        Raises:
            InputError: For anything that cannot be measured, the same on all ranks.
        """
        with Shards(options.get("group")).together():
            error, options = as_error_options(error), check_options(options)
            module = as_module(model, error)
            asked = as_scales(scales)
            targets, wanted = as_wanted(inputs, targets)
            if targets is None and wanted is None and not is_loader(inputs):
                raise none_given("targets", "one for each input, or an iterable of (inputs, targets) batches")
            read_memory(memory)
            if whole and not is_loader(inputs):
                inputs, targets = list(batches(inputs, targets, whole=True)), None
            inputs = for_model(module, inputs)
            if isinstance(module, Function) and layers not in (None, []):
                raise Code.CONFLICT(f"layers: {shown(layers)} of a function, which has none; leave layers out")
        if isinstance(module, Function):
            found = Plan([], {}, 0)
        else:
            found = plan(module, inputs, layers, options.get("group"), reading, some=error is None)
        if wanted is not None:
            _check_wanted(found)
        return cls(inputs, targets, found, asked, memory, options, error, wanted, whole=whole)

    @property
    def refused(self) -> dict[str, str]:
        """Name -> reason, for activations and blocks of the model that are not cuts."""
        return {name: str(reason) for name, reason in self.plan.refused.items()}

    @property
    def shards(self) -> Shards:
        """The ranks over which the points are spread."""
        return Shards(self.options.get("group"))

    def measure(
        self, model: nn.Module, on_layer: Callable[[str], Any] | None = None, *, strict: bool = True
    ) -> dict[Any, Measured]:
        """Measure the layers one after the other, at all scales and for all targets while their features are at hand.

        Args:
            model: The model, unwrapped.
            on_layer: Told each layer's name before it is measured.
            strict: Raise where a layer cannot be measured, instead of leaving it out and naming it in `failed`.

        Returns:
            What was found for each target; the error by frequency, which is that of the labels, with the first. A
            single target that has no name is called `ONE`.

        Raises:
            InputError: For bad input, or where passes over the inputs see different numbers of points.
        """
        names = [ONE] if self.wanted is None else list(self.wanted)
        failed: dict[Any, dict[str, InputError] | None] = {name: None if strict else {} for name in names}
        with self.shards.together():
            points, budget = most_points(model, self.inputs), read_memory(self.memory)
        # All ranks plan alike: for the largest part, and the least memory.
        points, budget = round(self.shards.largest(float(points))), -round(self.shards.largest(-float(budget)))
        cuts = self.plan.layers
        outputs = None if self.error is None else Outputs(self.inputs)
        wanted = None if self.wanted is None else Wanted(self.wanted, strict=strict)
        found: dict[Any, dict[str, list[Spectrum]]] = {name: {} for name in names}
        # The work of a layer grows with its width, and some is the same for all.
        work = {cut.name: cut.each + 256.0 for cut in cuts}
        with Progress(work, shown=on_layer is None and self.shards.rank == 0) as line:
            now = _Now(model, points, budget, on_layer or line.layer, failed, outputs, wanted)
            for target, layer, its in self._all(now):
                found[target][layer] = its
        found = {name: {c.name: its[c.name] for c in cuts if c.name in its} for name, its in found.items()}
        for spectra in found.values():
            counted = {
                c.name: spectra[c.name][0].n for c in cuts if c.reading.name != "positions" and c.name in spectra
            }
            if len(set(counted.values())) > 1:
                counts = ", ".join(f"{n} at {name!r}" for name, n in counted.items())
                raise Code.CONFLICT(f"inputs: the number of points changed between passes ({counts}); pass a fixed set")
        error = None if outputs is None else self._error(model, outputs, failed[names[0]])
        for name, why in {} if wanted is None else wanted.failed.items():
            failed[name] = {**(failed[name] or {}), TARGETS: why}
        return {
            name: Measured(
                [{layer: its[i] for layer, its in found[name].items()} for i in range(len(self.scales))],
                failed[name] or {},
                error if name == names[0] else None,
            )
            for name in names
        }

    def _error(self, model: nn.Module, outputs: Outputs, failed: dict[str, InputError] | None) -> ErrorSpectrum | None:
        """Measure the error by frequency, with outputs from the pass that read the layers if there was one."""
        with self.shards.together():
            if not outputs.seen:
                self._run(model, outputs.see)
        inputs, targets, out = outputs.whole(self.shards)
        with _noting(failed, ERROR):
            return error_spectrum(inputs, targets, out, **(self.error or {}))
        return None

    def _run(self, model: nn.Module, see: OnOutput) -> None:
        """Run the model for its outputs alone."""
        nothing: list[Cut] = []
        run_through(model, self.inputs, self.targets, nothing, _ignore, see, gradients=self.plan.gradients)

    def _all(self, now: _Now) -> Iterator[tuple[Any, str, list[Spectrum]]]:
        """Measure all layers, in the order that takes least."""
        left = list(self.plan.layers)
        known = now.wanted is None or now.wanted.seen  # else the outputs tell them
        if known and now.outputs is None and not self.whole and len(self.scales) == 1:
            each = None if now.wanted is None else now.wanted.whole(self.shards)
            asked = self.scales[0], now.budget, self.company, self.options, each
            for cut, one, ys in in_pieces(now.model, self.inputs, self.targets, left, *asked):
                left = [other for other in left if other is not cut]
                yield from self._measured(cut, one, ys, max(0, now.budget - one.nbytes), now)
        sizes = [(cut, size := now.points * cut.each, work_on(size, now.points, self.options)) for cut in left]
        with self.company.judged(now.model):
            for some, held in group_by_memory(sizes, now.budget):
                if held or not self.shards.alone:
                    yield from self._held(some, now)
                else:
                    yield from self._streamed(some[0], now)

    def _held(self, cuts: Sequence[Cut], now: _Now) -> Iterator[tuple[Any, str, list[Spectrum]]]:
        """Measure some layers whose features are held together, and gather the outputs of the same pass."""
        with self.shards.together():
            see, wanted = _watching(now.outputs, now.wanted), now.wanted
            look = None if device_of(now.model).type != "cpu" else self._look
            features, labels = collect(
                now.model, self.inputs, self.targets, cuts, now.points, see, labelled=wanted is None, instead=look
            )
        each = {} if wanted is None else wanted.whole(self.shards)
        for cut in cuts:
            room = max(0, now.budget - sum(one.nbytes for one in features.values()))
            y = {ONE: labels.get(cut.name)} if wanted is None else each
            yield from self._measured(cut, features.pop(cut.name), y, room, now)

    def _measured(
        self, cut: Cut, one: Tensor | Seen, targets: Mapping[Any, Any], room: int, now: _Now
    ) -> Iterator[tuple[Any, str, list[Spectrum]]]:
        """Measure a layer whose features are held, or were looked at, for all targets."""
        name = cut.name
        now.on_layer(name)
        ours = {**_for_layer(cut, len(one), _at_home(now.model, one, self.options)), "room": room}
        ours |= {"told": self.told, "layer": name}
        find: Any = measure
        if isinstance(one, Seen):
            find = partial(measure_source, width=one.width)
            ours = {key: value for key, value in ours.items() if key not in ("device", "group")}
        together = {} if self.wanted is None or isinstance(one, Seen) else self._together(one, targets, ours)
        for target, y in targets.items():
            with _noting(now.failed[target], name), blame(name), about_target(target):
                if self.options.get("group") is None and len(one) == 0:
                    raise Code.EMPTY("targets: -100 at every position, so that none is left; label some")
                spectra = together.get(target) or [find(one, y, scale=s, **ours) for s in self.scales]
                yield target, name, spectra

    def _together(
        self, features: Tensor, each: Mapping[Any, Any], options: Mapping[str, Any]
    ) -> dict[Any, list[Spectrum]]:
        """Measure those targets that one run of an engine can take; what is wrong with one is told of it alone."""
        if any(options.get(name) is not None for name in ("group", "rows", "rtol")):
            return {}
        found: dict[Any, list[Spectrum]] = {}
        options = {name: value for name, value in options.items() if name not in ("group", "rows", "rtol", "seed")}
        for lot in lots(each):
            with suppress(InputError):
                measured = [measure_several(features, lot, scale=s, **options) for s in self.scales]
                found |= {name: [one[name] for one in measured] for name in lot}
        return found

    def _look(self, name: str, features: Tensor, targets: Tensor | None) -> Seen | None:
        """Look at a wide layer's features while they are there, so that they need not be held."""
        cut = next(cut for cut in self.plan.layers if cut.name == name)
        return seen(features, targets, self.scales, **_for_layer(cut, len(features), self.options))

    def _streamed(self, cut: Cut, now: _Now) -> Iterator[tuple[Any, str, list[Spectrum]]]:
        """Measure a layer whose features are too large to be held."""
        now.on_layer(cut.name)
        reject_one_pass(self.inputs)
        wanted, model = now.wanted, now.model
        if wanted is not None and not wanted.seen:
            self._run(model, wanted.see)
        for target in [ONE] if wanted is None else wanted.whole(self.shards):
            with _noting(now.failed[target], cut.name), blame(cut.name), about_target(target):
                if wanted is None:
                    labels = collect_labels(model, self.inputs, self.targets, cut)
                else:
                    labels = read_targets(wanted.whole(self.shards)[target], count_points(model, self.inputs))
                source = FeatureStream(
                    model,
                    self.inputs,
                    self.targets,
                    cut,
                    len(labels),
                    self.options.get("device"),
                    labelled=wanted is None,
                )
                ours = _for_layer(cut, len(labels), self.options)
                there = ("device", "group")  # the source knows them
                ours = {name: value for name, value in ours.items() if name not in there}
                ours |= {"room": now.budget, "told": self.told, "layer": cut.name}
                yield target, cut.name, [measure_source(source, labels, scale=s, **ours) for s in self.scales]


def as_module(model: Any, error: Any = None) -> nn.Module:
    """Return the module that is run: the one inside wrappers; where only an error is asked for, a plain function too.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(model, nn.Module):
        return unwrap(model)
    if error is not None and callable(model) and not isinstance(model, type):
        return Function(model)
    raise is_not("model", type(model), "a torch.nn.Module", "the module itself")


def _ignore(*_: Any) -> None:
    pass


def _check_wanted(found: Plan) -> None:
    """Raise an InputError where targets that are not simply labels cannot be measured."""
    if not found.layers:
        raise Code.EMPTY("layers: none, and several targets or functions of outputs are measured at layers; name some")
    read = next((cut.name for cut in found.layers if cut.reading.name == "positions"), None)
    if read is not None:
        raise Code.UNSUPPORTED(
            f"targets: several, or functions of outputs, at {read!r}, where each position has a target of its own; "
            "pass one array, or read the layer in another way"
        )


def _watching(outputs: Outputs | None, wanted: Wanted | None) -> OnOutput | None:
    """Return what the next pass shows its outputs to; None if nobody waits for them any more."""
    waiting = [one.see for one in (outputs, wanted) if one is not None and not one.seen]

    def see(inputs: Any, targets: Any, output: Any) -> None:
        for one in waiting:
            one(inputs, targets, output)

    return see if waiting else None


@contextmanager
def _noting(failed: dict[str, InputError] | None, name: str) -> Iterator[None]:
    """Note that a layer cannot be measured, and why, instead of raising; without a dict to note it in, raise."""
    try:
        yield
    except InputError as error:
        if failed is None:
            raise
        failed[name] = alone(error)


def _for_layer(cut: Cut, n: int, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let every point be a centre at a layer without positions that has fewer than are drawn at those with them."""
    reading, rows = cut.reading, options.get("rows")
    fewer = isinstance(rows, int) and rows > n and options.get("group") is None
    return {**options, "rows": None} if fewer and reading.name == "positions" and reading.axis is None else options


def _at_home(model: nn.Module, features: Tensor | Seen, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Compute where the model does, also if its device had no room for the features of all layers at a time."""
    if options.get("device") is None and features.device != device_of(model):
        return {**options, "device": device_of(model)}
    return options
