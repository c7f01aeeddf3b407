"""Whether the `cpu` engine has become slower: its cost in bare products, beside the costs last written down.

Run: python benchmarks/guard.py [--write] [--repeats 9]

It prints, and never fails: a machine that others use moves single ratios by a fifth, and another processor by more.
`--write` writes them down anew.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from paired import CASES, ask

from layerfreq.inspection.benchmark import processor

KEPT = Path(__file__).with_suffix(".json")
NOTABLE = 1.25  # times the ratio written down


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the ratios down")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"processor": processor(), "ratios": {}}
    if kept["processor"] != processor():
        print(f"written down on another processor ({kept['processor']}), not on this one ({processor()})\n")
    source = Path(__file__).parents[1] / "src"
    env = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(source.parent / "benchmarks" / "paired.py"), "-"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    found = {}
    print("| case | n, d, classes, cutoffs | bare products | written down | |\n|---|---|---:|---:|---|")
    for case, sizes in CASES.items():
        ask(worker, case)  # compiles and loads
        pairs = [ask(worker, case)[:2] for _ in range(options.repeats)]
        found[case] = round(statistics.median(taken / product for taken, product in pairs), 2)
        before = kept["ratios"].get(case)
        change = found[case] / before if before else 1.0
        word = "slower" if change > NOTABLE else "faster" if change < 1 / NOTABLE else ""
        cells = [case, ", ".join(map(str, sizes)), str(found[case]), str(before or "-"), word]
        print(f"| {' | '.join(cells)} |", flush=True)
    worker.stdin.close()
    worker.wait()
    if options.write:
        KEPT.write_text(json.dumps({"processor": processor(), "ratios": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
