"""One network, layer by layer: RDF of S^[1] .. S^[5] as a fully connected network trains on images.

Experiment 4 of the method. Network, data, loss, stopping rule, optimizer and initialisation are those of the authors'
code (Johnzhx/DeepFrequencyPrinciple, 2020), which differs from its README in batch and rate: `RECIPES` has both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import unknown
from layerfreq.experiments import Request, Table
from layerfreq.experiments.figures import save_titled
from layerfreq.experiments.figures.beside import compare_mlp
from layerfreq.experiments.runner import Training, train
from layerfreq.loading.images import load_images
from layerfreq.relearn.rebuilt import Source
from layerfreq.runs.run import Run
from layerfreq.runs.summary import layer_table, summarise


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error against one-hot labels, over points and outputs."""
    return nn.functional.mse_loss(outputs, nn.functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


def glorot_normal(model: nn.Module) -> None:
    """Fill the weights from a normal distribution of variance 2 / (inputs + outputs), and the biases with 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        optimizer: Function of parameters and `lr`.
        rate: Learning rate; a config may override it.
        decay: Share by which the rate falls each epoch.
        batch: Images per step; None for all of them.
        loss: Function of outputs and class ids.
        stop_below: Training error at which it stops; None for never.
        fill: Initialises the network; None leaves PyTorch's default.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    rate: float
    decay: float
    batch: int | None
    loss: Callable[[Tensor, Tensor], Tensor]
    stop_below: float | None
    fill: Callable[[nn.Module], None] | None


RECIPES = {
    "code": Recipe(
        optimizer=torch.optim.Adam,
        rate=5e-5,
        decay=2e-5,
        batch=None,
        loss=squared_error,
        stop_below=0.01,
        fill=glorot_normal,
    ),
    # The initialisation is not in the README: it is that of the code.
    "readme": Recipe(
        optimizer=torch.optim.Adam,
        rate=1e-5,
        decay=0.0,
        batch=256,
        loss=squared_error,
        stop_below=0.01,
        fill=glorot_normal,
    ),
    # This project's own, of its versions up to 0.1.
    "sgd": Recipe(
        optimizer=torch.optim.SGD,
        rate=0.2,
        decay=0.0,
        batch=None,
        loss=nn.functional.cross_entropy,
        stop_below=None,
        fill=None,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained, and when it is measured.

    Attributes:
        data: Where the images come from, as in `load_images`.
        images: Number of training images; the spectra are measured on the same.
        width: Width of each hidden layer.
        hidden: Number of hidden layers.
        epochs: Epochs to measure at; training ends at the last one, or earlier: see `Recipe`.
        rows: Filter centres of each measurement; None for all images.
        recipe: One of `RECIPES`.
        rate: Learning rate in place of the recipe's.
    """

    data: str
    images: int
    width: int
    hidden: int
    epochs: tuple[int, ...]
    rows: int | None = None
    recipe: str = "code"
    rate: float | None = None


MNIST = "ylecun/mnist"
PRESETS = {
    "smoke": Config(data="digits", images=200, width=32, hidden=5, epochs=(0, 10, 20)),
    "small": Config(data=MNIST, images=2000, width=500, hidden=5, epochs=(0, 100, 200, 300, 400)),
    "paper": Config(data=MNIST, images=30_000, width=500, hidden=5, epochs=(0, 200, 400, 600, 800)),
    "demo": Config(data="digits", images=1500, width=100, hidden=5, epochs=(0, 400, 800, 1600), rows=500),
}
SCALES = ("maxabs", "raw")  # the paper's, and raw with rms
UNIT = "epoch"
SEEDS = 3


def run(config: Config, request: Request) -> None:
    """Train a network for each seed, measuring it at the config's epochs and at the end.

    Raises:
        InputError: For an unknown recipe, data that cannot be loaded, or an output folder that cannot be used.
    """
    inputs, labels = images_of(config)
    trainings = [training(config, inputs, labels, seed) for seed in request.seeds]
    request.open("mlp", UNIT, config)
    for one in trainings:
        train(one, request.out / one.name, device=request.device, progress=request.progress)


def images_of(config: Config) -> tuple[Tensor, Tensor]:
    """Return flattened images, and their labels."""
    images, labels = load_images(config.data, config.images)
    return images.reshape(len(images), -1), labels


def training(config: Config, inputs: Tensor, labels: Tensor, seed: int) -> Training:
    """Return the training of one network on flattened images.

    Raises:
        InputError: For an unknown recipe.
    """
    if config.recipe not in RECIPES:
        raise unknown("recipe", config.recipe, RECIPES)
    recipe = RECIPES[config.recipe]
    rate = recipe.rate if config.rate is None else config.rate

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = network(inputs.shape[1], config.width, config.hidden, int(labels.max()) + 1, recipe.fill)
        return model, recipe.optimizer(model.parameters(), lr=rate)

    return Training(
        name=f"seed-{seed}",
        seed=seed,
        build=build,
        inputs=inputs,
        targets=labels,
        loss=recipe.loss,
        steps=config.epochs[-1],
        stop_below=recipe.stop_below,
        batch=recipe.batch,
        rate=lambda epoch: rate * (1 - recipe.decay) ** epoch,
        measure_at=config.epochs,
        metrics=_accuracy,
        options={"rows": config.rows, "seed": seed, "scale": SCALES},
    )


def network(
    d: int, width: int, hidden: int, classes: int, fill: Callable[[nn.Module], None] | None = None
) -> nn.Sequential:
    """Return a fully connected tanh network with equal hidden layers and a linear output, initialised by `fill`."""
    sizes = [d] + [width] * hidden
    layers: dict[str, nn.Module] = {}
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
        layers |= {f"linear{i}": nn.Linear(a, b), f"hidden{i}": nn.Tanh()}
    model = nn.Sequential(OrderedDict(layers, output=nn.Linear(width, classes)))
    if fill is not None:
        fill(model)
    return model


def rebuild(run: Run, config: Mapping[str, Any]) -> Source:
    """Rebuild a run's data and networks, for `layerfreq relearn`."""
    known = {key: config[key] for key in ("data", "images", "width", "hidden")}
    made = Config(epochs=(0,), recipe=config.get("recipe", "sgd"), **known)  # runs of version 0.1 name none
    inputs, labels = images_of(made)

    def fresh(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return training(made, inputs, labels, seed).build()[0]

    return Source(inputs, labels, fresh)


def present(out: Path, seeds: list[int]) -> Table:
    """Draw the panels of the first seed, the medians over all seeds, and the training curves.

    The table has the last epoch, one row per layer and seed.
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
    return Table(*layer_table(summary, UNIT), save_titled(figures, out / "figures"))


def beside(out: Path, seeds: list[int]) -> Table:
    """Compare the layers' densities with the published figure."""
    return compare_mlp(out, {seed: Run(out / f"seed-{seed}") for seed in seeds}, asdict(PRESETS["paper"]))


def _accuracy(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    return {"accuracy": float((outputs.argmax(dim=1) == targets).double().mean())}
