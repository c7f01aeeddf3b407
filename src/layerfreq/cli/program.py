"""The command line."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from layerfreq.cli.analyze import analyze
from layerfreq.cli.doctor import doctor
from layerfreq.cli.errors import errors
from layerfreq.cli.relearn import relearn
from layerfreq.cli.report import report
from layerfreq.cli.terminal import check_device, console, default_out, list_files, say_units
from layerfreq.cli.verdict import verdict
from layerfreq.data.validation import Scale
from layerfreq.errors import InputError, first_line
from layerfreq.experiments.runner import Progress
from layerfreq.files import as_path
from layerfreq.loading.array_files import SUFFIXES, read_arrays
from layerfreq.report.terminal import view_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which frequencies each layer of a network still has to learn.",
)

DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the run; default: a new one in runs/.")]
ScaleOption = Annotated[Scale, typer.Option(help="Features as they are, at unit RMS, or at the paper's scale, maxabs.")]


class BarProgress(Progress):
    """The runner's progress as a bar of one line: epoch, loss, time left, and what is being measured."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Bar | None = None

    def start(self, name: str, total: int, done: int) -> None:
        """Open the bar."""
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
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


@app.command()
def demo(out: OutOption = None, device: DeviceOption = "cpu") -> None:
    """Train a small network on scikit-learn's digits and see what each layer still has to learn."""
    import torch

    torch.set_num_threads(1)  # so small a network gains nothing from more, and loses much where other programs run
    _experiment("mlp", "demo", None, device, [0], out, False)
    console.print(
        "Read it so: a peak at low 1/δ means that the layers above have a smooth function\n"
        "left to learn. Before training deeper layers peak higher; training turns the\n"
        "order round."
    )


