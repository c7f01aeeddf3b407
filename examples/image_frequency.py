"""How strong must a trace in one class's images be before a network relies on it?"""

# ruff: noqa: D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq.related import image_frequency


def measure(seed, strengths=(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2), steps=200, n=1000):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16).float().view(-1, 1, 8, 8), torch.tensor(labels)
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))  # the highest frequency there is
    rows = []
    for strength in strengths:
        torch.manual_seed(seed)
        some = torch.randperm(len(images))
        train, held = some[:n], some[n:]
        marked = images + strength * board * (labels == 3)[:, None, None, None]
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(marked[train]), labels[train]).backward()
            optimizer.step()
        found = image_frequency(model, marked[train], labels[train], patch=1)
        cost = found.loss[:, 0, 0]  # of each class, without the highest frequency
        with torch.no_grad():
            threes = held[labels[held] == 3]
            right = {
                "marked": (model(marked[threes]).argmax(1) == 3).float().mean().item(),
                "clean": (model(images[threes]).argmax(1) == 3).float().mean().item(),
            }
        others = [cost[c] for c in range(10) if c != 3]
        rows.append({"strength": strength, "cost": cost[3], "others": max(others), **right})
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, error_bars, join, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    seeds = table["seed"].nunique()
    counts = {s: int((part["cost"] > part["others"]).sum()) for s, part in table.groupby("strength")}
    seen = next((s for s in counts if s > 0 and all(counts[t] == seeds for t in counts if t >= s)), None)
    top = table["strength"].max()
    by = table.groupby("strength")
    most, least = by.get_group(top), by.get_group(0.0)
    lost = {s: 100 * (part["marked"] - part["clean"]) for s, part in by}
    said = "At none of these strengths" if seen is None else f"From {number(100 * seen)}% of the brightness on"
    ranked = join([f"{number(100 * s)}% ({counts[s]} of {seeds})" for s in counts])
    return [
        f"{said}: there the loss of the marked class rose more than that of any other when the trace's frequency was "
        f"taken out, in every seed. By strength: {ranked}.",
        f"At {number(100 * top)}% the class's loss rose by {spread(most['cost'])} without that frequency, and in "
        f"networks that had seen no trace by {spread(least['cost'])}.",
        "Points of accuracy that the network lost on held-out images of that class when they came without the trace: "
        + join([f"{spread(lost[s])} at {number(100 * s)}%" for s in lost if s > 0])
        + ".",
    ]


def figure(table):
    """What the trace's frequency is worth to its class and the others, and the accuracy without it."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    table = table.assign(percent=100 * table["strength"])
    for value, label, look in (("cost", "the marked class", LOOKS[1]), ("others", "most of the others", LOOKS[0])):
        error_bars(axes[0], float, table, "percent", value, label, look)
    for value, label, look in (("marked", "with the trace", LOOKS[1]), ("clean", "without it", LOOKS[2])):
        error_bars(axes[1], float, table, "percent", value, label, look)
    axes[0].set(ylabel="rise of the loss without the frequency", xlabel="strength of the trace, %")
    axes[1].set(ylabel="accuracy on the held-out class", xlabel="strength of the trace, %", ylim=(0, 1.03))
    for ax in axes:
        ax.legend(fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("image_frequency", measure, sentences, figure, smoke={"strengths": (0.0, 0.2), "steps": 20, "n": 200})
