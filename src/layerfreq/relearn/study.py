"""Training fresh learning components above every cut of a run, cell by cell, safe from kills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from layerfreq.data.validation import Scale
from layerfreq.errors import Code, InputError, is_not, listed, no_such, unknown
from layerfreq.files import sweep, write_whole
from layerfreq.measure.measure import spectrum
from layerfreq.network.extract import layer_features
from layerfreq.network.split import split
from layerfreq.relearn.heads import DEPTHS, Curves, fixed_head, train_heads
from layerfreq.relearn.predictors import constant_loss, outputs_of, predictors, standardise
from layerfreq.relearn.rebuilt import Source, given, layers_of, rebuilt
from layerfreq.runs.files import read_config
from layerfreq.runs.run import Run
from layerfreq.runs.several import expand
from layerfreq.runs.weights import kept_steps, load_weights
from layerfreq.verdict.ranking import results

if TYPE_CHECKING:
    import pandas as pd

RATES = {"sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), "adam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
FIXED = {"sgd": 0.1, "adam": 0.001}  # the rates of the rule "fixed"
ROWS = 1000  # filter centres of the predictors' spectra
SPECTRA: dict[str, Scale] = {"found": "raw", "paper": "maxabs"}  # what is measured for `predictors`
PRINCIPAL = 1e-10  # share of the features' energy that may be left out when they are turned to fewer coordinates


@dataclass(frozen=True)
class Design:
    """What is trained above each cut.

    Attributes:
        heads: Kinds of learning component: "linear", "hidden-1", "hidden-2" (tanh, width 100), or "own", the
            network's own remaining layers initialised anew.
        scales: "raw", "rms". At "rms" fixed heads get features with mean |f|^2 = 1 and first weights of variance 1, so
            that what they do depends on the distances of the points alone; own layers get coordinates of order 1.
        optimizers: "sgd", "adam".
        seeds: Number of fresh initialisations of each.
        points: The first so many points are trained on.
        budget: Steps after which a head is given up, and its steps are censored.
        batch: Points in a step; None for all.
        shares: The errors, falling, as shares of the loss of the best constant prediction.
        rates: optimizer -> the grid; the rule "best" takes the rate whose slowest seed arrives first, for each error.
    """

    heads: tuple[str, ...] = ("hidden-1",)
    scales: tuple[str, ...] = ("raw", "rms")
    optimizers: tuple[str, ...] = ("sgd", "adam")
    seeds: int = 3
    points: int = 5000
    budget: int = 1500
    batch: int | None = 128
    shares: tuple[float, ...] = (0.75, 0.5, 0.25, 0.1)
    rates: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(RATES))

    def __post_init__(self) -> None:
        for name, known in (("heads", [*DEPTHS, "own"]), ("scales", ["raw", "rms"]), ("optimizers", list(FIXED))):
            if not isinstance(getattr(self, name), (list, tuple)):
                raise is_not(name, getattr(self, name), "a tuple of names", f"some of {known}")
            for one in getattr(self, name):
                if one not in known:
                    raise unknown(name, one, known)
        batch = 1 if self.batch is None else self.batch
        for name, number in {"seeds": self.seeds, "points": self.points, "budget": self.budget, "batch": batch}.items():
            least = 2 if name == "points" else 1
            if not isinstance(number, Integral) or number < least:
                raise is_not(name, number, f"a whole number from {least} on", "one")
        if not all(0 < share < 1 for share in self.shares) or not self.shares:
            raise InputError(f"shares: {self.shares} are not all between 0 and 1; pass such as 0.5, 0.25")


@dataclass(frozen=True)
class Cell:
    """One thing to train: a file of its own in the run's `relearn/cells`."""

    step: int
    cut: int
    layer: str
    scale: str
    optimizer: str
    head: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"step-{self.step:012d}-cut-{self.cut:03d}-{self.scale}-{self.optimizer}-{self.head}"


