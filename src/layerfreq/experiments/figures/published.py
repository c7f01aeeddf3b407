"""The curves of the published figures as numbers, to be set beside one's own.

The figures are those of the lecture chapter on the deep frequency principle (Xu & Zhou). Their curves were read off its
images, lossless rasters of 72 dpi: each panel was drawn again by the same renderer, and the heights of its vertices
were adjusted until the drawing equalled the image, pixel by pixel. What remains uncertain is about a pixel (`y_err`),
and more where a curve lies behind others (`hidden`); the axes add up to half a per cent. The cutoffs of the ResNet
figure are those of the authors' code, Johnzhx/DeepFrequencyPrinciple (2020); those of the MNIST figure fit its image to
a few hundredths of a pixel. In the sine figure, the vertices below 1/delta = 50 are guessed.

The authors draw the difference quotient (LFR(b) - LFR(a)) / (b - a) between neighbouring cutoffs a < b in 1/delta, at
the middle of the two (the sine figure: at b, each curve divided by its maximum). Features have the scale "maxabs".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from layerfreq.data.validation import Curve
from layerfreq.errors import unknown

FILE = Path(__file__).with_suffix(".parquet")  # columns figure, panel, curve, x, y, x_err, y_err
MNIST, RESNET, ACCURACY, SINE, DEPTH = "mnist_rdf", "r18_rdf", "r18_acc", "fig_sin", "fig1a"
EPOCHS = {MNIST: (0, 200, 400, 600, 800), RESNET: (0, 1, 2, 15, 80)}


def _cutoffs(*pieces: tuple[float, float, float]) -> Curve:
    """Return 1/delta, increasing, for delta in even steps: (from, to, step) a piece, each without its end."""
    delta = np.concatenate([np.arange(round((b - a) / step)) * step + a for a, b, step in pieces])
    return np.sort(1 / delta)


_MNIST = _cutoffs((1.0, 4.0, 0.25), (4.0, 10.0, 0.5), (10.0, 20.0, 1.0), (20.0, 32.0, 2.0))
_RESNET = _cutoffs(
    (0.02, 0.07, 0.01),
    (0.08, 0.11, 0.01),
    (0.15, 0.5, 0.05),
    (0.5, 1.0, 0.1),
    (1.0, 2.0, 0.2),
    (2.0, 20.0, 1.0),
    (20.0, 30.0, 2.0),
    (30.0, 55.0, 5.0),
)
_SINE = np.array([2.5, 5, 25, 50, 250, 500, 1000, 1250, 1 / 7e-4, 1 / 6e-4, 2000, 2500])


@dataclass(frozen=True, eq=False)
class Line:
    """One published curve.

    Attributes:
        x: (m,) float64, 1/delta; epochs; layers.
        y: (m,) float64, heights.
        y_err: (m,) float64, how far each may be off.
        hidden: (m,) bool, the points that lie behind other curves, so that more than a pixel is uncertain.
    """

    x: Curve
    y: Curve
    y_err: Curve
    hidden: Any


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a published figure.

    Attributes:
        figure: The figure it belongs to.
        name: Its name there.
        lines: Curves by name.
        edges: (m + 1,) float64, the cutoffs between which difference quotients were taken; None if none were.
        relative: Whether each curve was divided by its maximum and drawn at the upper ends of its cells.
    """

    figure: str
    name: str
    lines: Mapping[str, Line]
    edges: Curve | None
    relative: bool

    @property
    def x(self) -> Curve:
        """Where quotients are drawn, exact; (m,)."""
        assert self.edges is not None
        return self.edges[1:] if self.relative else (self.edges[1:] + self.edges[:-1]) / 2


def panel(figure: str, name: str) -> Panel:
    """Return a published panel.

    Args:
        figure: "mnist_rdf", "r18_rdf", "r18_acc", "fig_sin" or "fig1a".
        name: Name of its panels: "epoch0" ..; "train" or "val"; "LFR" or "RDF"; "steps_vs_depth".

    Raises:
        InputError: If there is none of that name.
    """
    frame = _table()
    for given, column, what in ((figure, "figure", "figure"), (name, "panel", "name")):
        known = sorted(set(frame[column]))
        if given not in known:
            raise unknown(what, given, known)
        frame = frame[frame[column] == given]
    edges = _edges(figure, name)
    if figure == SINE:  # of the first vertices, those whose cells begin at a cutoff; LFR has a value at each
        frame = frame[frame["x"] >= (5 if name == "RDF" else 2.5)]
    pixel = frame["y_err"].min()
    lines = {}
    for curve, part in frame.groupby("curve", sort=True, observed=True):
        x, y, error = (part[column].to_numpy(dtype=np.float64, copy=True) for column in ("x", "y", "y_err"))
        lines[str(curve)] = Line(x, y, error, error > 1.1 * pixel)
    return Panel(figure, name, lines, edges, relative=figure == SINE)


def _edges(figure: str, name: str) -> Curve | None:
    if figure == MNIST:
        return _MNIST
    if figure == RESNET:
        return _RESNET[_RESNET < 10.01] if name == "epoch0" else _RESNET  # which begins at delta = 0.1
    return _SINE if figure == SINE else None


@cache
def _table() -> Any:
    import pandas as pd

    return pd.read_parquet(FILE).astype({"figure": str, "panel": str, "curve": str})
