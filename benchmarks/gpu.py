"""What a spectrum costs on a GPU, beside the bare matrix product and float64 tiles, and how far each is off.

    python benchmarks/gpu.py [--n 5000 20000 60000] [--d 512] [--repeats 5] [--exact 20000] [--tune N] [--variants N]

Prints Markdown tables. Times are medians of runs in turns, from features on the GPU to a `Spectrum` on the host.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from layerfreq import spectrum
from layerfreq.inspection.benchmark import machine

CUTOFFS = np.geomspace(0.01, 100, 50)
CLASSES = 10
TILES = 5000  # points up to which float32 tiles are, which take as long
SMALL = (128, 256, 512, 1024, 2048)
# The kernel's variants, as constants of the engine's module; the first is the default.
VARIANTS = (
    {}, {"GROUP": 8}, {"GROUP": 16}, {"PROGRAMS": 16384}, {"GROUP": 8, "PROGRAMS": 16384}, {"STAGES": 4},
    {"HALVES": True}, {"HALVES": True, "GROUP": 8}, {"HALVES": True, "GROUP": 8, "PROGRAMS": 16384},
    {"HALVES": True, "STAGES": 4}, {"HALVES": True, "BLOCK_K": 64},
    {"HALVES": True, "BLOCK_N": (128, 64, 32, 16)}, {"HALVES": True, "WARPS": 4},
    {"HALVES": True, "BLOCK_M": 64, "WARPS": 4}, {"HALVES": True, "BLOCK_M": 64, "WARPS": 4, "GROUP": 16},
)  # fmt: skip
COLLAPSED = 1e-2  # how wide classes are beside the distance of their centres


def points(n: int, d: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features on the GPU, and class ids or vectors."""
    random = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(n, d, device="cuda", generator=random) / d**0.5
    y = torch.randint(CLASSES, (n,), device="cuda", generator=random)
    if kind == "collapsed":
        x = torch.randn(CLASSES, d, device="cuda", generator=random)[y] / d**0.5 + COLLAPSED * x
    if kind == "vectors":
        return x, torch.randn(n, CLASSES, device="cuda", generator=random)
    return x, y


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and what comes back."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    found = call()
    torch.cuda.synchronize()
    return time.perf_counter() - start, found


def product(x: torch.Tensor, *, tf32: bool) -> None:
    """Multiply in blocks, so that the matrix need not be held."""
    kept, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
    try:
        for part in x.split(8192):
            torch.mm(part, x.T)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = kept


def table(n: int, d: int, kind: str, repeats: int, most: int) -> None:
    x, y = points(n, d, kind)
    ways: dict[str, Callable[[], Any]] = {
        "bare product, float32": partial(product, x, tf32=False),
        "bare product, TF32": partial(product, x, tf32=True),
        "cuda": partial(spectrum, x, y, CUTOFFS, engine="cuda"),
    }
    if n <= TILES:
        ways["blocked, float32"] = partial(spectrum, x, y, CUTOFFS, engine="blocked")
    if n <= most:
        ways["blocked, float64"] = partial(spectrum, x.double(), y, CUTOFFS, engine="blocked")
    found, memory, times = {}, {}, {}
    for name, way in ways.items():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        seconds, found[name] = timed(way)
        times[name] = [seconds] if "blocked" in name else []  # far from the others: once will do
        memory[name] = torch.cuda.max_memory_allocated() - held
    for _ in range(repeats):
        for name, way in ways.items():
            if "blocked" not in name:
                times[name].append(timed(way)[0])
    exact = found.get("blocked, float64")
    floor = median(times["bare product, float32"])
    for name in ways:
        taken, errors = median(times[name]), "- | -"
        if exact is not None and found[name] is not None:
            lfr = np.abs(found[name].lfr - exact.lfr).max()
            errors = f"{lfr:.0e} | {np.abs(found[name].rdf - exact.rdf).max() / exact.rdf.max():.0e}"
        grown = memory[name] / 2**20
        print(
            f"| {n} | {d} | {kind} | {name} | {taken * 1e3:.1f} ms | {taken / floor:.2f} | {grown:.0f} MiB | {errors} |"
        )
        sys.stdout.flush()


def parts(n: int, d: int) -> None:
    """Say where the time of the `cuda` engine goes, by its own parts."""
    from layerfreq.data.source import InMemory
    from layerfreq.data.targets import as_targets
    from layerfreq.engines import read_points
    from layerfreq.engines.cuda import engine as cuda
    from layerfreq.engines.cuda import exponentials as ladder

    x, y = points(n, d, "classes")
    (at, read), targets = timed(lambda: read_points(InMemory(x))), as_targets(y, n)
    cutoffs = torch.from_numpy(CUTOFFS)
    ladders, _ = timed(lambda: ladder.ladder(CUTOFFS, 4.001 * read.radius**2, n))
    engine = cuda.Cuda(read, targets, cutoffs)
    rows_at, rows = timed(lambda: engine.begin(torch.arange(min(n, engine.height))))
    columns_at, columns = timed(lambda: engine.prepare(read))
    add_at, _ = timed(lambda: engine.add(rows, columns))
    curves_at, _ = timed(lambda: engine.finish(rows))
    print(f"\nParts at n={n}, d={d}, {len(rows.index)} centres at hand, tiles of {columns.block}:")
    for name, taken in (
        ("reading points", at), ("ladder", ladders), ("rows", rows_at), ("columns", columns_at), ("add", add_at),
        ("curves", curves_at),
    ):  # fmt: skip
        print(f"  {name}: {taken * 1e3:.2f} ms", flush=True)


