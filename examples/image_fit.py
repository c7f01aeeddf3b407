"""An image as a function of coordinates: what do ReLU, Fourier-feature and sine networks each miss?"""

# ruff: noqa: B905, D101, D102, D103, E402
# --8<-- [start:code]
import math

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from layerfreq import error_spectrum

BANDS = (1, 2, 4, 8, 16, 34)  # edges in cycles per image


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


class Waves(nn.Module):
    """Sines and cosines of random frequencies, before the first layer."""

    def __init__(self, count=64, spread=5.0):
        super().__init__()
        self.register_buffer("k", 2 * math.pi * spread * torch.randn(2, count))

    def forward(self, x):
        return torch.cat([torch.sin(x @ self.k), torch.cos(x @ self.k)], dim=1)


def network(kind, width=64):
    act = Sine if kind == "sine" else nn.ReLU
    before = [Waves()] if kind == "Fourier features" else []
    sizes = [128 if before else 2, width, width, width]
    hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), act())]
    model = nn.Sequential(*before, *hidden, nn.Linear(width, 1))
    if kind == "sine":  # as Sitzmann et al. (2020) initialise them
        for i, linear in enumerate(m for m in model if isinstance(m, nn.Linear)):
            bound = 1 / 2 if i == 0 else math.sqrt(6 / linear.in_features) / 30
            nn.init.uniform_(linear.weight, -bound, bound)
    return model


def image(side):
    grey = torch.tensor(load_sample_image("china.jpg")).float().mean(dim=2)[20:404, 130:514] / 255
    return nn.functional.interpolate(grey[None, None], (side, side), mode="area")[0, 0]


def measure(seed, side=48, steps=600, looks=(0, 20, 60, 200, 600)):
    axis = torch.arange(side) / side
    x = torch.cartesian_prod(axis, axis)  # one unit per image: k / (2 pi) is in cycles per image
    y = image(side).reshape(-1, 1)
    rows = []
    for kind in ("ReLU", "Fourier features", "sine"):
        torch.manual_seed(seed)
        model = network(kind)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step in range(steps + 1):
            loss = nn.functional.mse_loss(model(2 * x - 1), y)
            if step in looks:
                with torch.no_grad():  # an image does not repeat: a window, and the mean out
                    found = error_spectrum(x, y, model(2 * x - 1), window="hann", center=True)
                for low, high in zip(BANDS, BANDS[1:]):
                    at = (found.cycles > low - 0.5) & (found.cycles < high - 0.5)
                    relative = np.sqrt(found.error_energy[at].sum() / found.target_energy[at].sum())
                    which = {"network": kind, "step": step, "low": low, "high": high - 1}
                    rows.append({**which, "relative": relative, "mse": loss.item(), "bias": found.bias})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, join, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    last = table[table["step"] == table["step"].max()]
    n, step = table["seed"].nunique(), int(last["step"].max())
    lowest, highest = last["low"].min(), last["low"].max()
    kinds = list(dict.fromkeys(table["network"]))

    def left(kind, low):
        return spread(last[(last["network"] == kind) & (last["low"] == low)]["relative"])

    errors, biases = (
        [f"{spread(last[(last['network'] == kind) & (last['low'] == lowest)][what])} ({kind})" for kind in kinds]
        for what in ("mse", "bias")
    )
    middle = sorted(last["low"].unique())[-2]
    per_band = [f"{left(kind, lowest)}, {left(kind, middle)} and {left(kind, highest)} ({kind})" for kind in kinds]
    names = [f"{low} to {last[last['low'] == low]['high'].iloc[0]}" for low in (lowest, middle, highest)]
    return [
        f"After {step} steps, relative errors of amplitude at {join(names)} cycles per image were {join(per_band)}: "
        f"mean, minimum and maximum over {n} seeds.",
        f"Mean squared errors at step {step}: {join(errors)}.",
        f"Spectral bias of the error (1: only high frequencies are missing): {join(biases)}.",
    ]


def figure(table):
    """Relative error by band of frequency: after the first looks, and at the end."""
    steps = sorted(table["step"].unique())
    shown = steps[1:] if len(steps) < 5 else [steps[1], steps[-2], steps[-1]]
    drawing, axes = plt.subplots(1, len(shown), figsize=(7.2, 3.2), layout="constrained", sharey=True, squeeze=False)
    for ax, step in zip(axes[0], shown):
        for look, (kind, part) in zip(LOOKS, table[table["step"] == step].groupby("network", sort=False)):
            bands = part.groupby("low")["relative"]
            middle = bands.mean()
            away = [middle - bands.min(), bands.max() - middle]
            ax.errorbar(range(len(middle)), middle, yerr=away, label=kind, capsize=2, markersize=4, **look)
        names = part.groupby("low")["high"].first()
        ax.set_xticks(range(len(names)), [f"{a}" if a == b else f"{a}-{b}" for a, b in names.items()], fontsize=8)
        ax.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(title=f"step {step}", xlabel="cycles per image", ylim=(0, 1.3))
    axes[0][0].set_ylabel("relative error (1: absent)")
    axes[0][0].legend(fontsize="small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("image_fit", measure, sentences, figure, smoke={"steps": 4, "looks": (0, 2, 4)})
