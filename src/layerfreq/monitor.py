"""Measuring a model while it trains, in anybody's training loop."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from layerfreq.errors import InputError
from layerfreq.inputs import is_loader
from layerfreq.layers import LayerSpectra, check_options, measure_layers, plan
from layerfreq.memory import read_memory
from layerfreq.network import unwrap
from layerfreq.provenance import environment
from layerfreq.runs import Run
from layerfreq.sharding import Shards
from layerfreq.weights import keep_weights

NOTES = 4096  # metrics that wait for the disk at most

When = int | str | Iterable[int] | Callable[[int], bool]


class Monitor:
    """Measures the layers of a model at chosen steps, and writes them to a run.

    Args:
        model: The model that is being trained; measuring leaves it bit for bit as it was.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with an iterable of batches.
        layers: Names as from `hidden_layers`; None means all hidden layers.
        run: A directory for a new run, or a `Run` to go on with; None keeps nothing on disk. A run gets every
            measurement in both scales, since one follows from the other.
        when: Steps to measure at: an integer k (every k-th step), the steps themselves, "log" (0, and about
            eight steps an octave at most: 1, 2, 3, ... then ever rarer), or a function of the step.
        reading: How outputs with positions become feature vectors; see `layer_spectra`.
        trackers: Where each measurement is logged besides, such as `layerfreq.integrations.trackers.TensorBoard`; one
            that fails is a warning, and neither training nor run suffers.
        memory: What the features may take at a time while they are measured, see `layer_spectra`.
        checkpoints: Keep the weights of every measured step in the run, as `layerfreq relearn` needs them.
        **options: Of `spectrum`. With `group`, every rank has a monitor with its own part of the inputs and calls
            `measure` at the same steps; all get the spectra of the whole, and the first rank alone writes the run.
            Each rank measures its own copy of the model: buffers that training leaves different on every rank (batch
            norm's under DistributedDataParallel, but not SyncBatchNorm's) make its points those of another one.

    Attributes:
        run: The `Run` that is written, or None.
        config: What a run of this monitor says about itself: model, layers, options, versions, command.
        closed: Whether `close` was called.
        on_layer: Called with a layer's name before it is measured; None for nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        targets: Any = None,
        *,
        layers: Sequence[str] | str | None = None,
        run: str | Path | Run | None = None,
        when: When = 1,
        reading: Any = "flatten",
        memory: int | str | None = None,
        trackers: Iterable[Any] = (),
        checkpoints: bool = False,
        **options: Any,
    ) -> None:
        read_memory(memory)
        check_options(options)
        self._model: nn.Module | None = unwrap(model)
        if targets is None and not is_loader(inputs):
            raise InputError("targets: None; pass one for each input, or an iterable of (inputs, targets) batches")
        self._inputs, self._targets, self._options = inputs, targets, {"memory": memory, **options}
        self._due = schedule(when)
        self._points: int | None = None
        self._noted = 0
        self._plan = plan(unwrap(model), inputs, layers, options.get("group"), reading)
        self.config = self._describe(options)
        shards = Shards(options.get("group"))
        with shards.together():
            run = None if shards.rank else run
            self._trackers = _trackers(() if shards.rank else trackers)
            self.run = run if run is None or isinstance(run, Run) else Run.create(run, self.config)
        self._checkpoints = checkpoints
        self.on_layer: Callable[[str], Any] | None = None
        self._last: weakref.finalize | None = None
        if self.run is not None:
            self.write_to(self.run)
        self.closed = False

    def write_to(self, run: Run) -> None:
        """Keep what is measured from now on in a run."""
        self.run = run
        self._last = weakref.finalize(self, _last_flush, run)

    def close(self) -> None:
        """Write the last metrics, close what trackers have opened, let go of the model and the inputs.

        Leaving a `with` block does the same.

        Raises:
            OSError: If the metrics cannot be written; all is let go of nevertheless.
        """
        self.closed = True
        self._model = self._inputs = self._targets = self.on_layer = None
        self._options, self._due = {}, schedule([])
        trackers, self._trackers = self._trackers, None
        if trackers is not None:
            trackers.close()
        if self._last is not None and self._last.detach() and self.run is not None:
            self.run.flush()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _describe(self, options: dict[str, Any]) -> dict[str, Any]:
        plain = {key: value for key, value in options.items() if isinstance(value, (str, int, float, type(None)))}
        readings = {place.layer.name: place.layer.reading.name for place in self._plan.places}
        return {
            "model": type(self._model).__name__,
            "layers": self.layers,
            "reading": {name: one for name, one in readings.items() if one != "flatten"} or "flatten",
            "options": plain,
            "environment": environment(),
        }

    @property
    def layers(self) -> list[str]:
        """The layers that are measured, input to output."""
        return [layer.name for layer in self._plan.layers]

    def measure(self, step: int, **metrics: float) -> LayerSpectra | None:
        """Measure now, if `when` says so; note the metrics in any case.

        Args:
            step: The number of training steps (or epochs) so far.
            **metrics: Numbers to keep beside, such as loss=0.3.

        Returns:
            The spectra, or None when `when` says not now.

        Raises:
            InputError: If the monitor is closed, the inputs are another number of points than before, or a layer is
                no longer in the model.
        """
        model = self._model
        if model is None:
            raise InputError(f"monitor: closed, and step {step} is to be measured; measure before close()")
        if self.run is not None and metrics:
            self.run.log(step, **metrics)
            self._noted += 1
            if self._noted % NOTES == 0:
                self.run.flush()
        if not self._due(step):
            return None
        spectra = measure_layers(model, self._inputs, self._targets, self._plan, self.on_layer, **self._options)
        n = next(iter(spectra.values())).n
        if self._points not in (None, n):
            raise InputError(
                f"inputs: {n} points at step {step}, but {self._points} before, which cannot be compared; "
                "pass a probe set that stays as it is, or begin another monitor"
            )
        self._points = n
        if self.run is not None:
            import pandas as pd

            if self._checkpoints:
                keep_weights(self.run.path, step, model)
            both = [spectra.to_scale(scale).to_frame() for scale in ("raw", "rms")]
            self.run.write_spectra(step, pd.concat(both, ignore_index=True))
            self.run.flush()
        if self._trackers is not None:
            self._trackers.log(step, spectra)
        return spectra


def _trackers(trackers: Iterable[Any]) -> Any:
    trackers = list(trackers)
    if not trackers:
        return None
    from layerfreq.integrations.trackers import Trackers

    return Trackers(trackers)


def _last_flush(run: Run) -> None:
    try:
        run.flush()
    except OSError as error:  # nobody is there any more to catch it
        warnings.warn(f"metrics of the last steps are lost: {error}", stacklevel=2)


def schedule(when: When) -> Callable[[int], bool]:
    """Turn what `when` may be into a function of the step.

    Raises:
        InputError: If it is none of them.
    """
    if callable(when):
        return when
    if isinstance(when, int) and not isinstance(when, bool) and when > 0:
        return lambda step: step % when == 0
    if when == "log":
        return _logarithmic
    if isinstance(when, Iterable) and not isinstance(when, str):
        steps = frozenset(int(step) for step in when)
        return lambda step: step in steps
    raise InputError(f"when: {when!r} is no schedule; pass k > 0, a list of steps, 'log', or a function of the step")


def _logarithmic(step: int) -> bool:
    """Step 0, and the first step in each eighth of an octave."""
    return step <= 1 or math.floor(8 * math.log2(step)) > math.floor(8 * math.log2(step - 1))