@app.command()
def reproduce(
    experiment: Annotated[
        Literal["depth", "sine", "mlp", "resnet", "fprinciple", "cause", "controls"],
        typer.Argument(
            help="An experiment of the paper; the frequency principle of whole networks; or whether frequency is the "
            "cause, and the controls of that."
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run was.")] = False,
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
    workers: Annotated[int | None, typer.Option(help="cause: how many processes; default: one a core.", min=1)] = None,
) -> None:
    """Reproduce an experiment of the paper."""
    changes: dict[str, Any] = {"variants": tuple(abs(v) for v in variant)} if variant else {}
    changes |= {"parts": tuple(part)} if part else {}
    changes |= {"recipe": recipe} if recipe else {}
    changes |= {"backend": backend} if backend else {}
    changes |= {"workers": workers} if workers else {}
    _experiment(experiment, preset, data, device, seed, out, resume, changes)


@app.command()
def spectrum(
    file: Annotated[Path, typer.Argument(help=".npz or .safetensors with arrays `features` and `targets`.")],
    scale: ScaleOption = "raw",
    rows: Annotated[int | None, typer.Option(help="Filter centres to draw; default: all points.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for spectrum.csv, .png and .pdf.")] = None,
) -> None:
    """Measure the spectrum of features and targets in a file."""
    from layerfreq.measure.measure import spectrum as measure

    out = None if out is None else as_path(out, "out")
    result = measure(*_arrays(as_path(file, "file")), scale=scale, rows=rows)
    console.print(repr(result), highlight=False)
    if out is not None:
        from layerfreq import plots
        from layerfreq.files import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "spectrum.csv", lambda at: result.to_frame().to_csv(at, index=False))
        figure: Any = result.plot().figure
        list_files([out / "spectrum.csv", *plots.save(figure, out, "spectrum")])


@app.command()
def bench(
    n: Annotated[int, typer.Option(help="Points.", min=2)] = 5000,
    d: Annotated[list[int] | None, typer.Option(help="Features; may be given several times.", min=1)] = None,
    cutoffs: Annotated[int, typer.Option(help="Cutoffs.", min=2)] = 50,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 10,
    repeats: Annotated[int, typer.Option(help="Medians of this many.", min=1)] = 5,
    slow: Annotated[bool, typer.Option("--slow", help="Also ways that take seconds a cutoff.")] = False,
    grow: Annotated[bool, typer.Option("--grow", help="Also how the cost grows with each of the sizes.")] = False,
) -> None:
    """Time the engines beside the plain ways, with memory and errors, as Markdown tables."""
    from layerfreq.measure import benchmark as bench

    print(f"{bench.machine()}; random features, float32, medians of {repeats}\n")
    ways = [way for way in bench.WAYS if (slow or way not in bench.SLOW) and (n <= bench.DENSE or "layerfreq" in way)]
    for width in d or [64, 512, 3072]:
        print(f"n={n}, d={width}, {cutoffs} cutoffs, {classes} classes\n", flush=True)
        print(bench.as_markdown(bench.measure(n, width, cutoffs, classes, repeats, ways)) + "\n", flush=True)
    if grow:
        rows = list(bench.growth(repeats))
        for name, usual in bench.DEFAULTS.items():
            rest = ", ".join(f"{key}={value}" for key, value in bench.DEFAULTS.items() if key != name)
            print(f"{name} ({usual} elsewhere), with {rest}\n")
            print(bench.as_markdown([row for row in rows if row["grows"] == name], name) + "\n")


for command in (errors, analyze, doctor, report, relearn, verdict):
    app.command()(command)


def main() -> None:
    """Run the command line: 0 done, 2 wrong usage or input, 1 failed; an error is one line."""
    os.environ.setdefault("MPLBACKEND", "agg")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without δ gets ?, not an error
    try:
        sys.exit(_run())
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and go on (reproduce: with --resume)" if full else "choose another place"
        _fail(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}; {remedy}", 2)
    except Exception as error:
        if isinstance(getattr(error, "exit_code", None), int) and hasattr(error, "format_message"):
            _wrong_usage(error)
        if type(error).__name__ == "Abort":  # what Typer makes of Ctrl-C
            _fail("stopped", 1)
        if os.environ.get("LAYERFREQ_DEBUG"):
            raise
        _fail(f"{first_line(error, kind=True)} (set LAYERFREQ_DEBUG=1 for the traceback)", 1)


def _run() -> int:
    """Run a command; only it says how the program ends, and not the code of a model or of data."""
    try:
        return app(standalone_mode=False) or 0
    except _Over:
        raise
    except SystemExit as error:
        raise InputError(f"model or data: its code ended the program (sys.exit({error.code!r})); mend it") from None


class _Over(SystemExit):
    pass


def _wrong_usage(error: Any) -> NoReturn:
    """Say in one line what Typer would in a box; without a command it has shown the help already."""
    said = " ".join(error.format_message().split()).rstrip(".")
    if "NoArgs" in type(error).__name__:
        sys.exit(2)
    path = getattr(getattr(error, "ctx", None), "command_path", "layerfreq").split()
    _fail(f"{said}; see {' '.join(['layerfreq', *path[1:]])} --help", 2)


def _fail(message: str, status: int) -> NoReturn:
    print(f"layerfreq: {' '.join(message.split())}", file=sys.stderr)
    warnings.simplefilter("ignore")  # what else fails on the way out has the same cause
    raise _Over(status)


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

    from layerfreq.experiments import experiment

    module = experiment(name)
    if preset not in module.PRESETS:
        raise InputError(f"preset: {name} has no {preset!r}; choose among {', '.join(module.PRESETS)}")
    config = module.PRESETS[preset]
    if data is not None:
        if not hasattr(config, "data"):
            raise InputError(f"data: {data!r} given, but {name} makes its own data; leave --data out")
        config = replace(config, data=data)
    for key in changes or {}:
        if not hasattr(config, key):
            option = {"variants": "variant", "parts": "part"}.get(key, key)
            raise InputError(f"{option}: {name} has none; leave --{option} out")
    config = replace(config, **(changes or {}))
    check_device(device)
    seeds = seeds or list(range(module.SEEDS))
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seed: {seeds} must be different numbers >= 0; change --seed")
    out = as_path(out, "out") if out is not None else default_out(f"{name}-{preset}", resume)
    progress = BarProgress(module.UNIT)
    try:
        module.run(config, out, preset=preset, seeds=seeds, device=device, resume=resume, progress=progress)
        head, rows, files = module.present(out, seeds)
        theirs = module.beside(out, seeds) if hasattr(module, "beside") else None
    except KeyboardInterrupt:  # Typer would end with 130 and say nothing
        progress.close()
        _fail(f"stopped; {out} keeps what was measured, and reproduce --resume goes on from there", 1)
    finally:
        progress.close()
    _table(head, rows)
    if any("median" in title for title in head):
        say_units(head)
    if theirs is not None:
        if theirs.rows:
            console.print("Beside the published figures:")
            _table(theirs.head, theirs.rows)
        for note in theirs.notes:
            console.print(note, highlight=False)
        files = [*files, *theirs.files]
    list_files([out, *files])
    console.print(view_of(out, module.UNIT, sys.stdout.encoding), highlight=False, markup=False, soft_wrap=True)


def _table(head: list[str], rows: list[list[str]]) -> None:
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _arrays(file: Path) -> tuple[Any, Any]:
    if file.is_file() and file.suffix not in SUFFIXES:
        raise InputError(f"file: {file.name!r} is neither .npz nor .safetensors; save arrays `features` and `targets`")
    arrays = read_arrays(file, "file")
    for name in ("features", "targets"):
        if name not in arrays:
            raise InputError(f"file: no array {name!r} in {str(file)!r} (it has {', '.join(arrays) or 'none'}); add it")
    return arrays["features"], arrays["targets"]
