"""In which block of a small transformer does a looked-up token become easy to read off?"""

# ruff: noqa: B905, D101, D102, D103, E402
# --8<-- [start:code]
import torch
from torch import nn

from layerfreq import layer_features, spectrum

LENGTH, TOKENS = 8, 8  # the first token t points at the token at place 1 + t, which is the answer


class Block(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.mlp(x)


class Transformer(nn.Module):
    def __init__(self, width=32, blocks=3):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.position = nn.Parameter(torch.randn(LENGTH + 1, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens):
        return self.head(self.blocks(self.embed(tokens) + self.position)[:, 0])


def draw(n):
    tokens = torch.randint(TOKENS, (n, LENGTH + 1))
    return tokens, tokens.gather(1, 1 + tokens[:, :1])[:, 0]


def measure(seed, steps=300, when=(0, 20, 40, 60, 80, 100, 150, 300), n=800):
    torch.manual_seed(seed)
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tokens, answers = draw(n)  # measured on these; trained on others, new ones at every step
    rows = []
    for step in range(steps + 1):
        if step in when:
            with torch.no_grad():
                accuracy = (model(tokens).argmax(1) == answers).float().mean().item()
            for block, features in enumerate(layer_features(model, tokens, [f"blocks.{i}" for i in range(3)]).values()):
                features = features.reshape(n, LENGTH + 1, -1)
                for place, part in (("all", features), ("first", features[:, 0])):  # the head reads the first place
                    s = spectrum(part, answers, scale="rms")
                    known = (s.lfr - s.chance).max()
                    rows.append({"step": step, "block": block + 1, "place": place, "median": s.median,
                                 "resolution": s.resolution, "known": known, "accuracy": accuracy})  # fmt: skip
        batch, wanted = draw(128)
        loss = nn.functional.cross_entropy(model(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rows


# --8<-- [end:code]
# Below: the sentences and the figure of the gallery's page.
from matplotlib import pyplot as plt
from publish import LABELS, LOOKS, error_bars, join, log_axis, number, publish, spread


def sentences(table):
    """The answer and remarks, from the table."""
    n, end, blocks = table["seed"].nunique(), table["step"].max(), sorted(table["block"].unique())

    def column(name, block, place="first", step=end):
        at = (table["block"] == block) & (table["place"] == place) & (table["step"] == step)
        return table[at].set_index("seed")[name]

    ends = [spread(column("median", block)) for block in blocks]
    order = sum(all(a > b for a, b in zip(row, row[1:])) for row in zip(*(column("median", b) for b in blocks)))
    knows = [spread(column("known", block)) for block in blocks]
    whole = table[(table["place"] == "all") & (table["step"] == end)]
    near = whole["median"] / whole["resolution"]
    unresolved = int((~(whole["median"] <= whole["resolution"])).sum())
    right = column("accuracy", blocks[0])
    return [
        f"At the place that the head reads, after training, the median frequency of the answer was {join(ends)} after "
        f"blocks {join([str(b) for b in blocks])} (1/δ at unit RMS; mean, minimum and maximum over {n} seeds), falling "
        f"from block to block in {order} of {n} seeds; before training after the last block "
        f"{spread(column('median', blocks[-1], step=0))}.",
        f"What these features say about the answer, as the largest excess of LFR over chance: {join(knows)}; accuracy "
        f"{spread(right, 3)}.",
        f"Over all places at once the answer is hidden among the other tokens: LFR exceeds chance by "
        f"{number(whole['known'].max())} at most, and the medians lie at {number(near.min())} to {number(near.max())} "
        f"of the resolution ({unresolved} of {len(near)} beyond it), where they say nothing about the blocks.",
    ]


def figure(table):
    """Median frequency, and LFR above chance, over training by block, at the first place and over all."""
    drawing, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    steps = sorted(table["step"].unique())
    for ax, value in zip(axes, ("median", "known"), strict=True):
        for (place, block), part in table.sort_values(["place", "block"], ascending=[False, True]).groupby(
            ["place", "block"], sort=False
        ):
            look = LOOKS[block - 1] | ({"color": "0.65"} if place == "all" else {})
            error_bars(ax, steps.index, part, "step", value, f"{block}, {place}", look)
        ax.set_xticks(range(len(steps)), [str(step) for step in steps])
        ax.set_xlabel("step")
    axes[0].set_ylabel(f"median frequency\n{LABELS['rms']}")
    log_axis(axes[0].yaxis)
    accuracy = table.groupby("step")["accuracy"].mean()
    axes[1].plot([steps.index(s) for s in accuracy.index], accuracy, color="black", linewidth=0.9, label="accuracy")
    axes[1].set_ylabel("largest LFR above chance")
    axes[1].legend(title="block, places", fontsize="x-small", frameon=False)
    return drawing


if __name__ == "__main__":
    publish("transformer", measure, sentences, figure, smoke={"steps": 10, "when": (0, 10), "n": 60})
