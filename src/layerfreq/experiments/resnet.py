"""Residual networks with fewer and fewer blocks: what the same head still has to learn above each.

Experiment 3 of the paper. Networks, split and training are those of the authors' repository,
Johnzhx/DeepFrequencyPrinciple (2020), at full size in the preset `paper`; the others scale down width, images and
epochs. `residual` says what is inferred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.errors import Code, unknown
from layerfreq.experiments import Progress, Request, Table
from layerfreq.experiments.figures import resnet_figures
from layerfreq.experiments.figures.beside import compare_resnet
from layerfreq.experiments.minibatch import Task, launch, train
from layerfreq.experiments.residual import CUTS, VARIANTS, network
from layerfreq.loading.images import load_images
from layerfreq.relearn.rebuilt import Source
from layerfreq.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """One size of the experiment.

    Attributes:
        data: Where the images come from, as in `load_images`.
        images: Number of images, the first of the training split; the seed permutes them.
        validation: How many of them, the last ones, are not used for training.
        width: Channels of stem and first stage.
        head: Width of the head's two hidden layers.
        epochs: Number of epochs; the rate falls to a tenth after half and after three quarters of them.
        measure: Epochs at which the spectra are measured.
        panels: Those of them that the figure of densities shows.
        batch: Images per step.
        rate: Learning rate of the first half.
        checkpoint_every: Steps between checkpoints.
        variants: Which of 1 to 4 to train.
    """

    data: str = "uoft-cs/cifar10"
    images: int
    validation: int
    width: int
    head: int = 1024
    epochs: int
    measure: tuple[int, ...]
    panels: tuple[int, ...]
    batch: int = 256
    rate: float = 1e-3
    checkpoint_every: int = 500
    variants: tuple[int, ...] = VARIANTS


PRESETS = {
    "smoke": Config(
        data="digits",
        images=200,
        validation=50,
        # From 8 channels on: PyTorch's gradient of a 1 x 1 convolution of stride 2 with fewer inputs, channels last,
        # writes out of bounds on processors with AVX2 and no AVX-512.
        width=8,
        head=32,
        epochs=4,
        measure=(0, 1, 2, 4),
        panels=(0, 1, 4),
        batch=40,
        checkpoint_every=1,
    ),
    "small": Config(
        images=8000, validation=1600, width=16, epochs=32, measure=(0, 1, 2, 6, 16, 32), panels=(0, 1, 2, 6, 32)
    ),
    "medium": Config(
        images=50000,
        validation=10000,
        width=16,
        epochs=48,
        measure=(0, 1, 2, 5, 15, 24, 36, 48),
        panels=(0, 1, 2, 15, 48),
    ),
    "paper": Config(
        images=50000,
        validation=10000,
        width=64,
        epochs=80,
        measure=(0, 1, 2, 3, 4, 5, 10, 15, 20, 40, 50, 60, 70, 80),
        panels=(0, 1, 2, 15, 80),
    ),
}
# The paper's cutoffs are 0.02 to 50; the wider range is for the medians. Raw features get the grid of their distances.
MAXABS = np.geomspace(0.01, 1000, 121)
SMALLEST = 16  # pixels: two halvings leave the 4 x 4 that are averaged
UNIT = "epoch"
SEEDS = 1


def run(config: Config, request: Request) -> None:
    """Train every variant for each seed; resuming skips finished ones.

    Further variants may be added to a folder with `resume`.

    Raises:
        InputError: For an unknown variant, data that cannot be loaded, or an output folder that cannot be used.
    """
    others = [v for v in config.variants if v not in VARIANTS]
    if others:
        raise unknown("variant", others[0], VARIANTS)
    images, labels = _data(config)
    fabric = launch(request.device)
    request = replace(request, out=Path(fabric.broadcast(str(request.out))))
    if fabric.is_global_zero:
        request.open("resnet", UNIT, config, without=("variants",))
    fabric.barrier()
    for seed in request.seeds:
        trained, validation = split(images, labels, config.validation, seed)
        for variant in config.variants:
            task = Task(
                name=f"variant -{variant}, seed {seed}",
                seed=seed,
                network=_network(config, variant, seed, images, labels),
                layers=list(CUTS),
                output="output",
                images=trained[0],
                labels=trained[1],
                validation=validation,
                batch=config.batch,
                rate=config.rate,
                restarts=restarts(config.epochs),
                epochs=config.epochs,
                measure_at=config.measure,
                checkpoint_every=config.checkpoint_every,
                options={"maxabs": {"inv_delta": MAXABS}, "raw": {}},
            )
            progress = request.progress if fabric.is_global_zero else Progress()
            train(task, request.out / folder(variant, seed), fabric, progress)
    if not fabric.is_global_zero:
        raise SystemExit(0)  # the first process alone goes on, to draw


def restarts(epochs: int) -> tuple[int, int]:
    """Return the epochs after which the rate falls: a half and three quarters, 40 and 60 of the paper's 80."""
    return math.ceil(epochs / 2), math.ceil(3 * epochs / 4)


