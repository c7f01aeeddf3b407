"""Tanh, ReLU or GELU: does the activation change what the layers still have to learn?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import Monitor


def measure(seed, n=1000, steps=(0, 25, 50, 100, 200, 400)):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for activation in (nn.Tanh, nn.ReLU, nn.GELU):
        torch.manual_seed(seed)  # the same weights for all
        sizes = [64, 100, 100, 100, 100, 100]
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), activation())]
        model = nn.Sequential(*hidden, nn.Linear(100, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        monitor = Monitor(model, images, labels, when=steps)
        for step in range(max(steps) + 1):
            loss = nn.functional.cross_entropy(model(images), labels)
            spectra = monitor.measure(step)  # None at most steps
            for scale in ("raw", "rms") if spectra else ():
                for depth, s in enumerate(spectra.to_scale(scale).values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution, "loss": loss.item()}
                    rows.append(
                        {"activation": activation.__name__, "step": step, "depth": depth, "scale": scale, **values}
                    )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, join, log_axis, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, first, last = table["seed"].nunique(), table["depth"].min(), table["depth"].max()
    end = table[table["step"] == table["step"].max()]
    start = table[table["step"] == 0]

    def medians(rows, scale, activation, depth):
        at = (rows["scale"] == scale) & (rows["activation"] == activation) & (rows["depth"] == depth)
        return rows[at].set_index("seed")["median"]

    names = list(dict.fromkeys(table["activation"]))
    falls = {name: int((medians(end, "rms", name, last) < medians(end, "rms", name, first)).sum()) for name in names}
    told = [
        f"{name} {spread(medians(end, 'rms', name, first))} to {spread(medians(end, 'rms', name, last))}, lower in "
        f"{falls[name]} of {n} seeds"
        for name in names
    ]
    factors = [
        f"{spread(medians(end, 'raw', name, first) / medians(end, 'raw', name, last))} ({name})" for name in names
    ]
    rises = [
        f"{spread(medians(start, 'rms', name, last) / medians(start, 'rms', name, first))} ({name})" for name in names
    ]
    losses = [f"{name} {spread(end[end['activation'] == name].groupby('seed')['loss'].first())}" for name in names]
    return [
        f"Median frequency above the first and above the last hidden layer after training, 1/δ at unit RMS: "
        f"{'; '.join(told)} (mean, minimum and maximum over seeds).",
        f"Raw medians fell from the first layer to the last with every activation, by factors of {join(factors)}: most "
        f"of this is features that grow.",
        f"Before training the last layer's median was higher than the first's, by factors of {join(rises)} at unit "
        f"RMS.",
        f"Losses at the end: {join(losses)}.",
    ]


def figure(table):
    """Median frequency against depth after training, a line an activation; raw and at unit RMS."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    end = table[table["step"] == table["step"].max()]
    for ax, scale in zip(axes, LABELS, strict=True):
        for look, (name, part) in zip(
            LOOKS, end[end["scale"] == scale].groupby("activation", sort=False), strict=False
        ):
            error_bars(ax, float, part, "depth", "median", name, look)
        ax.set(xlabel="hidden layer", ylabel=f"median frequency\n{LABELS[scale]}")
        ax.set_xticks(sorted(end["depth"].unique()))
        log_axis(ax.yaxis)
    axes[0].legend(fontsize="small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("activations", measure, sentences, figure, smoke={"n": 100, "steps": (0, 10)})
