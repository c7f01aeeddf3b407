"""Does frequency explain the steps? Networks of several depths, retrained above every cut, on several data sets.

Every training is a run of the experiments `mlp` or `resnet` in its own folder, which also holds what is trained above
its cuts, as written by `layerfreq relearn`. joblib spreads both stages over processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfreq.errors import no_such
from layerfreq.experiments import Progress, Request, Table, experiment, mlp, resnet, source_of
from layerfreq.experiments.sweep import Sweep, check_backend, pool
from layerfreq.files import as_path, write_whole
from layerfreq.relearn import Design, results
from layerfreq.relearn.study import cells_of, open_results, train_cells
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

MNIST, CIFAR = "ylecun/mnist", "uoft-cs/cifar10"
FOLDERS = {MNIST: "mnist", CIFAR: "cifar10"}  # hub id -> folder of `--data`, and name of the part
UNIT = "job"
SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    """Chosen values; docs/cause.md says why.

    Attributes:
        mlps: Fully connected networks, one entry per data set; `layers` replaces their number of hidden layers.
        layers: Numbers of hidden layers.
        resnet: Residual networks and their variants.
        design: What is trained above the cuts of all of them.
        data: Folder with one folder per data set, in the hub's layout; None for the hub itself.
        backend: Where jobs run, as in `pool`.
        workers: Number of processes; None means one per core.
    """

    mlps: tuple[mlp.Config, ...]
    layers: tuple[int, ...]
    resnet: resnet.Config
    design: Design
    data: str | None = None
    backend: str = "loky"
    workers: int | None = None


@dataclass(frozen=True)
class Part:
    """One folder of trainings: one network on one data set, every seed.

    Attributes:
        study: The table it belongs to, such as "mnist-mlp".
        folder: Its name in the experiment's folder.
        kind: "mlp" or "resnet".
        config: Config of that experiment.
    """

    study: str
    folder: str
    kind: str
    config: mlp.Config | resnet.Config

    def train(self, request: Request) -> str:
        """Train its networks, in a worker."""
        experiment(self.kind).run(self.config, request)
        return self.folder


GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
ADAM = (0.0003, 0.001, 0.003, 0.01, 0.03)
PRESETS = {
    "smoke": Config(
        mlps=(mlp.Config(data="digits", images=200, width=16, hidden=0, epochs=(0, 20)),),
        layers=(3, 4),
        resnet=replace(resnet.PRESETS["smoke"], epochs=1, measure=(0, 1), panels=(0, 1), variants=(4,)),
        design=Design(
            optimizers=("sgd",), seeds=1, points=200, budget=40, shares=(0.9, 0.75), rates={"sgd": (0.1, 3.0)}
        ),
    ),
    "small": Config(
        mlps=(
            mlp.Config(
                data=MNIST,
                images=1000,
                width=100,
                hidden=0,
                epochs=(0, 200, 400, 750),  # of the deepest, one seed meets the authors' stopping rule soon after
                rows=500,
            ),
            mlp.Config(data="digits", images=1000, width=50, hidden=0, epochs=(0, 300, 1200), rows=500),
        ),
        layers=(3, 5, 7),
        resnet=resnet.Config(
            images=2500,
            validation=500,
            width=8,
            head=128,
            epochs=24,  # 960 steps: batch norm's averages, of momentum .99, need some hundreds
            measure=(0, 6, 24),
            panels=(0, 24),
            batch=50,
            variants=(1, 2, 4),
        ),
        design=Design(
            optimizers=("sgd",),
            seeds=2,
            points=1000,
            budget=400,
            batch=64,
            shares=(0.5, 0.2, 0.05),
            rates={"sgd": GRID},
        ),
    ),
    "paper": Config(
        mlps=(
            mlp.Config(data=MNIST, images=5000, width=200, hidden=0, epochs=(0, 200, 400, 600, 800)),
            mlp.Config(data="digits", images=1500, width=100, hidden=0, epochs=(0, 400, 800, 1600)),
        ),
        layers=(3, 4, 5, 6, 7),
        resnet=replace(resnet.PRESETS["small"], images=24000, validation=4000, measure=(0, 1, 2, 4, 8, 16, 32)),
        design=Design(
            seeds=3, budget=1500, shares=(0.5, 0.2, 0.05), rates={"sgd": (0.01, 0.03, *GRID, 30.0), "adam": ADAM}
        ),
    ),
}


def run(config: Config, request: Request) -> None:
    """Train all networks, and then fresh heads above all their cuts, skipping what is already there.

    Raises:
        InputError: For data that cannot be found, a back end that is not available, or a folder that cannot be used.
    """
    check_backend(config.backend, config.workers)
    config = placed(config)
    parts, out, progress = parts_of(config), request.out, request.progress
    folders = {part.folder: part.study for part in parts}
    request.open("cause", UNIT, config, without=("backend", "workers"), studies=folders)
    with pool(config.backend, config.workers) as sweep:
        alone = replace(request, resume=True, progress=Progress())
        jobs = [(part, replace(alone, out=out / part.folder)) for part in reversed(parts)]  # the longest first
        _all(sweep, Part.train, jobs, "training", progress)
        _all(sweep, relearn_step, _head_jobs(parts, out, request.seeds, config.design), "heads", progress)


def _head_jobs(parts: list[Part], out: Path, seeds: list[int], design: Design) -> list[tuple[Any, ...]]:
    """Open the results of every run, and return the arguments of `relearn_step` for each of its steps."""
    chores = []
    for part in parts:
        runs = _runs(out / part.folder, seeds)
        source = source_of(runs[0][0])
        inputs_done = any(known == part.study for _, _, known in chores)
        for one, seed in runs:
            open_results(one.path / "relearn", design, resume=True)
            cells = cells_of(one, source, design, None, None)
            for step in sorted({cell.step for cell in cells}):
                cuts = sorted({cell.cut for cell in cells})
                # The inputs are the same at every step, depth and seed: heads are trained on them once, see `gather`.
                job = (str(one.path), design, step, cuts[1:] if inputs_done else cuts)
                inputs_done = True
                chores.append((seeds.index(seed), job, part.study))
    chores.sort(key=lambda chore: chore[0])  # seed by seed, so that a sweep that is stopped has whole seeds
    return [job for _, job, _ in chores]


def placed(config: Config) -> Config:
    """Put the folders of `data` in the place of hub ids.

    Raises:
        InputError: If there is no folder of a data set that is needed.
    """
    if config.data is None:
        return config

    def place(name: str) -> str:
        if name not in FOLDERS:
            return name
        folder = as_path(str(config.data), "data") / FOLDERS[name]
        if not folder.is_dir():
            need = " and ".join(sorted(FOLDERS.values()))
            raise no_such("data", "folder", folder, f"pass one that holds {need}, or leave --data out")
        return str(folder)

    mlps = tuple(replace(one, data=place(one.data)) for one in config.mlps)
    return replace(config, mlps=mlps, resnet=replace(config.resnet, data=place(config.resnet.data)))


def parts_of(config: Config) -> list[Part]:
    """Return all trainings, in order."""
    parts = []
    for one in config.mlps:
        study = f"{_name(one.data)}-mlp"
        parts += [Part(study, f"{study}-hidden-{n}", "mlp", replace(one, hidden=n)) for n in config.layers]
    study = f"{_name(config.resnet.data)}-resnet"
    for variant in config.resnet.variants:
        parts.append(Part(study, f"{study}-{variant}", "resnet", replace(config.resnet, variants=(variant,))))
    return parts


def relearn_step(folder: str, design: Design, step: int, cuts: list[int]) -> str:
    """Train the heads of one run and step, in a worker."""
    run = Run(folder)
    source = source_of(run)
    for _ in train_cells(run, source, design, cells_of(run, source, design, [step], cuts)):
        pass
    return f"{run.path.name}, {step}"


def gather(out: Path, seeds: list[int]) -> pd.DataFrame:
    """Return what was trained above all cuts, as `relearn`'s `results`, with a column study; clusters are the seeds.

    The heads on the inputs were trained once per study, and are repeated for every run and step, where they would be
    the same.
    """
    import pandas as pd

    frames = []
    for folder, study in Run(out).config["studies"].items():
        runs = [(one, f"seed-{seed}") for one, seed in _runs(out / folder, seeds)]
        frame = results(runs)
        frames.append(frame.assign(run=folder + "/" + frame["run"], study=study))
    whole: Any = pd.concat(frames, ignore_index=True)
    inputs = whole[whole["cut"] == 0].drop(columns=["run", "seed", "step"])
    places = whole.loc[whole["cut"] > 0, ["study", "run", "seed", "step"]].drop_duplicates()
    return pd.concat([places.merge(inputs, on="study"), whole[whole["cut"] > 0]], ignore_index=True)


def present(out: Path, seeds: list[int]) -> Table:
    """Write the table of results and the league, draw the figures, and return the answer to the paper's question.

    The table has one row per study, rule, and pairs.
    """
    from layerfreq.experiments.figures import cause_figures, cause_tables

    table = cause_tables.packed(gather(out, seeds))
    league = cause_tables.league_of(table)
    files = [out / "results.parquet", out / "league.parquet"]
    for file, one in zip(files, (table, league), strict=True):
        write_whole(file, lambda at, one=one: one.to_parquet(at, index=False))
    return Table(*cause_tables.primary(league), [*files, *cause_figures.draw(table, league, out / "figures")])


def _all(sweep: Sweep, function: Any, jobs: list[Any], what: str, progress: Progress) -> None:
    progress.start(what, len(jobs), 0)
    for done, name in enumerate(sweep(function, jobs), start=1):
        progress.step(done)
        progress.measuring(f"after {name}")
    progress.finish()


def _runs(folder: Path, seeds: list[int]) -> list[tuple[Run, int]]:
    """Return a part's runs with their seeds: of `mlp` seed-0, of `resnet` variant-1-seed-0."""
    return [(Run(path.parent), seed) for seed in seeds for path in folder.glob(f"*seed-{seed}/config.yaml")]


def _name(data: str) -> str:
    return FOLDERS.get(data, Path(data).name)
