"""`layerfreq verdict RUN ...`: what some runs say, in plain words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from layerfreq.cli.terminal import JsonOption, print_json


def verdict(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs, or of experiments.")],
    error: Annotated[
        float | None, typer.Option(help="Training loss to compare steps at; default: the lowest that all runs reached.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Judge runs of different models or data together.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Also print a row per scale and step, and per error band.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge whether deeper means lower frequency in these runs, from which step on, and how surely."""
    from layerfreq.data.scales import explained
    from layerfreq.verdict.depth import verdict as judge

    result = judge(runs, error=error, together=together)
    if as_json:
        whole = {"runs": result.runs, "seeds": result.seeds, "sentences": result.sentences}
        scales = {name: _of_scale(one) for name, one in result.scales.items()}
        findings = {"speed": result.speed, "cause": result.cause, "learning": result.learning, "bands": result.bands}
        print_json({**whole, "scales": scales, **findings})
        return
    counts = ((result.runs, "run"), (result.seeds, "seed"))
    print(", ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts))
    for sentence in [*result.sentences, *map(explained, result.scales)]:
        print(_fitted(sentence))
    if table:
        _print_rows("Deeper is lower, by scale and step:", result.to_frame(), 3)
        _print_rows("Low frequencies first: the step at which a band's relative error fell below 0.5:", result.bands, 6)


def _print_rows(title: str, rows: Any, digits: int) -> None:
    if len(rows):
        text = rows.to_string(index=False, float_format=f"{{:.{digits}g}}".format, na_rep="-")
        print(f"\n{title}\n{text}")


def _of_scale(one: Any) -> dict[str, Any]:
    fields = ("answer", "since", "octaves", "interval", "why", "unit", "steps")
    return {name: getattr(one, name) for name in fields}


def _fitted(sentence: str) -> str:
    """Wrap a sentence at the terminal's width; in a pipe it stays one line."""
    if not sys.stdout.isatty():
        return sentence
    return textwrap.fill(sentence, max(shutil.get_terminal_size().columns, 40), subsequent_indent="  ")
