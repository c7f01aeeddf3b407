"""What a pause before a measurement costs two threads: ours, and two of a plain loop that shares nothing.

After a pause some machines run both threads on one core for a while. What the plain loop loses there, every program
loses; a spectrum, whose threads meet a few times, loses more.

Run: python benchmarks/pauses.py
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numba
import numpy as np
import torch

from layerfreq import spectrum

PAUSES, REPEATS = (0.0, 0.03, 0.2, 0.5), 9


@numba.njit(nogil=True)
def loop(steps: int) -> float:
    total = 0.0
    for i in range(steps):
        total += 1.0 / (1.0 + i * total)
    return total


def milliseconds(call: Callable[[], object], pause: float) -> str:
    times = []
    for _ in range(REPEATS):
        time.sleep(pause)
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})"


torch.set_num_threads(2)
x, labels = torch.randn(5000, 64) / 8, torch.arange(5000) % 10
cutoffs = np.geomspace(0.01, 100, 50)
pool = ThreadPoolExecutor(2)
calls: dict[str, Callable[[], object]] = {
    "bare product, 5,000 x 64": lambda: x.numpy() @ x.numpy().T,
    "spectrum, 5,000 x 64": lambda: spectrum(x, labels, cutoffs, engine="cpu"),
    "plain loop, one thread": lambda: loop(4_000_000),
    "plain loop, as long on each of two": lambda: list(pool.map(loop, [4_000_000] * 2)),
}
for call in calls.values():
    call()
print("milliseconds, median (least to most) of", REPEATS)
for name, call in calls.items():
    print(f"{name}:", ", ".join(f"after {pause:g} s {milliseconds(call, pause)}" for pause in PAUSES), flush=True)
