"""What leaving a model as it was costs, beside one forward pass: `python benchmarks/untouched.py [--points N]`.

For a residual network like the paper's and a fully connected one of 50 million parameters, each on some points: the
median time of one forward pass, the time of entering and leaving `untouched` around nothing, their ratio, and the
memory of the copies that are held meanwhile beside that of parameters and buffers. One measurement of a model that is
given tensors has one forward pass, and is inside `untouched` once.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from layerfreq.isolation.preserve import untouched
from layerfreq.isolation.reach import reached
from layerfreq.isolation.state import Kept, _Numbers

REPEATS = 3


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        parts = [part for _ in range(2) for part in (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))]
        self.body = nn.Sequential(*parts[:2], nn.ReLU(), *parts[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def residual() -> nn.Module:
    stages = []
    for before, width in ((64, 64), (64, 128), (128, 256)):
        stages += [nn.Conv2d(before, width, 1, stride=1 if before == width else 2), Block(width), Block(width)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 10)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), *stages, *head)


def connected(width: int = 3500) -> nn.Module:
    hidden = [part for _ in range(4) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


def seconds(what) -> float:
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def nothing(model: nn.Module, x: torch.Tensor) -> None:
    with untouched(model, x):
        pass


def forward(model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        for part in x.split(100):
            model(part)


options = argparse.ArgumentParser()
options.add_argument("--threads", type=int, default=2)
options.add_argument("--points", type=int, default=1000)
arguments = options.parse_args()
torch.set_num_threads(arguments.threads)
POINTS = arguments.points
torch.manual_seed(0)
print(f"{POINTS} points, {torch.get_num_threads()} threads, medians of {REPEATS}\n")
print("| model | parameters | one forward pass | entering and leaving | ratio | copies | of its own size |")
print("|---|---|---|---|---|---|---|")
for name, model, x in (
    ("residual, 32 x 32 images", residual(), torch.randn(POINTS, 3, 32, 32)),
    ("fully connected, 4 x 3500", connected(), torch.randn(POINTS, 784)),
):
    model.eval()
    count = sum(p.numel() for p in model.parameters())
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    kept = Kept(list(reached(model, x)))
    copies = sum(note.size for note in kept._tensors if isinstance(note, _Numbers) and note._before is not None)
    kept.put_back(model)
    del kept
    once, around = seconds(lambda m=model, x=x: forward(m, x)), seconds(lambda m=model, x=x: nothing(m, x))
    print(
        f"| {name} | {count / 1e6:.1f} million | {once:.2f} s | {around * 1000:.0f} ms | {around / once:.1%} "
        f"| {copies >> 20} MiB | {copies / size:.2f} |"
    )
