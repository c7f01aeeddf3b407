"""Controls of the study of causes: set-ups with a known outcome.

Labels shuffled after training, a frozen random network, rotated and rescaled features, and waves of known frequency on
inputs of known density. `controls_summary` says what is expected, and whether it was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from layerfreq.data.validation import Scale
from layerfreq.experiments import Request, Table, mlp
from layerfreq.experiments.figures import save_titled
from layerfreq.experiments.figures.controls_summary import as_table, figure, judge_controls
from layerfreq.experiments.mlp import rebuild
from layerfreq.experiments.runner import train
from layerfreq.files import write_whole
from layerfreq.measure.measure import spectrum
from layerfreq.measure.result import Spectrum
from layerfreq.network.extract import layer_features
from layerfreq.relearn.heads import fixed_head, train_heads
from layerfreq.relearn.predictors import constant_loss, outputs_of, standardise
from layerfreq.relearn.study import FIXED, RATES, principal
from layerfreq.runs.run import Run
from layerfreq.runs.weights import load_weights

__all__ = ["PRESETS", "Config", "closed_form", "present", "rebuild", "run"]

SHARE = {"labels": 0.1, "invariance": 0.1, "waves": 0.25}  # of the best constant prediction's loss: steps to it
FACTOR = 4.0  # factor of rescaled features
GRID = RATES["sgd"]
SCALES: tuple[Scale, ...] = ("rms", "raw")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Chosen values: the network is the experiment mlp's, heads are as in `layerfreq relearn`, of plain SGD.

    Attributes:
        data: Where the images come from, as in `load_images`.
        images: Number of them.
        width: Width of each hidden layer of the network.
        hidden: Number of hidden layers.
        rate: Learning rate of the network.
        epochs: Number of epochs of the network's training.
        cuts: 0 for the inputs, else a hidden layer.
        heads: Fresh heads of each kind.
        budget: Maximum number of steps per head.
        waves: Frequencies k of sin(k w.x), |w| = 1, x from N(0, I_2).
        points: Number of points x.
        wave_budget: Maximum number of steps per head on a wave.
    """

    data: str = "digits"
    images: int
    width: int
    hidden: int
    rate: float = 0.5
    epochs: int
    cuts: tuple[int, ...]
    heads: int = 2
    budget: int = 1000
    waves: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    points: int = 4000
    wave_budget: int = 2000


PRESETS = {
    "smoke": Config(
        images=150,
        width=16,
        hidden=3,
        epochs=30,
        cuts=(0, 1, 3),
        heads=1,
        budget=300,
        waves=(1.0, 2.0, 3.0),
        points=300,
        wave_budget=300,
    ),
    "small": Config(images=600, width=100, hidden=5, epochs=400, cuts=(0, 1, 3, 5)),
}
UNIT = "epoch"
SEEDS = 5
Row = dict[str, Any]


def run(config: Config, request: Request) -> None:
    """Train a network for each seed, and then the heads of every control, saving each when done.

    Raises:
        InputError: For data that cannot be loaded, or an output folder that cannot be used.
    """
    out, progress = request.out, request.progress
    sizes: dict[str, Any] = {name: getattr(config, name) for name in ("data", "images", "width", "hidden", "rate")}
    network = mlp.Config(**sizes, epochs=(0, config.epochs), recipe="sgd")
    inputs, labels = mlp.images_of(network)
    request.open("controls", UNIT, config)
    (out / "cells").mkdir(exist_ok=True)
    for seed in request.seeds:
        folder = out / f"seed-{seed}"
        training = replace(mlp.training(network, inputs, labels, seed), metrics=None, options={"seed": seed})
        train(training, folder, device=request.device, progress=progress)
        model = training.build()[0].eval()
        parts: dict[str, Iterator[Row]] = {
            "labels": _labels(config, folder, model, inputs, labels, seed),
            "invariance": _invariance(config, folder, model, inputs, labels, seed),
            "waves": _waves(config, seed),
        }
        progress.start(f"heads of seed {seed}", len(parts), 0)
        for done, (name, rows) in enumerate(parts.items(), start=1):
            file = out / "cells" / f"seed-{seed}-{name}.parquet"
            if not file.exists():
                progress.measuring(name)
                _write(file, list(rows), seed)
            progress.step(done)
        progress.finish()


