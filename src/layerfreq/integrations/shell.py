"""What the callbacks share: a monitor that begins with the training, and resumes where its checkpoint left off."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import batches, is_loader
from layerfreq.data.validation import as_scales
from layerfreq.errors import Code, listed
from layerfreq.files import Anchored, as_path
from layerfreq.integrations.probe import probe_set
from layerfreq.isolation.memory import read_memory
from layerfreq.measure.options import check_options
from layerfreq.monitor.budget import Budget
from layerfreq.monitor.monitor import Monitor
from layerfreq.monitor.parts import about_probes, as_probe_sets
from layerfreq.monitor.policy import Policy
from layerfreq.monitor.schedules import Schedule, When
from layerfreq.network.find import reject_one_pass
from layerfreq.network.naming import Layers, as_layers, none_of
from layerfreq.network.outputs import as_wanted
from layerfreq.network.reading import read_reading
from layerfreq.response.measure import as_error_options
from layerfreq.runs.run import Run
from layerfreq.runs.weights import check_keeping
from layerfreq.trackers.trackers import Trackers

# Options of `Monitor` itself.
OURS = ("reading", "memory", "whole", "scale", "checkpoints", "budget", "on_error", "overwrite", "error", "probes")
KEY = "training"  # of a run's config, and of a trainer's checkpoint: which training it is


@dataclass(frozen=True)
class Start:
    """What a trainer has when its training begins.

    Attributes:
        model: What is measured.
        trackers: As for `Monitor`.
        collate: Makes a batch of a data set's items.
        convert: Brings inputs into the precision of the training.
    """

    model: nn.Module
    trackers: Iterable[Any] = ()
    collate: Callable[[Any], Any] | None = None
    convert: Callable[[Any], Any] | None = None


class Shell:
    """A `Monitor` that is made when the trainer provides the model.

    What is wrong with the arguments alone is an error at once. What only the model or the disk shows when training
    begins (a layer that is not there, inputs on which the model does not run, a folder that is taken) is one warning,
    and the training goes on unmeasured; with `on_error="raise"` it is an error, too.

    In distributed training every rank is given the whole probe set and takes its part of it, unless `group` is among
    the options: then what a rank is given is its part. Arguments are as for `Monitor`; inputs may also be a data set,
    `run` is the directory of the checkpoint's run where one is resumed, and options are of `spectrum` and those in
    `OURS`.

    Attributes:
        monitor: The monitor, once training has begun.
        trackers: As for `Monitor`; None means that the trainer has its own.

    Raises:
        InputError: For a bad argument.
    """

    _folder = Anchored()

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        layers: Layers,
        run: str | Path | Run | None,
        when: When,
        trackers: Any,
        options: dict[str, Any],
    ) -> None:
        if isinstance(when, Iterator):
            when = list(when)
        self.trackers = None if trackers is None else listed(trackers, "trackers", "trackers")
        self.monitor: Monitor | None = None
        self._policy = Policy(options.get("on_error", "warn"))
        self._sets = as_probe_sets(inputs, targets, options.get("probes"))
        self._asked = {"layers": layers, "when": when, **{k: v for k, v in options.items() if k != "probes"}}
        _check(self._asked, self.trackers or [])
        for name, pair in self._sets.items():
            with about_probes(name):
                _check_points(*pair)
        self._given = run if isinstance(run, Run) else None
        if run is not None:
            self._folder = run.path if isinstance(run, Run) else as_path(run, "run")
        self._writes = run is not None
        self._overwrite = options.get("overwrite", False)
        self._opened: Run | None = None
        self._key, self._last = "", -1

    def begin(self, step: int, resumed: Mapping[str, Any] | None, prepare: Callable[[], Start]) -> None:
        """Begin at a step of the training, and measure there; or resume a run from a checkpoint's step.

        Args:
            step: Steps done.
            resumed: What `state` was in the checkpoint that is resumed, or None in a new training.
            prepare: Returns what the trainer has.

        Raises:
            InputError: With on_error="raise", for bad input, or a run that holds another training.
        """
        self._key = ""
        try:
            self._begin(step, resumed, prepare)
        except Exception as error:  # nothing that a measurement meets may keep a training from beginning
            self.close(whole=False)
            self._policy.unmeasured(error, "LayerSpectraCallback")

    def _begin(self, step: int, resumed: Mapping[str, Any] | None, prepare: Callable[[], Start]) -> None:
        options = dict(self._asked)
        spread = dist.is_available() and dist.is_initialized()
        everyone = Shards(dist.group.WORLD if spread and dist.get_world_size() > 1 else None)
        with everyone.together():
            start = prepare()
            rank, ranks = everyone.rank, everyone.ranks
            if "group" in options:
                rank, ranks = 0, 1
            elif ranks > 1:
                options["group"] = dist.group.WORLD
            probes = {
                name: probe_set(*pair, rank, ranks, start.collate, start.convert, whole=options.get("whole", False))
                for name, pair in self._sets.items()
            }
        first = everyone.rank == 0
        self.monitor = Monitor(start.model, probes=probes, trackers=start.trackers if first else (), **options)
        going_on = resumed is not None
        with everyone.together():
            if first and self._writes:
                run, going_on = self._open(step, resumed)
                self.monitor.write_to(run)
                self._opened, self._key = run, str(run.config.get(KEY, ""))
        self._last = step
        if not everyone.gather(going_on)[0]:
            self.monitor.measure(step)

    def _open(self, step: int, resumed: Mapping[str, Any] | None) -> tuple[Run, bool]:
        """Return the run, and whether it resumes."""
        path = self._folder
        if resumed is not None and (path / "config.yaml").exists():
            run = self._given or Run(path)
            theirs, ours = resumed.get(KEY), run.config.get(KEY) or ""
            if theirs is not None and theirs != ours:  # that of a training without a run is ""
                raise Code.CONFLICT(f"run: {str(path)!r} is not the checkpoint's run; choose that one, or a new one")
            run.rewind(step)
            return run, True
        if self._given is not None:
            return self._given, False
        if self._opened is not None and self._last <= step:  # the same trainer resumes
            return self._opened, step == self._last
        about = {} if self.monitor is None else self.monitor.config
        return Run.create(path, {KEY: uuid.uuid4().hex, **about}, overwrite=self._overwrite), False

    @property
    def name(self) -> str:
        """The name of the run's folder, which tells several callbacks of one trainer apart."""
        return self._folder.name if self._writes else ""

    @property
    def state(self) -> dict[str, str]:
        """What a checkpoint has to hold, to be resumed into this run; what it is stays in memory, whatever the disk."""
        return {KEY: self._key}

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep metrics in the run."""
        if metrics and self.monitor is not None:
            self.monitor.note(step, metrics)

    def measure(self, step: int, numbers: Callable[[bool], Mapping[str, float]] | None = None) -> None:
        """Measure at a step, if it has come since the last call and `when` says so.

        Args:
            step: The step.
            numbers: Told whether the step was measured, returns metrics to keep.
        """
        if self.monitor is None or step <= self._last:
            return
        self._last = step
        measured = self.monitor.measure(step) is not None
        if numbers is not None:
            with self._policy.survived(f"step {step}: what the trainer logs"):
                self.note(step, numbers(measured))

    def keep(self) -> None:
        """Write what was noted, because a checkpoint is written."""
        if self.monitor is not None:
            self.monitor.keep()

    def close(self, *, whole: bool = True) -> None:
        """Measure the last step, if it is due, write what was noted, and drop the monitor, and with it the model.

        Args:
            whole: Whether the training has come to its end.
        """
        if self.monitor is not None:
            if whole and self._last >= 0:
                self.monitor.finish(self._last)
            self.monitor.drop()
            self.monitor = None


def _check(asked: Mapping[str, Any], trackers: Any) -> None:
    """Raise an InputError for an argument that is bad whatever the model."""
    Schedule(asked["when"])
    if asked.get("budget") is not None:
        Budget(asked["budget"])
    error = as_error_options(asked.get("error"))
    if not none_of(asked["layers"], error is None):
        as_layers(asked["layers"])
    as_scales(asked.get("scale", "raw"))
    read_reading(asked.get("reading", "flatten"))
    read_memory(asked.get("memory"))
    check_keeping(asked.get("checkpoints", False))
    check_options({name: value for name, value in asked.items() if name not in (*OURS, "layers", "when")})
    Trackers(trackers)


def _check_points(inputs: Any, targets: Any) -> None:
    """Raise an InputError for a probe set that no model could be measured on; loaders are not yet iterated over."""
    reject_one_pass(inputs)
    inputs, targets = probe_set(inputs, targets)
    targets, _ = as_wanted(inputs, targets)
    if not is_loader(inputs):
        next(batches(inputs, targets))
