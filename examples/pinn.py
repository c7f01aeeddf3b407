"""A physics-informed network and a solution with a high frequency: which part does it learn first?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import itertools
import math

import torch
from torch import nn

from layerfreq import layer_spectra

LOW, HIGH = math.pi, 4 * math.pi  # u = sin(LOW x) + sin(HIGH x) solves u'' = f on [-1, 1] with u(-1) = u(1) = 0


def derivative(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def measure(seed, depths=(2, 3), points=100, steps=3000, every=200):
    x = torch.linspace(-1, 1, points)[:, None].requires_grad_()
    low, high = torch.sin(LOW * x.detach()), torch.sin(HIGH * x.detach())
    u, f = low + high, -(LOW**2) * low - HIGH**2 * high
    rows = []
    for layers, trained_on in itertools.product(depths, ("equation", "values")):
        torch.manual_seed(seed)
        sizes = [1] + [50] * layers
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
        model = nn.Sequential(*hidden, nn.Linear(50, 1))
        for linear in model[::2]:
            nn.init.xavier_normal_(linear.weight, gain=5 / 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(steps + 1):
            y = model(x)
            if step % every == 0:
                error = (y - u).detach()
                left = {
                    "low_left": abs((error * low).sum() / low.square().sum()).item(),
                    "high_left": abs((error * high).sum() / high.square().sum()).item(),
                    "error": (error.square().sum() / u.square().sum()).sqrt().item(),
                }
                for depth, s in enumerate(layer_spectra(model, x.detach(), u, scale="rms").values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution}
                    which = {"layers": layers, "trained_on": trained_on, "step": step, "depth": depth}
                    rows.append({**which, **left, **values})
            if trained_on == "equation":
                residual = derivative(derivative(y, x), x) - f
                loss = (residual / HIGH**2).square().mean() + y[0].square().sum() + y[-1].square().sum()
            else:
                loss = (y - u).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, join, log_axis, publish, spread

LIMIT = 0.2  # of a wave; below, it counts as learned


def sentences(table):
    """The answer and remarks, from the table."""
    n, steps = table["seed"].nunique(), sorted(table["step"].unique())
    depths = sorted(table["layers"].unique(), reverse=True)

    def wrong_until(part, wave):
        wrong = part[part[f"{wave}_left"] > LIMIT].groupby("seed")["step"].max()
        return wrong.reindex(part["seed"].unique(), fill_value=-1)  # -1: at no look

    first, until, errors, medians = {}, {}, {}, {}
    for (trained_on, layers), part in table.groupby(["trained_on", "layers"]):
        low, high = wrong_until(part, "low"), wrong_until(part, "high")
        first[trained_on, layers] = int((high < low).sum()), int((low < high).sum())
        until[trained_on, layers] = f"{spread(low, 3)} for the low and {spread(high, 3)} for the high wave"
        last = part[part["depth"] == layers].set_index("seed")
        errors[trained_on, layers] = spread(last[last["step"] == steps[-1]]["error"])
        medians[trained_on, layers] = [spread(last[last["step"] == step]["median"]) for step in (steps[0], steps[-1])]
    deep, other = depths[0], depths[-1]
    return [
        f"Trained on the equation, {first['equation', deep][0]} of {n} networks with {deep} hidden layers learned the "
        f"high wave first and {first['equation', deep][1]} the low one, of those with {other} layers "
        f"{first['equation', other][0]} and {first['equation', other][1]}, the rest neither. Trained on the values of "
        f"the solution it was {first['values', deep][0]} and {first['values', deep][1]}, and "
        f"{first['values', other][0]} and {first['values', other][1]}. With {deep} layers, the last step at which "
        f"more than a fifth of a wave was wrong was {until['equation', deep]} on the equation, and "
        f"{until['values', deep]} on the values (mean, minimum and maximum over seeds, every {steps[1]} steps).",
        f"With {other} layers these steps are {until['equation', other]} on the equation, and {until['values', other]} "
        f"on the values.",
        f"Median frequency of the solution above the last of {deep} hidden layers, 1/δ at unit RMS: "
        f"{medians['equation', deep][0]} before training; at step {steps[-1]} {medians['equation', deep][1]} on the "
        f"equation and {medians['values', deep][1]} on the values.",
        f"Relative errors of the solution at step {steps[-1]}: "
        + join([f"{errors[on, d]} ({on}, {d} layers)" for on in ("equation", "values") for d in depths])
        + f". Where a step above is {steps[-1]}, the wave was still wrong at the end.",
    ]


def figure(table):
    """What is wrong of either wave, and the median frequency above the last layer, over training."""
    drawing, (left, right) = plt.subplots(1, 2, figsize=(7, 3.9), layout="constrained")
    for look, (trained_on, part) in zip(LOOKS, table[table["layers"] == table["layers"].max()].groupby("trained_on")):
        color = {"color": look["color"]}
        for wave, dash, marker in (("low", (0, (2, 1)), None), ("high", "-", "o")):
            by_step = part[part["depth"] == 1].groupby("step")[f"{wave}_left"]
            low, middle, high = by_step.min(), by_step.median(), by_step.max()
            left.plot(middle, label=f"{trained_on}, {wave} wave", linestyle=dash, marker=marker, markersize=3, **color)
            left.fill_between(middle.index, low, high, alpha=0.12, lw=0, **color)
        error_bars(right, float, part[part["depth"] == part["layers"]], "step", "median", trained_on, look)
    left.axhline(LIMIT, color="0.5", linewidth=0.8, linestyle=":")
    left.set(xlabel="step", ylabel="share of the wave that is wrong", ylim=(2e-3, 3))
    right.set(xlabel="step", ylabel=f"median above the last layer\n{LABELS['rms']}")
    for ax in (left, right):
        log_axis(ax.yaxis)
        ax.legend(title="trained on the", fontsize="small", frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    return drawing


if __name__ == "__main__":
    publish("pinn", measure, sentences, figure, smoke={"points": 40, "steps": 10, "every": 5})
