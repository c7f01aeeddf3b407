"""Is the advice right? What `layerfreq.advise` says, and then the truth, by cutting at every cut and training again.

    python benchmarks/advise.py --data DIR --texts DIR --out docs/data/advise [--networks mlp ...] [--seeds 0 ...]
    python benchmarks/advise.py --table docs/data/advise

DIR has `mnist` and `cifar10` in the hub's layout; texts are those of `benchmarks/suspects.py`, told by where they come
from. One file per network and seed, so that a killed call resumes. Three networks: an MLP (MNIST), a ResNet-18 at a
quarter of its width (CIFAR-10), a transformer of six blocks (texts). None of them, nor their data, was looked at while
the advice's rules were made. Other data sets for (b): digits, MNIST, and whether a text is positive.
"""

import argparse
import copy
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from layerfreq import advise, layer_features, split
from layerfreq.advice.depth import judge_depth, medians_of_parts
from layerfreq.loading.images import load_images
from layerfreq.relearn.predictors import standardise

TRAINED, PROBED, TESTED, OTHERS = 3000, 2000, 2000, 1000  # points; of others as many to advise, to train and to test
EPOCHS, AGAIN, TOLERANCE = {"mlp": 20, "resnet": 10, "transformer": 8}, 2, 0.02
KINDS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
WORDS, LENGTH = 2000, 16


class Residual(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b))
        same = stride == 1 and a == b
        self.way = nn.Identity() if same else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.first(x)) + self.way(x))


