"""`layerfreq doctor`: every module of a model, measured or why not, and what measuring it takes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from layerfreq.cli.analyze import DataHelp, MemoryOption, ModelArgument, ReadingOption, ScalesOption, SeedOption
from layerfreq.cli.terminal import console, pick_device, pick_scales
from layerfreq.data.scales import in_order
from layerfreq.errors import InputError, Refusal


def doctor(
    model: ModelArgument,
    *,
    data: Annotated[str | None, typer.Option("--data", help=DataHelp, show_default=False)] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Of one point, as in 3,32,32; default: made up from the model.")
    ] = None,
    points: Annotated[int, typer.Option(help="Points that shall be measured.", min=2)] = 2000,
    rows: Annotated[int | None, typer.Option(help="Filter centres to draw; default: all points.", min=1)] = None,
    scale: ScalesOption = None,
    reading: ReadingOption = "flatten",
    memory: MemoryOption = None,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "cpu",
) -> None:
    """Say of each module whether it is measured, or why not, and what measuring it takes."""
    from layerfreq.data.inputs import count
    from layerfreq.doctor import TIMED, inspect_model
    from layerfreq.isolation.memory import read_memory
    from layerfreq.loading.datasets import load_data
    from layerfreq.loading.example_inputs import example_inputs
    from layerfreq.loading.models import find_model
    from layerfreq.network.reading import read_reading

    read_reading(reading)
    budget = read_memory(memory)
    device, scales = pick_device(device), pick_scales(scale)
    if data is not None and input_shape is not None:
        raise InputError(f"input-shape: {input_shape!r} given beside --data, which has its own; leave one out")
    source = find_model(model, seed)
    classes = 10
    if data is None:
        inputs = example_inputs(source, min(points, TIMED), _shape(input_shape))
    else:
        inputs, targets = load_data(data, source, points, reading)
        if targets is None:
            inputs, points = inputs[0][0], sum(count(x) for x, _ in inputs)
        else:
            points = len(targets)
            classes = len(set(targets.tolist())) if getattr(targets, "ndim", 0) == 1 else classes
    source.model.to(device)
    with console.status("timing"):
        reports = inspect_model(source.model, inputs, points, rows, min(classes, 128), reading, budget, scales)
    head = ("layer", "measured", "output", "d", "memory", "time")
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for one in reports:
        shape = "-" if one.shape is None else "×".join(map(str, one.shape)) or "1"
        memory = "-" if one.memory is None else size(one.memory) + ("*" if one.passes > 1 else "")
        seconds = "-" if one.seconds is None else duration(one.seconds)
        said = "yes" if not one.reason else f"no: {one.reason}"
        table.add_row(one.name, said, shape, str(one.d or "-"), memory, seconds)
    console.print(table, highlight=False)
    for refusal in Refusal:
        if any(one.refusal is refusal for one in reports):
            console.print(f"{refusal.short}: {refusal.long}", highlight=False)
    chosen = [one for one in reports if not one.reason]
    if any(one.passes > 1 for one in reports):
        runs = max(one.passes for one in reports)
        console.print(f"*: more than fits; instead the model is run up to {runs} times for a layer.", highlight=False)
    total = sum(one.seconds or 0 for one in chosen)
    at = f"{points} points" + ("" if rows is None else f", {min(rows, points)} filter centres")
    at += f" at {' and '.join(in_order(scales))} scale"
    console.print(
        f"{len(chosen)} of {len(reports)} are measured by default: about {duration(total)} for {at}, the features of "
        f"as many layers at a time as fit into {size(budget)}. Times are estimates from small measurements on this "
        "machine; others that have a size can be measured by name (--layers).",
        highlight=False,
    )


def size(count: int) -> str:
    """Bytes as a person reads them."""
    left = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 999.5:
            return f"{left:.3g} {unit}"
        left /= 1000
    return f"{left:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"


def _shape(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        shape = [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        shape = [0]
    if min(shape) < 1:
        raise InputError(f"input-shape: {text!r} is no shape; pass the sizes of one point, as in 3,32,32")
    return shape
