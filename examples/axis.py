"""Do deeper layers turn to low frequencies along time, or to those of the task?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from torch import nn

from layerfreq.related import axis_frequencies

TASKS = {"slow": (3.0, 6.0), "fast": (22.0, 27.0)}  # cycles in 64 positions; the class is which of two it is


def measure(seed, steps=200, n=300):
    rows = []
    for task, paces in TASKS.items():
        torch.manual_seed(seed)
        labels = torch.arange(n) % 2
        pace = torch.tensor(paces)[labels][:, None]
        waves = torch.sin(2 * torch.pi * (pace * torch.arange(64) / 64 + torch.rand(n, 1)))
        series = (waves + torch.randn(n, 64))[:, None]
        stages = (1, 16, 16, 16, 16)
        layers = [m for a, b in zip(stages, stages[1:]) for m in (nn.Conv1d(a, b, 7, padding=3), nn.ReLU())]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(steps + 1):
            out = model(series)
            if step in (0, steps):
                right = (out.argmax(1) == labels).float().mean().item()
                found = axis_frequencies(model, series, ["1", "3", "5", "7"])
                names = ["depth", "centroid", "chance_centroid", "focus", "chance_focus"]
                for one in found[names].to_dict("records"):
                    rows.append({"task": task, "step": step, "accuracy": right, **one})
            optimizer.zero_grad()
            nn.functional.cross_entropy(out, labels).backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, error_bars, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    first, deep, last = table["depth"].min(), table["depth"].max(), table["step"].max()
    seeds = table["seed"].nunique()
    end = table[table["step"] == last]
    by = {
        task: part.pivot_table(index="seed", columns="depth", values="centroid") for task, part in end.groupby("task")
    }
    lower = {task: int((one[deep] < one[first]).sum()) for task, one in by.items()}
    apart = int((by["fast"][deep] > by["slow"][deep]).sum())
    start = table[table["step"] == 0].pivot_table(index=["task", "seed"], columns="depth", values="centroid")
    right = end.groupby(["task", "seed"])["accuracy"].first()
    focus = end.groupby(["task", "seed", "depth"])["focus"].first().unstack()
    said = "To those of the task" if apart == seeds and lower["fast"] < seeds else "To low ones"
    return [
        f"{said}: in the task with slow waves, the last layer's centroid ended below the first one's in "
        f"{lower['slow']} of {seeds} seeds, in the one with fast waves in {lower['fast']}. It was "
        f"{spread(by['slow'][deep])} and {spread(by['fast'][deep])} cycles per position, higher for the fast task in "
        f"{apart} of {seeds} seeds; the waves themselves have 0.05 to 0.09 and 0.34 to 0.42.",
        f"The first layer's was {spread(by['slow'][first])} in the slow task and "
        f"{spread(by['fast'][first])} in the fast one.",
        f"Before training the last layer's was {spread(start.loc['slow'][deep])} and "
        f"{spread(start.loc['fast'][deep])}, the first one's {spread(start.loc['slow'][first])} and "
        f"{spread(start.loc['fast'][first])}.",
        f"Accuracy after training, on the series trained on: {spread(right['slow'])} and {spread(right['fast'])}.",
        f"The variance of p over channels at the last layer was {spread(focus.loc['slow'][deep])} and "
        f"{spread(focus.loc['fast'][deep])}.",
    ]


def figure(table):
    """The centroid by layer before and after training, for both tasks."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained", sharey=True)
    for ax, (task, some) in zip(axes, table.groupby("task", sort=False)):
        for look, (step, part) in zip(LOOKS, some.groupby("step")):
            error_bars(ax, float, part, "depth", "centroid", "after training" if step else "before", look)
        chance = some.groupby("depth")["chance_centroid"].mean()
        ax.plot(chance.index, chance, color="0.45", linestyle="--", linewidth=0.8, label="positions shuffled")
        for pace in TASKS[task]:
            ax.axhline(pace / 64, color="0.7", linestyle=":", linewidth=1)
        ax.set(title=f"{task} waves (dotted) told apart", xlabel="layer, input to output", ylim=(0, 0.5))
        ax.title.set_fontsize("small")
        ax.set_xticks(chance.index)
    axes[0].set_ylabel("centroid, cycles per position")
    axes[0].legend(fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("axis", measure, sentences, figure, smoke={"steps": 5, "n": 40})