def split(
    images: Tensor, labels: Tensor, validation: int, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Permute images and labels by the seed; return training data, and the last ones for validation."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    first, last = order[: len(order) - validation], order[len(order) - validation :]
    return (images[first], labels[first]), (images[last], labels[last])


def rebuild(run: Run, config: Mapping[str, Any]) -> Source:
    """Rebuild a run's data and networks, for `layerfreq relearn`; the inputs are the measured images."""
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key in Config.__dataclass_fields__
    }
    made = Config(**known)
    _, variant, _, own_seed = run.path.name.split("-")
    images, labels = _data(made)
    trained, _ = split(images, labels, made.validation, int(own_seed))
    return Source(*trained, lambda seed: _network(made, int(variant), seed, images, labels))


def folder(variant: int, seed: int) -> str:
    """Return the name of a training's folder."""
    return f"variant-{variant}-seed-{seed}"


def present(out: Path, seeds: list[int]) -> Table:
    """Draw the accuracies, densities and medians of the variants that the folder holds.

    The table has one row per variant and seed, and one per seed on their order.
    """
    config = Run(out).config
    trained = config["images"] - config["validation"]
    what = f"resnet, preset {config['preset']}: {trained} images of {Path(config['data']).name}"
    return resnet_figures.present(_runs(out, seeds), config["panels"], what, out / "figures")


def beside(out: Path, seeds: list[int]) -> Table:
    """Compare densities and accuracies of the variants with the published figures."""
    return compare_resnet(out, _runs(out, seeds), asdict(PRESETS["paper"]))


def _runs(out: Path, seeds: list[int]) -> dict[tuple[int, int], Run]:
    """Return the finished runs in the folder, by variant and seed; another process may be working on others."""
    found = {
        (variant, seed): Run(out / folder(variant, seed))
        for variant in VARIANTS
        for seed in seeds
        if (out / folder(variant, seed) / "config.yaml").exists()
    }
    return {key: run for key, run in found.items() if Run(out).config["epochs"] in run.steps()}


def _network(config: Config, variant: int, seed: int, images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return a network for images and labels, initialised from the seed."""
    height, width = images.shape[-2:]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return network(variant, config.width, config.head, int(labels.max()) + 1, (height, width))


def _data(config: Config) -> tuple[Tensor, Tensor]:
    """Return images in [0, 1], channels first, and their labels."""
    x, labels = load_images(config.data, config.images)
    if config.data == "digits":  # 8 x 8 pixels in a row, each of which becomes four
        x = x.reshape(-1, 8, 8).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    if x.ndim == 3:
        x = x[..., None].expand(*x.shape, 3)
    if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < SMALLEST or any(side % 4 for side in x.shape[1:3]):
        shape = tuple(x.shape[1:])
        raise Code.SHAPE(f"data: {config.data!r} has images {shape}; pass RGB of at least 16 x 16, multiples of 4")
    return x.permute(0, 3, 1, 2), labels
