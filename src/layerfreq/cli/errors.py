"""`layerfreq errors FILE`: error by frequency of outputs in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from layerfreq.cli.spectrum import arrays_of
from layerfreq.cli.terminal import JsonOption, console, list_files, print_json
from layerfreq.files import as_path

WHOLE = ("method", "n", "d", "units", "mse", "bias", "notes")
BANDS = ("k", "target_energy", "error_energy", "relative", "chance", "stderr", "low", "high")


def errors(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".npz or .safetensors with arrays `inputs`, `targets` and `outputs`.")
    ],
    method: Annotated[
        Literal["auto", "grid", "scattered", "filter", "projection"], typer.Option(help="auto says what it picks.")
    ] = "auto",
    window: Annotated[str | None, typer.Option(help="grid: for data that do not repeat, such as hann.")] = None,
    rows: Annotated[int | None, typer.Option(help="filter: centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for errors.csv, .png and .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure error by frequency: which of the target's frequencies the outputs have, and which not."""
    from layerfreq.response import error_spectrum

    out = None if out is None else as_path(out, "out")
    arrays = arrays_of(as_path(file, "file"), "inputs", "targets", "outputs")
    found = error_spectrum(*arrays, method=method, window=window, rows=rows)
    if not as_json:
        console.print(repr(found), soft_wrap=True)
    files = []
    if out is not None:
        from layerfreq import plots
        from layerfreq.files import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "errors.csv", lambda at: found.to_frame().to_csv(at, index=False))
        figure: Any = found.plot().figure
        files = [out / "errors.csv", *plots.save(figure, out, "errors")]
    if as_json:
        fields = {name: getattr(found, name) for name in (*WHOLE, *BANDS)}
        print_json({**fields, "learned": found.learned(), "learned_interval": found.learned_interval(), "files": files})
    else:
        list_files(files)
