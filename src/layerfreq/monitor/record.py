"""Where a measurement goes: the run, the trackers, the kept weights."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from layerfreq.data.notes import as_metrics
from layerfreq.errors import InputError, listed, shown
from layerfreq.layers import LayerSpectra, joined
from layerfreq.monitor.policy import Policy
from layerfreq.response.result import ErrorSpectrum
from layerfreq.runs.run import Run
from layerfreq.runs.weights import keep_weights

NOTES = 4096  # metrics that wait for the disk at most


class Record:
    """A run and trackers, each of which may be missing, and may fail without an end to the training.

    Args:
        policy: What becomes of errors.
        trackers: As of `Monitor`.
        checkpoints: Whether the run keeps the weights of every measured step.

    Attributes:
        run: The run, or None.
    """

    def __init__(self, policy: Policy, trackers: Iterable[Any] = (), *, checkpoints: bool = False) -> None:
        self.run: Run | None = None
        self._policy, self._checkpoints, self._noted = policy, checkpoints, 0
        self._trackers: Any = None
        self._last: weakref.finalize | None = None
        if trackers := listed(trackers, "trackers", "trackers"):
            from layerfreq.trackers.trackers import Trackers

            self._trackers = Trackers(trackers)

    def write_to(self, run: Run) -> list[int]:
        """Write to a run from now on, and return the steps that it holds."""
        if not isinstance(run, Run):
            raise InputError(f"run: {shown(run)} is not a Run; pass Run(path) or Run.create(path)")
        self.run = run
        self._last = weakref.finalize(self, _last_flush, run)
        return run.steps()

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep metrics in the run."""
        if self.run is None or not metrics:
            return
        kept, refused = as_metrics(metrics)
        for name, why in refused.items():
            self._policy.met(InputError(f"metric {name!r}: {why}"), f"step {step}", name)
        self.run.log(step, **kept)
        self._noted += 1
        if self._noted % NOTES == 0:
            self.run.flush()

    def remark(self, text: str) -> None:
        """Add a line to the run's notes."""
        if self.run is not None:
            with self._policy.survived("notes"):
                self.run.note(text)

    def failed(self, step: int, what: str, why: str) -> None:
        """Note in the run that a layer could not be measured, and warn of it."""
        if self.run is not None:
            self.run.note(f"step {step}: {why}")
        self._policy.met(InputError(why), f"step {step}", what)

    def measured(self, step: int, found: Sequence[LayerSpectra], error: ErrorSpectrum | None, model: nn.Module) -> None:
        """Keep a measurement, made at one scale or more, and log it."""
        with self._policy.survived(f"step {step}"):
            if self.run is not None:
                if self._checkpoints:
                    keep_weights(self.run.path, step, model)
                if error is not None:
                    self.run.write_errors(step, error)
                if found[0]:  # last: they say that the step is there
                    frames = [part.to_frame() for one in found for part in one.in_its_scales()]
                    self.run.write_spectra(step, joined(frames))
                self.run.flush()
        if self._trackers is not None:
            with self._policy.survived(f"step {step}: trackers"):
                self._trackers.log(step, found, error)

    def flush(self) -> None:
        """Write the metrics noted so far."""
        if self.run is not None:
            self.run.flush()

    def close(self) -> None:
        """Close what the trackers have opened, and write the last metrics."""
        trackers, self._trackers = self._trackers, None
        if trackers is not None:
            trackers.close()
        if self._last is not None and self._last.detach() and self.run is not None:
            with self._policy.survived("metrics of the last steps are lost"):
                self.run.flush()


def _last_flush(run: Run) -> None:
    try:
        run.flush()
    except OSError as error:  # nobody is there any more to catch it
        warnings.warn(f"metrics of the last steps are lost: {error}", stacklevel=2)
