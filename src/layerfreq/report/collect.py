"""What a report shows about runs: every spectrum once, its numbers at every measured scale, and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layerfreq.data.validation import SCALES
from layerfreq.measure.result import Spectrum
from layerfreq.report.errors import ErrorMap, error_map
from layerfreq.report.sections.section import Section
from layerfreq.report.weights import WeightMap, weight_map
from layerfreq.runs.reader import read_back
from layerfreq.runs.run import Run

METRIC_POINTS = 3000  # of a longer series every k-th point is shown


@dataclass
class Curves:
    """The curves of one spectrum, the same in raw and rms scale.

    Attributes:
        shape: (m,) log2 of the cutoffs, from 0 for the first to 1 for the last.
        density: (m,) RDF per octave of 1/delta.
        lfr: (m,)
        chance: (m,) the LFR expected by chance.
        steepest: The greatest density per octave of chance.
    """

    shape: Any
    density: Any
    lfr: Any
    chance: Any
    steepest: float


@dataclass
class Record:
    """One row of the report's table: the numbers of one layer at one step in one scale."""

    run: int
    step: int  # index among the run's steps
    layer: int  # index among the run's layers
    scale: int  # index in SCALES
    curve: int
    low: float  # log2 of the first and the last cutoff
    high: float
    peak: float
    edge: int
    median: float
    resolution: float
    floor: float


@dataclass
class Shown:
    """One run as the report shows it.

    Attributes:
        run: The run.
        name: What tells it from the others.
        case: Its name without the seed: runs of one case are repetitions.
        steps: The measured steps, in order.
        layers: Their layers, input to output.
        refused: name -> reason.
        points: Number of measured points, 0 if the run does not say.
        rows: Number of filter centres, 0 if the run does not say.
        metrics: name -> (k,) values, "step" among them.
        thinned: Whether only some of the metrics' rows are there.
        errors: The error by frequency, None if it was not measured.
        weights: What became of its weights, None if it kept none.
        sections: What its network shows, by kind.
    """

    run: Run
    name: str
    case: str
    steps: list[int] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    points: int = 0
    rows: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    thinned: bool = False
    errors: ErrorMap | None = None
    weights: WeightMap | None = None
    sections: dict[str, Section] = field(default_factory=dict)


@dataclass
class Collection:
    """Runs, their records in the order run, step, layer, scale, and the curves that the records point to."""

    runs: list[Shown] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)


def collect(runs: Sequence[Run], names: Sequence[str], cases: Sequence[str]) -> Collection:
    """Read runs from disk, as far as they are written."""
    found = Collection()
    for run, name, case in zip(runs, names, cases, strict=True):
        shown = Shown(run, name, case)
        _read_metrics(shown)
        shown.errors = error_map(run)
        shown.weights = weight_map(run)
        _read_spectra(shown, len(found.runs), found)
        found.runs.append(shown)
    return found


def _read_metrics(shown: Shown) -> None:
    frame: Any = shown.run.metrics
    stride = -(-len(frame) // METRIC_POINTS) or 1
    shown.thinned = stride > 1
    if shown.thinned:
        frame = frame.iloc[sorted({*range(0, len(frame), stride), len(frame) - 1})]
    numeric = [name for name in frame.columns if frame[name].dtype.kind in "fiub"]
    shown.metrics = {str(name): frame[name].to_numpy(dtype=np.float64) for name in numeric} if len(frame) else {}


def _read_spectra(shown: Shown, number: int, into: Collection) -> None:
    frame: Any = shown.run.spectra
    if frame.empty:
        return
    about = frame.attrs
    shown.refused = {str(name): str(why) for name, why in about.get("refused", {}).items()}
    shown.points, shown.rows = int(about.get("n", 0)), int(about.get("rows", 0))
    shown.steps = sorted({int(step) for step in frame["step"].unique()})
    order = frame.groupby("layer")["depth"].min().sort_values(kind="stable")
    shown.layers = [str(name) for name in order.index]
    places = {name: i for i, name in enumerate(order.index)}
    steps = {step: i for i, step in enumerate(shown.steps)}
    curve = 0
    for one in read_back(frame):
        if not one.again:
            curve = len(into.curves)
            into.curves.append(_curves(one.spectrum))
        where = number, steps[one.step], places[one.layer], SCALES.index(one.spectrum.scale), curve
        into.records.append(_record(*where, one.spectrum, "floor" in about))


def _curves(one: Spectrum) -> Curves:
    x = np.log2(one.inv_delta)
    shape = (x - x[0]) / ((x[-1] - x[0]) or 1.0)
    steepest = float(np.gradient(one.chance, x).max()) if len(x) > 1 else 0.0
    return Curves(shape, one.density, one.lfr, one.chance, steepest)


def _record(run: int, step: int, layer: int, scale: int, curve: int, one: Spectrum, floor: bool) -> Record:
    x = np.log2(one.inv_delta[[0, -1]])
    edge = 0
    if one.peak is not None and one.peak_at_edge:
        edge = -1 if np.argmax(one.rdf) == 0 else 1
    return Record(
        run=run,
        step=step,
        layer=layer,
        scale=scale,
        curve=curve,
        low=float(x[0]),
        high=float(x[1]),
        peak=_or_nan(one.peak),
        edge=edge,
        median=_or_nan(one.median if floor else None),
        resolution=one.resolution,
        floor=one.floor if floor else float("nan"),
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def title_of(path: Path) -> str:
    """Return the name of a folder as people know it, also for '.'."""
    return path.resolve().name or str(path)
