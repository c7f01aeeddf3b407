"""Trackers, to which measurements are logged in addition to the run.

A tracker is any object with `log(step, scalars, figure)` and `close()`. `scalars` maps names such as
`layerfreq/raw/median/<layer>` to numbers; `figure()` draws the layers, for trackers that keep figures. A new one is one
module and one line here.

After resuming from a checkpoint, trackers get the steps since it a second time; only the run itself is rewound.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from layerfreq.errors import first_line, is_not, listed
from layerfreq.layers import LayerSpectra
from layerfreq.response.result import ErrorSpectrum
from layerfreq.trackers.csv import CSV
from layerfreq.trackers.mlflow import MLflow
from layerfreq.trackers.tensorboard import TensorBoard
from layerfreq.trackers.wandb import WandB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CSV", "MLflow", "TensorBoard", "Tracker", "Trackers", "WandB", "figure_of", "scalars_of"]


class Tracker(Protocol):
    """An object that measurements can be logged to.

    Examples:
        >>> class Printed:
        ...     def log(self, step, scalars, figure):
        ...         print(step, scalars)
        ...
        ...     def close(self):
        ...         pass
        >>> tracker: Tracker = Printed()
        >>> tracker.log(0, {"layerfreq/raw/median/1": 4.5}, figure=lambda: None)
        0 {'layerfreq/raw/median/1': 4.5}
        >>> tracker.close()
    """

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Figure]) -> None:
        """Log one measurement.

        Args:
            step: The step it was made at.
            scalars: Name -> number, as from `scalars_of`.
            figure: Draws the layers when called; drawn only once for all trackers.
        """
        ...

    def close(self) -> None:
        """Close what this tracker has opened; calling it again does nothing."""
        ...


def scalars_of(*measured: LayerSpectra, error: ErrorSpectrum | None = None, part: str = "") -> dict[str, float]:
    """Return the numbers of a step's measurements by name.

    They are `layerfreq/<scale>/<what>/<layer>` with the scales measured and what median, peak or resolution, and
    `layerfreq/floor/<layer>`, which is the same at all scales. Of raw (features as they are) and rms (a layer at unit
    root mean square) one brings the other; maxabs (each dimension over its largest absolute value, the paper's) is
    there if it was asked for. With an error by frequency, `layerfreq/learned` is the largest k up to which it stays
    under a tenth, in radians per unit of the inputs, and `layerfreq/bias` its spectral bias. What is None (a median
    outside the cutoffs, the peak of a target that does not vary) is left out. Of a part of a monitor, such as
    "residual", all names begin with `layerfreq/residual/`.
    """
    found, ours = {}, f"layerfreq/{part}/" if part else "layerfreq/"
    for spectra in _in_all_scales(measured):
        for layer, one in spectra.items():
            for what in ("median", "peak", "resolution"):
                found[f"{ours}{one.scale}/{what}/{layer}"] = getattr(one, what)
            found[f"{ours}floor/{layer}"] = one.floor
    if error is not None:
        found |= {f"{ours}learned": error.learned(), f"{ours}bias": error.bias}
    return {name: float(value) for name, value in found.items() if value is not None}


def figure_of(*measured: LayerSpectra, error: ErrorSpectrum | None = None) -> Figure:
    """Draw the layers at all scales measured, and the error, apart from pyplot's figures, which are the user's."""
    from matplotlib.figure import Figure

    drawn = [part.plot for part in _in_all_scales(measured)] + ([] if error is None else [error.plot])
    figure = Figure(figsize=(5.5 * len(drawn), 4.2), layout="constrained")
    for draw, ax in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0], strict=True):
        draw(ax)
    return figure


def _in_all_scales(measured: Iterable[LayerSpectra]) -> list[LayerSpectra]:
    return [part for spectra in measured if spectra for part in spectra.in_its_scales()]


class Trackers:
    """Several trackers, each of which may fail: the first time is a warning, and the others continue.

    Args:
        trackers: The trackers.

    Raises:
        InputError: If one of them has no `log` and `close`.
    """

    def __init__(self, trackers: Iterable[Any]) -> None:
        self._trackers, self._failed = listed(trackers, "trackers", "trackers"), set()
        for one in self._trackers:
            if isinstance(one, type) or not all(callable(getattr(one, name, None)) for name in ("log", "close")):
                raise is_not("trackers", one, "a tracker", "objects such as trackers.CSV('spectra.csv')")

    def log(self, step: int, found: Mapping[str, tuple[Sequence[LayerSpectra], ErrorSpectrum | None]]) -> None:
        """Log what was measured at a step to all of them; the figure is that of the first part.

        Args:
            step: The step.
            found: Name of a part -> `LayerSpectra` at one scale or more, and the error; a monitor's only part is "".
        """
        first, its_error = next(iter(found.values()))
        with _random_state_kept():
            scalars: dict[str, float] = {}
            for part, (measured, error) in found.items():
                scalars |= scalars_of(*measured, error=error, part=part)
            figure = cache(lambda: figure_of(*first, error=its_error))
            for one in self._trackers:
                self._try(one, lambda one=one: one.log(step, dict(scalars), figure))

    def close(self) -> None:
        """Close all of them."""
        with _random_state_kept():
            for one in self._trackers:
                self._try(one, one.close)

    def _try(self, tracker: Any, work: Callable[[], Any]) -> None:
        try:
            work()
        except (Exception, SystemExit) as error:  # whatever a tracker may meet, hours of training are worth more
            if id(tracker) not in self._failed:
                said = first_line(error)
                name = type(tracker).__name__
                warnings.warn(f"trackers: {name} failed ({said}); the training continues without it", stacklevel=4)
            self._failed.add(id(tracker))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the random state back: some trackers draw names from Python's."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the user's global state
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
