"""Exact at 60,000 points, and a million points to one per cent, on the CPU: time, and memory over the features.

Run: python benchmarks/large.py
"""

import time

import numpy as np
import torch

from layerfreq import spectrum
from layerfreq.inspection.benchmark import added_memory, machine

if __name__ == "__main__":
    print(f"{machine()}; random features, float32, 50 cutoffs, 10 classes\n")
    u = np.geomspace(0.01, 100, 50)
    for n, d, options in ((60_000, 512, {}), (1_000_000, 128, {"rtol": 0.01})):
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).div_(d**0.5)
        y = torch.arange(n) % 10
        spectrum(x[:1000], y[:1000], u, engine="cpu")
        start = time.perf_counter()
        memory, s = added_memory(lambda: spectrum(x, y, u, **options))  # noqa: B023
        seconds = time.perf_counter() - start
        print(f"n={n}, d={d}, {options or 'exact'}: {seconds:.1f} s, {memory / 2**20:.0f} MiB, {s.rows} filter centres")
