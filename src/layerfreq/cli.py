"""The command line."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from layerfreq.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which frequencies each layer of a network still has to learn.",
)
console = Console()

DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the run; default: a new one in runs/.")]
ScaleOption = Annotated[Literal["raw", "rms"], typer.Option(help="Features as they are, or at unit RMS.")]


class BarProgress:
    """The runner's progress as a bar: epoch, loss, time left, and what is being measured."""

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def start(self, name: str, total: int, done: int) -> None:
        """Open the bar."""
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[now]}")
        self._bar = Bar(
            *(TextColumn(c) if isinstance(c, str) else c for c in columns),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(f"{name} · {self._unit}", total=total, completed=done, now="")
        self._bar.start()

    def step(self, step: int, loss: float) -> None:
        """Move the bar on."""
        self._bar.update(self._task, completed=step, now=f"loss {loss:.4f}" if loss else "")

    def measuring(self, what: str) -> None:
        """Say what is measured."""
        self._bar.update(self._task, now=f"measuring {what}")
        self._bar.refresh()

    def finish(self) -> None:
        """Close the bar."""
        self._bar.stop()


@app.command()
def demo(out: OutOption = None, device: DeviceOption = "cpu") -> None:
    """Train a small network on scikit-learn's digits and see what each layer still has to learn."""
    _experiment("mlp", "demo", None, device, [0], out, False)
    console.print(
        "Read it so: a peak at low 1/δ means that the layers above have a smooth function left to learn.\n"
        "Before training deeper layers peak higher; training turns the order round."
    )


@app.command()
def reproduce(
    experiment: Annotated[
        Literal["depth", "sine", "mlp", "resnet"], typer.Argument(help="Which experiment of the paper.")
    ],
    preset: Annotated[
        Literal["smoke", "small", "paper"], typer.Option(help="Seconds, minutes, or the paper's size.")
    ] = "small",
    data: Annotated[str | None, typer.Option(help="Folder in the hub's layout, hub id, or 'digits'.")] = None,
    device: DeviceOption = "cpu",
    seed: Annotated[list[int] | None, typer.Option("--seed", help="May be given several times.")] = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run was.")] = False,
    variant: Annotated[
        list[int] | None, typer.Option("--variant", help="resnet: -1 .. -4, may be given several times; default: all.")
    ] = None,
    augment: Annotated[bool, typer.Option("--augment", help="resnet: crop and flip images at random.")] = False,
) -> None:
    """Reproduce an experiment of the paper."""
    changes: dict[str, Any] = {"variants": tuple(abs(v) for v in variant)} if variant else {}
    changes |= {"augment": True} if augment else {}
    _experiment(experiment, preset, data, device, seed, out, resume, changes)


@app.command()
def spectrum(
    file: Annotated[Path, typer.Argument(help=".npz or .safetensors with arrays `features` and `targets`.")],
    scale: ScaleOption = "raw",
    rows: Annotated[int | None, typer.Option(help="Filter centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for spectrum.csv, .png and .pdf.")] = None,
) -> None:
    """Measure the spectrum of features and targets in a file."""
    from layerfreq.spectrum import spectrum as measure

    result = measure(*_arrays(file), scale=scale, rows=rows)
    console.print(repr(result), highlight=False)
    if out is not None:
        from layerfreq import plots
        from layerfreq.runs import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "spectrum.csv", lambda at: result.to_frame().to_csv(at, index=False))
        figure: Any = result.plot().figure
        _list_files([out / "spectrum.csv", *plots.save(figure, out, "spectrum")])


