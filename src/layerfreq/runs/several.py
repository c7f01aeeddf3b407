"""Several runs at once: which they are, their seeds, and what their steps are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfreq.errors import Code, none_given
from layerfreq.files import as_path
from layerfreq.runs.run import Run


def unit_of(runs: Sequence[Run]) -> str:
    """Return what a step of runs is called; "step" if they differ."""
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "step"


def expand(runs: Sequence[Run | str | Path]) -> list[tuple[Run, str]]:
    """Return single runs, each with the name of its cluster: its path, or the experiment's path and the seed.

    Raises:
        InputError: If a folder holds no run, a run is given twice, or has parts.
    """
    if not runs:
        raise none_given("runs", "at least one run's folder")
    found: list[tuple[Run, str]] = []
    for given in runs:
        path = given.path if isinstance(given, Run) else as_path(given, "run")
        parts = Run(path).parts if (path / "config.yaml").is_file() else {}
        if parts:
            names, one = ", ".join(parts), str(path / next(iter(parts)))
            raise Code.CONFLICT(
                f"runs: {str(path)!r} has parts {names}, not seeds of one another; name one, as {one!r}"
            )
        inner = sorted(p.parent for p in path.glob("*/config.yaml"))
        if any((path / folder).is_dir() for folder in ("spectra", "errors", "metrics")) or not inner:
            found.append((given if isinstance(given, Run) else Run(path), str(path)))
            continue
        for one in inner:
            seed = one.name.rpartition("seed-")[2] if "seed-" in one.name else one.name
            found.append((Run(one), f"{path}/seed-{seed}"))
    seen: set[Path] = set()
    for run, _ in found:
        if run.path.resolve() in seen:
            raise Code.CONFLICT(f"runs: {str(run.path)!r} is given twice; each run counts once")
        seen.add(run.path.resolve())
    return found