@torch.inference_mode(False)  # whatever the caller has: heads are trained, and `split` follows gradients
@torch.enable_grad()
def relearn(
    run: Run | str | Path,
    model: nn.Module | None = None,
    inputs: Any = None,
    targets: Any = None,
    *,
    design: Design | None = None,
    steps: Sequence[int] | None = None,
    cuts: Sequence[int] | None = None,
    resume: bool = False,
    tell: Callable[[int, int, str], Any] | None = None,
    rebuild: Callable[[Run], Source] | None = None,
) -> pd.DataFrame:
    """Freeze the layers below each cut of a run's network, and train fresh learning components on their features.

    Args:
        run: A run that kept its weights, or an experiment's folder, whose runs are processed one by one.
        model: The network, for a run that is not an experiment's; with `inputs` and `targets` as in `layer_spectra`.
        inputs: (n, ...) tensor, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids or floats.
        design: What is trained; None is `Design()`.
        steps: Measured steps to use; None means all that were kept.
        cuts: Cuts to use: 0 for the inputs, 1 for the first measured layer, and so on; None means all.
        resume: Resume after a killed call.
        tell: Called before each cell with the number done, the total, and what comes next.
        rebuild: Instead of a model, for runs of experiments: `layerfreq.experiments.source_of` rebuilds theirs.

    Returns:
        The table of `results`, which is also in the run's folder `relearn/`, with the loss curves, in Parquet.

    Raises:
        InputError: If a run has no weights, holds results of another design, or steps or cuts are unknown.

    Examples:
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> with Monitor(model, x, y, run="run", checkpoints=True) as monitor:
        ...     found = monitor.measure(0)
        >>> design = Design(optimizers=("sgd",), seeds=1, points=100, budget=20, shares=(0.9,))
        >>> table = relearn("run", model, x, y, design=design)
        >>> sorted(table["layer"].unique())  # the inputs, and the hidden layer
        ['1', 'inputs']
    """
    design = Design() if design is None else design
    if not isinstance(design, Design):
        raise is_not("design", design, "a Design", "relearn.Design(...), or None")
    if tell is not None and not callable(tell):
        raise is_not("tell", tell, "a function", "tell(done, total, what), or None")
    steps, cuts = _numbers(steps, "steps"), _numbers(cuts, "cuts")
    runs = expand([run])
    plans = []
    for one, _ in runs:
        _ = one.config  # a damaged one is said at once
        source = rebuilt(one, rebuild) if model is None else given(model, inputs, targets)
        cells = cells_of(one, source, design, steps, cuts)
        for step in dict.fromkeys(cell.step for cell in cells):  # another model's would leave a begun folder behind
            load_weights(one.path, step, source.fresh(0))
        open_results(one.path / "relearn", design, resume)
        plans.append((one, source, cells))
    total, done = sum(len(cells) for _, _, cells in plans), 0
    for one, source, cells in plans:
        for cell in train_cells(one, source, design, cells):
            if tell is not None:
                tell(done, total, f"{one.path.name}, {cell.name}")
            done += 1
    return results(runs)


def _numbers(values: Any, argument: str) -> list[int] | None:
    """Return steps or numbers of cuts as ints."""
    if values is None:
        return None
    found = listed(values, argument, "whole numbers")
    for one in found:
        if not isinstance(one, Integral):
            raise is_not(argument, one, "a whole number", "some such as [0, 1]")
    return [int(one) for one in found]


def cells_of(
    run: Run, source: Source, design: Design, steps: Sequence[int] | None, cuts: Sequence[int] | None
) -> list[Cell]:
    """Return the cells to train for a run, in order; they may be spread over processes.

    Args:
        run: That kept its weights.
        source: Its data and networks.
        design: What is trained.
        steps: Measured steps; None means all that were kept.
        cuts: Numbers of cuts; None means all.

    Raises:
        InputError: If there are no weights, or an unknown step or cut is asked for.
    """
    kept = kept_steps(run.path)
    if not kept:
        raise no_such("run", "weights in", run.path, "train anew, a Monitor with checkpoints=True")
    others = [step for step in steps or [] if step not in kept]
    if others:
        raise Code.MISSING(f"steps: no weights of step {others[0]} in {str(run.path)!r}; it has {kept}")
    layers = ["", *layers_of(run, source)]
    others = [cut for cut in cuts or [] if not 0 <= cut < len(layers)]
    if others:
        raise Code.UNKNOWN(f"cuts: no cut {others[0]}; choose among 0 (inputs) .. {len(layers) - 1} ({layers[-1]})")
    return [
        Cell(step, cut, layers[cut] or "inputs", scale, optimizer, head)
        for step in (kept if steps is None else sorted(set(steps)))
        for cut in (range(len(layers)) if cuts is None else sorted(set(cuts)))
        for scale in design.scales
        for optimizer in design.optimizers
        for head in design.heads
    ]


