"""`layerfreq verdict RUN ...`: what some runs say, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verdict(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs, or of experiments.")],
    error: Annotated[
        float | None, typer.Option(help="Training loss whose steps are compared; default: the lowest all runs reached.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also a row for each scale and step.")] = False,
) -> None:
    """Say whether deeper means lower frequency in these runs, from which step on, and how sure that is."""
    from layerfreq.verdict import verdict as judge

    result = judge(runs, error=error)
    print(f"{result.runs} runs, {result.seeds} seeds")
    print(result)
    if table:
        print(f"\n{result.to_frame().to_string(index=False, float_format='{:.3g}'.format)}")
