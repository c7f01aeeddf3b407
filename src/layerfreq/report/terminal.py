"""A run in a few lines of text: the RDF of every layer as a spark line, and the error by frequency over steps.

Legible at 80 columns, without colour, and without block characters where the output cannot carry them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from layerfreq.data.scales import explained, in_order, spoken
from layerfreq.measure.result import Spectrum
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio
from layerfreq.runs.errors import read_errors
from layerfreq.runs.reader import read_back

WIDTH = 80
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"
SHOWN = 8  # most layers of one run: the first, the last and some between
STEPS = 6  # most steps of one run's error; half as many if there are several runs
FLAT = 0.02  # of the highest density; less is drawn as nothing


def view(runs: Mapping[str, Any], unit: str = "step", *, encoding: str | None = "utf-8", width: int = WIDTH) -> str:
    """Return the spark lines of runs: one line per layer, the first and the last step side by side on one axis.

    One run is shown at every measured scale, several at one: the first that all of them have, or else each has.

    Args:
        runs: What to call a run -> its `spectra` data frame.
        unit: What a step is called.
        encoding: Encoding of the output; one that has no block characters gets ASCII.
        width: Columns at most.

    Returns:
        Lines without colour; nothing if there are no spectra.
    """
    plain = not _carries(encoding, BLOCKS + "│·δ…")
    runs = {name: frame for name, frame in runs.items() if len(frame)}
    if not runs:
        return ""
    shown = {name: in_order(frame["scale"]) for name, frame in runs.items()}
    if len(runs) > 1:
        shared = in_order(set[str].intersection(*map(set, shown.values())))
        shown = {name: (shared or scales)[:1] for name, scales in shown.items()}
    parts = [_block(name, frame, shown[name], unit, plain, width) for name, frame in runs.items()]
    bar, dot = ("|", "'") if plain else ("│", "·")
    legend = f"RDF per octave, each line to its own maximum; {bar} median, {dot} and * unresolved."
    said = [explained(scale) for scale in in_order(chain.from_iterable(shown.values()))]
    return "\n".join([*parts, *said, legend])


def view_errors(
    runs: Mapping[str, Any], unit: str = "step", *, encoding: str | None = "utf-8", width: int = WIDTH
) -> str:
    """Return the error by frequency of runs: one line per step, at the first, the last and some between.

    Args:
        runs: What to call a run -> its `errors` data frame.
        unit: What a step is called.
        encoding: Encoding of the output; one that has no block characters gets ASCII.
        width: Columns at most.

    Returns:
        Lines without colour; nothing if there are no errors, or none in a band that says something.
    """
    plain = not _carries(encoding, BLOCKS + "·…")
    most = STEPS if len(runs) == 1 else STEPS // 2
    parts = [_errors(name, frame, unit, most, plain, width) for name, frame in runs.items() if len(frame)]
    parts = [part for part in parts if part]
    full, dot = ("@", "'") if plain else ("█", "·")
    legend = [
        f"Errors are shares of the target's amplitude: {full} 1 or more, {dot} no target.",
        "k: angular frequency of the inputs, in radians per unit.",
    ]
    return "\n".join([*parts, *legend]) if parts else ""


def view_of(out: Path, unit: str, encoding: str | None) -> str:
    """Return the spark lines of a run, or of an experiment's folder: of each case the first seed.

    Args:
        out: The folder.
        unit: What a step is called.
        encoding: Encoding of the output.
    """
    from layerfreq.runs.run import Run

    runs: dict[str, Run] = {}
    for run in Run(out).trainings():
        case = re.sub(r"[-_ ]*seed-\d+$", "", run.path.name) if run.path != out else ""
        runs.setdefault(case, run)
    spectra = view({case: run.spectra for case, run in runs.items()}, unit, encoding=encoding)
    errors = view_errors({case: run.errors for case, run in runs.items()}, unit, encoding=encoding)
    return "\n".join(part for part in (spectra, errors) if part)


def spark(spectrum: Spectrum, low: float, high: float, cells: int, *, plain: bool = False) -> str:
    """Return the density per octave of one spectrum in so many characters.

    Args:
        spectrum: What to draw.
        low: log2 of 1/delta at the left end.
        high: log2 of 1/delta at the right end.
        cells: Number of characters.
        plain: Use ASCII.
    """
    ramp = ASCII if plain else BLOCKS
    x, density = np.log2(spectrum.inv_delta), spectrum.density
    edges = np.linspace(low, high, cells + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    level = np.interp(middles, x, density, left=0.0, right=0.0) / max(float(density.max()), 1e-300)
    limit = np.log2(spectrum.resolution) if spectrum.resolution > 0 else -np.inf
    marks = []
    for middle, share in zip(middles, level, strict=True):
        step = 0 if share < FLAT else max(1, round(float(share) * (len(ramp) - 1)))
        unresolved = middle > limit and middle <= x[-1]
        marks.append(("'" if plain else "·") if unresolved else ramp[step])
    if spectrum.median is not None and low <= np.log2(spectrum.median) <= high:
        cell = min(cells - 1, int((np.log2(spectrum.median) - low) / (high - low) * cells))
        marks[cell] = "|" if plain else "│"
    return "".join(marks)


def _block(name: str, frame: Any, scales: list[str], unit: str, plain: bool, width: int) -> str:
    """Return the lines of one run, scale under scale, each at the first and the last step that has it."""
    order = frame.groupby("layer")["depth"].min().sort_values(kind="stable").index
    layers = [order[i] for i in np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]
    names = {layer: _short(str(layer), 12, plain) for layer in layers}
    label = max(len(short) for short in names.values())
    lines = []
    for scale in scales:
        part = frame[(frame["scale"] == scale) & frame["layer"].isin(layers)]
        ends = sorted({int(part["step"].min()), int(part["step"].max())})
        cells = (width - label - len(ends) * 12) // len(ends)
        part = part[part["step"].isin(ends)]
        found = {(one.step, one.layer): one.spectrum for one in read_back(part)}
        low, high = _range(list(found.values()))
        title = ", ".join([name, spoken([scale]).removeprefix("at ")][not name :])
        many = f", {len(layers)} of {len(order)} layers" if len(layers) < len(order) else ""
        delta = "1/delta" if plain else "1/δ"
        lines.append(_short(f"{title}, {delta} from {_number(2**low)} to {_number(2**high)}{many}", width, plain))
        heads = [f"{unit} {step}".ljust(cells) + "median".rjust(10) for step in ends]
        lines.append((" " * label + "  " + "  ".join(heads)).rstrip())
        for layer in layers:
            cellwise = [_cell(found.get((step, str(layer))), low, high, cells, plain) for step in ends]
            lines.append(f"{names[layer]:{label}}  " + "  ".join(cellwise))
    return "\n".join(lines)


def _errors(name: str, frame: Any, unit: str, most: int, plain: bool, width: int) -> str:
    """Return the lines of one run's error, step under step; nothing if no band says anything."""
    measured = list(read_errors(frame))
    some = [measured[i] for i in np.unique(np.linspace(0, len(measured) - 1, most).round().astype(int))]
    seen = np.concatenate([found.k[found.told & (found.k > 0)] for _, found in some])
    if not len(seen):
        return ""
    steps = [f"{unit} {step}" for step, _ in some]
    label = max(map(len, steps))
    cells, low, high = width - label - 13, float(np.log(seen.min())), float(np.log(seen.max()))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    title = ", ".join([name, f"error by frequency ({some[-1][1].method})"][not name :])
    head = _short(f"{title}, k from {_number(seen.min())} to {_number(seen.max())}", width, plain)
    lines = [head, "under 0.1 up to k".rjust(width)]
    for step, (_, found) in zip(steps, some, strict=True):
        learned = found.learned(0.1)
        end = "nowhere" if learned is None else _number(learned)
        lines.append(f"{step:{label}}  {_error_line(found, low, high, cells, plain)} {end:>10}")
    return "\n".join(lines)


