"""`layerfreq report`: one page about runs."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from layerfreq.cli.analyze import DataHelp
from layerfreq.cli.relearn import own_network
from layerfreq.cli.terminal import counting, stoppable

POINTS = 2000  # most points that are loaded from --data


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs or of whole experiments.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: report.html in the first run's folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODULE:FACTORY", help="Of runs of your own: makes their network."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help=f"With --model: {DataHelp[0].lower()}{DataHelp[1:]}")
    ] = None,
) -> None:
    """Write one self-contained HTML page about one run, or several side by side.

    Prints where it is; on a terminal also a view of each run in spark lines. Of runs that kept their weights the page
    also has what takes the network: changes of its outputs, frequencies along an axis, image frequency, suspects. The
    data and network of an experiment's run are rebuilt; of your own, name them.
    """
    from layerfreq.experiments import source_of
    from layerfreq.report import write_report
    from layerfreq.report.terminal import view_of
    from layerfreq.runs.run import Run
    from layerfreq.runs.weights import kept_steps

    given = [Run(path) for path in runs]
    network, *points = own_network(model, data, POINTS)
    long = any(kept_steps(one.path) for run in given for one in run.trainings())
    with stoppable("no page was written; run it again"), counting("report") if long else nullcontext() as tell:
        rebuild = source_of if network is None else None
        page = write_report(given, out, model=network, inputs=points[0], targets=points[1], rebuild=rebuild, tell=tell)
    if sys.stdout.isatty():
        for run in given:
            if shown := view_of(run.path, run.unit, sys.stdout.encoding):
                print(*([f"{run.path}:"] if len(given) > 1 else []), shown, "", sep="\n")
    print(page)
