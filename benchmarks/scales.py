"""What the paper's scale costs against raw features: time and memory, interleaved, on the cpu engine.

python benchmarks/scales.py [--n 5000] [--d 512] [--repeats 7]
"""

import argparse
import statistics
import subprocess
import sys
import time

import torch

from layerfreq import spectrum


def timed(x, y, scale):
    begun = time.perf_counter()
    spectrum(x, y, scale=scale, engine="cpu")
    return time.perf_counter() - begun


def peak(n, d, scale):
    """Peak memory of a process that measures once, in MiB."""
    code = (
        "import resource, torch; from layerfreq import spectrum; "
        f"x = torch.randn({n}, {d}); spectrum(x, torch.arange({n}) % 10, scale={scale!r}, engine='cpu'); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("n", 5000), ("d", 512), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    x = torch.randn(options.n, options.d, generator=torch.Generator().manual_seed(0))
    y = torch.arange(options.n) % 10
    times = {scale: [] for scale in ("raw", "rms", "maxabs")}
    for scale in times:
        timed(x, y, scale)
    for _ in range(options.repeats):
        for scale, found in times.items():
            found.append(timed(x, y, scale))
    print(f"n={options.n}, d={options.d}, cpu engine, {torch.get_num_threads()} threads, {options.repeats} repeats\n")
    print("| scale | median, ms | ratio to raw, median of pairs | peak memory, MiB |\n|---|---|---|---|")
    for scale, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times["raw"], strict=True))
        memory = peak(options.n, options.d, scale)
        print(f"| {scale} | {1000 * statistics.median(found):.0f} | {ratio:.2f} | {memory} |")


if __name__ == "__main__":
    main()
