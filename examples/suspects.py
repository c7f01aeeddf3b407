"""Over which features do wrong labels stand out, and for how long?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_features
from layerfreq.related import suspects


def measure(seed, n=800, steps=(0, 20, 50, 100, 200, 500, 1000)):
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    some = torch.randperm(len(images))[:n]
    images, labels = torch.tensor(images / 16).float()[some], torch.tensor(labels)[some]
    wrong = torch.randperm(n)[: n // 10]
    given = labels.clone()
    given[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),))) % 10

    def found(features):  # of as many first suspects as there are wrong labels, the share that are wrong
        first = torch.tensor(suspects(features, given).order[: len(wrong)].copy())
        return torch.isin(first, wrong).float().mean().item()

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rows = []
    for step in range(max(steps) + 1):
        out = model(images)
        if step in steps:
            learned = (out.argmax(1) == given)[wrong].float().mean().item()
            places = {"pixels": images, **layer_features(model, images)}
            rows += [{"step": step, "place": p, "found": found(f), "learned": learned} for p, f in places.items()]
        optimizer.zero_grad()
        nn.functional.cross_entropy(out, given).backward()
        optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, error_bars, number, publish, spread

NAMES = {"pixels": "pixels", "1": "first hidden layer", "3": "second hidden layer"}


def sentences(table):
    """The answer and remarks, from the table."""
    steps = sorted(table["step"].unique())
    by = 100 * table.pivot_table(index=["place", "step"], columns="seed", values="found")
    learned = 100 * table[table["place"] == "pixels"].pivot_table(index="step", columns="seed", values="learned")
    last, deep = steps[-1], by.loc["3"]
    best = deep.mean(axis=1).idxmax()
    better = (deep.loc[best] > by.loc["pixels"].loc[best]).sum()
    seeds = table["seed"].nunique()
    where = "Over a hidden layer" if better == seeds else "Over the pixels, and over a hidden layer hardly less"
    hidden = deep.loc[last].mean() < 0.5 * deep.loc[best].mean()
    said = f"{where}, {'until the network has learned them' if hidden else 'also once the network has learned them'}"
    return [
        f"{said}: of 10% wrong labels the pixels found {spread(by.loc['pixels'].loc[best])}%, the second hidden "
        f"layer {spread(deep.loc[best])}% at step {best}, more than the pixels in {better} of {seeds} seeds, and "
        f"{spread(deep.loc[last])}% at step {last}, when the network predicted {spread(learned.loc[last])}% of the "
        f"wrong labels.",
        f"At step {best} the network predicted {spread(learned.loc[best])}% of them.",
        f"A random order would find 10%; the untrained second layer found {spread(deep.loc[steps[0]])}%.",
        f"The first hidden layer found {spread(by.loc['1'].loc[best])}% at step {best} and "
        f"{spread(by.loc['1'].loc[last])}% at step {number(last)}.",
    ]


def figure(table):
    """What is found over steps, and how many of the wrong labels the network has learned."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained", width_ratios=(1.6, 1))
    table = table.assign(found=100 * table["found"], learned=100 * table["learned"])
    for look, (place, name) in zip(LOOKS, NAMES.items()):
        part = table[table["place"] == place]
        error_bars(axes[0], lambda step: step + 10, part, "step", "found", name, look)
    axes[0].axhline(10, color="0.45", linestyle="--", linewidth=0.8, label="random order")
    error_bars(axes[1], lambda step: step + 10, part, "step", "learned", "", LOOKS[4])
    axes[0].set(ylabel="wrong labels found, %", ylim=(0, 103), xlabel="step + 10", xscale="log")
    axes[1].set(ylabel="wrong labels learned, %", ylim=(-3, 103), xlabel="step + 10", xscale="log")
    axes[0].legend(fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("suspects", measure, sentences, figure, smoke={"n": 150, "steps": (0, 20, 60)})
