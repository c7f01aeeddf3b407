"""`layerfreq report`: what runs measured, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs or of whole experiments.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: report.html in the first run's folder.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about one run, or several side by side."""
    from layerfreq.report import write_report
    from layerfreq.runs.run import Run

    print(write_report([Run(path) for path in runs], out))
