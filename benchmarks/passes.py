"""How often a model runs, and on how many points, to find and measure its layers: `python benchmarks/passes.py`."""

import warnings

import torch
from torch import nn

from layerfreq import hidden_layers, layer_spectra

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


if __name__ == "__main__":
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # that counting changes a list as the model runs
    targets = torch.arange(POINTS) % 10
    print(f"| model, {POINTS} points | hidden_layers: passes, points | layer_spectra: passes, points |\n|---|---|---|")
    for name, (model, inputs) in models().items():
        found = counted(model, inputs, hidden_layers)
        whole = counted(model, inputs, lambda net, x: layer_spectra(net, x, targets))
        print(f"| {name} | {found[0]}, {found[1]} | {whole[0]}, {whole[1]} |")
