"""How often intervals of drawn rows, LFR +- 1.96 stderr, hold the exact LFR: the table in docs/sampling.md.

Every point's curve is computed once; a draw of rows then only adds some of them up, as `spectrum(rows=...)` does.

Run: python benchmarks/interval_coverage.py [DRAWS]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch

from layerfreq.data.distributed import Shards
from layerfreq.data.source import InMemory
from layerfreq.data.targets import Targets, as_targets
from layerfreq.engines import ENGINES, read_points
from layerfreq.engines.base import RowCurves
from layerfreq.measure.sampling import Draw, Tally, draw

DRAWS = 120
CUTOFFS = np.geomspace(0.1, 30, 6)
Random = np.random.Generator
Make = Callable[[Random, int], tuple[np.ndarray, np.ndarray]]


def _points(r: Random, n: int, d: int = 3) -> np.ndarray:
    return r.normal(size=(n, d))


def _classes(labels: Callable[[Random, int], np.ndarray], away: float = 2.0, size: float = 1.0, d: int = 3) -> Make:
    """Classes that lie side by side."""

    def make(r: Random, n: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = _points(r, n, d) * size, labels(r, n)
        x[:, 0] += away * y
        return x, y

    return make


def _values(target: Callable[[Random, np.ndarray], np.ndarray], d: int = 3) -> Make:
    def make(r: Random, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = _points(r, n, d)
        return x, target(r, x)

    return make


def _even(classes: int) -> Callable[[Random, int], np.ndarray]:
    return lambda r, n: np.arange(n) % classes


def _skewed(r: Random, n: int) -> np.ndarray:
    return (r.random(n) > 0.9).astype(int) + (r.random(n) > 0.97)


def _rare(every: int) -> Callable[[Random, int], np.ndarray]:
    return lambda r, n: (np.arange(n) % every == 0).astype(int)


def _vectors(r: Random, x: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(2 * x[:, 0]), x[:, 1] + 0.3 * r.normal(size=len(x)), x[:, 2] ** 2], axis=1)


def _spikes(r: Random, x: np.ndarray) -> np.ndarray:
    y = np.sin(x[:, 0])
    y[:4] = 30.0
    return y


def _outliers(r: Random, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with heavy tails: far points keep their own target, near ones share."""
    x = r.standard_t(2, size=(n, 3))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 2)


KINDS: dict[str, Make] = {
    "3 classes": _classes(_even(3)),
    "6 classes": _classes(_even(6)),
    "10 classes": _classes(_even(10)),
    "3 skewed classes": _classes(_skewed),
    "10 skewed classes": _classes(lambda r, n: np.minimum(r.geometric(0.4, n) - 1, 9)),
    "collapsed classes": _classes(_skewed, size=0.05),
    "mixed classes": _classes(_even(10), away=0.0),
    "20 dimensions": _classes(_even(4), d=20),
    "outlying features": _outliers,
    "rare class, 4 %": _classes(_rare(25)),
    "rare class, 1 %": _classes(_rare(100)),
    "rare class, 10 %": _classes(_rare(10), away=1.0),
    "vectors": _values(_vectors),
    "wave": _values(lambda r, x: np.sin(6 * x[:, 0]), d=1),
    "t, 3 degrees": _values(lambda r, x: r.standard_t(3, size=len(x)) + np.sin(2 * x[:, 0])),
    "t, 2 degrees": _values(lambda r, x: r.standard_t(2, size=len(x)) + np.sin(2 * x[:, 0])),
    "lognormal, 1": _values(lambda r, x: np.exp(r.normal(size=(len(x), 1))) * np.sin(x)),
    "lognormal, 2": _values(lambda r, x: np.exp(2 * r.normal(size=(len(x), 1))) * np.sin(x)),
    "exponential of x": _values(lambda r, x: np.exp(2 * x[:, 0])),
    "4 spikes": _values(_spikes),
    "Cauchy": _values(lambda r, x: r.standard_cauchy(len(x))),
}


@dataclass(frozen=True)
class Setting:
    """A population, and how many of its rows are drawn."""

    kind: str
    n: int
    rows: tuple[int, ...]
    center: bool | None = None