class Attending(nn.Module):
    def __init__(self, width, heads=4):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Reader(nn.Module):
    def __init__(self, classes, width=64, blocks=6):
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.Sequential(*(Attending(width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, tokens):
        return self.head(self.norm(self.blocks(self.embed(tokens) + self.place)).mean(dim=1))


def mlp(depth=6, width=100):
    sizes = [784] + [width] * depth
    layers = [layer for a, b in zip(sizes[:-1], sizes[1:], strict=True) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def resnet(width=16):
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    blocks, last = [], width
    for stage in range(4):
        for at in range(2):
            blocks.append(Residual(last, width << stage, 2 if stage and not at else 1))
            last = width << stage
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))


def parts(x, y, sizes, seed):
    """Disjoint random parts."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x))[: sum(sizes)])
    return [(x[at], y[at]) for at in order.split(list(sizes))]


def texts(folder):
    """Token ids (n, LENGTH), where a text is from, and how positive it is."""
    found = []
    for label, kind in enumerate(KINDS):
        for line in (folder / f"{kind}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.count("\t") > 1:
                _, mood, text = line.split("\t", 2)
                words = text.lower().split()
                if len(words) >= LENGTH:
                    found.append((words[:LENGTH], label, float(mood)))
    counts = pd.Series([word for words, _, _ in found for word in words]).value_counts()
    number = {word: i + 1 for i, word in enumerate(counts.index[: WORDS - 1])}
    ids = torch.tensor([[number.get(word, 0) for word in words] for words, _, _ in found])
    return ids, torch.tensor([label for _, label, _ in found]), torch.tensor([mood for _, _, mood in found])


def case(name, seed, data, written):
    """A network, (train, probe, test), and of other data (advise, train, test)."""
    sizes, others = (TRAINED, PROBED, TESTED), (OTHERS,) * 3
    torch.manual_seed(seed)
    if name == "mlp":
        x, y = load_images(str(data / "mnist"), 20_000)
        small, digits = load_images("digits", 1797)
        small = interpolate(small.reshape(-1, 1, 8, 8), (28, 28), mode="bilinear").flatten(1)
        return mlp(), parts(x.flatten(1), y, sizes, seed), parts(small, digits, (599,) * 3, seed)
    if name == "resnet":
        x, y = load_images(str(data / "cifar10"), 20_000)
        x = (x.movedim(-1, 1) - 0.47) / 0.25
        other, digits = load_images(str(data / "mnist"), 20_000)
        other = interpolate(other.reshape(-1, 1, 28, 28), (32, 32)).expand(-1, 3, -1, -1) * 2 - 1
        return resnet(), parts(x, y, sizes, seed), parts(other, digits, others, seed)
    ids, source, mood = texts(written)
    clear = mood.abs() > 0.5
    return (
        Reader(len(KINDS)),
        parts(ids, source, sizes, seed),
        parts(ids[clear], (mood[clear] > 0).long(), others, seed),
    )


def train(model, x, y, epochs, rate=1e-3, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = epochs * (len(x) // batch)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(batch)[: len(x) // batch]:
            optimizer.zero_grad()
            cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
            fall.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, x, y):
    return float((torch.cat([model(part) for part in x.split(250)]).argmax(dim=1) == y).double().mean())


class Cut(nn.Module):
    """A network up to a cut, its positions averaged, and a linear head."""

    def __init__(self, below, x, classes):
        super().__init__()
        self.below = below
        with torch.no_grad():
            value = below(x[:4])
        self.conv = value.ndim == 4
        self.head = nn.Linear(value.shape[1 if self.conv else -1], classes)

    def forward(self, x):
        value = self.below(x)
        return self.head(value.flatten(2).mean(dim=2) if self.conv else value.mean(dim=1) if value.ndim == 3 else value)


@torch.no_grad()
def cut_at(model, layer, features, x, y):
    """A copy of a network up to a cut, and logistic regression on its features as the head."""
    model = copy.deepcopy(model)
    cut = Cut(nn.Flatten() if layer == "inputs" else split(model, layer, x[:4])[0], x, int(y.max()) + 1)
    middle, size = features.mean(dim=0), (features - features.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    fitted = LogisticRegression(max_iter=200).fit(((features - middle) / size).numpy(), y.numpy())
    weight, bias = (torch.from_numpy(part).float() for part in (fitted.coef_, fitted.intercept_))
    if len(weight) == 1:  # of two classes scikit-learn has one row
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    cut.head.weight.copy_(weight / size)
    cut.head.bias.copy_(bias - weight @ middle / size)
    return cut.eval()


def truth(model, layers, learn, test, prefix):
    """What a copy cut at each layer reaches: with a head on frozen layers (early exit), and all trained again."""
    features = seen(model, layers, learn[0])
    rows = []
    for layer in layers:
        one = cut_at(model, layer, features[layer], *learn)
        frozen = accuracy(one, *test)
        kept = accuracy(train(one, *learn, AGAIN), *test)
        rows.append({f"{prefix}exit": frozen, f"{prefix}kept": kept})
    return pd.DataFrame(rows)


def seen(model, layers, x):
    inner = layer_features(model, x, [one for one in layers if one != "inputs"], reading="mean")
    return {"inputs": x.flatten(1).float(), **inner}


def times(name, x, layers, rounds=200):
    """Shares of the whole network's time, of passes in turn within one process, of which the quickest counts."""
    model = {"mlp": mlp, "resnet": resnet, "transformer": lambda: Reader(len(KINDS))}[name]().eval()
    x, parts = x[:64], {"": model}
    for layer in layers:
        below = nn.Flatten() if layer == "inputs" else split(model, layer, x[:4])[0]
        parts[layer] = Cut(below, x, 10).eval()
        if name == "transformer":  # which `split` makes no graph of; a shorter one is what a user would run
            parts[layer] = Reader(len(KINDS), blocks=1 + int(layer.split(".")[1])).eval()
    found = dict.fromkeys(parts, np.inf)
    with torch.no_grad():
        for _ in range(rounds):
            for layer, part in parts.items():
                start = time.perf_counter()
                part(x)
                found[layer] = min(found[layer], time.perf_counter() - start)
    rows = [{"network": name, "layer": layer or "network", "seconds": seconds} for layer, seconds in found.items()]
    return pd.DataFrame(rows)


def least(table, file):
    """The lesser of these times and those that an earlier call has found: what else runs only adds to them."""
    if file.exists():
        table = pd.concat([table, pd.read_csv(file, dtype={"layer": str})])
    return table.groupby(["network", "layer"], sort=False)["seconds"].min().reset_index()


def logistic(features, y, half):
    """What scikit-learn's logistic regression reaches on a second half."""
    z = standardise(features).numpy()
    return LogisticRegression(max_iter=300).fit(z[:half], y[:half]).score(z[half:], y[half:])


def study(name, seed, data, written):
    model, (own, probe, test), (shown, other, other_test) = case(name, seed, data, written)
    train(model, *own, EPOCHS[name])
    found = advise(model, *probe, transfer=shown, tolerance=TOLERANCE, seed=seed)
    table = found.to_frame().drop(columns="time")  # see `times`
    layers = list(table["layer"])
    features = seen(model, layers, probe[0])
    table["logistic"] = [logistic(features[layer], probe[1], len(probe[1]) // 2) for layer in layers]
    torch.manual_seed(1000 + seed)
    table = table.join(truth(model, layers, own, test, ""))
    table = table.join(truth(model, layers, other, other_test, "other_")[["other_exit", "other_kept"]])
    print(table[["layer", "linear", "exit", "kept", "transfer", "other_exit", "other_kept"]], flush=True)
    ours = {"network": name, "seed": seed, "points": found.points, "probe_accuracy": found.network}
    ours |= {"test_accuracy": accuracy(model, *test), "octaves": found.depth.octaves}
    return table.assign(**ours)


def deepen(name, seed, data, written, depths):
    """Networks of growing depth: what the frequencies at their cuts advise, and what they reach."""
    _, (own, probe, test), _ = case(name, seed, data, written)
    rows = []
    for depth in depths:
        torch.manual_seed(seed)
        model = mlp(depth) if name == "mlp" else Reader(len(KINDS), blocks=depth)
        train(model, *own, EPOCHS[name])
        features = layer_features(model, probe[0], reading="mean")
        said = judge_depth(list(features), np.array([medians_of_parts(f, probe[1], seed) for f in features.values()]).T)
        row = {"network": name, "seed": seed, "layers": depth, **asdict(said)}
        last = [logistic(f, probe[1], len(probe[1]) // 2) for f in list(features.values())[-2:]]
        row["gain"] = last[1] - last[0] if depth > 1 else np.nan
        rows.append({**row, "test_accuracy": accuracy(model, *test)})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def first(part, column, least):
    within = part.index[part[column] >= least]
    return within[0] if len(within) else part.index[-1]


def choices(part, reached):
    """Row that each rule takes; `part` has the cuts of one network, and in the column `reached` the truth."""
    whole = part["test_accuracy"].iloc[0]
    return {
        "advise": first(part, "linear_gap", -TOLERANCE),
        "advise, for sure": first(part, "linear_low", -TOLERANCE),
        "one hidden layer": first(part, "hidden_gap", -TOLERANCE),
        "probe alone": part["logistic"].idxmax(),
        "lowest frequency": part["rms"].fillna(np.inf).idxmin(),
        "always last": part.index[-1],
        "always middle": part.index[len(part) // 2],
        "hindsight": first(part, reached, whole - TOLERANCE),
    }


def regrets(table, reached):
    """A row per network, seed and rule: accuracy lost, share of the time taken, and how much more than was needed."""
    rows = []
    for (network, seed), part in table.groupby(["network", "seed"], sort=False):
        share = part["share"]
        picked = choices(part, reached)
        best = share[picked["hindsight"]]
        for rule, at in picked.items():
            lost = part["test_accuracy"].iloc[0] - part.loc[at, reached]
            row = {"network": network, "seed": seed, "rule": rule, "layer": part.loc[at, "layer"], "lost": lost}
            rows.append({**row, "time": share[at], "not_saved": share[at] - best, "wrong": lost > TOLERANCE})
    return pd.DataFrame(rows)


def interval(values):
    """Mean and 95% interval over seeds."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{values.mean():.3f} ± {half:.3f}"


def markdown(table):
    """Print a data frame with its index as a table of a page."""
    table = table.reset_index()
    print(f"\n| {' | '.join(map(str, table.columns))} |\n|{' --- |' * len(table.columns)}")
    for row in table.itertuples(index=False):
        print(f"| {' | '.join(map(str, row))} |")


def transfers(table):
    """A row per network, seed and rule: how far the cut's features, trained again on the other data, are behind."""
    rows = []
    for (network, seed), part in table.groupby(["network", "seed"], sort=False):
        rules = {
            "advise": part["transfer"].idxmax(),
            "lowest frequency": part["rms"].fillna(np.inf).idxmin(),
            "always last": part.index[-1],
            "always middle": part.index[len(part) // 2],
        }
        for rule, at in rules.items():
            behind = {name: part[f"other_{name}"].max() - part.loc[at, f"other_{name}"] for name in ("exit", "kept")}
            rows.append({"network": network, "seed": seed, "rule": rule, "layer": part.loc[at, "layer"], **behind})
    return pd.DataFrame(rows)


def predictors(table):
    """Rank correlations over the hidden cuts of one network with what they reach when cut there."""
    rows = []
    for (network, seed), part in table[table["layer"] != "inputs"].groupby(["network", "seed"], sort=False):
        part = part.assign(rms=-part["rms"], raw=-part["raw"], maxabs=-part["maxabs"])
        ranks = part[["linear", "hidden", "logistic", "rms", "raw", "maxabs", "cut", "exit", "kept"]].rank()
        for reached in ("exit", "kept"):
            known = {name: ranks[name].corr(ranks[reached]) for name in ranks if name not in ("exit", "kept")}
            line = np.c_[np.ones(len(ranks)), ranks["linear"]]
            left = [v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (ranks["rms"], ranks[reached])]
            partial = float(np.corrcoef(*left)[0, 1])
            rows.append({"network": network, "seed": seed, "truth": reached, **known, "rms given linear": partial})
    return pd.DataFrame(rows)


def show(folder):
    table = pd.concat([pd.read_csv(file, dtype={"layer": str}) for file in sorted(folder.glob("cuts-*.csv"))])
    spent = pd.read_csv(folder / "times.csv", dtype={"layer": str})
    whole = spent[spent["layer"] == "network"].set_index("network")["seconds"]
    spent["share"] = spent["seconds"] / spent["network"].map(whole)
    table = table.merge(spent[["network", "layer", "share"]], on=["network", "layer"], how="left")
    for reached in ("exit", "kept"):
        found = regrets(table, reached)
        grouped = found.groupby(["network", "rule"], sort=False)
        said = grouped[["lost", "time", "not_saved"]].agg(interval)
        layers = grouped["layer"].agg(lambda layers: ", ".join(f"`{one}`" for one in layers))
        markdown(said.assign(wrong=grouped["wrong"].sum(), layers=layers))
        every = found.groupby("rule", sort=False)
        markdown(every[["lost", "time", "not_saved"]].agg(interval).assign(wrong=every["wrong"].sum()))
    found = transfers(table)
    grouped = found.groupby(["network", "rule"], sort=False)
    layers = grouped["layer"].agg(lambda layers: ", ".join(f"`{one}`" for one in layers))
    markdown(grouped[["exit", "kept"]].agg(interval).assign(layers=layers))
    found = predictors(table).drop(columns="seed")
    markdown(
        found.groupby(["network", "truth"], sort=False).agg(
            lambda v: f"{v.mean():+.2f} ({v.min():+.2f} to {v.max():+.2f})"
        )
    )
    shown = table.groupby(["network", "seed"])[["probe_accuracy", "test_accuracy", "octaves"]].first()
    markdown(shown)
    files = sorted(folder.glob("depth-*.csv"))
    if files:
        deep = pd.concat([pd.read_csv(file) for file in files])
        deep["next"] = deep.groupby(["network", "seed"])["test_accuracy"].shift(-1) - deep["test_accuracy"]
        markdown(deep.groupby(["network", "layers"])[["test_accuracy", "octaves", "gain", "next"]].agg(interval))
        markdown(deep.dropna(subset=["next"]).groupby(["network", "answer"])["next"].agg(["size", interval]))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path)
    options.add_argument("--texts", type=Path)
    options.add_argument("--out", type=Path)
    options.add_argument("--networks", nargs="*", default=["mlp", "transformer", "resnet"])
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--deepen", nargs="*", default=[])
    options.add_argument(
        "--times", action="store_true", help="only what running up to each cut takes, on a quiet machine"
    )
    options.add_argument("--table", type=Path)
    given = options.parse_args()
    if given.table:
        show(given.table)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    if given.times:
        found = []
        for name in given.networks:
            layers = list(pd.read_csv(given.out / f"cuts-{name}-0.csv", dtype={"layer": str})["layer"])
            found.append(times(name, case(name, 0, given.data, given.texts)[1][2][0], layers))
        table = least(pd.concat(found), given.out / "times.csv")
        table.to_csv(given.out / "times.csv", index=False, float_format="%.5g")
        return
    for seed in given.seeds:
        for name in given.networks:
            if not (file := given.out / f"cuts-{name}-{seed}.csv").exists():
                study(name, seed, given.data, given.texts).to_csv(file, index=False, float_format="%.5g")
        for name in given.deepen:
            if not (file := given.out / f"depth-{name}-{seed}.csv").exists():
                found = deepen(name, seed, given.data, given.texts, range(1, 7))
                found.to_csv(file, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
