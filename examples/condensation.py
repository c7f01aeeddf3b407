"""Do neurons condense from small initial weights, and do they stay together?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from torch import nn

from layerfreq.related import neuron_condensation


def measure(seed, sizes=(1.0, 0.1, 0.01), steps=4000):
    torch.manual_seed(seed)
    x = torch.randn(200, 5)
    target = torch.tanh(2 * x[:, :1]) + torch.sin(2 * x[:, 1:2]) * x[:, 2:3]
    rows = []
    for size in sizes:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 100), nn.Tanh(), nn.Linear(100, 1))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(size)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for step in range(steps + 1):
            loss = nn.functional.mse_loss(model(x), target)
            if step in (0, 10, 30, 100, 300, 1000, steps):
                found = neuron_condensation(model[0].weight, model[0].bias)
                names = ("similarity", "chance", "directions", "chance_directions")
                numbers = {name: found[name] for name in names}
                rows.append({"size": size, "step": step, "loss": loss.item(), **numbers})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, error_bars, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, last = table["seed"].nunique(), table["step"].max()
    small, usual = table["size"].min(), table["size"].max()
    by = table.pivot_table(index=["seed", "size"], columns="step", values="directions")
    few, many = by.xs(small, level="size"), by.xs(usual, level="size")
    least = few.min(axis=1)
    back = (few[last] > 1.2 * least).sum()
    end = table[table["step"] == last]
    return [
        f"With initial weights of {number(small)} times the usual size, the 100 neurons fell to "
        f"{spread(least)} effective directions, from {spread(few[0])}, in "
        f"{(least < many.min(axis=1)).sum()} of {n} seeds to fewer than usual weights did at any step "
        f"({spread(many.min(axis=1))}). The number rose again: at the end it was {spread(few[last])}, more than "
        f"1.2 times its minimum in {back} of {n} seeds.",
        f"Random directions would have {number(table['chance_directions'].mean())}, and a mean |cosine| of "
        f"{number(table['chance'].mean())}.",
        f"At step {last} the loss was {spread(end[end['size'] == small]['loss'])} from small weights, and "
        f"{spread(end[end['size'] == usual]['loss'])} from usual ones.",
    ]


def figure(table):
    """Effective directions and the loss over steps, by size of the initial weights."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    for ax, value, label in zip(axes, ("directions", "loss"), ("effective directions of 100 neurons", "loss")):
        for look, (size, part) in zip(LOOKS, table.groupby("size", sort=False)):
            error_bars(ax, lambda step: step + 1, part, "step", value, f"{size:g}", look)
        ax.set(xlabel="step + 1", ylabel=label, xscale="log", yscale="log")
    axes[0].axhline(table["chance_directions"].mean(), color="0.45", linestyle="--", linewidth=0.8, label="by chance")
    axes[0].set_yscale("linear")
    axes[0].set_ylim(0, None)
    handles, labels = axes[0].get_legend_handles_labels()
    order = [1, 2, 3, 0]
    labels = [f"initial weights x {one}" if one != "by chance" else "random directions" for one in labels]
    some = [handles[i] for i in order if i < len(handles)]
    drawing.legend(
        some,
        [labels[i] for i in order if i < len(labels)],
        ncols=4,
        loc="outside upper center",
        fontsize="x-small",
        frameon=False,
    )
    return drawing


if __name__ == "__main__":
    publish("condensation", measure, sentences, figure, smoke={"sizes": (1.0, 0.01), "steps": 30})
