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
from advise_networks import KINDS, Reader, accuracy, case, mlp, resnet, train
from advise_tables import TOLERANCE, show
from sklearn.linear_model import LogisticRegression
from torch import nn

from layerfreq import advise, layer_features, split
from layerfreq.advice.depth import judge_depth, medians_of_parts
from layerfreq.relearn.predictors import standardise

EPOCHS, AGAIN = {"mlp": 20, "resnet": 10, "transformer": 8}, 2


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
