"""`layerfreq reproduce` and `layerfreq demo`: the paper's experiments."""

from __future__ import annotations

import sys
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
from layerfreq.errors import InputError
from layerfreq.experiments import NAMES
from layerfreq.experiments.runner import Progress
from layerfreq.files import as_path
from layerfreq.report.terminal import view_of

DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the run; default: a new one in runs/.")]


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
    _experiment("mlp", "demo", None, device, [0], out, resume=False, changes={}, as_json=as_json)
    if not as_json:
        console.print(
            "Read it so: a peak at low 1/δ means that the layers above have a smooth function\n"
            "left to learn. Before training deeper layers peak higher; training turns the\n"
            "order round."
        )


def reproduce(
    experiment: Annotated[
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
        str | None, typer.Option(help="Folder in the hub's layout, hub id, or 'digits'; cause: folder of folders.")
    ] = None,
    device: DeviceOption = "cpu",
    seed: Annotated[list[int] | None, typer.Option("--seed", help="May be given several times.")] = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped or killed.")] = False,
    variant: Annotated[
        list[int] | None, typer.Option("--variant", help="resnet: -1 .. -4, may be given several times; default: all.")
    ] = None,
    recipe: Annotated[
        Literal["code", "readme", "sgd"] | None,
        typer.Option(help="mlp: as in the authors' code (default) or README, or version 0.1's gradient descent."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="fprinciple: one-d, heatmap, cifar, optimizers, ricker, parity or bias, may be given several times; "
            "default: all.",
        ),
    ] = None,
    backend: Annotated[
        Literal["loky", "dask", "ray"] | None,
        typer.Option(help="cause: what spreads its jobs, processes of this machine (loky) or a cluster's workers."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="cause: how many processes; default: one per core.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Reproduce an experiment of the paper, the frequency principle (fprinciple), or ask whether it is the cause."""
    changes: dict[str, Any] = {"variants": tuple(abs(v) for v in variant)} if variant else {}
    changes |= {"parts": tuple(part)} if part else {}
    changes |= {"recipe": recipe} if recipe else {}
    changes |= {"backend": backend} if backend else {}
    changes |= {"workers": workers} if workers else {}
    _experiment(experiment, preset, data, device, seed, out, resume=resume, changes=changes, as_json=as_json)


def _experiment(
    name: str,
    preset: str,
    data: str | None,
    device: str,
    seeds: list[int] | None,
    out: Path | None,
    *,
    resume: bool,
    changes: dict[str, Any],
    as_json: bool,
) -> None:
    from dataclasses import replace

    from layerfreq.experiments import experiment

    module = experiment(name)
    if preset not in module.PRESETS:
        raise InputError(f"preset: {name} has no {preset!r}; choose among {', '.join(module.PRESETS)}")
    config = module.PRESETS[preset]
    if data is not None:
        if not hasattr(config, "data"):
            raise InputError(f"data: {data!r} given, but {name} makes its own data; leave --data out")
        config = replace(config, data=data)
    for key in changes:
        if not hasattr(config, key):
            option = {"variants": "variant", "parts": "part"}.get(key, key)
            raise InputError(f"{option}: {name} has none; leave --{option} out")
    config = replace(config, **changes)
    check_device(device)
    seeds = seeds or list(range(module.SEEDS))
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seed: {seeds} must be different numbers >= 0; change --seed")
    place = [] if out is not None else ["--out"]
    out = as_path(out, "out") if out is not None else default_out(f"{name}-{preset}", resume)
    remedy = again("--resume", *place, *([str(out)] if place else []))
    if preset == "demo":
        remedy = again()
    progress = BarProgress(module.UNIT)
    try:
        with stoppable(f"{out} keeps what was measured; resume with: {remedy}"):
            module.run(config, out, preset=preset, seeds=seeds, device=device, resume=resume, progress=progress)
            head, rows, files = module.present(out, seeds)
            theirs = module.beside(out, seeds) if hasattr(module, "beside") else None
    finally:
        progress.close()
    files = [out, *files, *(theirs.files if theirs else [])]
    if as_json:
        published = {"published": _records(theirs.head, theirs.rows), "notes": theirs.notes} if theirs else {}
        print_json({"run": out, "rows": _records(head, rows), **published, "files": files})
        return
    show_table(head, rows)
    if any("median" in title for title in head):
        say_units(head)
    if theirs is not None:
        if theirs.rows:
            console.print("Compared with the published figures:")
            show_table(theirs.head, theirs.rows)
        for note in theirs.notes:
            console.print(note)
    list_files(files)
    console.print(view_of(out, module.UNIT, sys.stdout.encoding), soft_wrap=True)


def _records(head: list[str], rows: list[list[str]]) -> list[dict[str, Any]]:
    """Rows of a table for a program: cells that are numbers are numbers."""
    return [{key.replace("\n", " "): _number(cell) for key, cell in zip(head, row, strict=True)} for row in rows]


def _number(cell: str) -> int | float | str | None:
    if cell == "-":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell
