"""Do skip connections lower what the layers still have to learn, at equal depth?"""

# ruff: noqa: D101, D102, D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_spectra


class Block(nn.Module):
    def __init__(self, width, skip, branch):
        super().__init__()
        self.linear, self.skip, self.branch = nn.Linear(width, width), skip, branch
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")

    def forward(self, x):
        return self.skip * x + self.branch * torch.relu(self.linear(x))


def measure(seed, blocks=12, n=1000, steps=300):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    kinds = {"plain": (0, 1), "residual": (1, 1), "residual, scaled": (1, blocks**-0.5)}
    rows = []
    for kind, (skip, branch) in kinds.items():
        torch.manual_seed(seed)  # the same weights for all
        model = nn.Sequential(*(Block(64, skip, branch) for _ in range(blocks)), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        measured, fitted = {}, None
        for step in range(steps + 1):
            output = model(images)
            accuracy = (output.argmax(1) == labels).float().mean().item()
            fitted = step if fitted is None and accuracy >= 0.99 else fitted
            if step in (0, steps):
                measured[step] = layer_spectra(model, images, labels, layers=[str(i) for i in range(blocks)])
            loss = nn.functional.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for step, spectra in measured.items():
            for scale in ("raw", "rms"):
                for depth, s in enumerate(spectra.to_scale(scale).values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution, "fitted": fitted, "accuracy": accuracy}
                    rows.append({"kind": kind, "step": step, "depth": depth, "scale": scale, **values})
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, join, log_axis, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, first, last = table["seed"].nunique(), table["depth"].min(), table["depth"].max()
    steps, kinds = (0, table["step"].max()), list(dict.fromkeys(table["kind"]))

    def column(kind, name="median", scale="rms", step=steps[1], depth=last):
        at = (table["kind"] == kind) & (table["scale"] == scale) & (table["step"] == step) & (table["depth"] == depth)
        return table[at].set_index("seed")[name]

    lower = {kind: int((column(kind) < column("plain")).sum()) for kind in kinds[1:]}
    ends = [f"{kind} {spread(column(kind))}" for kind in kinds]
    starts = [f"{kind} {spread(column(kind, step=0))}" for kind in kinds]
    speeds = [f"{kind} {spread(column(kind, 'fitted'), 3)}" for kind in kinds]
    factors = [
        f"{spread(column(kind, scale='raw', depth=first) / column(kind, scale='raw'))} ({kind})" for kind in kinds
    ]
    return [
        f"Above the last of {last} blocks the trained residual network had a lower median frequency left to learn than "
        f"the plain one in {lower['residual']} of {n} seeds, with scaled branches in {lower['residual, scaled']} of "
        f"{n}: {join(ends)} (1/δ at unit RMS; mean, minimum and maximum over seeds).",
        f"Before training: {join(starts)}.",
        f"Steps until 99 % of the images were right: {join(speeds)}.",
        f"Raw medians fall from the first block to the last by factors of {join(factors)} after training.",
    ]


def figure(table):
    """Median frequency against depth before and after training, a line a kind of network; unit RMS."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    rms = table[table["scale"] == "rms"]
    for ax, (step, panel) in zip(axes, rms.groupby("step"), strict=True):
        for look, (kind, part) in zip(LOOKS, panel.groupby("kind", sort=False), strict=False):
            error_bars(ax, float, part, "depth", "median", kind, look)
        ax.set(xlabel="block", title=f"step {step}")
        ax.set_xticks(sorted(rms["depth"].unique())[1::2])
        log_axis(ax.yaxis)
    axes[0].set_ylabel(f"median frequency\n{LABELS['rms']}")
    axes[1].legend(fontsize="small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("residual", measure, sentences, figure, smoke={"blocks": 3, "n": 100, "steps": 10})
