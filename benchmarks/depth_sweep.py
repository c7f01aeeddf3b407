"""Is deeper faster whatever the initialisation and the rate? Writes docs/depth.csv and prints docs/depth.md's table.

    python benchmarks/depth_sweep.py [FOLDER]

The trainings of the `depth` experiment, preset `small`, for 3, 5 and 7 hidden layers and two seeds, at every
initialisation of `INITS` and five learning rates; about 20 minutes on one core. FOLDER keeps the runs
(default: runs/depth-sweep); the same command goes on where it was stopped.
"""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd

from layerfreq.experiments import Progress, depth
from layerfreq.experiments.runner import Diverged, train

LAYERS, SEEDS, RATES = (3, 5, 7), (0, 1), (0.001, 0.003, 0.01, 0.03, 0.1)
SMALL = depth.PRESETS["small"]
TABLE = Path(__file__).parents[1] / "docs" / "depth.csv"


def sweep(folder: Path) -> pd.DataFrame:
    """Return init, rate, layers, seed, steps (the cap where the error was not reached), none where it diverged."""
    rows = []
    for init, rate, layers, seed in product(depth.INITS, RATES, LAYERS, SEEDS):
        name = f"{init.replace('/', 'over')}-rate-{rate}-layers-{layers}-seed-{seed}"
        training = depth.training(replace(SMALL, init=init, rate=rate), name, layers, (3, 5), seed)
        try:
            steps = train(training, folder / name, device="cpu", progress=Progress())
        except Diverged:
            steps = None
        rows.append({"init": init, "rate": rate, "layers": layers, "seed": seed, "steps": steps})
        print(*rows[-1].values(), file=sys.stderr, flush=True)
    return pd.DataFrame(rows).astype({"steps": "Int64"})


def as_markdown(frame: pd.DataFrame) -> str:
    """A row for each initialisation and rate: the steps of each seed, and what depth did to their mean."""
    lines = ["| initialisation | rate | " + " | ".join(f"{n} layers" for n in LAYERS) + " | deeper is |"]
    lines.append("|---|---|" + "---|" * (len(LAYERS) + 1))
    for (init, rate), part in frame.groupby(["init", "rate"], sort=False):
        steps = [part.loc[part["layers"] == n, "steps"] for n in LAYERS]
        cells = [", ".join(map(_shown, each)) for each in steps]
        lines.append(f"| {init} | {rate} | " + " | ".join(cells) + f" | {_verdict(steps)} |")
    return "\n".join(lines)


def _shown(steps: int) -> str:
    return "diverged" if pd.isna(steps) else f"> {steps}" if steps >= SMALL.steps else str(steps)


def _verdict(steps: list[pd.Series]) -> str:
    mean = pd.Series([each.mean(skipna=False) for each in steps])
    if mean.isna().any() or mean.min() >= SMALL.steps:
        return "-"
    return "faster" if mean.is_monotonic_decreasing else "slower" if mean.is_monotonic_increasing else "mixed"


if __name__ == "__main__":
    result = sweep(Path(*sys.argv[1:]) if sys.argv[1:] else Path("runs/depth-sweep"))
    result.to_csv(TABLE, index=False)
    print(as_markdown(result))
