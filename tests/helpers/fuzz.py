"""Odd data against the definition: `python -m tests.helpers.fuzz 1000` tries so many cases, and names failures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from layerfreq import spectrum
from layerfreq.errors import InputError

BOUND = {"reference": 1e-9, "blocked": 1e-5, "cpu": 1e-5, "auto": 1e-5}
DTYPES = ["float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"]
Make = Callable[[np.random.Generator, int, int], Any]


def _clusters(size: float) -> Make:
    return lambda r, n, d: r.normal(size=(5, d))[r.integers(0, 5, n)] + size * r.normal(size=(n, d))


def _one_at(place: float) -> Make:
    return lambda r, n, d: np.concatenate([np.full((1, d), place), r.normal(size=(n - 1, d))])


def _some_equal(r: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = r.normal(size=(n, d))
    x[: n // 2] = x[0]
    return x


FEATURES: dict[str, Make] = {
    "normal": lambda r, n, d: r.normal(size=(n, d)),
    "clusters": _clusters(1e-4),
    "collapsed 1e-8": _clusters(1e-8),
    "collapsed 1e-12": _clusters(1e-12),
    "duplicates": _clusters(0.0),
    "all equal": lambda r, n, d: np.tile(r.normal(size=d), (n, 1)),
    "half equal": _some_equal,
    "dead": lambda r, n, d: np.zeros((n, d)),
    "sparse": lambda r, n, d: np.maximum(r.normal(size=(n, d)) - 1.5, 0),
    "one at 1e14": _one_at(1e14),
    "one at -1e30": _one_at(-1e30),
    "offset 1e3": lambda r, n, d: r.normal(size=(n, d)) + 1e3,
    "offset 1e12": lambda r, n, d: r.normal(size=(n, d)) + 1e12,
    "tiny": lambda r, n, d: r.normal(size=(n, d)) * 1e-36,
    "tiniest": lambda r, n, d: r.normal(size=(n, d)) * 1e-305,
    "huge": lambda r, n, d: r.normal(size=(n, d)) * 1e36,
    "hugest": lambda r, n, d: r.normal(size=(n, d)) * 1e300,
    "Cauchy": lambda r, n, d: r.standard_cauchy((n, d)),
    "octaves": lambda r, n, d: 2.0 ** r.integers(-60, 3, (n, d)),
    "grid": lambda r, n, d: np.linspace(-3, 3, n)[:, None] * np.ones(d),
    "counts": lambda r, n, d: r.poisson(2, (n, d)),
    "ranges": lambda r, n, d: r.normal(size=(n, d)) * 10.0 ** r.integers(-5, 5, d),
}


def _spike(r: np.random.Generator, n: int, d: int) -> np.ndarray:
    y = r.normal(size=n)
    y[0] = 1e3
    return y


TARGETS: dict[str, Make] = {
    "2 classes": lambda r, n, d: r.integers(0, 2, n),
    "10 classes": lambda r, n, d: r.integers(0, 10, n),
    "n classes": lambda r, n, d: r.permutation(n),
    "one class": lambda r, n, d: np.full(n, 3),
    "rare class": lambda r, n, d: (np.arange(n) == 0).astype(int),
    "skewed classes": lambda r, n, d: np.minimum(r.geometric(0.3, n), 12),
    "large ids": lambda r, n, d: r.integers(0, 3, n) * 10**12,
    "bool": lambda r, n, d: r.random(n) < 0.3,
    "bytes": lambda r, n, d: r.integers(0, 200, n).astype(np.uint8),
    "order": lambda r, n, d: np.arange(n) * 4 // n,
    "normal": lambda r, n, d: r.normal(size=n),
    "float32": lambda r, n, d: r.normal(size=(n, 2)).astype(np.float32),
    "mean 2000": lambda r, n, d: r.normal(size=n) + 2000,
    "mean 1e12": lambda r, n, d: r.normal(size=n) + 1e12,
    "Cauchy": lambda r, n, d: r.standard_cauchy(n),
    "lognormal": lambda r, n, d: np.exp(2 * r.normal(size=(n, 2))),
    "spike": _spike,
    "one not zero": lambda r, n, d: (np.arange(n) == n // 2).astype(float),
    "tiny": lambda r, n, d: r.normal(size=n) * 1e-300,
    "huge": lambda r, n, d: r.normal(size=n) * 1e300,
    "17 columns": lambda r, n, d: r.normal(size=(n, 17)),
    "ranges": lambda r, n, d: r.normal(size=(n, 4)) * [1, 1e-8, 1e4, 1e-3] + [0, 1, 0, 50],
    "one-hot": lambda r, n, d: np.eye(5)[r.integers(0, 5, n)],
    "signs": lambda r, n, d: np.where(r.random(n) < 0.5, -1.0, 1.0),
    "wave": lambda r, n, d: np.sin(np.arange(n) / 3),
}


def definition(x: Any, y: Any, inv_delta: Any, scale: str, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return LFR and neighbours, one kernel per cutoff; differences and distances have NumPy's widest float."""
    x = np.asarray(x).astype(np.longdouble).reshape(len(x), -1)
    size: Any = np.longdouble(1)  # of differences: centring the points would take digits of close ones
    if scale != "raw":
        away = x - x[0] - (x - x[0]).mean(axis=0)
        size = np.abs(away).max(axis=0) if scale == "maxabs" else np.sqrt((away * away).sum(axis=1).mean())
        size = np.where(size > 0, size, 1)
    y = np.asarray(y)
    if y.dtype.kind in "biu":
        y = (y[:, None] == np.unique(y)).astype(np.longdouble)
    y = y.reshape(len(y), -1).astype(np.longdouble)
    if center:  # twice: the first mean is as exact as what is large beside the variation lets it be
        y = y / 4 - (y / 4).mean(axis=0)
        y = y - y.mean(axis=0)
    y = (y / np.abs(y).max()).astype(np.float64)
    squared = np.array([(((x - point) / size) ** 2).sum(axis=1) for point in x])
    lfr, neighbours = [], []
    for u in inv_delta:
        g = np.exp(-np.minimum(squared * (np.longdouble(u) / 2), 800)).astype(np.float64)
        low = (g @ y) / g.sum(axis=1, keepdims=True)
        lfr.append((low**2).sum() / (y**2).sum())
        neighbours.append((g.sum(axis=1) ** 2 / (g**2).sum(axis=1)).mean())
    return np.array(lfr), np.array(neighbours)


