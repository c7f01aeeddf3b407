"""The protocol and the list of experiments, one module each. To add one, write its file, and name it here."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from layerfreq import files
from layerfreq.errors import Code, InputError, unknown
from layerfreq.runs.environment import environment
from layerfreq.runs.files import plain
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    from layerfreq.relearn.rebuilt import Source

NAMES = ("depth", "sine", "mlp", "resnet", "cause", "controls", "fprinciple")


class Progress:
    """What an experiment reports while it runs; this one is silent."""

    def start(self, name: str, total: int, done: int) -> None:
        """A training of `total` steps begins, with `done` already completed."""

    def step(self, step: int, loss: float | None = None) -> None:
        """A step is done."""

    def measuring(self, what: str) -> None:
        """The measurement of a layer begins."""

    def finish(self) -> None:
        """The training is over."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of an experiment, in addition to its config.

    Attributes:
        out: The output folder.
        seeds: Seeds of its trainings.
        preset: Name of the config.
        device: As PyTorch names it, or "auto".
        resume: Whether to resume a stopped or killed run in the folder.
        progress: Gets progress reports.
    """

    out: Path
    seeds: list[int]
    preset: str = "small"
    device: str = "cpu"
    resume: bool = False
    progress: Progress = field(default_factory=Progress)

    def open(self, name: str, unit: str, config: Any, *, without: Collection[str] = (), **more: Any) -> Run:
        """Create the experiment's folder, or resume it.

        Args:
            name: Name of the experiment.
            unit: What a step is called.
            config: A dataclass; its values are recorded, and a folder with other values is refused.
            without: Names of values that may differ on resuming.
            more: Other values that may not.

        Raises:
            InputError: If the folder holds a run and `resume` is False, or a run with another config.
        """
        values = {key: value for key, value in asdict(config).items() if key not in without}
        plan = {"experiment": name, "preset": self.preset, "seeds": self.seeds, **plain({**values, **more})}
        if not self.resume or not (self.out / "config.yaml").exists():
            return Run.create(self.out, {**plan, "unit": unit, "environment": environment()})
        files.sweep(self.out)  # by its module: this package has one of the same name
        run = Run(self.out)
        before = {key: value for key, value in run.config.items() if key not in ("unit", "environment")}
        for key in {**before, **plan}:
            if before.get(key) != plan.get(key):
                other = f"{key} is {before.get(key)!r} there, {plan.get(key)!r} here"
                raise Code.EXISTS(f"out: {str(self.out)!r} holds another run ({other}); choose another --out")
        return run


class Table(NamedTuple):
    """The results of an experiment, as printed and written.

    Attributes:
        head: Titles of the columns.
        rows: Cells.
        files: Files written.
        notes: Lines below the table.
    """

    head: list[str]
    rows: list[list[str]]
    files: list[Path]
    notes: Sequence[str] = ()


@runtime_checkable
class Experiment(Protocol):
    """The protocol of an experiment's module.

    Attributes:
        UNIT: What a step is called.
        SEEDS: Default number of seeds.
        PRESETS: Name -> config, a frozen dataclass. A field `data` may be replaced by `--data`, and so on.
    """

    UNIT: str
    SEEDS: int
    PRESETS: dict[str, Any]

    def run(self, config: Any, request: Request) -> None:
        """Do everything not done yet, and write it to the request's folder.

        Raises:
            InputError: For a config, data or folder that cannot be used, before anything is written.
        """
        ...

    def present(self, out: Path, seeds: list[int]) -> Table:
        """Draw what the folder holds, and return the results."""
        ...


@runtime_checkable
class Compared(Experiment, Protocol):
    """An experiment with published numbers or curves."""

    def beside(self, out: Path, seeds: list[int]) -> Table:
        """Compare the folder's results with the published ones."""
        ...


@runtime_checkable
class Rebuildable(Experiment, Protocol):
    """One that keeps the weights of measured layers, and builds data and networks anew for `layerfreq relearn`."""

    def rebuild(self, run: Run, config: Mapping[str, Any]) -> Source:
        """Return what a run's weights belong to, from the experiment's config as it was written."""
        ...


def experiment(name: str) -> Experiment:
    """Return an experiment.

    Raises:
        InputError: If the name is unknown.
    """
    if name not in NAMES:
        raise unknown("experiment", name, NAMES)
    module: Any = importlib.import_module(f"layerfreq.experiments.{name}")
    return module


def source_of(run: Run) -> Source:
    """Build the source of an experiment's run from the experiment's config.

    Raises:
        InputError: If the run does not belong to an experiment, or to one that keeps no weights.
    """
    parent = run.path.resolve().parent
    config = type(run)(parent).config if (parent / "config.yaml").is_file() else {}
    name = str(config.get("experiment"))
    if name not in NAMES:
        remedy = "name its --model and --data, or pass its model, inputs and targets"
        raise InputError(f"model: {str(run.path)!r} is not a run of an experiment; {remedy}")
    found = experiment(name)
    if not isinstance(found, Rebuildable):
        raise Code.UNSUPPORTED(f"run: experiment {name!r} keeps no weights of measured layers; choose mlp or resnet")
    return found.rebuild(run, config)
