"""`layerfreq spectrum FILE`: the spectrum of features and targets in a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from layerfreq.cli.terminal import JsonOption, console, list_files, print_json
from layerfreq.data.validation import Scale
from layerfreq.errors import InputError
from layerfreq.files import as_path
from layerfreq.loading.array_files import SUFFIXES, read_arrays

ScaleOption = Annotated[Scale, typer.Option(help="Features as they are, at unit RMS, or at the paper's scale, maxabs.")]


def spectrum(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".npz or .safetensors with arrays `features` and `targets`.")
    ],
    scale: ScaleOption = "raw",
    rows: Annotated[int | None, typer.Option(help="Filter centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for spectrum.csv, .png and .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the spectrum of features and targets in a file."""
    from layerfreq.measure.measure import spectrum as measure

    out = None if out is None else as_path(out, "out")
    result = measure(*arrays_of(as_path(file, "file"), "features", "targets"), scale=scale, rows=rows)
    if not as_json:
        console.print(repr(result))
    files = []
    if out is not None:
        from layerfreq import plots
        from layerfreq.files import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "spectrum.csv", lambda at: result.to_frame().to_csv(at, index=False))
        figure: Any = result.plot().figure
        files = [out / "spectrum.csv", *plots.save(figure, out, "spectrum")]
    if as_json:
        read = {name: getattr(result, name) for name in ("peak", "peak_at_edge", "median", "resolution")}
        resolved = result.median is not None and result.median <= result.resolution
        print_json({**read, "resolved": resolved, **asdict(result), "files": files})
    else:
        list_files(files)


def arrays_of(file: Path, *wanted: str) -> list[Any]:
    """Return arrays of a file by their names.

    Raises:
        InputError: If it cannot be read, or one is not in it.
    """
    if file.is_file() and file.suffix not in SUFFIXES:
        names = ", ".join(f"`{name}`" for name in wanted)
        raise InputError(f"file: {file.name!r} is neither .npz nor .safetensors; save arrays {names}")
    arrays = read_arrays(file, "file")
    for name in wanted:
        if name not in arrays:
            has = ", ".join(arrays) or "none"
            raise InputError(f"file: no array {name!r} in {str(file)!r} (it has {has}); add it")
    return [arrays[name] for name in wanted]