SETTINGS = [
    Setting("3 classes", 400, (2, 8, 50)),
    Setting("6 classes", 400, (16, 150)),
    Setting("10 classes", 400, (8, 50)),
    Setting("3 skewed classes", 400, (2, 16, 100)),
    Setting("10 skewed classes", 400, (8, 50, 100)),
    Setting("collapsed classes", 400, (2, 8, 50, 150)),
    Setting("mixed classes", 400, (16, 100)),
    Setting("20 dimensions", 400, (16, 100)),
    Setting("outlying features", 400, (16, 100)),
    Setting("rare class, 4 %", 400, (16, 50, 100, 150)),
    Setting("rare class, 4 %", 400, (16, 50, 100, 150), True),
    Setting("rare class, 1 %", 400, (50, 150), True),
    Setting("rare class, 1 %", 1600, (50, 200, 400), True),
    Setting("rare class, 10 %", 400, (50, 150), True),
    Setting("10 skewed classes", 400, (8, 50, 100), True),
    Setting("vectors", 400, (8, 16, 50, 150)),
    Setting("vectors", 400, (16, 100), False),
    Setting("wave", 400, (16, 100)),
    Setting("t, 3 degrees", 400, (16, 50, 150)),
    Setting("t, 2 degrees", 400, (16, 50, 150)),
    Setting("t, 2 degrees", 1600, (50, 200)),
    Setting("lognormal, 1", 400, (16, 50, 150)),
    Setting("lognormal, 2", 400, (16, 50, 150)),
    Setting("lognormal, 2", 1600, (50, 200, 400)),
    Setting("exponential of x", 400, (16, 50, 150)),
    Setting("4 spikes", 400, (16, 50, 150)),
    Setting("Cauchy", 400, (16, 50, 150)),
    Setting("Cauchy", 1600, (50, 200, 400)),
]


@dataclass(frozen=True)
class Population:
    """All points of a setting, each with its curves."""

    targets: Targets
    curves: RowCurves

    def tally(self, drawn: Draw) -> Tally:
        """What these rows say of all."""
        tally = Tally(drawn, self.targets, len(CUTOFFS), Shards(count=len(self.targets.energy)))
        some = {f.name: getattr(self.curves, f.name) for f in fields(RowCurves) if f.name != "by_column"}
        tally.add(RowCurves(**{name: curve[drawn.order] for name, curve in some.items()}))
        tally.share()
        return tally


def population(setting: Setting) -> Population:
    """Make the points of a setting and compute the curves of all of them."""
    x, y = KINDS[setting.kind](np.random.default_rng(1), setting.n)
    targets, points = as_targets(y, setting.n, center=setting.center), read_points(InMemory(torch.from_numpy(x)))
    work = ENGINES["blocked"](points, targets, torch.from_numpy(CUTOFFS / float(points.gain[0]) ** 2))
    parts = list(work.run(torch.arange(setting.n)))
    names = [f.name for f in fields(RowCurves) if f.name != "by_column"]
    return Population(targets, RowCurves(**{k: torch.cat([getattr(part, k) for part in parts]) for k in names}))


@dataclass(frozen=True)
class Found:
    """What the draws of one setting came to."""

    held: float  # mean over cutoffs
    worst: float  # at the cutoff that is held least
    width: float  # median stderr / LFR
    error: float  # root mean square of the errors / LFR
    needed: float  # median of the rows that the warnings ask for, or NaN where most draws have none


def coverage(everything: Population, rows: int, draws: int) -> Found:
    """Draw rows again and again, and look whether the exact LFR lies in their intervals."""
    n = len(everything.targets.energy)
    exact = everything.tally(draw(everything.targets, n, None, None, 0)).estimates()["lfr"]
    held, width, errors, needed = [], [], [], []
    for seed in range(draws):
        tally = everything.tally(draw(everything.targets, n, rows, None, seed))
        found = tally.estimates()
        error = np.abs(found["lfr"] - exact)
        errors.append((error / exact) ** 2)
        held.append(error <= 1.96 * found["stderr"] + 1e-12)
        width.append(found["stderr"] / exact)
        needed.append(tally.rows_needed() or 0)
    share, asked = np.mean(held, axis=0), float(np.median(needed))
    root = float(np.mean(errors) ** 0.5)
    return Found(float(share.mean()), float(share.min()), float(np.median(width)), root, asked or np.nan)


if __name__ == "__main__":
    torch.set_num_threads(1)
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS
    print(f"{draws} draws each, {len(CUTOFFS)} cutoffs, 1/delta {CUTOFFS[0]} .. {CUTOFFS[-1]}\n")
    print("| targets | n | centred | rows | held | worst cutoff | stderr / LFR | error / LFR | rows asked for |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    every = []
    for setting in SETTINGS:
        everything = population(setting)
        for rows in setting.rows:
            found = coverage(everything, rows, draws)
            every.append(found)
            print(
                f"| {setting.kind} | {setting.n} | {'yes' if everything.targets.centered else 'no'} | {rows} | "
                f"{found.held:.3f} | {found.worst:.2f} | {found.width:.2g} | {found.error:.2g} | "
                f"{'' if np.isnan(found.needed) else round(found.needed)} |",
                flush=True,
            )
    held = [found.held for found in every]
    print(f"\nheld {np.mean(held):.3f} on average, {min(held):.3f} at least; below 0.90: {sum(h < 0.9 for h in held)}")
