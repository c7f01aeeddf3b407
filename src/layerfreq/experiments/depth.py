"""Depth and speed: steps to a training error, for 3 to 7 hidden layers, and for targets of rising frequency.

Experiment 1 of the paper: target cos(3x) + cos(5x), equal-width layers. Its settings are unknown: width, samples,
optimizer, initialisation, rate and threshold are neither in the paper nor in the authors' repository,
Johnzhx/DeepFrequencyPrinciple (2020). Those chosen here show the published order; docs/depth.md says which others do
and do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.experiments import Request, Table
from layerfreq.experiments.figures.beside import compare_depth
from layerfreq.experiments.runner import Training, train
from layerfreq.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """Chosen values; full-batch gradient descent on [-pi, pi].

    Attributes:
        layers: Numbers of hidden layers to compare.
        frequencies: k of the targets cos(kx) of the companion figure.
        fixed: Number of hidden layers in the companion figure.
        points: Number of training points.
        width: Width of each hidden layer.
        rate: Learning rate.
        error: Mean squared training error at which a training ends.
        steps: Maximum number of steps.
        init: Initialisation and activation, one of `INITS`.
    """

    layers: tuple[int, ...]
    frequencies: tuple[int, ...]
    fixed: int = 4
    points: int = 100
    width: int = 100
    rate: float = 0.01
    error: float
    steps: int
    init: str = "glorot-5/3"


# name -> activation, and what sets the weights of hidden layers; None leaves PyTorch's default.
INITS: dict[str, tuple[type[nn.Module], Callable[[Tensor], Tensor] | None]] = {
    "default": (nn.Tanh, None),
    "glorot-1": (nn.Tanh, nn.init.xavier_normal_),
    "glorot-5/3": (nn.Tanh, partial(nn.init.xavier_normal_, gain=5 / 3)),
    "he-relu": (nn.ReLU, partial(nn.init.kaiming_normal_, nonlinearity="relu")),
}
LAYERS = (3, 4, 5, 6, 7)  # as published
PRESETS = {
    "smoke": Config(layers=(3, 4), frequencies=(1, 2), fixed=3, points=40, width=32, rate=0.02, error=0.5, steps=400),
    "small": Config(layers=LAYERS, frequencies=(1, 2, 3, 4, 5), error=0.05, steps=20_000),
    "paper": Config(layers=LAYERS, frequencies=(1, 2, 3, 4, 5, 6, 7, 8), error=0.01, steps=100_000),
}
UNIT = "step"
SEEDS = 3


def run(config: Config, request: Request) -> None:
    """Train every network of both figures for each seed; resuming skips finished ones."""
    request.open("depth", UNIT, config)
    for seed in request.seeds:
        for name, hidden, target in _cases(config):
            one, folder = training(config, name, hidden, target, seed), request.out / f"{name}-seed-{seed}"
            train(one, folder, device=request.device, progress=request.progress)


def present(out: Path, seeds: list[int]) -> Table:
    """Draw steps over depth and over frequency, mean and spread over seeds."""
    from matplotlib import pyplot as plt

    from layerfreq import plots

    config = Run(out).config
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    rows: list[list[str]] = []
    for ax, key, what in ((axes[0], "layers", "hidden layers"), (axes[1], "frequencies", "frequency k of cos(kx)")):
        steps = _all_steps(out, key, config[key], seeds)
        mean, spread = steps.mean(axis=1), steps.std(axis=1, ddof=1 if len(seeds) > 1 else 0)
        ax.errorbar(config[key], mean, yerr=spread, color="black", marker="o", capsize=3)
        ax.plot(config[key], steps, ".", color="0.6", zorder=0)
        ax.set_xticks(config[key])
        ax.set(xlabel=what, ylabel=f"steps to a training error of {config['error']}", ylim=(0, None))
        for value, m, s, each in zip(config[key], mean, spread, steps, strict=True):
            late = each >= config["steps"]  # the error may not be reached: such numbers are bounds
            shown = [f"{'> ' * bool(over)}{n:.0f}" for n, over in zip([m, *each], [late.any(), *late], strict=True)]
            rows.append([f"{what} {value}", shown[0], f"{s:.0f}", "  ".join(shown[1:])])
    figure.suptitle(
        f"depth, preset {config['preset']}, seeds {' '.join(map(str, seeds))} (mean and s.d.)", fontsize="medium"
    )
    return Table(["case", "steps, mean", "s.d.", "each seed"], rows, plots.save(figure, out / "figures", "steps"))


def beside(out: Path, seeds: list[int]) -> Table:
    """Compare the steps over depth with the published ones."""
    config = Run(out).config
    return compare_depth(out, config["layers"], _all_steps(out, "layers", config["layers"], seeds), config["steps"])


def _cases(config: Config) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for hidden in config.layers:
        yield f"layers-{hidden}", hidden, (3, 5)
    for k in config.frequencies:
        yield f"frequencies-{k}", config.fixed, (k,)


def training(config: Config, name: str, hidden: int, target: tuple[int, ...], seed: int) -> Training:
    """Return the training of one network on the sum of cos(kx) for the k of `target`."""
    x = torch.linspace(-math.pi, math.pi, config.points)[:, None]

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = network(config.width, hidden, config.init)
        return model, torch.optim.SGD(model.parameters(), lr=config.rate)

    return Training(
        name=f"{name}, seed {seed}",
        seed=seed,
        build=build,
        inputs=x,
        targets=sum((torch.cos(k * x) for k in target), torch.zeros_like(x)),
        loss=nn.functional.mse_loss,
        steps=config.steps,
        stop_below=config.error,
        log_every=100,
    )


def network(width: int, hidden: int, init: str) -> nn.Sequential:
    """Return a network from one number to one number, initialised after one of `INITS`."""
    activation, fill = INITS[init]
    sizes = [1] + [width] * hidden + [1]
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        linear = nn.Linear(a, b)
        if fill is not None:
            (fill if i < hidden else nn.init.xavier_normal_)(linear.weight)
            nn.init.zeros_(linear.bias)
        parts += [linear, activation()] if i < hidden else [linear]
    return nn.Sequential(*parts)


def _all_steps(out: Path, key: str, values: list[int], seeds: list[int]) -> np.ndarray:
    """Return (values, seeds) steps."""
    return np.array([[_steps(out / f"{key}-{value}-seed-{seed}") for seed in seeds] for value in values])


def _steps(folder: Path) -> int:
    return max(Run(folder).metrics["step"].tolist())
