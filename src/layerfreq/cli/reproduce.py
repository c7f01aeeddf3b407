"""`layerfreq reproduce` and `layerfreq demo`: the paper's experiments."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from layerfreq.cli.terminal import (
    JsonOption,
    again,
    check_device,
    console,
    default_out,
    list_files,
    print_json,
    say_units,
    show_table,
    stoppable,
)
from layerfreq.errors import Code, InputError, unknown
from layerfreq.experiments import NAMES, Compared, Experiment, Progress, Request, Table, experiment
from layerfreq.files import as_path
from layerfreq.report.terminal import view_of

DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the run; default: a new folder in runs/.")]


class BarProgress(Progress):
    """The runner's progress as a bar of one line: epoch, loss, time left, and what is being measured."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Bar | None = None

    def start(self, name: str, total: int, done: int) -> None:
        """Open the bar."""
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=console,
        )
        self._bar.add_task(f"{name} · {self._unit}", total=total, completed=done, loss="", now="")
        self._bar.start()

    def step(self, step: int, loss: float | None = None) -> None:
        """Move the bar on."""
        said = {} if loss is None else {"loss": f"loss {loss:.4f}"}
        self._update(completed=step, now="", **said)

    def measuring(self, what: str) -> None:
        """Say what is measured; of a long name the end."""
        self._update(now=f"measuring {what if len(what) <= 14 else '…' + what[-13:]}")

    def finish(self) -> None:
        """Close the bar full: a training that stopped early is over too."""
        if self._bar is not None:
            self._update(total=self._bar.tasks[0].completed, now="")
        self.close()

    def close(self) -> None:
        """Close the bar, if one is open, and give the terminal its cursor back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], **fields)


def demo(out: OutOption = None, device: DeviceOption = "cpu", as_json: JsonOption = False) -> None:
    """Train a small network on scikit-learn's digits and see what each layer still has to learn."""
    import torch

    torch.set_num_threads(1)  # so small a network gains nothing from more, and loses much where other programs run
    _reproduce("mlp", "demo", {}, device=device, seeds=[0], out=out, resume=False, as_json=as_json)
    if not as_json:
        console.print(
            "How to read it: a peak at low 1/δ means that the layers above have a smooth\n"
            "function left to learn. Before training, deeper layers peak higher; training\n"
            "reverses the order."
        )


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT", help=f"One of {', '.join(NAMES)}.", autocompletion=lambda: NAMES, show_default=False
        ),
    ],
    preset: Annotated[
        Literal["smoke", "small", "medium", "paper"],
        typer.Option(
            help="Seconds; minutes; two hours (resnet); or the paper's size: on two cores sine 1 min, mlp 30, depth up "
            "to 120, and a GPU for resnet."
        ),
    ] = "small",
    data: Annotated[
        str | None,
        typer.Option(help="Folder in the hub's layout, hub id, or 'digits'; for cause, a folder of such folders."),
    ] = None,
    device: DeviceOption = "cpu",
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Seed (repeatable).")] = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume after a stop or kill.")] = False,
    variant: Annotated[
        list[int] | None, typer.Option("--variant", help="resnet: -1 .. -4 (repeatable); default: all.")
    ] = None,
    recipe: Annotated[
        Literal["code", "readme", "sgd"] | None,
        typer.Option(help="mlp: as in the authors' code (default) or README, or version 0.1's gradient descent."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="fprinciple: one-d, heatmap, cifar, optimizers, ricker, parity or bias (repeatable); default: all.",
        ),
    ] = None,
    backend: Annotated[
        Literal["loky", "dask", "ray"] | None,
        typer.Option(help="cause: where jobs run, in processes on this machine (loky) or on a cluster's workers."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="cause: number of processes; default: one per core.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Reproduce the paper's experiments, the frequency principle (fprinciple), or the study of causes."""
    given = {"data": data, "recipe": recipe, "backend": backend, "workers": workers}
    given |= {"parts": tuple(part or ()), "variants": tuple(abs(v) for v in variant or ())}
    changes = {field: value for field, value in given.items() if value not in (None, ())}
    _reproduce(name, preset, changes, device=device, seeds=seed, out=out, resume=resume, as_json=as_json)


def _reproduce(
    name: str,
    preset: str,
    changes: dict[str, Any],
    *,
    device: str,
    seeds: list[int] | None,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Run an experiment, and print what came out."""
    asked = experiment(name)
    config = _configured(name, asked, preset, changes)
    check_device(device)
    seeds = seeds or list(range(asked.SEEDS))
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seed: {seeds} must be different numbers >= 0; change --seed")
    place = as_path(out, "out") if out is not None else default_out(f"{name}-{preset}", resume)
    remedy = again() if preset == "demo" else again("--resume", *(["--out", str(place)] if out is None else []))
    progress = BarProgress(asked.UNIT)
    request = Request(out=place, seeds=seeds, preset=preset, device=device, resume=resume, progress=progress)
    try:
        with _nothing_left(place), stoppable(f"{place} keeps the measurements so far; resume with: {remedy}"):
            asked.run(config, request)
            ours = asked.present(place, seeds)
            theirs = asked.beside(place, seeds) if isinstance(asked, Compared) else None
    finally:
        progress.close()
    files = [place, *ours.files, *(theirs.files if theirs else [])]
    if as_json:
        published = {"published": _records(theirs)} if theirs else {}
        notes = [*ours.notes, *(theirs.notes if theirs else ())]
        print_json({"run": place, "rows": _records(ours), **published, "notes": notes, "files": files})
        return
    _show(ours, theirs)
    list_files(files)
    if shown := view_of(place, asked.UNIT, sys.stdout.encoding):
        console.print(shown, soft_wrap=True)


@contextmanager
def _nothing_left(place: Path) -> Iterator[None]:
    """Remove the folders made for an experiment that failed before it had anything to keep in them."""
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        yield
    except InputError:
        if made and not any(file.is_file() and file.name != "config.yaml" for file in place.rglob("*")):
            shutil.rmtree(place, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # somebody else's run is there
                    folder.rmdir()
        raise


def _configured(name: str, asked: Experiment, preset: str, changes: dict[str, Any]) -> Any:
    """Return the config of a preset, with fields that options replace."""
    if preset not in asked.PRESETS:
        raise unknown("preset", preset, asked.PRESETS)
    config = asked.PRESETS[preset]
    for field in changes:
        if not hasattr(config, field):
            option = {"variants": "variant", "parts": "part"}.get(field, field)
            none = f"{changes[field]!r} given, but {name} makes its own data" if field == "data" else f"{name} has none"
            raise Code.CONFLICT(f"{option}: {none}; leave --{option} out")
    return replace(config, **changes)


def _show(ours: Table, theirs: Table | None) -> None:
    show_table(ours.head, ours.rows)
    if any("median" in title.split() for title in ours.head):  # the number itself, not what it correlates with
        say_units(ours.head)
    if theirs is not None and theirs.rows:
        console.print("Compared with the published figures:")
        show_table(theirs.head, theirs.rows)
    for note in [*ours.notes, *(theirs.notes if theirs else ())]:
        console.print(note)


def _records(table: Table) -> list[dict[str, Any]]:
    """Rows of a table for a program: cells that are numbers are numbers."""
    head = [title.replace("\n", " ") for title in table.head]
    return [dict(zip(head, map(_number, row), strict=True)) for row in table.rows]


def _number(cell: str) -> int | float | str | None:
    if cell == "-":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell
