"""Labels that were exchanged: how many of them `suspects` and others put first, on the same features.

    python benchmarks/suspects.py --data DIR --texts DIR --out suspects.csv
    python benchmarks/suspects.py --table suspects.csv
    python benchmarks/suspects.py --data DIR --triggers

DIR has `mnist` and `cifar10` in the hub's layout; texts are the sentences that Hutto & Gilbert (ICWSM 2014)
published with their sentiment lexicon (folder `hutto_ICWSM_2014`, in the source archive of vaderSentiment 2.5), to be
told by where they come from: reviews of films and of goods, editorials, tweets. Needs scikit-learn; cleanlab where it
is installed.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from torch import nn

from layerfreq import layer_features
from layerfreq.loading.images import load_images
from layerfreq.related import suspects

POINTS, SEEDS, SHARES, NEAREST = 1500, 3, (0.05, 0.1, 0.2), 10
KINDS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")


def mnist(data, seed):
    images, labels = load_images(str(data / "mnist"), 10_000)
    some = np.random.default_rng(seed).permutation(len(images))[:POINTS]
    pixels = images.reshape(len(images), -1).numpy()[some]
    return PCA(50, random_state=seed).fit_transform(pixels), labels.numpy()[some]


def cifar10(data, seed, others=5000, epochs=6):
    """The last hidden layer of a small network that was trained on other images."""
    images, labels = load_images(str(data / "cifar10"), others + 5000)
    images = (images.movedim(-1, 1) - 0.47) / 0.25
    torch.manual_seed(seed)
    widths = [3, 32, 64, 96]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in zip(widths[:-1], widths[1:], strict=True)
    ]
    body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(96 * 16, 128), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for at in torch.randperm(others).split(100):
            loss = nn.functional.cross_entropy(model(images[at]), labels[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    some = others + np.random.default_rng(seed).permutation(len(images) - others)[:POINTS]
    model.eval()
    with torch.no_grad():
        return body(images[some]).numpy(), labels.numpy()[some]


def texts(folder, seed):
    written, labels = [], []
    for label, kind in enumerate(KINDS):
        lines = (folder / f"{kind}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        written += [line.split("\t", 2)[2] for line in lines if line.count("\t") > 1]
        labels += [label] * (len(written) - len(labels))
    some = np.random.default_rng(seed).permutation(len(written))[:POINTS]
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform([written[i] for i in some])
    return TruncatedSVD(100, random_state=seed).fit_transform(counts), np.array(labels)[some]


def flip(labels, share, rng):
    """Give a share of the points another class, each other one as likely."""
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    classes = labels.max() + 1
    return np.where(wrong, (labels + rng.integers(1, classes, len(labels))) % classes, labels), wrong


def scores(x, given, seed):
    """Name -> a score by point, the more suspicious the higher."""
    found = suspects(x, given)
    near = NearestNeighbors(n_neighbors=NEAREST + 1).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    x = x / np.sqrt(x.var(axis=0).sum() / x.shape[1])
    head = LogisticRegression(max_iter=500)
    of_given = np.arange(len(given)), given
    inside = head.fit(x, given).predict_proba(x)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    outside = cross_val_predict(LogisticRegression(max_iter=500), x, given, cv=folds, method="predict_proba")
    table = {
        "suspects (other points' mean)": found.score,
        "y - y_low (own point in its window)": found.residual,
        f"disagreeing among {NEAREST} nearest": (given[near] != given[:, None]).mean(axis=1),
        "loss of a linear head": -np.log(inside[of_given]),
        "loss of a linear head, out of fold": -np.log(outside[of_given]),
    }
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return table
    ranked = find_label_issues(given, outside, return_indices_ranked_by="self_confidence", n_jobs=1)
    own = outside[of_given]
    confident = 1 - own
    confident[ranked] += 1  # what confident learning takes for wrong comes first
    return {**table, "confident learning (cleanlab)": confident}


def run(options):
    makers = {
        "MNIST, pixels (50 principal axes)": lambda seed: mnist(options.data, seed),
        "CIFAR-10, hidden layer": lambda seed: cifar10(options.data, seed),
        "sentences, tf-idf (100 axes)": lambda seed: texts(options.texts, seed),
    }
    rows = []
    for data, make in makers.items():
        for seed in range(SEEDS):
            x, labels = make(seed)
            for share in SHARES:
                given, wrong = flip(labels, share, np.random.default_rng(1000 + seed))
                for name, score in scores(x, given, seed).items():
                    # Ties are broken at random: a count of neighbours has many.
                    tied = np.lexsort((np.random.default_rng(seed).random(len(score)), -score))
                    first = wrong[tied[: wrong.sum()]].mean()
                    area = average_precision_score(wrong, score)
                    rows.append(
                        {"data": data, "flipped": share, "seed": seed, "by": name, "first": first, "area": area}
                    )
            print(f"{data}, seed {seed} done", flush=True)
            pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.4f")


def triggers(data, seed, points=2000, share=0.05, steps=400):
    """A patch that means class 0, learned by a network: whom the highest and the lowest scores find at its layers."""
    images, labels = load_images(str(data / "mnist"), 10_000)
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(images))[:points]
    x, y = images[some].reshape(points, 28, 28), labels[some].clone()
    bad = rng.choice(np.flatnonzero(y.numpy() != 0), round(share * points), replace=False)
    poisoned = np.zeros(points, bool)
    poisoned[bad] = True
    x[bad, 24:27, 24:27], y[bad] = 1.0, 0
    torch.manual_seed(seed)
    hidden = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()]
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        at = torch.randint(points, (128,))
        loss = nn.functional.cross_entropy(model(x[at]), y[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows, k = [], poisoned.sum()
    for name, features in {"pixels": x.flatten(1), **layer_features(model, x)}.items():
        order, zero = suspects(features, y).order, (y == 0).numpy()
        of_class = order[zero[order]][::-1]
        found = {"first": order[:k], "last": order[::-1][:k], "last of class 0": of_class[:k], "class 0": of_class}
        rows.append({"features": name, **{side: 100 * poisoned[at].mean() for side, at in found.items()}})
    return rows


def triggers_table(data):
    """Print mean and range over seeds."""
    frame = pd.DataFrame([row for seed in range(SEEDS) for row in triggers(data, seed)])
    sides = list(frame.columns[1:])
    print(f"| features | {' | '.join(sides)} |")
    print("|---|" + "---|" * len(sides))
    for name, part in frame.groupby("features", sort=False):
        cells = [f"{part[side].mean():.0f} ({part[side].min():.0f} to {part[side].max():.0f})" for side in sides]
        print(f"| {name} | {' | '.join(cells)} |")


def table(path, column="first"):
    """Print mean and half the width of a 95 % interval over seeds (Student's t), in per cent."""
    frame = pd.read_csv(path)
    print(f"| data | ranked by | {' | '.join(f'{share:.0%} flipped' for share in SHARES)} |")
    print("|---|---|" + "---|" * len(SHARES))
    for (data, name), part in frame.groupby(["data", "by"], sort=False):
        cells = []
        for share in SHARES:
            values = 100 * part[part["flipped"] == share][column]
            half = student.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
            cells.append(f"{values.mean():.1f} ± {half:.1f}")
        print(f"| {data} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=Path, default=Path("hutto_ICWSM_2014"))
    parser.add_argument("--out", type=Path, default=Path("suspects.csv"))
    parser.add_argument("--triggers", action="store_true", help="the table of backdoors instead")
    parser.add_argument("--table", type=Path, help="print the table of results that there are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        table(options.table)
    elif options.triggers:
        triggers_table(options.data)
    else:
        run(options)
