"""The frequency principle: which frequencies of a target whole networks learn first, and where low ones are not first.

Seven parts, whose published settings are the preset `paper`: `one-d` (three sines), `heatmap` (ten sines, Rahaman et
al. 2019), `cifar` (filters over images), `optimizers` (six, two of which use no gradient), `ricker` (an activation that
turns the order off), `parity` (a target of high frequency alone), `bias` (spectral bias on even and uneven data).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerfreq.errors import Code, no_such, unknown
from layerfreq.experiments import Progress, Request, Table
from layerfreq.experiments.fprinciple import classes, fits, optimizers
from layerfreq.experiments.fprinciple.figures import draw
from layerfreq.experiments.fprinciple.summary import COLUMNS, HEAD, measured_epochs, table
from layerfreq.files import write_whole
from layerfreq.loading.images import load_images
from layerfreq.runs.run import Run

__all__ = ["PARTS", "PRESETS", "SEEDS", "UNIT", "Config", "present", "read", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One size of the experiment; what is not here is as published.

    Attributes:
        parts: Which of `PARTS` to run.
        data: Where the images come from, as in `load_images`.
        images: Number of them, the first of the training split.
        epochs: Number of epochs of their network.
        channels: Numbers of channels of its convolutions.
        dense: Width of its hidden layer.
        widths: Hidden layers of the networks for one variable.
        steps: Steps on 101 points.
        long: Steps on 600 points.
        sines: Width, depth and steps of part heatmap.
        budget: Share of the optimizers' full number of steps.
        parity: Widths of the two hidden layers, training points, and steps.
        measurements: How often each training is measured, about.
    """

    parts: tuple[str, ...] = ()
    data: str = "uoft-cs/cifar10"
    images: int
    epochs: int
    channels: tuple[int, int] = (32, 64)
    dense: int = 400
    widths: tuple[int, ...] = (200, 200, 200, 100)
    steps: int = 1000
    long: int
    sines: tuple[int, int, int]
    budget: float
    parity: tuple[int, int, int, int] = (500, 100, 200, 2000)
    measurements: int = 200


PRESETS = {
    "smoke": Config(
        data="digits",
        images=150,
        epochs=3,
        channels=(4, 4),
        dense=16,
        widths=(20, 20),
        steps=60,
        long=60,
        sines=(16, 2, 60),
        budget=0.02,
        parity=(20, 10, 200, 60),
        measurements=6,
    ),
    "small": Config(images=1000, epochs=20, long=3000, sines=(128, 4, 3000), budget=0.5),
    "paper": Config(images=5000, epochs=60, long=10000, sines=(256, 6, 80000), budget=1.0),
}
UNIT = "step"
SEEDS = 5


def _one_d(config: Config, seed: int) -> Iterator[fits.Fit]:
    build = partial(fits.fully_connected, config.widths, nn.Tanh)
    for points, rate, steps in ((101, 2e-4, config.steps), (600, 1e-4, config.long)):
        every = _every(config, steps)
        yield fits.three_sines(f"{points} points", points, build, rate=rate, steps=steps, every=every)


