"""Does label noise raise what is left to learn?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_spectra, spectrum


def measure(seed, noises=(0.0, 0.1, 0.25, 0.5, 1.0), n=1000, steps=400):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for noise in noises:
        torch.manual_seed(seed)
        wrong = torch.rand(n) < noise  # these get a class drawn at random, their own included
        noisy = torch.where(wrong, torch.randint(10, (n,)), labels)

        sizes = [64, 100, 100, 100, 100]
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
        model = nn.Sequential(*hidden, nn.Linear(100, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(images), noisy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        accuracy = (model(images).argmax(1) == noisy).float().mean().item()
        spectra = {"images": spectrum(images, noisy), **layer_spectra(model, images, noisy)}
        for depth, (layer, s) in enumerate(spectra.items()):
            for scale in ("raw", "rms"):
                one = s.to_scale(scale)
                values = {"median": one.median, "resolution": one.resolution, "accuracy": accuracy}
                rows.append({"noise": noise, "depth": depth, "layer": layer, "scale": scale, **values})
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, log_axis, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, last = table["seed"].nunique(), table["depth"].max()
    rms = table[table["scale"] == "rms"].pivot_table(index=["seed", "noise"], columns="depth", values="median")
    raw = table[table["scale"] == "raw"].pivot_table(index=["seed", "noise"], columns="depth", values="median")
    clean, random = rms.xs(0, level="noise"), rms.xs(1, level="noise")
    every = table[table["noise"] == 1]
    near = (every["median"] / every["resolution"]).min()

    def rises(medians):
        steps = medians.groupby("seed").diff().dropna()
        return f"{int((steps > 0).sum().sum())} of {steps.size}"

    return [
        f"From clean to random labels the median frequency of what is left to learn rose at every layer in "
        f"{(random > clean).all(axis=1).sum()} of {n} seeds: above the last hidden layer from {spread(clean[last])} to "
        f"{spread(random[last])}, of the images themselves from {spread(clean[0])} to {spread(random[0])} (1/δ at unit "
        f"RMS; mean, minimum and maximum over seeds).",
        f"From one share of random labels to the next it rose in {rises(rms)} cases (a layer and seed each) at unit "
        f"RMS, and in {rises(raw)} raw.",
        f"The least fitted network had {number(100 * table['accuracy'].min(), 3)} % of the labels that it was given "
        f"right.",
        f"The medians of random labels lie at {number(near)} of the resolution or above; beyond it a window holds "
        f"fewer than two points, and LFR is near 1 whatever the labels are. With so few images a still harder "
        f"function could hardly have a higher median.",
    ]


def figure(table):
    """Median frequency against the share of random labels, a line a layer; raw and at unit RMS."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    for ax, scale in zip(axes, LABELS, strict=True):
        for depth, part in table[table["scale"] == scale].groupby("depth"):
            error_bars(ax, float, part, "noise", "median", f"{depth}" if depth else "0 (images)", LOOKS[depth])
        ax.set(xlabel="share of random labels", ylabel=f"median frequency\n{LABELS[scale]}")
        log_axis(ax.yaxis)
    axes[1].legend(title="layer", fontsize="small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("label_noise", measure, sentences, figure, smoke={"noises": (0.0, 0.5, 1.0), "n": 100, "steps": 20})
