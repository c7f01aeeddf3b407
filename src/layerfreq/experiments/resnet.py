"""ResNet-18 and its variants with fewer residual blocks: what the same head still has to learn above each.

Experiment 3 of the method. How the blocks are removed, the head's widths, rate, batch and initialisation are not
published: these are chosen. Whole stages of two blocks are removed from the end (see `residual.network`), since the
published accuracies of the shallow variants are out of reach of networks that keep a block in each stage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.experiments import resnet_figures
from layerfreq.experiments.data import load_images
from layerfreq.experiments.minibatch import Task, launch, train
from layerfreq.experiments.residual import CUTS, VARIANTS, network
from layerfreq.experiments.runner import Progress, open_experiment
from layerfreq.relearn.sources import Source
from layerfreq.runs import Run


@dataclass(frozen=True)
class Config:
    """Chosen values: SGD with momentum 0.9 on cross-entropy, He initialisation everywhere, no augmentation.

    Attributes:
        data: Where the images come from, as in `load_images`.
        images: Number of training images.
        validation: Number of validation images, from the test split.
        width: Channels of the first stage; ResNet-18 has 64.
        stride: Of the stem; 2 halves the resolution of everything after it.
        head: Width of the head's two hidden layers.
        batch: Images in a step.
        rate: Learning rate.
        decay: Weight decay.
        epochs: Number of epochs.
        drop: Epochs after which the rate falls to a tenth.
        measure: Epochs at which the spectra are measured.
        panels: Those of them that the figure of densities shows.
        probe: The first so many training images are what is measured.
        rows: Filter centres of each measurement; None for all of the probe.
        checkpoint_every: Steps between checkpoints.
        augment: Whether images are cropped and flipped at random.
        variants: Which of 1 to 4 to train.
    """

    data: str
    images: int
    validation: int
    width: int
    stride: int
    head: int
    batch: int
    rate: float
    decay: float
    epochs: int
    drop: int
    measure: tuple[int, ...]
    panels: tuple[int, ...]
    probe: int
    rows: int | None
    checkpoint_every: int
    augment: bool = False
    variants: tuple[int, ...] = VARIANTS


CIFAR = "uoft-cs/cifar10"
# images, validation, width, stride, head, batch, rate, decay, epochs, drop, measure, panels, probe, rows, checkpoints
# From 8 channels on: PyTorch's gradient of a 1 x 1 convolution of stride 2 with fewer inputs, channels last, writes out
# of bounds on processors with AVX2 and no AVX-512.
SMOKE = (200, 100, 8, 1, 32, 50, 0.02, 0.0, 3, 2, (0, 1, 2, 3), (0, 1, 3), 200, None, 1)
SMALL = (5000, 2000, 16, 2, 512, 50, 0.02, 0.0, 24, 16, (0, 1, 2, 3, *range(4, 25, 2)), (0, 1, 2, 8, 24), 2000, 500, 50)
EVERY = (*range(21), *range(25, 81, 5))
PAPER = (50000, 10000, 64, 1, 512, 128, 0.05, 5e-4, 80, 40, EVERY, (0, 1, 2, 15, 80), 5000, 1000, 2000)
PRESETS = {"smoke": Config("digits", *SMOKE), "small": Config(CIFAR, *SMALL), "paper": Config(CIFAR, *PAPER)}
UNIT = "epoch"
SEEDS = 1


def run(
    config: Config, out: Path, *, preset: str, seeds: list[int], device: str, resume: bool, progress: Progress
) -> None:
    """Train every variant for each seed; finished ones are not done again on resuming.

    Variants are no part of what a folder is: one more may be added to it with `resume`.

    Raises:
        InputError: On an unknown variant, data that cannot be loaded, or an output folder that cannot be used.
    """
    unknown = [v for v in config.variants if v not in VARIANTS]
    if unknown:
        raise InputError(f"variant: unknown {unknown[0]}; choose among -1, -2, -3 and -4")
    (images, labels), validation = _data(config)
    fabric = launch(device)
    out = Path(fabric.broadcast(str(out)))
    if fabric.is_global_zero:
        plan = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(config).items() if key != "variants"}
        open_experiment(out, {"experiment": "resnet", "preset": preset, "seeds": seeds, **plan}, resume=resume)
    fabric.barrier()
    classes = int(max(labels.max(), validation[1].max())) + 1
    for seed in seeds:
        for variant in config.variants:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = network(variant, config.width, config.head, classes, stride=config.stride)
            task = Task(
                name=f"variant -{variant}, seed {seed}",
                seed=seed,
                network=model,
                layers=list(CUTS),
                output="output",
                images=images,
                labels=labels,
                validation=validation,
                batch=config.batch,
                rate=config.rate,
                drop=config.drop,
                decay=config.decay,
                epochs=config.epochs,
                measure_at=config.measure,
                probe=config.probe,
                augment=config.augment,
                checkpoint_every=config.checkpoint_every,
                options={"rows": config.rows, "seed": seed},
            )
            train(task, out / folder(variant, seed), fabric, progress if fabric.is_global_zero else Progress())
    if not fabric.is_global_zero:
        raise SystemExit(0)  # the first process alone goes on, to draw


def source(run: Run, config: dict[str, Any]) -> Source:
    """Build a run's data and networks anew, for `layerfreq relearn`; the inputs are the images that were measured."""
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key in Config.__dataclass_fields__
    }
    made = Config(**known)
    (images, labels), validation = _data(made)
    variant = int(run.path.name.split("-")[1])
    classes = int(max(labels.max(), validation[1].max())) + 1

    def fresh(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return network(variant, made.width, made.head, classes, stride=made.stride)

    return Source(images[: made.probe], labels[: made.probe], fresh)


def folder(variant: int, seed: int) -> str:
    """Return the name of a training's folder."""
    return f"variant-{variant}-seed-{seed}"


def present(out: Path, seeds: list[int]) -> tuple[list[str], list[list[str]], list[Path]]:
    """Draw the accuracies, densities and medians of the variants that the folder holds.

    Returns:
        Table head, table rows (one a variant and seed, after the last epoch), files.
    """
    config = Run(out).config
    runs = {
        (variant, seed): Run(out / folder(variant, seed))
        for variant in VARIANTS
        for seed in seeds
        if (out / folder(variant, seed) / "config.yaml").exists()
    }
    what = f"resnet, preset {config['preset']}: {config['images']} images of {Path(config['data']).name}"
    return resnet_figures.present(runs, config["panels"], what, out / "figures")


def _data(config: Config) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return normalised training and validation images, channels first, and their labels."""
    if config.data == "digits":
        x, y = load_images("digits", config.images + config.validation)
        x = x.reshape(-1, 8, 8)
        pictures, labels = x.split([config.images, config.validation]), y.split([config.images, config.validation])
    else:
        train_set = load_images(config.data, config.images)
        test_set = load_images(config.data, config.validation, "test")
        pictures, labels = (train_set[0], test_set[0]), (train_set[1], test_set[1])
    pictures = [x[..., None].expand(*x.shape, 3) if x.ndim == 3 else x for x in pictures]
    if any(x.ndim != 4 or x.shape[-1] != 3 for x in pictures):
        raise InputError(f"data: {config.data!r} holds images of shape {tuple(pictures[0].shape[1:])}; RGB is needed")
    mean, spread = pictures[0].mean(dim=(0, 1, 2)), pictures[0].std(dim=(0, 1, 2))
    first, second = (((x - mean) / spread).permute(0, 3, 1, 2) for x in pictures)
    return (first, labels[0]), (second, labels[1])
