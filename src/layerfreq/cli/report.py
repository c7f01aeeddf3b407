"""`layerfreq report`: one page about runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs or of whole experiments.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: report.html in the first run's folder.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about one run, or several side by side.

    Prints where it is; on a terminal also a view of each run in spark lines.
    """
    from layerfreq.report import write_report
    from layerfreq.report.terminal import view_of
    from layerfreq.runs.run import Run

    given = [Run(path) for path in runs]
    page = write_report(given, out)
    if sys.stdout.isatty():
        for run in given:
            if shown := view_of(run.path, run.unit, sys.stdout.encoding):
                print(*([f"{run.path}:"] if len(given) > 1 else []), shown, "", sep="\n")
    print(page)
