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
    n, told = table["seed"].nunique(), {}
    depths, widths = sorted(table["depth"].unique()), sorted(table["width"].unique())
    for scale in LABELS:
        medians = table[table["scale"] == scale].pivot_table(index="seed", columns=["width", "depth"], values="median")
        by_depth = [medians[w, depths[0]] / medians[w, depths[-1]] for w in widths]
        by_width = [medians[widths[0], d] / medians[widths[-1], d] for d in depths]
        told[scale] = [pd.concat(by_depth), pd.concat(by_width)]
        told[scale] += [sum(int((f > 1).sum()) for f in by) for by in (by_depth, by_width)]
    (deep, wide, lower_deep, lower_wide), (raw_deep, raw_wide, _, _) = told["rms"], told["raw"]
    cells = table[(table["scale"] == "rms") & table["depth"].isin((depths[0], depths[-1]))]
    corners = [
        f"{depth} x {width} {spread(part['median'])}"
        for (depth, width), part in cells[cells["width"].isin((widths[0], widths[-1]))].groupby(["depth", "width"])
    ]
    return [
        f"Going from {depths[0]} to {depths[-1]} hidden layers divided the median frequency above the last one by "
        f"{spread(deep)} at unit RMS (lower in {lower_deep} of {len(deep)} pairs of trainings), going from width "
        f"{widths[0]} to {widths[-1]} divided it by {spread(wide)} (lower in {lower_wide} of {len(wide)}); mean, least "
        f"and greatest over {n} seeds and widths, or depths.",
        f"Raw, the factors are {spread(raw_deep)} for depth and {spread(raw_wide)} for width; below 1 means that it rose.",
        f"Median frequencies at unit RMS, layers x width: {join(corners)}.",
        f"After training, accuracy was {number(table['accuracy'].min(), 3)} or more everywhere; losses went from "
        f"{number(table['loss'].min())} to {number(table['loss'].max())}, so the smaller networks are less far trained.",
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
