"""`layerfreq spectrum FILE` and `layerfreq errors FILE`: measure arrays in a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from layerfreq.cli.terminal import JsonOption, console, list_files, print_json
from layerfreq.data.validation import Scale
from layerfreq.errors import Code
from layerfreq.files import as_path
from layerfreq.loading.array_files import SUFFIXES, read_arrays

ScaleOption = Annotated[
    Scale, typer.Option(help="raw: features as they are; rms: at unit RMS; maxabs: as in the paper.")
]
WHOLE = ("method", "n", "d", "units", "mse", "bias", "notes")
BANDS = ("k", "target_energy", "error_energy", "relative", "chance", "stderr", "low", "high")


def spectrum(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".npz or .safetensors with arrays `features` and `targets`.")
    ],
    scale: ScaleOption = "raw",
    rows: Annotated[int | None, typer.Option(help="Number of filter centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for spectrum.csv, .png and .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the spectrum of features and targets in a file."""
    from layerfreq.measure.measure import spectrum as measure

    out = None if out is None else _folder(out)
    result = measure(*arrays_of(as_path(file, "file"), "features", "targets"), scale=scale, rows=rows)
    if not as_json:
        console.print(repr(result))
    files = _saved(result, out, "spectrum")
    if as_json:
        read = {name: getattr(result, name) for name in ("peak", "peak_at_edge", "median", "resolution")}
        resolved = result.median is not None and result.median <= result.resolution
        print_json({**read, "resolved": resolved, **asdict(result), "files": files})
    else:
        list_files(files)


def errors(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".npz or .safetensors with arrays `inputs`, `targets` and `outputs`.")
    ],
    method: Annotated[
        Literal["auto", "grid", "scattered", "filter", "projection"], typer.Option(help="auto reports its choice.")
    ] = "auto",
    window: Annotated[
        str | None, typer.Option(help="grid: a window for data that are not periodic, such as hann.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="filter: number of centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for errors.csv, .png and .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure error by frequency: which of the target's frequencies the outputs have, and which they miss."""
    from layerfreq.response import error_spectrum

    out = None if out is None else _folder(out)
    arrays = arrays_of(as_path(file, "file"), "inputs", "targets", "outputs")
    found = error_spectrum(*arrays, method=method, window=window, rows=rows)
    if not as_json:
        console.print(repr(found), soft_wrap=True)
    files = _saved(found, out, "errors")
    if as_json:
        fields = {name: getattr(found, name) for name in (*WHOLE, *BANDS)}
        print_json({**fields, "learned": found.learned(), "learned_interval": found.learned_interval(), "files": files})
    else:
        list_files(files)


def _folder(out: Path) -> Path:
    """Return where files go, refused before anything is measured if it cannot be a folder."""
    out = as_path(out, "out")
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise Code.EXISTS(f"out: {str(place)!r} is not a folder; choose another place")
    return out


def _saved(found: Any, out: Path | None, name: str) -> list[Path]:
    """Write a result's table and figure into a folder, if there is one, and return the files."""
    if out is None:
        return []
    from layerfreq import plots
    from layerfreq.files import write_whole

    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{name}.csv"
    write_whole(table, lambda at: found.to_frame().to_csv(at, index=False))
    return [table, *plots.save(found.plot().figure, out, name)]


def arrays_of(file: Path, *wanted: str) -> list[Any]:
    """Return arrays of a file by their names.

    Raises:
        InputError: If it cannot be read, or one is not in it.
    """
    if file.is_file() and file.suffix not in SUFFIXES:
        names = ", ".join(f"`{name}`" for name in wanted)
        raise Code.UNSUPPORTED(f"file: {file.name!r} is neither .npz nor .safetensors; save arrays {names}")
    arrays = read_arrays(file, "file")
    for name in wanted:
        if name not in arrays:
            has = ", ".join(arrays) or "none"
            raise Code.MISSING(f"file: no array {name!r} in {str(file)!r} (it has {has}); add it")
    return [arrays[name] for name in wanted]
