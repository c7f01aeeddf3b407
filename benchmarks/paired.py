"""This tree beside another checkout of it, call by call in turns: median ratio of CPU time, and errors against float64.

python benchmarks/paired.py OTHER/src [--repeats 7] [--cases small,wide] [--free]

Two processes of one thread each answer in turns, so that what else the machine does meets both alike. "Product" is
NumPy's bare matrix product of the points with themselves, in reverse order, in this tree's process.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {  # n, d, classes (0: three target columns), cutoffs
    "small": (500, 100, 10, 50),
    "narrow": (3000, 64, 10, 50),
    "wide": (3000, 512, 10, 50),
    "many": (3000, 512, 600, 50),
    "most": (5000, 512, 1000, 50),
    "columns": (1500, 512, 0, 50),
    "half": (5000, 512, 10, 50),
    "flat": (5000, 64, 10, 50),
}


def serve():
    """Answer lines that name a case: CPU time of a call, of a bare product, and errors the first time."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from layerfreq import spectrum

    made = {}
    for line in sys.stdin:
        case, held = line.split()
        n, d, classes, cutoffs = CASES[case]
        errors = ""
        if case not in made:
            random = torch.Generator().manual_seed(0)
            x = torch.randn(n, d, generator=random) / d**0.5
            y = torch.randint(classes, (n,), generator=random) if classes else x[:, :3] + 0.1
            u = np.geomspace(0.01, 100, cutoffs)
            made[case] = x, y, u
            found = spectrum(x, y, u, engine="cpu")
            if held == "held":
                exact = spectrum(x.double(), y, u, engine="blocked")
                error = np.abs(found.lfr - exact.lfr).max(), np.abs(found.rdf - exact.rdf).max() / exact.rdf.max()
                errors = " ".join(map(str, error))
        x, y, u = made[case]
        begun = time.process_time()
        spectrum(x, y, u, engine="cpu")
        taken = time.process_time() - begun
        begun = time.process_time()
        np.matmul(x.numpy(), x.numpy()[::-1].T)
        print(f"{taken} {time.process_time() - begun} {errors}", flush=True)


def ask(worker, case, held="free"):
    worker.stdin.write(f"{case} {held}\n")
    worker.stdin.flush()
    return [float(part) for part in worker.stdout.readline().split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", help="the src folder of the other checkout, or -: answer requests")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--free", action="store_true", help="without errors, which take longest")
    options = parser.parse_args()
    if options.other == "-":
        serve()
        return
    workers = []
    for source in (options.other, str(Path(__file__).parents[1] / "src")):
        env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "-"]
        workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))
    head = "case | n, d, classes, cutoffs | before, ms | after, ms | after / before | after / product"
    print(f"| {head} | LFR error | RDF error / peak |")
    print("|---|---|---:|---:|---:|---:|---|---|")
    for case in options.cases.split(","):
        first = [ask(worker, case, "free" if options.free else "held")[2:] for worker in workers]
        pairs = [[ask(worker, case) for worker in workers] for _ in range(options.repeats)]
        before, after, ratio, product = (
            statistics.median(values)
            for values in zip(*((a[0], b[0], b[0] / a[0], b[0] / b[1]) for a, b in pairs), strict=True)
        )
        errors = [f"{a:.1e} -> {b:.1e}" for a, b in zip(*first, strict=True)] or ["-", "-"]
        cells = [case, ", ".join(map(str, CASES[case])), f"{1e3 * before:.1f}", f"{1e3 * after:.1f}", f"{ratio:.2f}"]
        print("| " + " | ".join([*cells, f"{product:.2f}", *errors]) + " |", flush=True)
    for worker in workers:
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
