"""`layerfreq analyze`: any model, its checkpoints, a data set; a run out."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from layerfreq.cli.terminal import console, default_out, list_files, pick_device, pick_scales, say_units

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="MODULE:FACTORY, or a folder or hub id of a Hugging Face model.", show_default=False
    ),
]
ReadingOption = Annotated[
    str, typer.Option(help="How convolutions and sequences are read: flatten, mean, max, positions, cls or last.")
]
MemoryOption = Annotated[
    str | None, typer.Option(help="Budget of features, as in 2GiB; default: a quarter of what is free.")
]
ScalesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="raw, rms, or the paper's, maxabs; may be given several times; default: raw.", show_default=False
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Of drawn rows, and of weights that a factory draws.", min=0, max=2**63 - 1)
]
DataHelp = "Folder in the hub's layout, hub id, 'digits', .npz or .safetensors file, or MODULE:FUNCTION."


def analyze(
    model: ModelArgument,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...", help=".safetensors, .pt, .pth, .ckpt, .bin, or a folder.", show_default=False
        ),
    ] = None,
    *,
    data: Annotated[str, typer.Option("--data", help=DataHelp, show_default=False)],
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="A layer; may be given several times; default: all hidden.")
    ] = None,
    points: Annotated[int, typer.Option(help="Points to measure on, at most.", min=1)] = 2000,
    rows: Annotated[int | None, typer.Option(help="Filter centres to draw; default: all points.", min=1)] = None,
    scale: ScalesOption = None,
    reading: ReadingOption = "flatten",
    memory: MemoryOption = None,
    batch: Annotated[int, typer.Option(help="Points in one forward pass.", min=1)] = 256,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the run; default: a new one in runs/.")] = None,
) -> None:
    """Measure any model at its checkpoints, whose weights are loaded without running code of theirs."""
    from layerfreq.analysis import analyze as measure
    from layerfreq.analysis import present
    from layerfreq.files import as_path
    from layerfreq.loading.models import find_model

    scales = pick_scales(scale)
    device = pick_device(device)
    source = find_model(model, seed)
    out = as_path(out, "out") if out is not None else default_out(f"analyze-{source.name}")
    try:
        with console.status("loading") as status:
            found = measure(
                source,
                checkpoints or [],
                data,
                out,
                name=model,
                layers=layers,
                points=points,
                rows=rows,
                scales=scales,
                reading=reading,
                memory=memory,
                batch=batch,
                seed=seed,
                device=device,
                progress=status.update,
            )
            status.update("drawing")
            head, lines, files = present(found.run, scales)
    except KeyboardInterrupt:  # Typer would end with 130 and say nothing
        print(f"layerfreq: stopped; what was measured, if anything, is in {out}", file=sys.stderr)
        raise typer.Exit(1) from None
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.columns[1].overflow = "fold"
    for line in lines:
        table.add_row(*line)
    console.print(table)
    say_units(head, scales)
    if found.told:
        console.print(f"Steps are from {found.told}.", highlight=False)
    by_kind = defaultdict(list)
    for name, reason in found.refused.items():
        by_kind[reason.why].append((name, reason))
    for (name, reason), *others in by_kind.values():
        more = f" and {len(others)} more" if others else ""
        console.print(f"Not measured: {name}{more}: {reason}", highlight=False)
    if found.refused:
        console.print(f"layerfreq doctor {model} lists them all.", highlight=False)
    list_files([out, *files])