@app.command()
def bench(
    n: Annotated[int, typer.Option(help="Points.", min=2)] = 5000,
    d: Annotated[list[int] | None, typer.Option(help="Features; may be given several times.")] = None,
    cutoffs: Annotated[int, typer.Option(help="Cutoffs.", min=2)] = 50,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 10,
    repeats: Annotated[int, typer.Option(help="Medians of this many.", min=1)] = 5,
    slow: Annotated[bool, typer.Option("--slow", help="Also ways that take seconds a cutoff.")] = False,
) -> None:
    """Time the engines beside the plain ways, with their errors, as Markdown tables."""
    from layerfreq.bench import as_markdown, machine, measure

    print(f"{machine()}; random features, float32, medians of {repeats} (dense: at most 3)\n")
    for width in d or [64, 512, 3072]:
        if width < 1:
            raise InputError(f"d: {width} is not a number of features; pass --d 1 or more")
        print(f"n={n}, d={width}, {cutoffs} cutoffs, {classes} classes\n", flush=True)
        print(as_markdown(measure(n, width, cutoffs, classes, repeats, slow)) + "\n", flush=True)


def main() -> None:
    """Run the command line: 0 done, 2 wrong usage or input, 1 failed; an error is one line."""
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(
            f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}; choose another place",
            2,
        )
    except KeyboardInterrupt:
        _fail("stopped; go on with --resume", 1)
    except Exception as error:
        if os.environ.get("LAYERFREQ_DEBUG"):
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        _fail(f"{type(error).__name__}: {first} (set LAYERFREQ_DEBUG=1 for the traceback)", 1)


def _fail(message: str, status: int) -> None:
    print(f"layerfreq: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _experiment(
    name: str,
    preset: str,
    data: str | None,
    device: str,
    seeds: list[int] | None,
    out: Path | None,
    resume: bool,
    changes: dict[str, Any] | None = None,
) -> None:
    from dataclasses import replace

    module = importlib.import_module(f"layerfreq.experiments.{name}")
    config = module.PRESETS[preset]
    if data is not None:
        if not hasattr(config, "data"):
            raise InputError(f"data: {data!r} given, but {name} makes its own data; leave --data out")
        config = replace(config, data=data)
    for key in changes or {}:
        if not hasattr(config, key):
            raise InputError(f"{key.removesuffix('s')}: {name} has none; leave --{key.removesuffix('s')} out")
    config = replace(config, **(changes or {}))
    if device not in ("cpu", "cuda", "mps", "auto"):
        raise InputError(f"device: unknown {device!r}; choose cpu, cuda, mps or auto")
    seeds = seeds or list(range(module.SEEDS))
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seed: {seeds} must be different numbers >= 0; change --seed")
    out = out or _default_out(f"{name}-{preset}", resume)
    progress = BarProgress(module.UNIT)
    module.run(config, out, preset=preset, seeds=seeds, device=device, resume=resume, progress=progress)
    head, rows, files = module.present(out, seeds)
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if any("*" in cell for row in rows for cell in row):
        console.print("* beyond the resolution: fewer than 2 effective neighbours in a window")
    _list_files([out, *files])


def _default_out(name: str, resume: bool) -> Path:
    """The first free folder in runs/, or the last used one when resuming."""
    number, path = 1, Path("runs") / name
    used = None
    while path.exists():
        used, number = path, number + 1
        path = Path("runs") / f"{name}-{number}"
    return used if resume and used else path


def _list_files(files: list[Path]) -> None:
    for file in files:
        console.print(str(file), highlight=False, soft_wrap=True)


def _arrays(file: Path) -> tuple[Any, Any]:
    if not file.is_file():
        raise InputError(f"file: no file {str(file)!r}; check the path")
    if file.suffix not in (".npz", ".safetensors"):
        raise InputError(f"file: {file.name!r} is neither .npz nor .safetensors; save arrays `features` and `targets`")
    try:
        if file.suffix == ".npz":
            import numpy as np

            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            from safetensors.torch import load_file

            arrays = load_file(file)
    except ImportError:
        raise InputError("file: reading .safetensors needs a package; pip install safetensors") from None
    except Exception as error:  # damaged archives raise what their formats please
        raise InputError(f"file: {str(file)!r} is damaged or no {file.suffix} file ({error}); save it again") from None
    for name in ("features", "targets"):
        if name not in arrays:
            raise InputError(f"file: no array {name!r} in {str(file)!r} (it has {', '.join(arrays) or 'none'}); add it")
    return arrays["features"], arrays["targets"]
