"""Measuring a model while it trains, in any training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from layerfreq.data.distributed import Shards
from layerfreq.data.notes import as_step
from layerfreq.data.validation import Scale
from layerfreq.errors import Code, Named
from layerfreq.layers import LayerSpectra
from layerfreq.monitor.budget import Budget
from layerfreq.monitor.parts import about_probes, as_probe_sets, config_of, describe, name_part
from layerfreq.monitor.policy import Policy
from layerfreq.monitor.record import Record
from layerfreq.monitor.schedules import Schedule, When
from layerfreq.network.naming import Layers
from layerfreq.probe import Probe, as_module
from layerfreq.response.result import ErrorSpectrum
from layerfreq.runs.run import Run
from layerfreq.runs.weights import check_keeping

schedule = Schedule  # the name that it had here


class Monitor:
    """Measures the layers of a model, and its error by frequency, at chosen steps of training; writes a run.

    Args:
        model: The model being trained; measuring leaves it unchanged, bit for bit. With `error`, it may also be a plain
            function of the inputs, which is called as it is: modules that it uses are not put in eval mode.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with an iterable of batches. Or a function
            `(x, y, output) -> target`, or several targets by name; see `layer_spectra`.
        probes: Several probe sets by name, instead of inputs and targets; each is a pair or a loader:
            `{"train": (x, y), "test": loader}`. If there are several probe sets or targets, each is a part of the run:
            a complete run in a folder of its own. Errors by frequency are those of the labels, in the first part of
            each probe set; weights are in the first part of all.
        layers: Names as from `hidden_layers`, patterns, indices or modules, see `layer_spectra`; None means all hidden
            layers.
        run: A directory for a new run, or a `Run` to resume; None writes nothing. A run always holds raw and rms
            together, since one follows from the other.
        when: Steps to measure at: an integer k (every k-th step), a list of steps, "log" (step 0, then at most eight
            steps per octave, and the last step at `close`), or a function of the step. If the counter skips a due step,
            the next call measures.
        error: Also measure the network's error by frequency, see `error_spectrum`: "auto", a method's name, or a dict
            of options. Outputs come from the forward pass that reads the layers. The model may then have no layers, and
            `layers=[]` measures none.
        reading: How outputs with positions become feature vectors; see `layer_spectra`.
        trackers: Where else to log each measurement, such as `layerfreq.trackers.trackers.TensorBoard`; if one fails,
            you get a warning, and training and run continue.
        memory: Memory that features may take, see `layer_spectra`.
        scale: "raw", "rms" or "maxabs", see `spectrum`, or several: ("maxabs", "raw") measures twice, from one forward
            pass per step; `measure` returns the first.
        checkpoints: Keep the weights of every measured step in the run, as needed by `layerfreq relearn`.
        budget: The largest share of the time since the last measurement that one may take, such as 0.03. If it is not
            enough, fewer filter centres are drawn than `rows` says, or the step is skipped, and the run's notes say so.
            The first measurement is always made, and is paid back before the next. None sets no limit.
        on_error: How to treat an error while measuring, such as NaN in the features or a metric that is not a number:
            "warn" warns once, writes what it can and lets training continue (a full disk ends measuring); "raise"
            raises it. Bad arguments of the constructor always raise.
        overwrite: Replace an existing run in the directory `run`.
        whole: Run the model on all inputs at once, see `layer_spectra`.
        **options: Options of `spectrum`. With `group`, every rank has a monitor with its own part of the inputs and
            calls `measure` at the same steps; all get the spectra of the whole set, and only the first rank writes the
            run. Each rank measures its own copy of the model, so buffers that differ between ranks (those of batch norm
            under DistributedDataParallel, but not of SyncBatchNorm) affect its points.

    Attributes:
        config: What a run of this monitor records: model, layers, options, versions, command.
        layers: The layers that are measured, input to output.
        plan: Where they are, and why others are not cuts.
        error: The `ErrorSpectrum` of the last measured step, or None.
        closed: Whether `close` was called.
        last: The last measurement, as `measure` returned it; None before the first. It remains after `close`.
        parts: Name -> the last measurement of each probe set and target; a single one is named "".
        on_layer: Called with a layer's name before it is measured; None for nothing.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> y = (x[:, 0] > 0).long()
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> with Monitor(model, x, y, run="run", when=10) as monitor:
        ...     for step in range(21):
        ...         loss = nn.functional.cross_entropy(model(x), y)
        ...         found = monitor.measure(step, loss=loss)
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> Run("run").steps()
        [0, 10, 20]
        >>> monitor.last["1"].median == found["1"].median
        True
    """

    last: LayerSpectra | None = None
    parts: Mapping[str, LayerSpectra] = MappingProxyType({})

    def __init__(
        self,
        model: nn.Module | Callable[..., Any],
        inputs: Any = None,
        targets: Any = None,
        *,
        probes: Mapping[str, Any] | None = None,
        layers: Layers = None,
        run: str | Path | Run | None = None,
        when: When = 1,
        error: Any = None,
        reading: Any = "flatten",
        memory: int | str | None = None,
        scale: Scale | Sequence[Scale] = "raw",
        trackers: Iterable[Any] = (),
        checkpoints: bool = False,
        budget: Any = None,
        on_error: str = "warn",
        overwrite: bool = False,
        whole: bool = False,
        **options: Any,
    ) -> None:
        with Shards(options.get("group")).together():
            self._policy = Policy(on_error)
            self._due = Schedule(when)
            check_keeping(checkpoints)
            sets = as_probe_sets(inputs, targets, probes)
        asked = {"scales": scale, "reading": reading, "memory": memory, "whole": whole, "error": error}
        self._probes: dict[str, Probe] = {}
        for name, (x, y) in sets.items():
            with about_probes(name):
                self._probes[name] = Probe.of(model, x, y, layers, options, **asked)
        self._model: nn.Module | None = as_module(model, error)
        self.error: ErrorSpectrum | None = None
        first = next(iter(self._probes.values()))
        self._group, self.plan = first.options.get("group"), first.plan
        self.layers = [layer.name for layer in self.plan.layers]
        self._points: dict[str, int] = {}  # of each part; and the fewest that a layer of a probe set has
        self._least: dict[str, int] = {}
        self._version = 0
        self._seen: int | None = None  # the last step that came, and the last that was measured
        self._measured: int | None = None
        self._about = describe(self._model, self._probes)
        self.config = config_of(self._about)
        with first.shards.together():
            self._record = Record(self._policy, () if first.shards.rank else trackers, checkpoints=checkpoints)
            self._budget = None if budget is None else Budget(budget, self._record.remark)
        self.on_layer: Callable[[str], Any] | None = None
        with first.shards.together():
            if run is not None and not first.shards.rank:
                self.write_to(run if isinstance(run, Run) else Run.create(run, self.config, overwrite=overwrite))
        self.closed = False

    @property
    def run(self) -> Run | None:
        """The `Run` being written, or None."""
        return self._record.run

    def write_to(self, run: Run) -> None:
        """Write measurements to a run from now on.

        Examples:
            >>> monitor.write_to(Run.create("another"))
        """
        steps = self._record.write_to(run, self._about)
        if steps:
            self._due.go_on(steps[-1])

    def finish(self, step: int | None = None) -> None:
        """Measure the last step if `when` is "log", and report listed steps that never came.

        Args:
            step: Number of training steps made; None means the last step passed to `measure`, plus one if parameters
                have changed since.

        Examples:
            >>> found = monitor.measure(5)
            >>> monitor.finish(6)  # with when="log", the last step is measured
        """
        model, last = self._model, self._seen
        if model is None or last is None or self._policy.full:
            return
        if self._due.missed:
            steps = ", ".join(map(str, self._due.missed[:5]))
            warnings.warn(f"when: steps {steps} never came; the last one was {last}", stacklevel=3)
        if not self._due.ends:
            return
        last = last + (_version(model) != self._version) if step is None else step
        if last != self._measured:
            with self._policy.survived(f"step {last}"):
                self._measure(last, model)

    def close(self) -> None:
        """Call `finish`, write the last metrics, close trackers, and release model and inputs.

        Leaving a `with` block does the same, without `finish` if an error is the reason. With `group`, call `finish` on
        every rank first.

        Raises:
            OSError: With on_error="raise", if the metrics cannot be written; everything is released all the same.

        Examples:
            >>> monitor.close()
            >>> monitor.closed
            True
        """
        if self._group is None:
            self.finish()
        self.drop()

    def drop(self) -> None:
        """Close without measuring the last step.

        Examples:
            >>> monitor.drop()
            >>> monitor.closed
            True
        """
        self.closed = True
        self._model, self._probes, self.on_layer = None, {}, None
        self._due = Schedule([])
        if self._budget is not None:
            self._budget.settle()
        self._record.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        if error and error[0] is not None:
            self.drop()
        else:
            self.close()

    def measure(self, step: Any = None, /, **metrics: Any) -> LayerSpectra | None:
        """Measure if the step is due; record the metrics in any case.

        Args:
            step: Number of training steps (or epochs) so far; by position or by name.
            **metrics: Numbers to record with it, such as loss=0.3.

        Returns:
            The spectra of the first part (empty if only the error is measured, or it failed); None if the step is not
            due or nothing could be measured.

        Raises:
            InputError: If the monitor is closed. With on_error="raise" also if a step or metric is not a number,
                features have NaN, the number of points has changed, or a layer is no longer in the model.
        """
        model = self._model
        step = metrics.pop("step", None) if step is None else step
        if model is None:
            raise Code.CONFLICT(f"monitor: closed, and step {step} is to be measured; measure before close()")
        if self._policy.full and self._group is None:  # with a group, other ranks would wait for this one
            return None
        spectra = None
        with self._policy.survived(f"step {step}"):
            step = as_step(step)
            self._seen = step
            if self._due.ends:  # else nobody asks, and it takes a look at every parameter
                self._version = _version(model)
            self._record.note(step, metrics)
            if self._due(step):
                spectra = self._measure(step, model)
        return spectra

    def note(self, step: Any, metrics: Mapping[str, Any]) -> None:
        """Record metrics of a step in the run, without measuring.

        Examples:
            >>> monitor.note(3, {"loss": 0.5})
            >>> monitor.keep()
            >>> list(monitor.run.metrics["loss"])
            [0.5]
        """
        with self._policy.survived(f"step {step}"):
            self._record.note(as_step(step), metrics)

    def keep(self) -> None:
        """Write the metrics recorded so far.

        Examples:
            >>> monitor.note(3, {"loss": 0.5})
            >>> monitor.keep()
        """
        if not self._policy.full:
            with self._policy.survived("metrics"):
                self._record.flush()

    def _measure(self, step: int, model: nn.Module) -> LayerSpectra | None:
        if self._budget is None:
            return self._measured_by(self._probes, step, model)
        with self._budget.measurement(step, self._probes, self._least) as probes:
            return None if probes is None else self._measured_by(probes, step, model)

    def _measured_by(self, probes: Mapping[str, Probe], step: int, model: nn.Module) -> LayerSpectra | None:
        self._measured = step
        found: dict[str, tuple[list[LayerSpectra], ErrorSpectrum | None]] = {}
        for place, probe in probes.items():
            with self._policy.survived(f"step {step}{f' of {place}' if place else ''}", place or None):  # not all
                for target, one in probe.measure(model, self.on_layer, strict=False).items():
                    part = name_part(place, target)
                    for name, why in one.failed.items():
                        self._record.failed(step, part, name, why)
                    found[part] = [LayerSpectra(s, probe.refused, one.failed) for s in one.spectra], one.error
                    self._check_points(step, part, found)
                    if spectra := found[part][0][0]:
                        self._least[place] = min(s.n for s in spectra.values())
        first, self.error = found.get(next(iter(self._about)), ([LayerSpectra({})], None))
        measured = {part: (spectra, error) for part, (spectra, error) in found.items() if spectra[0] or error}
        if not measured:
            return None
        self.parts = Named("part", {part: spectra[0] for part, (spectra, _) in measured.items()})
        self.last = first[0]
        self._record.measured(step, measured, model)
        return first[0]

    def _check_points(self, step: int, part: str, found: dict[str, tuple[list[LayerSpectra], Any]]) -> None:
        """Raise an InputError, and forget the measurement, where a part has another number of points than before."""
        spectra, error = found[part]
        n = next((one.n for one in (*spectra[0].values(), error) if one is not None), None)
        before = self._points.setdefault(part, n) if n else n
        if n != before:
            del found[part]
            raise Code.CONFLICT(f"inputs: {n} points at step {step}, but {before} before; pass a fixed probe set")


def _version(model: nn.Module) -> int:
    """How often the parameters have been written into: whether a training step was made."""
    return sum(p._version for p in model.parameters() if not p.is_inference())
