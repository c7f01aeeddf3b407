"""Do shallow layers reach their final weights first?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import tempfile

import torch
from torch import nn

from layerfreq import Monitor
from layerfreq.related import layer_convergence


def measure(seed, frequencies=(2.0, 5.0), steps=1000):
    rows = []
    for frequency in frequencies:
        for name, activation in (("tanh", nn.Tanh), ("ReLU", nn.ReLU)):
            torch.manual_seed(seed)
            x = torch.rand(300, 2) * 2 - 1
            y = (torch.sin(frequency * x[:, 0]) * torch.sin(frequency * x[:, 1]) > 0).long()
            hidden = [m for a in (2, 64, 64, 64) for m in (nn.Linear(a, 64), activation())]
            model = nn.Sequential(*hidden, nn.Linear(64, 2))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            with tempfile.TemporaryDirectory() as folder:
                when = [0, steps // 2, steps]
                monitor = Monitor(model, x, y, run=folder, when=when, rows=20, checkpoints=True)
                for step in range(steps + 1):
                    loss = nn.functional.cross_entropy(model(x), y)
                    monitor.measure(step)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                monitor.close()
                found = layer_convergence(folder, model)
            for one in found.to_dict("records"):
                names = ("depth", "remaining", "rate", "chance")
                rows.append(
                    {"k": frequency, "activation": name, "loss": loss.item(), **{key: one[key] for key in names}}
                )
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, error_bars, join, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    first, last = table["depth"].min(), table["depth"].max()
    ahead, counts = [], []
    for (k, activation), part in table.groupby(["k", "activation"], sort=False):
        by = part.pivot_table(index="seed", columns="depth", values="remaining")
        lead, n = int((by[first] < by[last]).sum()), len(by)
        ahead.append(f"{lead} of {n} seeds for {activation} at k = {k:g}")
        counts.append(
            f"{activation}, k = {k:g}: distance left {spread(100 * by[first])}% at the first layer, at the last one "
            f"{spread(100 * by[last])}%; final loss "
            f"{spread(part.groupby('seed')['loss'].first())}."
        )
    walk = (0.5) ** 0.5
    slower = (table["remaining"] > walk).mean()
    always = all(one.split()[0] == one.split()[2] for one in ahead)
    never = all(one.split()[0] == "0" for one in ahead)
    said = "Yes, in all of these networks" if always else "No, in none" if never else "It depends on the network"
    return [
        f"{said}: halfway through training the first layer had a smaller share of its way to its final weights left "
        f"than the last layer in {join(ahead)}.",
        *counts,
        f"A random walk would have {100 * walk:.0f}% of its distance left; {100 * slower:.0f}% of all layers had more.",
    ]


def figure(table):
    """What is left of the way to the last weights, halfway through the training, by depth."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained", sharey=True)
    table = table.assign(remaining=100 * table["remaining"])
    for ax, (k, some) in zip(axes, table.groupby("k", sort=False)):
        for look, (activation, part) in zip(LOOKS, some.groupby("activation", sort=False)):
            error_bars(ax, float, part, "depth", "remaining", activation, look)
        ax.axhline(100 * 0.5**0.5, color="0.45", linestyle="--", linewidth=0.8, label="a random walk")
        ax.set(title=f"target of k = {k:g}", xlabel="layer, input to output")
        ax.title.set_fontsize("small")
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("way to the last weights left, %")
    axes[0].legend(fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("convergence", measure, sentences, figure, smoke={"frequencies": (2.0,), "steps": 20})
