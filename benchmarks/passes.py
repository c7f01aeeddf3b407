"""How often a model runs, and on how many points, to find and measure its layers: `python benchmarks/passes.py`."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from layerfreq import Monitor, hidden_layers, layer_spectra, split
from layerfreq.inspection.analysis import analyze
from layerfreq.inspection.modules import inspect_model
from layerfreq.loading.models import Source

POINTS = 200


class Residual(nn.Module):
    """A block with its sum written inline."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def models():
    """Name -> a model and its inputs."""
    images, texts = torch.randn(POINTS, 3, 12, 12), torch.randn(POINTS, 10, 16)
    wide = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return {
        "fully connected, 5 layers": (
            nn.Sequential(nn.Linear(20, 50), nn.Tanh(), *[nn.Linear(50, 50), nn.Tanh()] * 4, nn.Linear(50, 10)),
            torch.randn(POINTS, 20),
        ),
        "residual, 4 blocks": (
            nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), *(Residual(8) for _ in range(4)), nn.Flatten(), nn.Linear(800, 10)
            ),
            images,
        ),
        "transformer, 4 layers": (
            nn.Sequential(nn.TransformerEncoder(wide, 4, enable_nested_tensor=False), nn.Flatten(), nn.Linear(160, 10)),
            texts,
        ),
    }


def counted(model, inputs, call):
    """Passes through the whole model, and points in them, during a call."""
    seen = []
    hook = model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    call(model, inputs)
    hook.remove()
    return len(seen), sum(seen)


def analyzed(model, inputs, targets):
    """What `layerfreq analyze` does for a model without checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, inputs=inputs.numpy(), targets=targets.numpy())
        analyze(Source(model, "model"), [], str(data), Path(folder) / "run", name="model")


if __name__ == "__main__":
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # that counting changes a list as the model runs
    targets = torch.arange(POINTS) % 10
    calls = {
        "hidden_layers": hidden_layers,
        "layer_spectra": lambda net, x: layer_spectra(net, x, targets),
        "Monitor, one step": lambda net, x: Monitor(net, x, targets).measure(0),
        "split": lambda net, x: split(net, hidden_layers(net, x)[0], x),
        "doctor": lambda net, x: inspect_model(net, x, POINTS),
        "analyze": lambda net, x: analyzed(net, x, targets),
    }
    print(f"Passes, and points in them, of {POINTS}; of `split`, two passes are `hidden_layers`'s.\n")
    print(f"| model | {' | '.join(calls)} |\n|---|{'---|' * len(calls)}")
    for name, (model, inputs) in models().items():
        found = [counted(model, inputs, call) for call in calls.values()]
        print(f"| {name} | {' | '.join(f'{passes}, {points}' for passes, points in found)} |")
