"""A Fourier neural operator keeps a few modes in each layer: are the frequencies beyond them what it misses?"""

# ruff: noqa: B905, D102, D103, E402
# --8<-- [start:code]
import math

import numpy as np
import torch
from torch import nn

from layerfreq import error_spectrum

BANDS = (1, 3, 5, 9, 17, 25)  # edges in cycles per period


def fields(count, points, seed):
    """Random waves of 1 to 4 cycles, each a random share of the field."""
    generator = torch.Generator().manual_seed(seed)
    x, k = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points, torch.arange(1, 5, dtype=torch.float64)
    sizes = torch.randn(2, count, 4, generator=generator, dtype=torch.float64)
    return (sizes[0] @ torch.sin(k[:, None] * x) + sizes[1] @ torch.cos(k[:, None] * x)) / 4


def burgers(u, time=0.2, viscosity=0.01, steps=200):
    """u_t + u u_x = viscosity u_xx on a period of length one: Fourier in space, Runge-Kutta 4 in time."""
    n, h = u.shape[1], time / steps
    k = 2 * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64)
    half, kept = torch.exp(-viscosity * k**2 * h / 2), k <= 2 * math.pi * n / 3  # no aliases of the square

    def change(v):
        return -0.5j * k * kept * torch.fft.rfft(torch.fft.irfft(v, n) ** 2)

    v = torch.fft.rfft(u)
    for _ in range(steps):
        a = change(v)
        b = change(half * (v + h / 2 * a))
        c = change(half * v + h / 2 * b)
        d = change(half * (half * v + h * c))
        v = half**2 * (v + h / 6 * a) + h / 3 * half * (b + c) + h / 6 * d
    return torch.fft.irfft(v, n)


class Modes(nn.Module):
    """A linear map of the lowest modes, and one of each point: the layer of Li et al. (2021)."""

    def __init__(self, width, modes):
        super().__init__()
        self.modes, self.point = modes, nn.Conv1d(width, width, 1)
        self.weight = nn.Parameter(torch.randn(width, width, modes, 2) / width)

    def forward(self, x):
        low = torch.fft.rfft(x)[..., : self.modes]
        turned = torch.einsum("bim,iom->bom", low, torch.view_as_complex(self.weight))
        return self.point(x) + torch.fft.irfft(turned, x.shape[-1])


def measure(seed, kept=(4, 8, 16), samples=256, points=64, width=16, steps=1000, looks=(0, 50, 200, 1000)):
    start = fields(samples + 64, 4 * points, seed)
    end = burgers(start)[:, None, ::4].float()
    start = start[:, None, ::4].float()
    x = torch.arange(points) / points  # one unit per period: k / (2 pi) is in cycles
    rows = []
    for modes in kept:
        torch.manual_seed(seed)
        inner = [m for _ in range(3) for m in (Modes(width, modes), nn.GELU())]
        model = nn.Sequential(nn.Conv1d(1, width, 1), *inner, nn.Conv1d(width, 1, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(steps + 1):
            if step in looks:
                with torch.no_grad():  # each new field is a column; points are those of the period
                    found = error_spectrum(x, end[samples:, 0].T, model(start[samples:])[:, 0].T, method="grid")
                for low, high in zip(BANDS, BANDS[1:]):
                    at = (found.cycles > low - 0.5) & (found.cycles < high - 0.5)
                    relative = np.sqrt(found.error_energy[at].sum() / found.target_energy[at].sum())
                    which = {"modes": modes, "step": step, "low": low, "high": high - 1}
                    rows.append({**which, "relative": relative, "mse": found.mse, "learned": found.learned(0.2)})
            some = torch.randint(samples, (32,))
            loss = nn.functional.mse_loss(model(start[some]), end[some])
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
    kinds, n, step = sorted(last["modes"].unique()), last["seed"].nunique(), int(last["step"].max())
    lows = sorted(last["low"].unique())
    names = {low: f"{low} to {int(last[last['low'] == low]['high'].iloc[0])}" for low in lows}

    def left(modes, low):
        return last[(last["modes"] == modes) & (last["low"] == low)].set_index("seed")["relative"]

    few, many = kinds[0], kinds[-1]
    seen = [low for low in lows if low >= few]  # bands of which the fewest modes keep nothing
    better = [int((left(many, low) < left(few, low)).sum()) for low in seen]
    errors = [f"{join([spread(left(modes, low)) for low in lows])} ({modes} modes)" for modes in kinds]
    counts = [f"{count} at {names[low]}" for count, low in zip(better, seen)]
    whole = [spread(last[last["modes"] == modes].groupby("seed")["mse"].first()) for modes in kinds]
    return [
        f"No: after {step} steps, relative errors of amplitude on new fields, at {join([names[low] for low in lows])} "
        f"cycles, were {join(errors)}: mean, minimum and maximum over {n} seeds. All miss the high frequencies most.",
        f"Above the modes of the smallest network, errors of the one with {many} modes were smaller, of {n} seeds, in "
        f"{join(counts)} cycles.",
        f"Mean squared errors at step {step}: {join([f'{one} ({modes} modes)' for one, modes in zip(whole, kinds)])}.",
    ]


def figure(table):
    """Relative error by band of frequency: after the first looks, and at the end."""
    steps = sorted(table["step"].unique())[1:]
    drawing, axes = plt.subplots(1, len(steps), figsize=(7.2, 3.2), layout="constrained", sharey=True, squeeze=False)
    for ax, step in zip(axes[0], steps):
        for look, (modes, part) in zip(LOOKS, table[table["step"] == step].groupby("modes")):
            bands = part.groupby("low")["relative"]
            middle = bands.mean()
            away = [middle - bands.min(), bands.max() - middle]
            ax.errorbar(range(len(middle)), middle, yerr=away, label=f"{modes} modes", capsize=2, markersize=4, **look)
        names = part.groupby("low")["high"].first()
        ax.set_xticks(range(len(names)), [f"{a}-{b}" for a, b in names.items()], fontsize=8)
        ax.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(title=f"step {step}", xlabel="cycles", ylim=(0, 1.3))
    axes[0][0].set_ylabel("relative error (1: absent)")
    axes[0][-1].legend(fontsize="small", frameon=False, loc="upper left")
    return drawing


if __name__ == "__main__":
    publish("neural_operator", measure, sentences, figure, smoke={"samples": 40, "steps": 4, "looks": (0, 2, 4)})