def small(d: int, repeats: int) -> None:
    """Say from how many points on the engine pays."""
    print(f"\n| n, d={d} | cuda | blocked |\n|---:|---:|---:|")
    for n in SMALL:
        x, y = points(n, d, "classes")
        calls = [partial(spectrum, x, y, CUTOFFS, engine=name) for name in ("cuda", "blocked")]
        taken = [[timed(call)[0] for call in calls] for _ in range(1 + repeats)][1:]
        print(
            f"| {n} | " + " | ".join(f"{median(way) * 1e3:.1f} ms" for way in zip(*taken, strict=True)) + " |",
            flush=True,
        )


def tune(n: int, d: int) -> None:
    """Time `add` with other tiles and numbers of threads."""
    from layerfreq.data.source import InMemory
    from layerfreq.data.targets import as_targets
    from layerfreq.engines import read_points
    from layerfreq.engines.cuda import engine as cuda

    x, y = points(n, d, "classes")
    read, targets = read_points(InMemory(x)), as_targets(y, n)
    print(f"\nTiles at n={n}, d={d}:")
    for m, block, k, warps in itertools.product((64, 128), (32, 64, 128), (32,), (4, 8)):
        cuda.BLOCK_M, cuda.BLOCK_N, cuda.BLOCK_K, cuda.WARPS = m, (block, 32, 16), k, warps
        try:
            engine = cuda.Cuda(read, targets, torch.from_numpy(CUTOFFS))
            rows, columns = engine.begin(torch.arange(min(n, engine.height))), engine.prepare(read)
            first, _ = timed(lambda: engine.add(rows, columns))  # noqa: B023
            taken = min(timed(lambda: engine.add(rows, columns))[0] for _ in range(3))  # noqa: B023
        except Exception as error:
            print(f"  {m} x {columns.block} x {k}, {warps} warps: {type(error).__name__} {str(error)[:80]}", flush=True)
            continue
        each = taken / len(rows.index) / n * 1e12
        shape = f"{m} x {columns.block} x {k}, {warps} warps"
        print(f"  {shape}: {taken * 1e3:.2f} ms, {each:.1f} ps a pair (first call {first:.1f} s)", flush=True)


@contextmanager
def constants(chosen: dict[str, Any]) -> Iterator[None]:
    """Set constants of the engine's module."""
    from layerfreq.engines.cuda import engine as cuda

    kept = {name: getattr(cuda, name) for name in chosen}
    try:
        for name, value in chosen.items():
            setattr(cuda, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(cuda, name, value)


def variants(n: int, d: int, kind: str, repeats: int, most: int) -> None:
    """Time `add` of the kernel's variants in turns, and say how far the spectra of each are off."""
    from layerfreq.data.source import InMemory
    from layerfreq.data.targets import as_targets
    from layerfreq.engines import read_points
    from layerfreq.engines.cuda import engine as cuda

    x, y = points(n, d, kind)
    read, targets = read_points(InMemory(x)), as_targets(y, n)
    exact = spectrum(x.double(), y, CUTOFFS, engine="blocked") if n <= most else None
    ready, times, errors = {}, {}, {}
    for chosen in VARIANTS:
        name = ", ".join(f"{key} {value}" for key, value in chosen.items()) or "default"
        try:
            with constants(chosen):
                engine = cuda.Cuda(read, targets, torch.from_numpy(CUTOFFS))
                rows, columns = engine.begin(torch.arange(min(n, engine.height))), engine.prepare(read)
                engine.add(rows, columns)  # compiles
                found = spectrum(x, y, CUTOFFS, engine="cuda") if exact is not None else None
        except Exception as error:  # one that does not fit the device must not end the others
            print(f"{name}: {type(error).__name__} {str(error)[:80]}", flush=True)
            continue
        ready[name], times[name], errors[name] = (chosen, partial(engine.add, rows, columns), rows), [], "- | -"
        if exact is not None and found is not None:
            rdf = np.abs(found.rdf - exact.rdf).max() / exact.rdf.max()
            errors[name] = f"{np.abs(found.lfr - exact.lfr).max():.0e} | {rdf:.0e}"
    for _ in range(repeats):
        for name, (chosen, call, _) in ready.items():
            with constants(chosen):
                times[name].append(timed(call)[0])
    print(f"\n| n={n}, d={d}, {kind} | add | a pair | LFR off | RDF off / peak |\n|---|---:|---:|---:|---:|")
    for name, taken in times.items():
        each = min(taken) / len(ready[name][2].index) / n * 1e12
        print(f"| {name} | {min(taken) * 1e3:.2f} ms | {each:.1f} ps | {errors[name]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[5000, 20000, 60000])
    parser.add_argument("--d", type=int, nargs="+", default=[512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--exact", type=int, default=20000, help="points up to which float64 tiles are run: 13 s each")
    parser.add_argument("--tune", type=int, metavar="N", help="also time other tiles at so many points")
    parser.add_argument("--variants", type=int, metavar="N", help="only time the kernel's variants at so many points")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}; {machine()}; 50 cutoffs, {CLASSES} classes, float32 features\n")
    if options.variants:
        for d, kind in itertools.product(options.d, ("classes", "vectors", "collapsed")):
            variants(options.variants, d, kind, options.repeats, options.exact)
        return
    print("| n | d | targets | way | time | : float32 product | memory | LFR off | RDF off |")
    print("|---:|---:|---|---|---:|---:|---:|---:|---:|")
    for n, d, kind in itertools.product(options.n, options.d, ("classes", "vectors", "collapsed")):
        table(n, d, kind, options.repeats, options.exact)
    for n, d in itertools.product(options.n, options.d):
        parts(n, d)
    small(options.d[0], options.repeats)
    if options.tune:
        parts(options.tune, options.d[-1])
        tune(options.tune, options.d[-1])


if __name__ == "__main__":
    main()