def open_results(folder: Path, design: Design, resume: bool) -> None:
    """Begin the folder of the results, or resume it; call it once, while no other process writes to the folder.

    What a design selects (heads, scales, optimizers) may differ from before, how it trains may not.

    Raises:
        InputError: If the folder holds results and `resume` is False, or results of another design.
    """
    how = asdict(design)
    plan = {key: how[key] for key in ("seeds", "points", "budget", "batch")} | {"shares": list(design.shares)}
    plan["rates"] = {name: list(rates) for name, rates in design.rates.items()}
    file = folder / "design.yaml"
    if not file.exists():
        folder.mkdir(exist_ok=True)
        text = yaml.safe_dump(plan, sort_keys=False)
        write_whole(file, lambda at: at.write_text(text))
    elif not resume:
        raise Code.EXISTS(f"run: {str(folder)!r} holds results already; resume it, or remove that folder")
    before = read_config(file, {})
    for key, value in plan.items():
        if before.get(key) != value:
            raise Code.EXISTS(f"{key}: {str(folder)!r} was begun with {before.get(key)!r}, not {value!r}; keep it")
    sweep(folder)
    for name in ("cells", "curves"):
        (folder / name).mkdir(exist_ok=True)


def train_cells(run: Run, source: Source, design: Design, cells: Sequence[Cell]) -> Iterator[Cell]:
    """Train the cells without results, yielding each one first; one cut's features are in memory at a time.

    Cells of one step and cut share their features, so they are best kept together; apart from that, cells may be
    trained in any order and by several processes.
    """
    folder = run.path / "relearn"
    n = min(design.points, len(source.inputs))
    x, y = source.inputs[:n], source.targets[:n]
    network = source.fresh(0).eval()
    at: tuple[int, int] | None = None
    features, known, spectra = torch.zeros(0), {}, {}
    errors = [share * constant_loss(y) for share in design.shares]
    for cell in cells:
        yield cell
        if (folder / "cells" / f"{cell.name}.parquet").exists():
            continue
        if at != (cell.step, cell.cut):
            load_weights(run.path, cell.step, network)
            features, known = _features(network, x, cell.layer, cell.cut), {}
            at = (cell.step, cell.cut)
            rows = None if n <= ROWS else ROWS
            spectra = {
                name: spectrum(features.flatten(1), y, scale=scale, rows=rows) for name, scale in SPECTRA.items()
            }
        if cell.scale not in known:
            known[cell.scale] = predictors(features.flatten(1), y, cell.scale, depth=cell.cut, **spectra)  # pyright: ignore
        rates = design.rates[cell.optimizer]
        inputs, heads = _heads(source, network, x, features, y, cell, design.seeds)
        fixed = min(range(len(rates)), key=lambda i: abs(np.log(rates[i] / FIXED[cell.optimizer])))
        options: dict[str, Any] = {"optimizer": cell.optimizer, "steps": design.budget, "batch": design.batch}
        curves = train_heads(heads, inputs, y, rates, errors, keep=fixed, **options)
        _write(folder, cell, _rows(cell, curves, design, rates, fixed, errors, known[cell.scale]), curves, rates)


def _features(network: nn.Module, x: Tensor, layer: str, cut: int) -> Tensor:
    if cut == 0:
        return x.float()
    found = layer_features(network, x, [layer])
    assert isinstance(found, dict)
    return found[layer].float()


