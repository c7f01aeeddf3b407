"""What all commands share: the console, JSON, Ctrl-C, the folder of a new run, and devices."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from layerfreq.data.scales import explained, in_order
from layerfreq.data.validation import Scale, as_scale
from layerfreq.errors import Code, unknown

# Names of layers, files and users' own words are printed as they are: none of them is markup.
console = Console(markup=False, highlight=False, emoji=False)


def _set_aside(as_json: bool) -> bool:
    """With --json progress goes to standard error, so that standard output holds the JSON alone."""
    console.stderr = as_json
    return as_json


JsonOption = Annotated[bool, typer.Option("--json", callback=_set_aside, help="Print the result as one JSON object.")]


def print_json(result: Any) -> None:
    """Print a result as one JSON object; numbers that are undefined or infinite become null."""
    print(json.dumps(_plain(result), allow_nan=False, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Return a value as what JSON has."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a DataFrame, of which pandas need not be imported
        return _plain(value.to_dict("records"))
    if hasattr(value, "tolist"):  # arrays, tensors and their numbers
        return _plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show on a terminal how much is done, how long the rest takes, and what is being done.

    Yields:
        What is told of the number done, the number in all (0: not known yet), and the piece of work.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None, now="")
        yield lambda done, total, now: bar.update(task, completed=done, total=total or None, now=now)


class Stopped(Exception):
    """Ctrl-C, and what to do about it."""


@contextmanager
def stoppable(remedy: str) -> Iterator[None]:
    """Let Ctrl-C end a command with one line that says what is kept and how to resume."""
    try:
        yield
    except KeyboardInterrupt:  # Typer would end with 130 and say nothing
        raise Stopped(remedy) from None


def again(*more: str) -> str:
    """Return the command that was given, with more options, as one can paste it."""
    given = sys.argv[1:]
    return shlex.join(["layerfreq", *given, *(word for word in more if word not in given)])


def show_table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a table; where it is wider than the terminal, words are broken rather than cut."""
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def default_out(name: str, resume: bool = False) -> Path:
    """Return the first free folder in runs/, or the last used one when resuming."""
    number, path = 1, Path("runs") / name
    used = None
    while path.exists():
        used, number = path, number + 1
        path = Path("runs") / f"{name}-{number}"
    return used if resume and used else path


def list_files(files: list[Path]) -> None:
    """Print where files lie, one per line."""
    for file in files:
        console.print(str(file), soft_wrap=True)


def pick_scales(given: list[str] | None) -> list[Scale]:
    """Return the scales that were asked for, each once; raw where there are none.

    Raises:
        InputError: If one is none.
    """
    return [as_scale(scale) for scale in dict.fromkeys(given or ["raw"])]


def say_units(head: list[str], scales: Iterable[str] = ()) -> None:
    """Print what the numbers of a table of layers are, and what its scales."""
    some = any("limit" in title for title in head)
    limit = "limit: above it windows hold fewer than 2 points; *: beyond the limit."
    console.print(f"In 1/δ. {limit if some else '*: unresolved, windows there hold fewer than 2 points.'}")
    for scale in in_order(scales):
        console.print(explained(scale))


def check_device(device: str) -> None:
    """Raise an InputError for a device that is unknown or not on this machine."""
    if device not in ("cpu", "cuda", "mps", "auto"):
        raise unknown("device", device, ("cpu", "cuda", "mps", "auto"))
    if device in ("cuda", "mps"):
        import torch

        if not getattr(torch, device).is_available():
            raise Code.MISSING(f"device: no {device} device on this machine; choose cpu or auto")


def pick_device(device: str) -> str:
    """Return the device to use: the one that is named, or for "auto" the best there is.

    Raises:
        InputError: If it is unknown, or not on this machine.
    """
    import torch

    check_device(device)
    if device != "auto":
        return device
    return next((name for name in ("cuda", "mps") if getattr(torch, name).is_available()), "cpu")
