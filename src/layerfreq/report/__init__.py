"""The report of one run or several: one HTML file that opens from disk, without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfreq.errors import InputError
from layerfreq.files import as_path, write_whole
from layerfreq.report.collect import collect, title_of
from layerfreq.runs.run import Run
from layerfreq.runs.several import unit_of

if TYPE_CHECKING:
    from torch import nn


def write_report(
    runs: Sequence[Run | str | Path] | Run | str | Path,
    path: str | Path | None = None,
    *,
    model: nn.Module | None = None,
    inputs: Any = None,
) -> Path:
    """Write the report of runs, side by side.

    Args:
        runs: Runs or their folders, or experiments with their trainings in folders.
        path: Where it goes; None means `report.html` in the first run's folder.
        model: Of runs that kept their weights: the page also has what changed in its outputs between kept steps, by
            frequency; it is left as it was.
        inputs: (n, ...) tensor or array, the points for that.

    Returns:
        Where it is.

    Raises:
        InputError: If nothing was measured yet, plotly is not installed, or the place cannot be used; if a model comes
            without inputs, or is of another kind.
    """
    given: Any = runs
    several = given if isinstance(given, (list, tuple)) else [given]
    if (model is None) != (inputs is None):
        raise InputError("model: given without inputs, or inputs without a model; pass both, or none of them")
    runs = [one if isinstance(one, Run) else Run(one) for one in several]
    if not runs:
        raise InputError("runs: none given; name at least one run's folder")
    path = runs[0].path / "report.html" if path is None else as_path(path, "out")
    if path.is_dir():
        raise InputError(f"out: {str(path)!r} is a folder; name a file in it, such as {str(path / 'report.html')!r}")
    if not path.parent.is_dir():
        raise InputError(f"out: no folder {str(path.parent)!r}; make it first")
    trainings, names, cases = _named(runs)
    found = collect(trainings, names, cases)
    errors = any(run.errors is not None for run in found.runs)
    if not found.records and not errors and sum(1 for run in found.runs if run.metrics) < 2:
        where = ", ".join(repr(str(run.path)) for run in runs)
        raise InputError(f"run: nothing measured yet in {where}; measure at least one step first")
    from layerfreq.report.page import page

    told = ""
    if model is not None:
        from layerfreq.report.weights import changes

        told = changes([(one.name, one.run) for one in found.runs], model, inputs, unit_of(runs))
    text = page(found, " · ".join(title_of(run.path) for run in runs), runs, told)
    write_whole(path, lambda at: at.write_text(text, encoding="utf-8"))
    return path


def _named(runs: Sequence[Run]) -> tuple[list[Run], list[str], list[str]]:
    """Return all trainings, what tells each from the others, and the same without its seed."""
    tops = [title_of(run.path) for run in runs]
    if len(set(tops)) < len(tops):
        tops = [str(run.path) for run in runs]
    trainings: list[Run] = []
    names: list[str] = []
    cases: list[str] = []
    for run, top in zip(runs, tops, strict=True):
        for one in run.trainings():
            inside = one.path != run.path
            own = title_of(one.path) if inside else top
            name = f"{top}/{own}" if inside and len(runs) > 1 else own
            trainings.append(one)
            names.append(name)
            cases.append(re.sub(r"[-_ /]*seed[-_ ]?\d+$", "", name) or top)
    return trainings, names, cases