def as_dtype(x: np.ndarray, dtype: str) -> torch.Tensor | None:
    """Return features in a dtype, or None where they do not fit in."""
    kind = getattr(torch, dtype)
    if kind == torch.bool:
        return torch.from_numpy(x > 0)
    if kind.is_floating_point:
        cast = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)).to(kind)
        return cast if bool(torch.isfinite(cast).all()) else None
    if np.abs(x).max() > 1e6:
        return None
    small = np.clip(np.round(8 * x), 0 if dtype == "uint8" else -127, 127)
    return torch.from_numpy(small).to(kind)


def case(number: int) -> tuple[str, float, float]:
    """Run one case.

    Returns:
        What it was, its error in LFR beside its largest LFR (or one), and the bound; NaN where the data were refused.
    """
    rng = np.random.default_rng(number)

    def pick(things: Any) -> Any:
        things = list(things)
        return things[int(rng.integers(len(things)))]

    kind, target, engine, scale = pick(FEATURES), pick(TARGETS), pick(BOUND), pick(["raw", "raw", "rms", "maxabs"])
    n, d = pick([2, 3, 20, 90, 90, 530]), pick([1, 2, 7, 40])
    center, grid, dtype = pick([None, None, True, False]), pick(["own", "own", "wide", "extreme"]), pick(DTYPES[:4])
    dtype = pick(DTYPES) if rng.random() < 0.3 else dtype
    name = f"{number}: {kind} {dtype} ({n}, {d}), {target}, {engine}, {scale}, center={center}, {grid}"
    with np.errstate(all="ignore"):
        x = as_dtype(FEATURES[kind](rng, n, d), dtype)
    if x is None:
        return name, np.nan, 0.0
    y = TARGETS[target](rng, n, d)
    u = {"own": None, "wide": np.geomspace(1e-4, 1e6, 12), "extreme": np.geomspace(1e-300, 1e300, 31)}[grid]
    try:
        s = spectrum(x, y, u, engine=engine, scale=scale, center=center)
    except InputError as error:
        return f"{name}: {error}", np.nan, 0.0
    raw = x.double().numpy() if x.is_floating_point() else x.numpy()
    centred = center if center is not None else y.dtype.kind == "f"
    lfr, neighbours = definition(raw, y, s.inv_delta, scale, centred)
    error = float(np.abs(s.lfr - lfr).max() / max(1.0, lfr.max()))
    if not all(np.isfinite(curve).all() for curve in (s.lfr, s.rdf, s.chance, s.neighbours)):
        error = np.inf
    error = max(error, BOUND[engine] * 1e-2 * float(np.abs(s.neighbours / neighbours - 1).max()) / 1e-3)
    return name, error, BOUND[engine]


if __name__ == "__main__":
    torch.set_num_threads(1)
    start, count = (int(sys.argv[2]) if len(sys.argv) > 2 else 0), int(sys.argv[1])
    failed = refused = 0
    for number in range(start, start + count):
        try:
            name, error, bound = case(number)
        except Exception as problem:
            name, error, bound = f"{number}: {type(problem).__name__}: {problem}", np.inf, 0.0
        if np.isnan(error):
            refused += 1
            if ": " in name[8:] and "-v" in sys.argv:
                print("refused", name)
        elif not error <= bound:
            failed += 1
            print(f"{error:.2g}  {name}")
    print(f"{count} cases, {refused} refused or not made, {failed} failed")