def read(out: Path) -> Any:
    """Return all rows of an experiment's folder, as a data frame."""
    import pandas as pd

    files = sorted((out / "cells").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def present(out: Path, seeds: list[int]) -> Table:
    """Write all rows as `controls.csv`, draw them, and judge every control: one row per expectation."""
    frame = read(out)
    csv = out / "controls.csv"
    write_whole(csv, lambda at: frame.to_csv(at, index=False, lineterminator="\n"))
    config = Run(out).config
    title = (
        f"controls, preset {config['preset']}: {config['images']} images of {Path(config['data']).name}, seeds "
        f"{' '.join(map(str, seeds))} (points: means, bars: ranges)"
    )
    files = save_titled({"controls": (figure(frame), title)}, out / "figures")
    return Table(*as_table(judge_controls(frame)), [csv, *files])


def closed_form(k: float) -> float:
    """Return 1/delta at which LFR of sin(k w.x) is 1/2, for |w| = 1, any number of x from N(0, I) in any dimension.

    A window about x holds points from N(x / (1 + delta), delta / (1 + delta) I), so that
    LFR = exp(-k^2 delta / (1 + delta)) (1 - exp(-2 k^2 / (1 + delta)^2)) / (1 - exp(-2 k^2)).
    """
    from scipy.optimize import brentq

    def above_half(log_delta: float) -> float:
        delta = math.exp(log_delta)
        kept = math.expm1(-2 * (k / (1 + delta)) ** 2) / math.expm1(-2 * k**2)
        return math.exp(-(k**2) * delta / (1 + delta)) * kept - 0.5

    return math.exp(-float(brentq(above_half, -30.0, 30.0)))  # pyright: ignore[reportArgumentType]


def _labels(config: Config, folder: Path, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterator[Row]:
    """Train heads for the true and for shuffled labels, above the network before and after its training."""
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    for cut in config.cuts:
        for name, step in (("random", 0), ("trained", config.epochs)):
            features = _features(folder, model, x, cut, step)
            for case, targets in (("true", y), ("shuffled", shuffled)):
                found = spectrum(features, targets, scale="rms")
                about = {"control": "labels", "network": name, "case": case, "cut": cut, "scale": "rms"}
                about |= {"median": _known(found.median), "expected": _chance(found), "resolution": found.resolution}
                yield from _trained(features, targets, config.heads, config.budget, about)


def _invariance(config: Config, folder: Path, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterator[Row]:
    """Train heads on features that are rotated, rescaled, or both and shifted."""
    generator = torch.Generator().manual_seed(seed)
    for cut in (config.cuts[0], config.cuts[-1]):
        plain = _features(folder, model, x, cut, config.epochs).double()
        turn = torch.linalg.qr(torch.randn(plain.shape[1], plain.shape[1], generator=generator).double())[0]
        shift = torch.randn(plain.shape[1], generator=generator).double()
        cases = {
            "plain": plain,
            "rotated": plain @ turn,
            "rescaled": FACTOR * plain,
            "all": FACTOR * plain @ turn + shift,
        }
        for scale in SCALES:
            for case, features in cases.items():
                if scale == "raw" and case == "all":  # at raw scale a shift changes where the heads' tanh works
                    continue
                found = spectrum(features, y, scale=scale, engine="blocked")
                about = {"control": "invariance", "network": "trained", "case": case, "cut": cut, "scale": scale}
                about |= {"median": _known(found.median), "resolution": found.resolution}
                yield from _trained(features.float(), y, config.heads, config.budget, about)
        about = {"control": "invariance", "network": "trained", "cut": cut, "scale": "raw", "head": "linear, no bias"}
        scaled = [rate / FACTOR**2 for rate in GRID]
        for case, factor, grid, rates in (
            ("plain", 1.0, "same", GRID),
            ("rescaled", FACTOR, "same", GRID),
            ("rescaled", FACTOR, "scaled", scaled),
        ):
            x_c = principal(cases[case].float())
            heads = _lines(x_c.shape[1], outputs_of(y), factor, config.heads)
            yield from _arrivals(heads, x_c, y, rates, config.budget, {**about, "case": f"{case}, {grid} grid"})


def _lines(d: int, outputs: int, factor: float, seeds: int) -> list[nn.Module]:
    """Linear heads without a bias: to them, features times c are weights times c and a learning rate times c^2."""
    heads: list[nn.Module] = []
    for seed in range(seeds):
        head: Any = skip_init(nn.Linear, d, outputs, bias=False)
        weights = torch.randn(outputs, d, generator=torch.Generator().manual_seed(seed))
        head.weight.data = weights / factor / d**0.5
        heads.append(head)
    return heads


def _waves(config: Config, seed: int) -> Iterator[Row]:
    """Train heads for waves of known frequency on points of known density."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(config.points, 2, generator=generator)
    w = nn.functional.normalize(torch.randn(2, generator=generator), dim=0)
    for k in config.waves:
        y = torch.sin(k * (x @ w))[:, None]
        found = spectrum(x, y)
        about = {"control": "waves", "case": "wave", "k": k, "scale": "rms", "median": _known(found.median)}
        about |= {"expected": closed_form(k), "resolution": found.resolution}
        yield from _trained(x, y, config.heads, config.wave_budget, about)


def _trained(features: Tensor, targets: Tensor, seeds: int, budget: int, about: Row) -> Iterator[Row]:
    """Train the study's heads of one hidden layer on features at the scale that `about` says."""
    d = features.shape[1]
    flat, std = (standardise(features), 1.0) if about["scale"] == "rms" else (features, d**-0.5)
    flat = principal(flat)
    heads = [fixed_head("hidden-1", flat.shape[1], outputs_of(targets), seed, std) for seed in range(seeds)]
    yield from _arrivals(heads, flat, targets, GRID, budget, {**about, "head": "hidden-1"})


def _arrivals(
    heads: Sequence[nn.Module], x: Tensor, y: Tensor, rates: Sequence[float], budget: int, about: Row
) -> Iterator[Row]:
    """Yield the steps of each head at the fixed rate, or the nearest to it, and at the best of the rates."""
    fixed = min(range(len(rates)), key=lambda r: abs(math.log(rates[r] / FIXED["sgd"])))
    curves = train_heads(heads, x, y, rates, [SHARE[about["control"]] * constant_loss(y)], steps=budget, keep=fixed)
    steps = curves.reached[:, :, 0]
    arrived = np.isfinite(steps).sum(axis=0)
    best = min(range(len(rates)), key=lambda r: (steps[:, r].max(), -arrived[r], rates[r]))
    for rule, r in (("fixed", fixed), ("best", best)):
        for seed, taken in enumerate(steps[:, r]):
            late = not math.isfinite(taken)
            yield {
                **about,
                "rule": rule,
                "head_seed": seed,
                "rate": rates[r],
                "steps": float(budget if late else taken),
                "censored": late,
            }


def _features(folder: Path, model: nn.Module, x: Tensor, cut: int, step: int) -> Tensor:
    if cut == 0:
        return x
    load_weights(folder, step, model)
    name = f"hidden{cut}"
    found: Any = layer_features(model, x, [name])
    return found[name].float()


def _chance(found: Spectrum) -> float:
    """1/delta at which shuffled labels are expected to be halfway from the floor to 1."""
    return float(np.exp(np.interp((1 + found.floor) / 2, found.chance, np.log(found.inv_delta))))


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _write(file: Path, rows: list[Row], seed: int) -> None:
    import pandas as pd

    columns = ["seed", "control", "network", "case", "cut", "k", "scale", "head", "rule", "head_seed", "rate"]
    columns += ["steps", "censored", "median", "expected", "resolution"]
    frame = pd.DataFrame(rows).assign(seed=seed).reindex(columns=columns)
    kinds = dict.fromkeys(["cut", "k", "median", "expected", "resolution"], "float64")
    frame = frame.astype(kinds | dict.fromkeys(["network", "case", "head"], "string"))
    write_whole(file, lambda at: frame.to_parquet(at, index=False))
