"""A physics-informed network whose solution lives on two scales: which one is missing, and do Fourier features help?"""

# ruff: noqa: B905, D102, D103, E402
# --8<-- [start:code]
import math

import torch
from torch import nn

from layerfreq import error_spectrum

LOW, HIGH, SMALL = 1, 10, 0.1  # cycles of either wave, and the amplitude of the second


class Waves(nn.Module):
    """Sines and cosines of random frequencies, before the first layer (Wang, Wang and Perdikaris 2021)."""

    def __init__(self, spread, count=32):
        super().__init__()
        self.register_buffer("k", 2 * math.pi * spread * torch.randn(1, count))

    def forward(self, x):
        return torch.cat([torch.sin(x @ self.k), torch.cos(x @ self.k)], dim=1)


def network(spread, width=64):
    first = [Waves(spread)] if spread else []
    hidden = [nn.Linear(64 if first else 1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*first, *hidden, nn.Linear(width, 1))


def derivative(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def measure(seed, points=128, steps=2000, every=50):
    x = torch.linspace(0, 1, points + 1)[:, None].requires_grad_()
    low, high = (torch.sin(2 * math.pi * k * x.detach()) for k in (LOW, HIGH))
    u, f = low + SMALL * high, -((2 * math.pi) ** 2) * (LOW**2 * low + SMALL * HIGH**2 * high)
    rows = []
    for name, size in (("plain", 0.0), ("features, spread 1", 1.0), ("features, spread 5", 5.0)):
        torch.manual_seed(seed)
        model = network(size)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step in range(steps + 1):
            y = model(x)
            if step % every == 0:  # without the last point, which a period holds already
                found = error_spectrum(x[:-1].detach(), u[:-1], y[:-1].detach(), method="grid")
                left = {"low_left": found.relative[LOW], "high_left": found.relative[HIGH], "mse": found.mse}
                rows.append({"network": name, "step": step, **left, "bias": found.bias})
            equation = (derivative(derivative(y, x), x) - f) / f.abs().max()
            loss = equation.square().mean() + y[0].square().sum() + y[-1].square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, join, log_axis, publish, spread

LIMIT = 0.1  # of a wave's amplitude; below, it counts as learned


def sentences(table):
    """The answer and remarks, from the table."""
    n, steps = table["seed"].nunique(), sorted(table["step"].unique())
    kinds = list(dict.fromkeys(table["network"]))
    last = table[table["step"] == steps[-1]].set_index("seed")

    def left(kind, wave):
        return spread(last[last["network"] == kind][f"{wave}_left"])

    def learned(kind, wave):
        part = table[(table["network"] == kind) & (table[f"{wave}_left"] < LIMIT)].groupby("seed")["step"].min()
        return part.astype(float).reindex(range(n), fill_value=float("inf"))

    def order(kind):
        low, high = learned(kind, "low"), learned(kind, "high")
        return f"{int((low < high).sum())} and {int((high < low).sum())} ({kind})"

    ends = [f"{left(kind, 'low')} and {left(kind, 'high')} ({kind})" for kind in kinds]
    return [
        f"After {steps[-1]} steps, relative errors of amplitude of the low and the high wave were {join(ends)}: mean, "
        f"minimum and maximum over {n} seeds.",
        f"Of {n} seeds, those in which the low wave was below a tenth before the high one, and those in which the "
        f"high one was: {join([order(kind) for kind in kinds])}; measured every {steps[1]} steps.",
        f"Mean squared errors at step {steps[-1]}: "
        + join([f"{spread(last[last['network'] == kind]['mse'])} ({kind})" for kind in kinds])
        + ".",
    ]


def figure(table):
    """What is wrong of either wave over training, one panel per network."""
    kinds = list(dict.fromkeys(table["network"]))
    drawing, axes = plt.subplots(1, len(kinds), figsize=(7.2, 3.2), layout="constrained", sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds):
        part = table[table["network"] == kind]
        for look, (wave, cycles) in zip(LOOKS, (("low", LOW), ("high", HIGH))):
            by_step = part.groupby("step")[f"{wave}_left"]
            look = {**look, "marker": None}
            ax.plot(by_step.median(), label=f"{cycles} cycle{'s' * (cycles > 1)}", **look)
            ax.fill_between(by_step.min().index, by_step.min(), by_step.max(), alpha=0.15, lw=0, color=look["color"])
        ax.axhline(LIMIT, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(title=kind, xlabel="step", ylim=(2e-4, 3))
        log_axis(ax.yaxis)
    axes[0][0].set_ylabel("relative error (1: absent)")
    axes[0][0].legend(fontsize="small", frameon=False, loc="lower left")
    return drawing


if __name__ == "__main__":
    publish("two_scales", measure, sentences, figure, smoke={"points": 32, "steps": 4, "every": 2})
