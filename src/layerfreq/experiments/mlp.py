"""One network, layer by layer: RDF of S^[1] .. S^[5] as a fully connected network trains on images.

Experiment 4 of the method. Widths, learning rate, initialisation and data size are not published: these are
chosen, after what shows the published pattern.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.experiments.data import load_images
from layerfreq.experiments.runner import Progress, Training, open_experiment, train
from layerfreq.experiments.summary import layer_table, summarise
from layerfreq.relearn.sources import Source
from layerfreq.runs import Run


@dataclass(frozen=True)
class Config:
    """Chosen values: tanh, PyTorch's default initialisation, full-batch gradient descent.

    Attributes:
        data: Where the images come from, as in `load_images`.
        images: Number of training images; the spectra are measured on the same.
        width: Of each hidden layer.
        hidden: Number of hidden layers.
        rate: Learning rate.
        epochs: Epochs to measure at; the last one ends the training.
        rows: Filter centres of each measurement; None for all images.
    """

    data: str
    images: int
    width: int
    hidden: int
    rate: float
    epochs: tuple[int, ...]
    rows: int | None


PRESETS = {
    "smoke": Config("digits", 200, 32, 5, 0.3, (0, 10, 20), None),
    "small": Config("ylecun/mnist", 2000, 200, 5, 0.2, (0, 200, 400, 600, 800), 500),
    "paper": Config("ylecun/mnist", 5000, 500, 5, 0.1, (0, 200, 400, 600, 800), None),
    "demo": Config("digits", 1500, 100, 5, 0.5, (0, 100, 200, 400), 500),
}
UNIT = "epoch"
SEEDS = 3


def run(
    config: Config, out: Path, *, preset: str, seeds: list[int], device: str, resume: bool, progress: Progress
) -> None:
    """Train a network for each seed, measuring it at the config's epochs.

    Raises:
        InputError: On data that cannot be loaded, or an output folder that cannot be used.
    """
    plan = {"experiment": "mlp", "preset": preset, "seeds": seeds, **_plain(asdict(config))}
    images, labels = load_images(config.data, config.images)
    open_experiment(out, plan, resume=resume)
    inputs = images.reshape(len(images), -1)
    for seed in seeds:

        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            model = network(inputs.shape[1], config.width, config.hidden, int(labels.max()) + 1)
            return model, torch.optim.SGD(model.parameters(), lr=config.rate)

        train(
            Training(
                name=f"seed-{seed}",
                seed=seed,
                build=build,
                inputs=inputs,
                targets=labels,
                loss=nn.functional.cross_entropy,
                steps=config.epochs[-1],
                measure_at=config.epochs,
                metrics=_accuracy,
                options={"rows": config.rows, "seed": seed},
            ),
            out / f"seed-{seed}",
            device=device,
            progress=progress,
        )


def network(d: int, width: int, hidden: int, classes: int) -> nn.Sequential:
    """Return a fully connected tanh network with equal hidden layers."""
    sizes = [d] + [width] * hidden
    layers: dict[str, nn.Module] = {}
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
        layers |= {f"linear{i}": nn.Linear(a, b), f"hidden{i}": nn.Tanh()}
    return nn.Sequential(OrderedDict(layers, output=nn.Linear(width, classes)))


def source(run: Run, config: dict[str, Any]) -> Source:
    """Build a run's data and networks anew, for `layerfreq relearn`."""
    images, labels = load_images(config["data"], config["images"])
    inputs = images.reshape(len(images), -1)

    def fresh(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return network(inputs.shape[1], config["width"], config["hidden"], int(labels.max()) + 1)

    return Source(inputs, labels, fresh)


def present(out: Path, seeds: list[int]) -> tuple[list[str], list[list[str]], list[Path]]:
    """Draw the panels of the first seed, the medians over all seeds, and the training curves.

    Returns:
        Table head, table rows (the last epoch, one row a layer and seed), files.
    """
    import pandas as pd

    from layerfreq import plots

    runs = {seed: Run(out / f"seed-{seed}") for seed in seeds}
    summary = summarise(runs)
    metrics = pd.concat([run.metrics.assign(seed=seed) for seed, run in runs.items()], ignore_index=True)
    config = Run(out).config
    what = f"mlp, preset {config['preset']}: {config['images']} images of {Path(config['data']).name}"
    every = f"{what}, seeds {' '.join(map(str, seeds))}"
    figures = {
        "rdf-by-layer": (plots.figure_epochs(runs[seeds[0]].spectra, UNIT), f"{what}, seed {seeds[0]}"),
        "median-frequency": (plots.figure_medians(summary, UNIT), f"{every} (line: mean, band: range)"),
        "training": (plots.figure_metrics(metrics, UNIT), every),
    }
    files = []
    for name, (figure, title) in figures.items():
        figure.suptitle(title, fontsize="medium")
        files += plots.save(figure, out / "figures", name)
    return *layer_table(summary, UNIT), files


def _accuracy(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    return {"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, so that a config reads back from YAML as it was written."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