def _error_line(found: ErrorSpectrum, low: float, high: float, cells: int, plain: bool) -> str:
    """Return the relative error of so many cells between two logarithms of k: bands of one cell are pooled."""
    ramp, dot = (ASCII, "'") if plain else (BLOCKS, "·")
    on = found.k > 0
    k, told = np.log(found.k[on]), found.told[on]
    target, error = (np.where(told, energy[on], 0.0) for energy in (found.target_energy, found.error_energy))
    inside = (k >= low) & (k <= high)
    cell = np.minimum(((k - low) / (high - low) * cells).astype(int), cells - 1)[inside]
    pooled = amplitude_ratio(
        np.bincount(cell, error[inside], cells), np.bincount(cell, target[inside], cells), least=0.0
    )
    middles = low + (np.arange(cells) + 0.5) * (high - low) / cells
    nearest = np.abs(k - middles[:, None]).argmin(axis=1)
    alone = amplitude_ratio(error, target, least=0.0)[nearest]
    level = np.where(np.bincount(cell, minlength=cells) > 0, pooled, alone)
    return "".join(
        dot if np.isnan(share) else ramp[0 if share < FLAT else max(1, round(min(share, 1.0) * (len(ramp) - 1)))]
        for share in level
    )


def _cell(spectrum: Spectrum | None, low: float, high: float, cells: int, plain: bool) -> str:
    if spectrum is None:
        return "not measured".ljust(cells + 10)
    median = "-" if spectrum.median is None else _number(spectrum.median)
    mark = "" if spectrum.resolved or spectrum.median is None else "*"
    return spark(spectrum, low, high, cells, plain=plain) + f" {median + mark:>9}"


def _range(spectra: list[Spectrum]) -> tuple[float, float]:
    """Return log2 of the 1/delta between which anything happens in any of the spectra."""
    low, high = np.inf, -np.inf
    for one in spectra:
        density, x = one.density, np.log2(one.inv_delta)
        seen = np.flatnonzero(density > FLAT * density.max()) if density.max() > 0 else np.arange(len(x))
        low, high = min(low, x[seen[0]]), max(high, x[seen[-1]])
    return (float(low), float(high)) if high > low else (float(low) - 1, float(low) + 1)


def _carries(encoding: str | None, letters: str) -> bool:
    try:
        letters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _short(name: str, length: int, plain: bool) -> str:
    """Cut a name to a length, and drop what a terminal would not print as text."""
    name = "".join(c if c.isprintable() and (not plain or c.isascii()) else "?" for c in name)
    if len(name) <= length:
        return name
    return "~" + name[1 - length :] if plain else "…" + name[1 - length :]


def _number(value: float) -> str:
    return f"{value:.3g}"
