"""What a report shows of runs: every spectrum once, its numbers in both scales, and the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerfreq.plots import per_octave
from layerfreq.runs import Run
from layerfreq.spectrum import Spectrum

SCALES = ("raw", "rms")
METRIC_POINTS = 3000  # of a longer series every k-th point is shown


@dataclass
class Curves:
    """The curves of one spectrum, the same in both scales.

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


@dataclass
class Collection:
    """Runs, their records in the order run, step, layer, scale, and the curves that the records point to."""

    runs: list[Shown] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)


def collect(runs: Sequence[Run], names: Sequence[str], cases: Sequence[str]) -> Collection:
    """Read runs from disk, each as far as it is written."""
    found = Collection()
    for run, name, case in zip(runs, names, cases, strict=True):
        shown = Shown(run, name, case)
        _read_metrics(shown)
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
    order = frame.groupby("layer", sort=False)["depth"].min().sort_values(kind="stable")
    shown.layers = [str(name) for name in order.index]
    places = {name: i for i, name in enumerate(order.index)}
    steps = {step: i for i, step in enumerate(shown.steps)}
    pairs: dict[tuple[int, int], dict[int, Spectrum]] = {}
    for (step, layer, scale), one in _spectra(frame, about):
        pairs.setdefault((steps[step], places[layer]), {})[SCALES.index(scale)] = one
    for (step, layer), pair in sorted(pairs.items()):
        curve, before = 0, None
        for scale, one in sorted(pair.items()):
            if before is None or not _same(before, one):
                curve = len(into.curves)
                into.curves.append(_curves(one))
                numbers = one
            else:  # 1/delta times a factor, and nothing else: what was found in the one scale holds in the other
                numbers = _rescaled(before, one)
            into.records.append(_record(number, step, layer, scale, curve, one, numbers, "floor" in about))
            before = one


def _spectra(frame: Any, about: dict[str, Any]) -> Iterator[tuple[tuple[int, str, str], Spectrum]]:
    """Iterate over ((step, layer, scale), spectrum); rows of one spectrum may lie anywhere."""
    import pandas as pd

    codes = [pd.factorize(frame[name])[0] for name in ("step", "layer", "scale")]
    key = (codes[0].astype(np.int64) * (codes[1].max() + 1) + codes[1]) * 2 + codes[2]
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in ("inv_delta", "lfr", "rdf", "chance")}
    columns["neighbours"] = frame["neighbours"].to_numpy(dtype=np.float64)
    order = np.lexsort((columns["inv_delta"], key))
    columns = {name: values[order] for name, values in columns.items()}
    names = [frame[name].to_numpy()[order] for name in ("step", "layer", "scale")]
    edges = np.flatnonzero(np.diff(key[order], prepend=-1, append=-1))
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        step, layer, scale = (values[first] for values in names)
        yield (
            (int(step), layer, scale),
            Spectrum(
                **{name: values[first:end].copy() for name, values in columns.items()},
                stderr=None,
                n=int(about.get("n", 0)),
                d=0,
                rows=int(about.get("rows", 0)),
                scale=scale,
                floor=float(about.get("floor", 0.0)),
                spread=0.0,
                engine="",
            ),
        )


def _same(one: Spectrum, other: Spectrum) -> bool:
    """Whether two spectra differ by a factor of 1/delta alone."""
    if len(one.lfr) != len(other.lfr):
        return False
    factors = other.inv_delta / one.inv_delta
    return bool(
        np.allclose(factors, factors[0], rtol=1e-9)
        and np.allclose(one.lfr, other.lfr, rtol=0, atol=1e-9)
        and np.allclose(one.chance, other.chance, rtol=0, atol=1e-9)
    )


def _rescaled(known: Spectrum, to: Spectrum) -> Spectrum:
    """Return `to` with the numbers of `known` times the factor between them, so that they are not searched again."""
    factor = float(to.inv_delta[0] / known.inv_delta[0])
    scaled = replace(to)
    for name in ("peak", "median", "resolution"):
        value = getattr(known, name)
        scaled.__dict__[name] = None if value is None else value * factor
    return scaled


def _curves(one: Spectrum) -> Curves:
    x = np.log2(one.inv_delta)
    shape = (x - x[0]) / ((x[-1] - x[0]) or 1.0)
    steepest = float(np.gradient(one.chance, x).max()) if len(x) > 1 else 0.0
    return Curves(shape, per_octave(one.inv_delta, one.rdf), one.lfr, one.chance, steepest)


def _record(
    run: int, step: int, layer: int, scale: int, curve: int, one: Spectrum, numbers: Spectrum, floor: bool
) -> Record:
    x = np.log2(one.inv_delta[[0, -1]])
    edge = 0
    if numbers.peak is not None and numbers.peak_at_edge:
        edge = -1 if np.argmax(one.rdf) == 0 else 1
    median = numbers.median if floor else None
    return Record(
        run,
        step,
        layer,
        scale,
        curve,
        float(x[0]),
        float(x[1]),
        _or_nan(numbers.peak),
        edge,
        _or_nan(median),
        numbers.resolution,
        one.floor if floor else float("nan"),
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def title_of(path: Path) -> str:
    """Return the name of a folder as people know it, also for '.'."""
    return path.resolve().name or str(path)
