"""What an experiment is, and which ones there are: one module each. To add one, write its file, and name it here."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from layerfreq import files
from layerfreq.errors import InputError, did_you_mean
from layerfreq.runs.environment import environment
from layerfreq.runs.files import plain
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    from layerfreq.relearn.rebuilt import Source

NAMES = ("depth", "sine", "mlp", "resnet", "cause", "controls", "fprinciple")


class Progress:
    """What an experiment tells while it works; this one says nothing."""

    def start(self, name: str, total: int, done: int) -> None:
        """A training of `total` steps begins, `done` of them behind it."""

    def step(self, step: int, loss: float | None = None) -> None:
        """A step is done."""

    def measuring(self, what: str) -> None:
        """The measurement of a layer begins."""

    def finish(self) -> None:
        """The training is over."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of an experiment, besides its config.

    Attributes:
        out: The folder that it fills.
        seeds: Seeds of its trainings.
        preset: Name of the config.
        device: As PyTorch names it, or "auto".
        resume: Whether the folder may hold what was stopped or killed.
        progress: Is told how far it is.
    """

    out: Path
    seeds: list[int]
    preset: str = "small"
    device: str = "cpu"
    resume: bool = False
    progress: Progress = field(default_factory=Progress)

    def open(self, name: str, unit: str, config: Any, *, without: Collection[str] = (), **more: Any) -> Run:
        """Begin the experiment's folder, or resume it.

        Args:
            name: Name of the experiment.
            unit: What a step is called.
            config: A dataclass; its values are noted, and a folder with others is refused.
            without: Names of values that do not decide what the folder is.
            more: Other values that do.

        Raises:
            InputError: If the folder holds a run and `resume` is False, or a run of another plan.
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
                raise InputError(
                    f"out: {str(self.out)!r} holds another run ({key} is {before.get(key)!r} there, {plan.get(key)!r} "
                    "here); choose another --out"
                )
        return run


class Table(NamedTuple):
    """What is printed and written of an experiment.

    Attributes:
        head: Titles of the columns.
        rows: Cells.
        files: What was written.
        notes: Lines under the table.
    """

    head: list[str]
    rows: list[list[str]]
    files: list[Path]
    notes: Sequence[str] = ()


@runtime_checkable
class Experiment(Protocol):
    """What an experiment's module has.

    Attributes:
        UNIT: What a step is called.
        SEEDS: How many seeds it has where none are asked for.
        PRESETS: Name -> config, a frozen dataclass. A field `data` may be replaced by `--data`, and so on.
    """

    UNIT: str
    SEEDS: int
    PRESETS: dict[str, Any]

    def run(self, config: Any, request: Request) -> None:
        """Do what is not done yet, and leave it in the request's folder.

        Raises:
            InputError: On a config, data or a folder that cannot be used, before anything is written.
        """
        ...

    def present(self, out: Path, seeds: list[int]) -> Table:
        """Draw what the folder holds, and say what came out."""
        ...


@runtime_checkable
class Compared(Experiment, Protocol):
    """One whose outcome was published as numbers or curves."""

    def beside(self, out: Path, seeds: list[int]) -> Table:
        """Compare what the folder holds with what was published."""
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
        InputError: If there is none of that name.
    """
    if name not in NAMES:
        raise InputError(f"experiment: unknown {name!r}; {did_you_mean(name, NAMES)}")
    module: Any = importlib.import_module(f"layerfreq.experiments.{name}")
    return module


def source_of(run: Run) -> Source:
    """Build the source of an experiment's run from the experiment's config.

    Raises:
        InputError: If the run is no experiment's, or of one that keeps no weights.
    """
    parent = run.path.resolve().parent
    config = type(run)(parent).config if (parent / "config.yaml").is_file() else {}
    name = str(config.get("experiment"))
    if name not in NAMES:
        raise InputError(
            f"model: {str(run.path)!r} is not a run of an experiment; name its --model and --data, or pass its "
            "model, inputs and targets"
        )
    found = experiment(name)
    if not isinstance(found, Rebuildable):
        raise InputError(f"run: experiment {name!r} keeps no weights of measured layers; choose mlp or resnet")
    return found.rebuild(run, config)
