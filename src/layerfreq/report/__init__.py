"""The report of one or several runs: one HTML file that works offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfreq.errors import Code, InputError, no_such, none_given, shown
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
    targets: Any = None,
    rebuild: Callable[[Run], Any] | None = None,
    tell: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write the report of one or several runs, side by side.

    For runs that kept their weights, given their network and points, it also shows how the outputs changed between kept
    steps, by frequency; frequencies along an axis, for layers that have one; image frequency, for image classifiers;
    and the points whose targets disagree with those of their neighbours. Each takes a few seconds at most, using as
    many points as that allows; whatever cannot be computed is listed on the page with the reason.

    Args:
        runs: Runs or their folders, or experiments with their trainings in folders.
        path: The file; None means `report.html` in the first run's folder.
        model: For runs that kept their weights, a module with their architecture; it is left unchanged.
        inputs: (n, ...) tensor or array, or whatever its forward takes, for n points; or an iterable of (inputs,
            targets) batches.
        targets: (n,) class ids or floats of these points; None for none.
        rebuild: In place of the three, a function of a run that returns its network and points:
            `layerfreq.experiments.source_of` for those of experiments.
        tell: Called with the number of sections done, the total, and the next one.

    Returns:
        The path.

    Raises:
        InputError: If nothing was measured yet, plotly is not installed, or the path cannot be used; if a model comes
            without inputs, does not accept them, or has another architecture.

    Examples:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> monitor = Monitor(model, x, torch.sin(4 * x), run="a run", checkpoints=True)
        >>> measured = monitor.measure(0)
        >>> write_report("a run", model=model, inputs=x, targets=torch.sin(4 * x)).name
        'report.html'
    """
    given: Any = runs
    several = given if isinstance(given, (list, tuple)) else [given]
    if (model is None) != (inputs is None) or (targets is not None and model is None):
        raise Code.CONFLICT("model: given without inputs, or these or targets without a model; pass all or none")
    if rebuild is not None and (model is not None or not callable(rebuild)):
        raise InputError(f"rebuild: {shown(rebuild)} together with a model, or no function; pass one that takes a run")
    runs = [one if isinstance(one, Run) else Run(one) for one in several]
    if not runs:
        raise none_given("runs", "at least one run's folder")
    path = runs[0].path / "report.html" if path is None else as_path(path, "out")
    if path.is_dir():
        raise Code.EXISTS(f"out: {str(path)!r} is a folder; name a file in it, such as {str(path / 'report.html')!r}")
    if not path.parent.is_dir():
        raise no_such("out", "folder", path.parent, "make it first")
    trainings, names, cases = _named(runs)
    found = collect(trainings, names, cases)
    errors = any(run.errors is not None for run in found.runs)
    if not found.records and not errors and sum(1 for run in found.runs if run.metrics) < 2:
        where = ", ".join(repr(str(run.path)) for run in runs)
        raise Code.MISSING(f"run: no measurement in {where}; measure at least one step first")
    from layerfreq.report.page import page
    from layerfreq.report.sections.gather import Given, add_sections

    if model is not None:
        own = Given(model, inputs, targets, trainings)
        rebuild = own.of
    missing = add_sections(found.runs, rebuild, unit_of(runs), tell)
    text = page(found, " · ".join(title_of(run.path) for run in runs), runs, missing)
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
