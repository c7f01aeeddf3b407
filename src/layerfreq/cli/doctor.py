"""`layerfreq doctor`: whether each module of a model is measured, or why not, and the cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from layerfreq.cli.analyze import DataHelp, MemoryOption, ModelArgument, ReadingOption, ScalesOption, SeedOption
from layerfreq.cli.terminal import JsonOption, console, pick_device, pick_scales, print_json
from layerfreq.errors import InputError, together

CLASSES = 10  # that targets are taken to have where they are unknown


def doctor(
    model: ModelArgument,
    *,
    data: Annotated[str | None, typer.Option("--data", help=DataHelp, show_default=False)] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="Show only these layers, such as 'encoder.*' (repeatable).")
    ] = None,
    show: Annotated[Literal["all", "measured", "refused"], typer.Option(help="Which layers to show.")] = "all",
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one input, such as 3,32,32; default: inferred from the model.")
    ] = None,
    points: Annotated[int, typer.Option(help="Number of points to plan for.", min=2)] = 2000,
    rows: Annotated[
        int | None, typer.Option(help="Number of filter centres to draw; default: all points.", min=1)
    ] = None,
    scale: ScalesOption = None,
    reading: ReadingOption = "flatten",
    memory: MemoryOption = None,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """List every module: whether it is measured, or why not, and the memory and time it takes."""
    from layerfreq.inspection.diagnosis import doctor as examine
    from layerfreq.inspection.modules import TIMED
    from layerfreq.isolation.memory import read_memory
    from layerfreq.loading.datasets import load_data
    from layerfreq.loading.example_inputs import example_inputs
    from layerfreq.loading.models import find_model
    from layerfreq.network.reading import read_reading

    read_reading(reading)
    read_memory(memory)
    device, scales = pick_device(device), pick_scales(scale)
    if data is not None and input_shape is not None:
        raise together("input-shape", "--data, which has its own", "leave one out")
    source = find_model(model, seed)
    if data is None:
        inputs, classes = example_inputs(source, min(points, TIMED), _shape(input_shape)), CLASSES
    else:
        inputs, points, classes = _read(*load_data(data, source, points, reading))
    source.model.to(device)
    with console.status("timing"):
        found = examine(
            source.model, inputs, points=points, rows=rows, classes=classes, scale=scales, reading=reading,
            memory=memory,
        )  # fmt: skip
    found = found.only(*(layers or []), show=show)
    if as_json:
        summary = {name: getattr(found, name) for name in ("measured", "refused", "seconds", "points", "rows")}
        print_json({"modules": found.to_frame(), **summary, "scales": found.scales, "budget": found.budget})
    else:
        console.print(repr(found), soft_wrap=True)


def _read(inputs: Any, targets: Any) -> tuple[Any, int, int]:
    """Return some inputs of a data set, how many points it has, and how many classes."""
    from layerfreq.data.inputs import count

    if targets is None:  # batches
        return inputs[0][0], sum(count(x) for x, _ in inputs), CLASSES
    return inputs, len(targets), len(set(targets.tolist())) if getattr(targets, "ndim", 0) == 1 else CLASSES


def _shape(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        shape = [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        shape = [0]
    if min(shape) < 1:
        raise InputError(f"input-shape: {text!r} is not a valid shape; pass the sizes of one point, as in 3,32,32")
    return shape
