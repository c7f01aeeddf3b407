"""What measuring wide layers costs beside the bare forward pass over the same batches, in one process and in turns.

    python benchmarks/wide.py [--model resnet18|convolutions] [--images 600] [--batch 128] [--rows 120] [--repeats 3]
                              [--threads 1] [--width 64]

Prints a Markdown table: processor time (all threads), the least of the repeats; its ratio to that of the bare pass
(eval mode, no gradients), and the median of the ratios in each turn; the least clock time; and by how much the process
grew at most, the median of the repeats, over the bare pass. "Held" is drawn centres with `whole=True`, which keeps the
batches as they come and so holds the features.

Before each of them 1 GiB is touched and given back: hosts of virtual machines reclaim free memory, and who touches it
first pays more for that than for a convolution. To have the C library keep memory between layers, too, set
MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ to 4294967296.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq import hidden_layers, layer_spectra
from layerfreq.inspection.benchmark import added_memory, machine


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.two = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.two(self.one(x)) + self.skip(x))


def resnet18(width: int) -> nn.Module:
    """ResNet-18 for images of 32 x 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        layers += [Block(channels, outputs, stride), Block(outputs, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels, 10))


def convolutions(width: int) -> nn.Module:
    """Three convolutions of one resolution, each under a ReLU."""
    layers: list[nn.Module] = []
    for inputs in (3, width, width):
        layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64 * width, 10))


def cost(call: Callable[[], Any]) -> tuple[float, float, int]:
    """Return processor seconds, clock seconds, and bytes by which the process grew."""
    np.empty(1 << 30, np.uint8).fill(1)
    clock, work = time.perf_counter(), time.process_time()
    grown, _ = added_memory(call)
    return time.process_time() - work, time.perf_counter() - clock, grown or 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet18", "convolutions"], default="resnet18")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = {"resnet18": resnet18, "convolutions": convolutions}[options.model](options.width).eval()
    x, y = torch.rand(options.images, 3, 32, 32), torch.randint(10, (options.images,))
    batches = list(zip(x.split(options.batch), y.split(options.batch), strict=True))
    layers = hidden_layers(model, x[:8])

    def bare() -> None:
        with torch.no_grad():
            for some, _ in batches:
                model(some)

    ways = {
        "bare pass": bare,
        f"{options.rows} drawn": partial(layer_spectra, model, batches, layers=layers, rows=options.rows),
        f"{options.rows} drawn, held": partial(
            layer_spectra, model, batches, layers=layers, rows=options.rows, whole=True
        ),
        "all": partial(layer_spectra, model, batches, layers=layers),
    }
    small = list(zip(x[:320].split(64), y[:320].split(64), strict=True))
    for rows in (64, None):  # loads and compiles what is needed
        layer_spectra(model, small, layers=layers[-2:], rows=rows, engine="cpu")
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, call in ways.items():
            found[name].append(cost(call))
    print(f"{machine()}; threads: {options.threads}\n")
    of = f"{options.images} images in batches of {options.batch}"
    print(f"{options.model}, width {options.width}, {of}; cuts: {len(layers)}\n")
    print("| filter centres | processor, s | : bare | median of turns | clock, s | memory over the bare pass |")
    print("|---|---:|---:|---:|---:|---:|")
    base = found["bare pass"]
    for name, each in found.items():
        work, clock = (min(column) for column in list(zip(*each, strict=True))[:2])
        turns = median(one[0] / two[0] for one, two in zip(each, base, strict=True))
        grown = median(one[2] for one in each) - median(one[2] for one in base)
        least = work / min(one[0] for one in base)
        print(f"| {name} | {work:.2f} | {least:.2f} | {turns:.2f} | {clock:.2f} | {int(grown) >> 20} MiB |")


if __name__ == "__main__":
    main()
