"""Where a measurement goes: the run or its parts, the trackers, the kept weights."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from layerfreq.data.notes import as_metrics
from layerfreq.errors import InputError, is_not, listed
from layerfreq.layers import LayerSpectra, joined
from layerfreq.monitor.policy import Policy
from layerfreq.response.result import ErrorSpectrum
from layerfreq.runs.parts import open_parts
from layerfreq.runs.run import Run
from layerfreq.runs.weights import keep_weights

NOTES = 4096  # most metrics that are held in memory before they are written


class Record:
    """A run and trackers; each may be missing, and may fail without ending training.

    Args:
        policy: How errors are handled.
        trackers: As for `Monitor`.
        checkpoints: Whether the run keeps the weights of every measured step.

    Attributes:
        run: The run, or None.
        runs: Name of a part -> its run; the run itself if there is one part.
    """

    def __init__(self, policy: Policy, trackers: Iterable[Any] = (), *, checkpoints: bool = False) -> None:
        self.run: Run | None = None
        self.runs: dict[str, Run] = {}
        self._policy, self._checkpoints, self._noted = policy, checkpoints, 0
        self._trackers: Any = None
        self._last: weakref.finalize | None = None
        if trackers := listed(trackers, "trackers", "trackers"):
            from layerfreq.trackers.trackers import Trackers

            self._trackers = Trackers(trackers)

    def write_to(self, run: Run, about: Mapping[str, Mapping[str, Any]]) -> list[int]:
        """Write to a run from now on, and return the steps in it, or in each of its parts.

        Args:
            run: The run.
            about: Name of a part -> the config of its run.

        Raises:
            InputError: If it is not a run, or has other parts.
        """
        if not isinstance(run, Run):
            raise is_not("run", run, "a Run", "Run(path) or Run.create(path)")
        self.run, self.runs = run, open_parts(run, about)
        self._last = weakref.finalize(self, _last_flush, list(self.runs.values()))
        return sorted(set.intersection(*(set(one.steps()) for one in self.runs.values())))

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record metrics in the run, or in every part of it."""
        if self.run is None or not metrics:
            return
        kept, refused = as_metrics(metrics)
        for name, why in refused.items():
            self._policy.met(InputError(f"metric {name!r}: {why}"), f"step {step}", name)
        for run in self.runs.values():
            run.log(step, **kept)
        self._noted += 1
        if self._noted % NOTES == 0:
            self.flush()

    def remark(self, text: str) -> None:
        """Add a line to the run's notes."""
        if self.run is not None:
            with self._policy.survived("notes"):
                self.run.note(text)

    def failed(self, step: int, part: str, what: str, why: InputError) -> None:
        """Note in the run that a layer could not be measured, and warn."""
        if self.run is not None:
            self.runs[part].note(f"step {step}: {why}")
        self._policy.met(why, f"step {step}{f' of {part}' if part else ''}", (part, what))

    def measured(
        self, step: int, found: Mapping[str, tuple[Sequence[LayerSpectra], ErrorSpectrum | None]], model: nn.Module
    ) -> None:
        """Write the measurement of each part, at one scale or more, and log it."""
        with self._policy.survived(f"step {step}"):
            if self.run is not None:
                if self._checkpoints:
                    keep_weights(next(iter(self.runs.values())).path, step, model)
                for part, (spectra, error) in found.items():
                    run = self.runs[part]
                    if error is not None:
                        run.write_errors(step, error)
                    if spectra[0]:  # last: they say that the step is there
                        frames = [one.to_frame() for measured in spectra for one in measured.in_its_scales()]
                        run.write_spectra(step, joined(frames))
                self.flush()
        if self._trackers is not None:
            with self._policy.survived(f"step {step}: trackers"):
                self._trackers.log(step, found)

    def flush(self) -> None:
        """Write the metrics recorded so far."""
        for run in self.runs.values():
            run.flush()

    def close(self) -> None:
        """Close the trackers, and write the last metrics."""
        trackers, self._trackers = self._trackers, None
        if trackers is not None:
            trackers.close()
        if self._last is not None and self._last.detach() and self.run is not None:
            with self._policy.survived("metrics of the last steps are lost"):
                self.flush()


def _last_flush(runs: Sequence[Run]) -> None:
    try:
        for run in runs:
            run.flush()
    except OSError as error:  # nobody is there any more to catch it
        warnings.warn(f"metrics of the last steps are lost: {error}", stacklevel=2)
