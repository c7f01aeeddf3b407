"""Small trained networks that kept their weights: of waves in time, of images, and of sequences."""

import pytest
import torch
from torch import nn

from layerfreq.report.sections.section import Trained
from layerfreq.runs.weights import keep_weights, kept_steps, load_weights

from ..conftest import make

WRONG = (3, 17, 40)  # points of another label than their like


def waves(n=60, length=24):
    """Two classes of waves with some noise, three points of them with the other one's label."""
    g, labels = torch.Generator().manual_seed(0), torch.arange(n) % 2
    t = torch.arange(length) / length
    x = torch.sin(2 * torch.pi * (2 + 5 * labels[:, None]) * t) + 0.1 * torch.randn(n, length, generator=g)
    labels[list(WRONG)] = 1 - labels[list(WRONG)]
    return x[:, None], labels


def in_time():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def of_images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))


class Recurrent(nn.Module):
    """A network of sequences, whose channels are on the last axis."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.last = nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.act(self.first(x)).mean(dim=1))


def keep(path, model, steps=(0, 10, 20), **options):
    """A run with made-up spectra of the model's layers, whose weights shrink by a tenth from step to step."""
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.ReLU, nn.Tanh))]
    run = make(path, layers, **options)
    for step in steps:
        keep_weights(run.path, step, model)
        for p in model.parameters():
            p.data *= 0.9
    return run


def trained(run, model, inputs, targets, each=0.0, layers=(), own=0.0):
    steps = kept_steps(run.path)
    load_weights(run.path, steps[-1], model)
    return Trained(run, list(layers), "step", steps, model, inputs, targets, len(inputs), (own, each))


@pytest.fixture(scope="session")
def images():
    """(60, 1, 8, 8) images of three classes."""
    labels = torch.arange(60) % 3
    return torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + labels[:, None, None, None], labels
