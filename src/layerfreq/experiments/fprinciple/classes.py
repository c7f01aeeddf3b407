"""Classifiers, watched by frequency or tested on what they were not shown: parts cifar and parity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from layerfreq.experiments import Progress
from layerfreq.experiments.fprinciple.fits import Fit, Row
from layerfreq.experiments.runner import PIECE
from layerfreq.response import error_spectrum

VARIANCES = np.linspace(2, 100, 20)  # delta of the filters, as published
BITS = 10  # of the parity function


def image_network(shape: tuple[int, ...], classes: int, channels: tuple[int, int], dense: int) -> nn.Sequential:
    """Return the published network: two 3 x 3 convolutions, a maximum over 2 x 2, and a hidden layer, ReLU.

    Args:
        shape: Shape of an image, channels first.
        classes: Number of outputs.
        channels: Numbers of channels of the convolutions; 32 and 64.
        dense: Width of the hidden layer; 400.
    """
    places = ((shape[1] - 4) // 2) * ((shape[2] - 4) // 2)
    model = nn.Sequential(
        nn.Conv2d(shape[0], channels[0], 3),
        nn.ReLU(),
        nn.Conv2d(channels[0], channels[1], 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(places * channels[1], dense),
        nn.ReLU(),
        nn.Linear(dense, classes),
    )
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)  # with zero biases, the default of the authors' framework
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return model


def image_rows(
    images: Float32[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    model: nn.Module,
    *,
    epochs: int,
    measured: Collection[int],
    seed: int,
    progress: Progress,
) -> Iterator[Row]:
    """Train by SGD with Nesterov momentum on cross-entropy, and filter one-hot labels and probabilities.

    That is done at the epochs `measured`. Frequencies are k = delta^(-1/2). Yielded are e_low and e_high at each, and
    the relative error along the images' first principal direction.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    k = np.sort(VARIANCES**-0.5)
    order = torch.Generator().manual_seed(seed)
    progress.start(f"cifar, seed {seed}", epochs, 0)
    for epoch in range(epochs + 1):
        if epoch in measured:
            with torch.no_grad():
                logits = torch.cat([model(some) for some in images.split(PIECE)])
            loss = float(nn.functional.cross_entropy(logits, labels))
            yield "cifar", epoch, "loss", math.nan, loss
            yield "cifar", epoch, "accuracy", math.nan, float((logits.argmax(dim=1) == labels).double().mean())
            found = error_spectrum(images, labels, logits, k, method="filter")
            for at, low, high in zip(k, found.low, found.high, strict=True):
                yield "cifar", epoch, "low", float(at), float(low)
                yield "cifar", epoch, "high", float(at), float(high)
            along = error_spectrum(images, labels, logits, method="projection")
            for at, value in zip(along.k, along.relative, strict=True):
                if math.isfinite(value):
                    yield "cifar", epoch, "projection", float(at), float(value)
            progress.step(epoch, loss)
        if epoch < epochs:
            for some in torch.randperm(len(images), generator=order).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
                optimizer.step()
    progress.finish()


def parity(*, widths: tuple[int, int], points: int, steps: int, seed: int) -> Fit:
    """Return the fit of the product of ten signs on some of the 1,024 points, which is tested on the rest.

    The rate, and about fifty measurements, are this project's choice.
    """
    x = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=BITS)))
    y = x.prod(dim=1, keepdim=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    shown, rest = order[:points], order[points:]

    def build() -> nn.Module:
        first, second = widths
        return nn.Sequential(
            nn.Linear(BITS, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 1)
        )

    def observe(model: nn.Module) -> Iterator[tuple[str, float, float]]:
        right = (model(x).sign() == y).double()[:, 0]
        yield "accuracy", math.nan, float(right[shown].mean())
        yield "rest", math.nan, float(right[rest].mean())

    return Fit("parity", x[shown], y[shown], build, 5e-4, steps, max(1, steps // 50), observe)
