"""At which frequencies does a loss spike change the function?"""

# ruff: noqa: B905, D103, E402
# --8<-- [start:code]
import torch
from torch import nn

from layerfreq.related import output_change


def measure(seed, steps=2000, jump=2.0, rise=3.0):
    x = torch.linspace(-torch.pi, torch.pi, 201)[:-1, None]
    target = torch.sin(x) + torch.sin(3 * x) + torch.sin(5 * x)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses, outputs, weights = [], [], []
    for _ in range(steps):
        out = model(x)
        loss = nn.functional.mse_loss(out, target)
        losses.append(loss.item())
        outputs.append(out.detach())
        weights.append([p.detach().clone() for p in model.parameters()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def after_a_random_step(start, end, generator):  # as far in every tensor, in another direction
        with torch.no_grad():
            for p, a, b in zip(model.parameters(), start, end):
                step = torch.randn(p.shape, generator=generator)
                p.copy_(a + step * (b - a).norm() / step.norm())
            return model(x)

    rows, step = [], 10
    while step < steps - 20:
        low, high = min(losses[step - 10 : step]), max(losses[step : step + 20])
        if losses[step] < jump * losses[step - 1] or high < rise * low:
            step += 1
            continue
        top = losses.index(high, step)
        start, end = weights[step - 1], weights[top]
        random = [after_a_random_step(start, end, torch.Generator().manual_seed(i)) for i in range(10)]
        up = output_change(x, outputs[step - 1], outputs[top], cutoff=3.0, others=random)
        values = {"share": up.share, "before": up.share_before, "chance": up.chance[0], "random": up.control[0]}
        extremes = {"random_low": up.control[1], "random_high": up.control[2]}
        rows.append({"step": step, "from": losses[step - 1], "to": high, **values, **extremes})
        step = top + 40
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LOOKS, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, spikes = table["seed"].nunique(), len(table)
    above = (table["share"] > table["random"]).sum()
    outside = ((table["share"] > table["random_high"]) | (table["share"] < table["random_low"])).sum()
    lower = (table["share"] > table["before"]).sum()
    alike = outside <= spikes / 4 and abs(table["share"].mean() - table["random"].mean()) < 0.1
    first = "At low ones, but no more than a random step of that size does" if alike else "Not as a random step does"
    return [
        f"{first}: of what {spikes} spikes of {n} networks changed, "
        f"{spread(table['share'])} lay at or below k = 3, where shuffled points have {number(table['chance'].mean())} "
        f"and random parameter steps of the same size {spread(table['random'])}. The spike's share was above the mean "
        f"of its random steps in {above} of {spikes} cases, and outside of their range in {outside}.",
        f"The change lay lower than the function itself, of whose variance about two thirds are at or below k = 3, in "
        f"{lower} of {spikes} spikes.",
        f"The loss rose by a factor of {spread(table['to'] / table['from'])}, from "
        f"{number(table['from'].median())} (median).",
    ]


def figure(table):
    """Share of low frequencies of every spike's change, beside its random steps."""
    drawing, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    table = table.sort_values(["seed", "step"]).reset_index(drop=True)
    place = table.index + table["seed"]
    low, high = table["random"] - table["random_low"], table["random_high"] - table["random"]
    look = {"markersize": 4, "linestyle": "none"}
    ax.errorbar(
        place,
        table["random"],
        [low, high],
        label="random steps (mean, range)",
        capsize=2,
        color=LOOKS[2]["color"],
        marker="^",
        **look,
    )
    ax.plot(place, table["share"], label="the spike", color=LOOKS[1]["color"], marker="s", **look)
    ax.plot(place, table["before"], label="the function before", color=LOOKS[0]["color"], marker="_", **look)
    ax.plot(place, table["chance"], label="shuffled points", color="0.45", marker=".", **look)
    middles = place.groupby(table["seed"]).mean()
    ax.set(xlabel="seed (its spikes, in order)", ylabel="share of the change at k ≤ 3", ylim=(0, 1))
    ax.set_xticks(middles, middles.index)
    drawing.legend(fontsize="x-small", frameon=False, ncols=4, loc="outside upper center")
    return drawing


if __name__ == "__main__":
    publish("loss_spike", measure, sentences, figure, smoke={"steps": 250, "jump": 0.5, "rise": 1.0})
