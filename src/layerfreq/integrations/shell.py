"""What the callbacks share: a monitor that begins with the training, and resumes where its checkpoint left off."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from layerfreq.data.distributed import Shards
from layerfreq.errors import Code
from layerfreq.files import as_path
from layerfreq.integrations.probe import probe_set
from layerfreq.measure.options import check_options
from layerfreq.monitor.budget import Budget
from layerfreq.monitor.monitor import Monitor
from layerfreq.monitor.parts import as_probe_sets
from layerfreq.monitor.policy import Policy
from layerfreq.monitor.schedules import Schedule, When
from layerfreq.network.naming import Layers
from layerfreq.response.measure import as_error_options
from layerfreq.runs.run import Run

# Options of `Monitor` itself.
OURS = ("reading", "memory", "whole", "scale", "checkpoints", "budget", "on_error", "overwrite", "error", "probes")
KEY = "training"  # of a run's config, and of a trainer's checkpoint: which training it is


class Shell:
    """A `Monitor` that is made when the trainer provides the model.

    In distributed training every rank is given the whole probe set and takes its part of it, unless `group` is among
    the options: then what a rank is given is its part. Arguments are as for `Monitor`; inputs may also be a data set,
    `run` is the directory of the checkpoint's run where one is resumed, and options are of `spectrum` and those in
    `OURS`.

    Attributes:
        monitor: The monitor, once training has begun.

    Raises:
        InputError: If `when` is not a schedule, or for a bad option.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        layers: Layers,
        run: str | Path | Run | None,
        when: When,
        options: dict[str, Any],
    ) -> None:
        if isinstance(when, Iterator):
            when = list(when)
        Schedule(when)  # bad input is said at once
        Policy(options.get("on_error", "warn"))
        if options.get("budget") is not None:
            Budget(options["budget"])
        as_error_options(options.get("error"))
        check_options({name: value for name, value in options.items() if name not in OURS})
        sets = as_probe_sets(inputs, targets, options.get("probes"))
        if run is not None and not isinstance(run, Run):
            run = as_path(run, "run")
        self._overwrite = options.get("overwrite", False)
        self.monitor: Monitor | None = None
        self._sets, self._run = sets, run
        self._asked = {"layers": layers, "when": when, **{k: v for k, v in options.items() if k != "probes"}}
        self._opened: Run | None = None
        self._last = -1

    def begin(
        self,
        model: nn.Module,
        step: int,
        resumed: Mapping[str, Any] | None,
        trackers: Iterable[Any] = (),
        collate: Callable[[Any], Any] | None = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> None:
        """Begin at a step of the training, and measure there; or resume a run from a checkpoint's step.

        Args:
            model: What is measured.
            step: Steps done.
            resumed: What `state` was in the checkpoint that is resumed, or None in a new training.
            trackers: As for `Monitor`.
            collate: Makes a batch of a data set's items.
            convert: Brings inputs into the precision of the training.

        Raises:
            InputError: For bad input, or a run that holds another training.
        """
        options = dict(self._asked)
        spread = dist.is_available() and dist.is_initialized()
        everyone = Shards(dist.group.WORLD if spread and dist.get_world_size() > 1 else None)
        with everyone.together():
            rank, ranks = everyone.rank, everyone.ranks
            if "group" in options:
                rank, ranks = 0, 1
            elif ranks > 1:
                options["group"] = dist.group.WORLD
            whole = options.get("whole", False)
            probes = {
                name: probe_set(*pair, rank, ranks, collate, convert, whole=whole) for name, pair in self._sets.items()
            }
        first = everyone.rank == 0
        self.monitor = Monitor(model, probes=probes, trackers=trackers if first else (), **options)
        going_on = resumed is not None
        with everyone.together():
            if first and self._run is not None:
                run, going_on = self._open(step, resumed)
                self.monitor.write_to(run)
                self._opened = run
        self._last = step
        if not everyone.gather(going_on)[0]:
            self.monitor.measure(step)

    def _open(self, step: int, resumed: Mapping[str, Any] | None) -> tuple[Run, bool]:
        """Return the run, and whether it resumes."""
        assert self._run is not None
        path = self._run.path if isinstance(self._run, Run) else as_path(self._run, "run")
        if resumed is not None and (path / "config.yaml").exists():
            run = self._run if isinstance(self._run, Run) else Run(path)
            theirs, ours = resumed.get(KEY), run.config.get(KEY)
            if theirs and theirs != ours:
                raise Code.CONFLICT(f"run: {str(path)!r} is not the checkpoint's run; choose that one, or a new one")
            run.rewind(step)
            return run, True
        if isinstance(self._run, Run):
            return self._run, False
        if self._opened is not None and self._last <= step:  # the same trainer resumes
            return self._opened, step == self._last
        about = {} if self.monitor is None else self.monitor.config
        return Run.create(path, {KEY: uuid.uuid4().hex, **about}, overwrite=self._overwrite), False

    @property
    def name(self) -> str:
        """The name of the run's folder, which tells several callbacks of one trainer apart."""
        return "" if self._run is None else Path(self._run.path if isinstance(self._run, Run) else self._run).name

    @property
    def state(self) -> dict[str, str]:
        """What a checkpoint has to hold, to be resumed into this run."""
        return {KEY: "" if self._opened is None else str(self._opened.config.get(KEY, ""))}

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
