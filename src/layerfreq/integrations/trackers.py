"""Where measurements go besides the run: the trackers, and all they have to know of layerfreq.

A tracker is any object with `log(step, scalars, figure)` and `close()`. `scalars` maps names such as
`layerfreq/raw/median/<layer>` to numbers; `figure()` draws the layers, for those that keep figures. A new one is
one module and one line here.

After a checkpoint is resumed, trackers are told the steps since it a second time; only the run itself is rewound.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from layerfreq.errors import InputError, first_line
from layerfreq.integrations.csv import CSV
from layerfreq.integrations.mlflow import MLflow
from layerfreq.integrations.tensorboard import TensorBoard
from layerfreq.integrations.wandb import WandB
from layerfreq.layers import LayerSpectra
from layerfreq.scales import in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CSV", "MLflow", "TensorBoard", "Tracker", "Trackers", "WandB", "figure_of", "scalars_of"]


class Tracker(Protocol):
    """What measurements can be logged to."""

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Figure]) -> None:
        """Log one measurement.

        Args:
            step: The step it was made at.
            scalars: Name -> number, as from `scalars_of`.
            figure: Draws the layers when it is called; drawn once, however many trackers want it.
        """
        ...

    def close(self) -> None:
        """Finish what this tracker itself has opened; called again, it does nothing."""
        ...


def scalars_of(*measured: LayerSpectra) -> dict[str, float]:
    """Return the numbers of a measurement by name.

    They are `layerfreq/<scale>/<what>/<layer>` with what median, peak or resolution and a scale that was measured:
    maxabs, the paper's, alone; raw and rms both, where one of them was. `layerfreq/floor/<layer>` is the same at all of
    them. What is None (a median outside the cutoffs, the peak of a target that does not vary) is left out.

    Args:
        measured: The layers at one scale; more arguments for other scales that were measured at the same step.
    """
    found = {}
    for spectra in scales_of(*measured):
        for layer, one in spectra.items():
            for what in ("median", "peak", "resolution"):
                found[f"layerfreq/{one.scale}/{what}/{layer}"] = getattr(one, what)
            found[f"layerfreq/floor/{layer}"] = one.floor
    return {name: float(value) for name, value in found.items() if value is not None}


def figure_of(*measured: LayerSpectra) -> Figure:
    """Draw the layers, a panel a scale as of `scalars_of`, apart from pyplot's figures, which are the user's."""
    from matplotlib.figure import Figure

    panels = scales_of(*measured)
    figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    for spectra, ax in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        spectra.plot(ax)
    return figure


def scales_of(*measured: LayerSpectra) -> list[LayerSpectra]:
    """Return the layers at every scale that follows from what was measured, the paper's first."""
    found: dict[str, LayerSpectra] = {}
    for spectra in measured:
        own = next(iter(spectra.values())).scale
        for scale in (own,) if own == "maxabs" else ("raw", "rms"):
            found[scale] = spectra.to_scale(scale)
    return [found[scale] for scale in in_order(found)]


class Trackers:
    """Several trackers, each of which may fail: the first time is a warning, and the others go on.

    Args:
        trackers: The trackers.

    Raises:
        InputError: If one of them has no `log` and `close`.
    """

    def __init__(self, trackers: Iterable[Any]) -> None:
        self._trackers, self._failed = list(trackers), set()
        for one in self._trackers:
            if isinstance(one, type) or not all(callable(getattr(one, name, None)) for name in ("log", "close")):
                raise InputError(
                    f"trackers: {one!r} is none; pass objects with log(step, scalars, figure) and close(), "
                    "such as layerfreq.integrations.trackers.CSV('spectra.csv')"
                )

    def log(self, step: int, *measured: LayerSpectra) -> None:
        """Log one measurement, at one scale or several, to all of them."""
        with _random_state_kept():
            scalars, figure = scalars_of(*measured), cache(lambda: figure_of(*measured))
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
        except Exception as error:  # whatever a tracker may meet, hours of training are worth more
            if id(tracker) not in self._failed:
                said = first_line(error)
                name = type(tracker).__name__
                warnings.warn(f"trackers: {name} failed ({said}); the training goes on without it", stacklevel=4)
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
