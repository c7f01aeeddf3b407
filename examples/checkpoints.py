"""Training is over, and its checkpoints were kept: what did each layer still have to learn on the way?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import Monitor, layer_spectra


def build():
    sizes = [64, 100, 100, 100, 100, 100]
    hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(100, 10))


def train(images, labels, folder, steps):
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = Monitor(model, images, labels, run=folder / "live", when=steps)  # to compare with
    for step in range(max(steps) + 1):
        loss = nn.functional.cross_entropy(model(images), labels)
        if step in steps:
            save_file(model.state_dict(), folder / f"step-{step:04d}.safetensors")
        monitor.measure(step, loss=loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return monitor.run


def measure(seed, n=800, steps=(0, 10, 20, 40, 80, 160, 320)):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16).float(), torch.tensor(labels)
    parts = {"training": slice(n), "held out": slice(n, 2 * n)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        live = train(images[:n], labels[:n], Path(folder), steps).spectra
        for path in sorted(Path(folder).glob("step-*.safetensors")):
            model, step = build(), int(path.stem.split("-")[1])
            model.load_state_dict(load_file(path))
            for part, at in parts.items():
                spectra = layer_spectra(model, images[at], labels[at])
                for depth, (layer, s) in enumerate(spectra.items(), start=1):
                    then = live[(live["step"] == step) & (live["layer"] == layer) & (live["scale"] == "raw")]
                    for scale in ("raw", "rms"):
                        one = s.to_scale(scale)
                        values = {"median": one.median, "resolution": one.resolution}
                        rows.append({"step": step, "part": part, "depth": depth, "scale": scale, **values})
                    if part == "training":
                        rows[-1]["difference"] = rows[-2]["difference"] = abs(s.lfr - then["lfr"].to_numpy()).max()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, log_axis, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, end, last = table["seed"].nunique(), table["step"].max(), table["depth"].max()
    rms = table[table["scale"] == "rms"].pivot_table(index=["seed", "step", "depth"], columns="part", values="median")
    medians = rms.xs((end, last), level=("step", "depth"))
    first = rms.xs((end, table["depth"].min()), level=("step", "depth"))
    higher = int((medians["held out"] > medians["training"]).sum())
    compared = table["difference"].notna().sum() // 2
    return [
        f"Measurements from the files differ from those made during training by "
        f"{number(table['difference'].max())} at most in LFR ({compared} spectra), and the files answer new "
        f"questions: above the last layer, at step {end}, the median frequency was {spread(medians['training'])} on "
        f"training images and {spread(medians['held out'])} on held-out ones (1/δ at unit RMS; mean, minimum and "
        f"maximum over seeds), higher in {higher} of {n} seeds.",
        f"Above the first layer it was {spread(first['training'])} on training and {spread(first['held out'])} on "
        f"held-out images.",
    ]


def figure(table):
    """Median frequency over training on training and on held-out images, first, middle and last layer."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    steps, depths = sorted(table["step"].unique()), sorted(table["depth"].unique())
    for ax, scale in zip(axes, LABELS, strict=True):
        for look, depth in zip(LOOKS, depths[:: max(1, len(depths) // 2)], strict=False):
            for part, dash in (("training", "-"), ("held out", (0, (2, 1)))):
                at = (table["scale"] == scale) & (table["depth"] == depth) & (table["part"] == part)
                error_bars(ax, steps.index, table[at], "step", "median", f"{depth}, {part}", look | {"linestyle": dash})
        ax.set_xticks(range(len(steps)), [str(step) for step in steps])
        ax.set(xlabel="step", ylabel=f"median frequency\n{LABELS[scale]}")
        log_axis(ax.yaxis)
    axes[0].legend(title="layer, images", fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("checkpoints", measure, sentences, figure, smoke={"n": 100, "steps": (0, 5, 10)})
