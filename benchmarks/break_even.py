"""From which size on which engine is faster on the CPU, warm: the table behind `engine="auto"`.

Run: python benchmarks/break_even.py
"""

import time
from statistics import median

import torch

from layerfreq import spectrum
from layerfreq.inspection.benchmark import machine

ENGINES = ("cpu", "blocked")
TARGETS = {
    "10 classes": lambda n, random: torch.arange(n) % 10,
    "n / 4 classes": lambda n, random: torch.arange(n) % (n // 4),
    "3 columns": lambda n, random: torch.randn(n, 3, generator=random),
    "64 columns": lambda n, random: torch.randn(n, 64, generator=random),
}

if __name__ == "__main__":
    print(f"{machine()}; float32, own grids, medians of 5, ms\n")
    print("| n | d | targets | cpu | blocked | auto |\n|---:|---:|---|---:|---:|---|")
    for n in (64, 256, 512, 1024):
        for d in (8, 512):
            for kind, make in TARGETS.items():
                random = torch.Generator().manual_seed(0)
                x, y = torch.randn(n, d, generator=random), make(n, random)
                taken = {engine: [] for engine in ENGINES}
                for turn in range(6):
                    for engine in ENGINES:
                        start = time.perf_counter()
                        spectrum(x, y, engine=engine)
                        if turn:  # the first call compiles and loads
                            taken[engine].append(time.perf_counter() - start)
                chosen = spectrum(x, y).engine
                times = " | ".join(f"{median(taken[engine]) * 1000:.1f}" for engine in ENGINES)
                print(f"| {n} | {d} | {kind} | {times} | {chosen} |", flush=True)
