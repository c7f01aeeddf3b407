"""Width or depth: which of them lowers what the last layer still has to learn?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import hidden_layers, layer_spectra


def measure(seed, widths=(20, 60, 180), depths=(1, 2, 4, 8), n=500, steps=250):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for width in widths:
        for depth in depths:
            torch.manual_seed(seed)
            sizes = [64] + [width] * depth
            hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
            model = nn.Sequential(*hidden, nn.Linear(width, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
            for _ in range(steps):
                output = model(images)
                loss = nn.functional.cross_entropy(output, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            accuracy = (output.argmax(1) == labels).float().mean().item()
            last = hidden_layers(model, images)[-1]
            s = layer_spectra(model, images, labels, layers=[last])[last]
            for scale in ("raw", "rms"):
                one = s.to_scale(scale)
                values = {"median": one.median, "resolution": one.resolution, "loss": loss.item(), "accuracy": accuracy}
                rows.append({"width": width, "depth": depth, "scale": scale, **values})
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
import pandas as pd
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, join, log_axis, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, depths, widths = table["seed"].nunique(), sorted(table["depth"].unique()), sorted(table["width"].unique())

    def medians(scale):
        one = table[table["scale"] == scale]
        return one.pivot_table(index="seed", columns=["width", "depth"], values="median")

    def by_depth(scale, width, few=depths[0], many=depths[-1]):
        return medians(scale)[width, few] / medians(scale)[width, many]

    def by_width(scale, depth):
        return medians(scale)[widths[0], depth] / medians(scale)[widths[-1], depth]

    def told(factors):
        return f"{spread(factors)} (it fell in {int((factors > 1).sum())} of {len(factors)} pairs of trainings)"

    most = depths[-2]  # the figure shows why not the last
    deep = pd.concat(by_depth("rms", width, many=most) for width in widths)
    deeper = pd.concat(by_depth("rms", width, few=most) for width in widths)
    wide = pd.concat(by_width("rms", depth) for depth in depths)
    deepest = [f"{spread(by_depth('rms', width))} at width {width}" for width in widths]
    wider = [f"{spread(by_width('rms', depth))} with {depth}" for depth in depths]
    raw_deep = pd.concat(by_depth("raw", width) for width in widths)
    raw_wide = pd.concat(by_width("raw", depth) for depth in depths)
    losses = table[table["scale"] == "rms"].groupby(["width", "depth"])["loss"].mean()
    return [
        f"From {depths[0]} to {most} hidden layers the median frequency above the last one, at unit RMS, was divided "
        f"by {told(deep)}, from {most} to {depths[-1]} by {told(deeper)}; from width {widths[0]} to {widths[-1]} it "
        f"was divided by {told(wide)}; mean, minimum and maximum over {n} seeds and all widths, or all depths.",
        f"From {depths[0]} to {depths[-1]} layers it was divided by {join(deepest)}; from width {widths[0]} to "
        f"{widths[-1]} by {join(wider)} hidden layers. Below 1 means that it rose.",
        f"Raw, the median was divided by {spread(raw_deep)} from {depths[0]} to {depths[-1]} layers, and by "
        f"{spread(raw_wide)} from width {widths[0]} to {widths[-1]}.",
        f"After training, the mean loss of a cell was {number(losses.min())} to {number(losses.max())} (the greatest: "
        f"{losses.idxmax()[1]} layers of width {losses.idxmax()[0]}), and accuracy "
        f"{number(table['accuracy'].min(), 3)} or more in every training.",
    ]


def figure(table):
    """Median frequency above the last layer against depth, a line a width; raw and at unit RMS."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    for ax, scale in zip(axes, LABELS, strict=True):
        for look, (width, part) in zip(LOOKS, table[table["scale"] == scale].groupby("width"), strict=False):
            error_bars(ax, float, part, "depth", "median", str(width), look)
        ax.set(xlabel="hidden layers", ylabel=f"median above the last\n{LABELS[scale]}")
        for axis in (ax.xaxis, ax.yaxis):
            log_axis(axis)
        ax.set_xticks(sorted(table["depth"].unique()), minor=False)
        ax.set_xticks([], minor=True)
    axes[0].legend(title="width", fontsize="small", frameon=False)
    return drawing


if __name__ == "__main__":
    small = {"widths": (8, 16), "depths": (1, 3), "n": 100, "steps": 10}
    publish("width_or_depth", measure, sentences, figure, smoke=small)
