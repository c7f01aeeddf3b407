"""How long the first spectrum of a process takes on the CPU engine: compiled anew, and from the cache on disk.

Run: python benchmarks/first_call.py
"""

import os
import subprocess
import sys
import tempfile

CALL = """
import time, numpy as np, torch
from layerfreq import spectrum
x, y = torch.randn(2000, 64), torch.arange(2000) % 10
u = np.geomspace(0.001, 1, 50)
start = time.perf_counter()
spectrum(x, y, u, engine="cpu")
labels = time.perf_counter() - start
spectrum(x, torch.randn(2000, 3), u, engine="cpu")
print(f"{labels:.2f} s for class ids, {time.perf_counter() - start - labels:.2f} s more for vectors")
"""

with tempfile.TemporaryDirectory() as cache:
    for when in ("first process after installation", "later process"):
        command = [sys.executable, "-c", CALL]
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        print(f"{when}: {subprocess.check_output(command, env=environment, text=True).strip()}", flush=True)
