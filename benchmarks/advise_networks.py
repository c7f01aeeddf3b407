"""What `benchmarks/advise.py` asks for advice on: three kinds of networks, their data, other data, and training."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from layerfreq.loading.images import load_images

TRAINED, PROBED, TESTED, OTHERS = 3000, 2000, 2000, 1000  # points; of others as many to advise, to train and to test
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