def _ricker(config: Config, seed: int) -> Iterator[fits.Fit]:
    steps = max(1, config.steps // 4)  # it is over long before
    for a in (0.3, 0.1):
        build = partial(fits.fully_connected, config.widths, partial(fits.Ricker, a))
        yield fits.three_sines(f"a = {a}", 101, build, rate=2e-4, steps=steps, every=_every(config, steps))


def _heatmap(config: Config, seed: int) -> Iterator[fits.Fit]:
    width, depth, steps = config.sines
    for case in ("equal", "increasing"):
        sizes: dict[str, Any] = {"width": width, "depth": depth, "steps": steps, "every": _every(config, steps)}
        yield fits.amplitudes(case, increasing=case == "increasing", seed=seed, **sizes)


def _bias(config: Config, seed: int) -> Iterator[fits.Fit]:
    for case in ("even", "uneven"):
        sizes: dict[str, Any] = {"steps": 2 * config.steps, "every": _every(config, 2 * config.steps), "points": 101}
        yield fits.by_density(case, uneven=case == "uneven", widths=config.widths, seed=seed, **sizes)


def _parity(config: Config, seed: int) -> Iterator[fits.Fit]:
    first, second, points, steps = config.parity
    yield classes.parity(widths=(first, second), points=points, steps=steps, seed=seed)


def _fitted(
    fits_of: Callable[[Config, int], Iterator[fits.Fit]], config: Config, seed: int, progress: Progress
) -> Iterator[fits.Row]:
    for fit in fits_of(config, seed):
        yield from fit.rows(seed, progress)


def _cifar(config: Config, seed: int, progress: Progress) -> Iterator[fits.Row]:
    images, labels = _images(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = classes.image_network(tuple(images.shape[1:]), int(labels.max()) + 1, config.channels, config.dense)
    options: dict[str, Any] = {"epochs": config.epochs, "measured": measured_epochs(config.epochs)}
    return classes.image_rows(images, labels, network, **options, seed=seed, progress=progress)


PARTS: dict[str, Callable[[Config, int, Progress], Iterator[fits.Row]]] = {
    "one-d": partial(_fitted, _one_d),
    "heatmap": partial(_fitted, _heatmap),
    "cifar": _cifar,
    "optimizers": lambda config, seed, progress: optimizers.rows(config.budget, seed, progress),
    "ricker": partial(_fitted, _ricker),
    "parity": partial(_fitted, _parity),
    "bias": partial(_fitted, _bias),
}


def run(config: Config, request: Request) -> None:
    """Run every part for each seed; each is kept when it is done, and not done again on resuming.

    Parts are not part of what a folder is: more may be added to it with `resume`. All run on the CPU.

    Raises:
        InputError: For an unknown part, data that cannot be loaded, or an output folder that cannot be used.
    """
    for part in config.parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    if request.device not in ("cpu", "auto"):
        raise Code.UNSUPPORTED(f"device: {request.device!r}, but fprinciple runs on the CPU; leave --device out")
    parts = config.parts or tuple(PARTS)
    if "cifar" in parts:
        _images(config)  # what cannot be loaded is said first
    cells = request.open("fprinciple", UNIT, config, without=("parts",)).path / "cells"
    cells.mkdir(exist_ok=True)
    for part in parts:
        for seed in request.seeds:
            file = cells / f"{part}-seed-{seed}.parquet"
            if not file.exists():
                with nullcontext() if part == "cifar" else fits.one_thread():
                    _write(file, list(PARTS[part](config, seed, request.progress)), part, seed)


def present(out: Path, seeds: list[int]) -> Table:
    """Draw each part that the folder holds, and set the order of learning next to what was published."""
    frame = read(out)
    frame = frame[frame["seed"].isin(seeds)]
    return Table(HEAD, table(frame), draw(frame, out / "figures"))


def read(out: Path) -> Any:
    """Return what was measured: columns part, case, seed, step, what, k, value.

    Args:
        out: The experiment's folder.

    Raises:
        InputError: If it holds nothing yet.
    """
    import pandas as pd

    files = [file for part in PARTS for file in sorted((Run(out).path / "cells").glob(f"{part}-seed-*.parquet"))]
    if not files:
        raise no_such("run", "measurement in", out, "resume it")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def _every(config: Config, steps: int) -> int:
    return max(1, steps // config.measurements)


def _images(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, channels first, and their labels."""
    x, labels = load_images(config.data, config.images)
    if config.data == "digits":
        x = x.reshape(-1, 8, 8)
    return (x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)).contiguous(), labels


def _write(file: Path, rows: list[fits.Row], part: str, seed: int) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).assign(part=part, seed=seed)
    write_whole(file, lambda at: frame.to_parquet(at, index=False))