def _heads(
    source: Source, network: nn.Module, x: Tensor, features: Tensor, y: Tensor, cell: Cell, seeds: int
) -> tuple[Tensor, list[nn.Module]]:
    """Return a cell's inputs to its heads, and the heads."""
    if cell.head == "own":
        return _own(source, network, x, features, cell, seeds)
    flat = features.flatten(1)
    d = flat.shape[1]
    std = d**-0.5
    if cell.scale == "rms":
        flat, std = standardise(flat), 1.0
    if cell.optimizer == "sgd":
        flat = principal(flat)
    return flat, [fixed_head(cell.head, flat.shape[1], outputs_of(y), seed, std) for seed in range(seeds)]


def _own(
    source: Source, network: nn.Module, x: Tensor, features: Tensor, cell: Cell, seeds: int
) -> tuple[Tensor, list[nn.Module]]:
    others = [source.fresh(1000 + seed) for seed in range(seeds)]  # not the seeds of the runs themselves
    inputs = features
    if cell.cut:
        precondition, _ = split(network, cell.layer, x[:4])
        with torch.no_grad():
            inputs = torch.cat([precondition(part) for part in x.split(1000)]).float()
        others = [split(one, cell.layer, x[:4])[1] for one in others]
    if cell.scale == "rms":
        flat = inputs.flatten(1)
        inputs = (standardise(flat) * flat.shape[1] ** 0.5).reshape(inputs.shape)
    return inputs, others


def principal(features: Tensor) -> Tensor:
    """Turn features (n, d) to their principal axes, with as few coordinates as they need.

    Gradient descent from Gaussian weights does not see a rotation, so this costs no more than rounding; features of
    lower rank, or of more coordinates than points, get much narrower. Signs are made the points' own, so that features
    and rotated features give the same coordinates.
    """
    x = features.double()
    tall = x.shape[0] >= x.shape[1]
    values, vectors = torch.linalg.eigh(x.T @ x if tall else x @ x.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    left = values.sum() - values.cumsum(0)
    r = int((left > PRINCIPAL * values.sum()).sum()) + 1
    turned = x @ vectors[:, :r] if tall else vectors[:, :r] * values[:r].sqrt()
    largest = turned.gather(0, turned.abs().argmax(dim=0, keepdim=True))
    return (turned * torch.where(largest < 0, -1.0, 1.0)).to(features.dtype)


def _rows(
    cell: Cell,
    curves: Curves,
    design: Design,
    rates: Sequence[float],
    fixed: int,
    errors: Sequence[float],
    known: dict[str, float],
) -> list[dict[str, Any]]:
    rows = []
    for t, share in enumerate(design.shares):
        slowest = curves.reached[:, :, t].max(axis=0)  # (rates,)
        arrived = np.isfinite(curves.reached[:, :, t]).sum(axis=0)
        best = min(range(len(rates)), key=lambda r: (slowest[r], -arrived[r], rates[r]))
        for rule, r in (("fixed", fixed), ("best", best)):
            for seed in range(design.seeds):
                steps = float(curves.reached[seed, r, t])
                late = not np.isfinite(steps)
                rows.append(
                    {
                        **asdict(cell),
                        "rule": rule,
                        "head_seed": seed,
                        "share": share,
                        "error": errors[t],
                        "steps": float(design.budget) if late else steps,
                        "censored": late,
                        "rate": rates[r],
                        "at_edge": rule == "best" and r in (0, len(rates) - 1),
                        **known,
                    }
                )
    return rows


def _write(folder: Path, cell: Cell, rows: list[dict[str, Any]], curves: Curves, rates: Sequence[float]) -> None:
    """Write a cell's curves, and then its rows, which say that it is done."""
    import pandas as pd

    seeds = curves.losses.shape[1]
    names = ["at", "head_seed", "rate"]
    index = pd.MultiIndex.from_product([curves.steps, range(seeds), rates], names=names)
    losses = pd.DataFrame({"loss": curves.losses.ravel()}, index=index).reset_index().dropna()
    losses = losses.assign(**asdict(cell))
    table = pd.DataFrame(rows)
    for name, frame in (("curves", losses), ("cells", table)):
        path = folder / name / f"{cell.name}.parquet"
        write_whole(path, lambda at, frame=frame: frame.to_parquet(at, index=False), folder)
