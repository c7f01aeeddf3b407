"""`layerfreq analyze`: measure any model at its checkpoints, and write a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from layerfreq.cli.terminal import (
    JsonOption,
    console,
    counting,
    default_out,
    list_files,
    pick_device,
    pick_scales,
    print_json,
    say_units,
    show_table,
    stoppable,
)
from layerfreq.errors import InputError, Refused

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="MODULE:FACTORY, or a Hugging Face folder or hub id.", show_default=False),
]
ReadingOption = Annotated[
    str, typer.Option(help="How to read convolutions and sequences: flatten, mean, max, positions, cls or last.")
]
MemoryOption = Annotated[
    str | None, typer.Option(help="Memory for features, such as 2GiB; default: a quarter of the free memory.")
]
ScalesOption = Annotated[
    list[str] | None,
    typer.Option(help="raw, rms, or maxabs as in the paper (repeatable); default: raw.", show_default=False),
]


def _check_seed(seed: int) -> int:
    """Refuse what PyTorch cannot take; a `max` of the option would fill the help with its digits."""
    if seed >= 2**63:
        raise InputError(f"seed: {seed} is too large; choose one below 2**63")
    return seed


SeedOption = Annotated[
    int,
    typer.Option(help="Seed for drawn rows, and for weights that a factory initialises.", min=0, callback=_check_seed),
]
DataHelp = "Folder in the hub's layout, hub id, 'digits', .npz or .safetensors file, or MODULE:FUNCTION."


def analyze(
    model: ModelArgument,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help=".safetensors, .pt, .pth, .pth.tar, .ckpt, .bin, or a folder.",
            show_default=False,
        ),
    ] = None,
    *,
    data: Annotated[str, typer.Option("--data", help=DataHelp, show_default=False)],
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="A layer (repeatable); default: all hidden layers.")
    ] = None,
    points: Annotated[int, typer.Option(help="Maximum number of points to measure.", min=1)] = 2000,
    rows: Annotated[
        int | None, typer.Option(help="Number of filter centres to draw; default: all points.", min=1)
    ] = None,
    scale: ScalesOption = None,
    reading: ReadingOption = "flatten",
    memory: MemoryOption = None,
    batch: Annotated[int, typer.Option(help="Points per forward pass.", min=1)] = 256,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the run; default: a new folder in runs/.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any model at its checkpoints; loading their weights never runs code from the files."""
    from layerfreq.files import as_path
    from layerfreq.inspection.analysis import analyze as measure
    from layerfreq.inspection.analysis import medians, present
    from layerfreq.loading.models import find_model

    scales = pick_scales(scale)
    device = pick_device(device)
    source = find_model(model, seed)
    out = as_path(out, "out") if out is not None else default_out(f"analyze-{source.name}")
    remedy = f"what was measured, if anything, is in {out}; to measure again, choose another --out"
    with stoppable(remedy), counting("analyze") as tell:
        found = measure(
            source, checkpoints or [], data, out, name=model, layers=layers, points=points, rows=rows, scales=scales,
            reading=reading, memory=memory, batch=batch, seed=seed, device=device, tell=tell,
        )  # fmt: skip
        head, lines, files = present(found.run, scales)
    if as_json:
        refused = {name: str(reason) for name, reason in found.refused.items()}
        layers_of = medians(found.run, scales)
        print_json({"run": out, "steps_from": found.told, "layers": layers_of, "refused": refused, "files": files})
        return
    show_table(head, lines)
    say_units(head, scales)
    if found.told:
        console.print(f"Steps are taken from {found.told}.")
    _say_refused(found.refused, model)
    list_files([out, *files])


def _say_refused(refused: Mapping[str, Refused], model: str) -> None:
    """Name one layer per reason, and where all are listed."""
    by_kind = defaultdict(list)
    for name, reason in refused.items():
        by_kind[reason.why].append((name, reason))
    for (name, reason), *others in by_kind.values():
        more = f" and {len(others)} more" if others else ""
        console.print(f"Not measured: {name}{more}: {reason}")
    if refused:
        console.print(f"For all of them: layerfreq doctor {model}")
