"""How near `layerfreq doctor`'s estimates come: the time it names beside the time that measuring took.

python benchmarks/doctor.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from layerfreq import layer_spectra
from layerfreq.inspection.benchmark import machine
from layerfreq.inspection.modules import inspect_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"{machine()}\n")
    print("| images, layers | filter centres | estimated | measured | ratio |\n|---|---:|---:|---:|---:|")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 700), nn.Tanh(), nn.Linear(700, 80), nn.ReLU(), nn.Linear(80, 10)).eval()
    for n in (3000, 10000):
        x, y = torch.randn(n, 64), torch.arange(n) % 10
        for rows in (None, 300):
            estimate = sum(one.seconds or 0.0 for one in inspect_model(model, x, n, rows) if not one.reason)
            layer_spectra(model, x, y, rows=rows)
            taken = []
            for _ in range(repeats):
                start = time.perf_counter()
                layer_spectra(model, x, y, rows=rows)
                taken.append(time.perf_counter() - start)
            found = min(taken)
            print(f"| {n}; 700, 80 | {rows or 'all'} | {estimate:.2f} s | {found:.2f} s | {estimate / found:.2f} |")


if __name__ == "__main__":
    main()
