"""`layerfreq errors FILE`: error by frequency of outputs in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from layerfreq.cli.terminal import console, list_files


def errors(
    file: Annotated[Path, typer.Argument(help=".npz or .safetensors with arrays `inputs`, `targets` and `outputs`.")],
    method: Annotated[
        Literal["auto", "grid", "scattered", "filter", "projection"], typer.Option(help="auto says what it picks.")
    ] = "auto",
    window: Annotated[str | None, typer.Option(help="grid: for data that do not repeat, such as hann.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for programs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for errors.csv, .png and .pdf.")] = None,
) -> None:
    """Measure error by frequency: which of the target's frequencies the outputs have, and which not."""
    from layerfreq.errors import InputError
    from layerfreq.loading.array_files import SUFFIXES, read_arrays
    from layerfreq.response import error_spectrum

    wanted = ("inputs", "targets", "outputs")
    if file.is_file() and file.suffix not in SUFFIXES:
        raise InputError(f"file: {file.name!r} is neither .npz nor .safetensors; save arrays {', '.join(wanted)}")
    arrays = read_arrays(file, "file")
    missing = next((name for name in wanted if name not in arrays), None)
    if missing is not None:
        has = ", ".join(arrays) or "none"
        raise InputError(f"file: no array {missing!r} in {str(file)!r} (it has {has}); add it")
    found = error_spectrum(*(arrays[name] for name in wanted), method=method, window=window)
    if as_json:
        print(json.dumps(_plain(found), allow_nan=False))
    else:
        console.print(repr(found), highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        from layerfreq import plots
        from layerfreq.files import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "errors.csv", lambda at: found.to_frame().to_csv(at, index=False))
        figure: Any = found.plot().figure
        files = [out / "errors.csv", *plots.save(figure, out, "errors")]
        if not as_json:
            list_files(files)


def _plain(found: Any) -> dict[str, Any]:
    """Return a result as what JSON has: what is undefined becomes null."""
    whole = {name: getattr(found, name) for name in ("method", "n", "d", "units", "mse", "bias", "notes")}
    names = ("k", "target_energy", "error_energy", "relative", "chance", "stderr", "low", "high")
    bands = {name: None if getattr(found, name) is None else _numbers(getattr(found, name)) for name in names}
    return {**whole, "learned": found.learned(), "learned_interval": found.learned_interval(), **bands}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
