"""How often intervals of error by frequency, relative +- 1.96 stderr, hold the truth (docs/error-by-frequency.md).

Scattered points are drawn anew for each interval, and waves fit their box, so that their relative errors are known. Of
drawn filter centres the truth is what every point as a centre finds.

Run: python benchmarks/error_coverage.py [scattered] [filter] [--draws 200]
"""

import argparse

import numpy as np

from layerfreq import error_spectrum

WAVES = {1: ([1], [3]), 2: ([1, 0], [2, 2]), 3: ([1, 0, 0], [1, 1, 1])}  # cycles along each side of the box
LEFT = {"far": (0.2, 0.6), "near": (0.02, 1.0)}  # of either wave, in amplitude
NOISE = {"": 0.0, ", noisy": 0.5}  # standard deviation of what is left besides, independent of the point


def positions(rng, n, d, uneven):
    """Points in the unit box, and their density: even, or four times as high at one end of each side."""
    u = rng.random((n, d))
    if not uneven:
        return u, np.ones(n)
    x = (np.sqrt(0.16 + 2.4 * u) - 0.4) / 1.2
    return x, (0.4 + 1.2 * x).prod(axis=1)


def scattered_once(rng, n, d, weights, left, noise):
    """Relative errors found of two waves, their standard errors, and the true ones."""
    x, density = positions(rng, n, d, uneven=weights != "none")
    waves = [np.cos(2 * np.pi * (x @ wave) + 0.3 * i) for i, wave in enumerate(WAVES[d])]
    target = waves[0] + waves[1]
    output = target - left[0] * waves[0] - left[1] * waves[1] - noise * rng.standard_normal(n)
    given = {"none": None, "given": 1 / density, "density": "density"}[weights]
    found = error_spectrum(x, target, output, method="scattered", period=1.0, weights=given, seed=int(rng.integers(99)))
    at = [int(np.argmin(abs(found.k - 2 * np.pi * np.linalg.norm(wave)))) for wave in WAVES[d]]
    return found.relative[at], found.stderr[at], np.array(left)


def fields(rng, kind, n=600, d=8):
    """A population of points, whose targets are a field over them, and outputs that lack a part of it."""
    x = rng.standard_normal((n, d))
    y = np.sin(2 * x[:, :1]) + 0.5 * np.sin(5 * x[:, 1:2])
    if kind == "heavy tails":
        y = y * np.exp(rng.standard_normal((n, 1)))
    if kind == "classes":
        y = np.eye(5)[np.digitize(x[:, 0], [-1, -0.3, 0.3, 1])]
    if kind == "rare class":
        y = (x[:, :1] > 1.3).astype(float)
    return x, y, 0.6 * y + 0.1 * np.sin(x[:, :1]) + 0.1 * rng.standard_normal((n, 1))


def row(name, n, found):
    """A row of the table from (draws, 3, bands): found, standard error, truth."""
    value, stderr, truth = np.moveaxis(np.array(found), 1, 0)
    value, stderr, truth = (one[:, np.isfinite(truth[0])] for one in (value, stderr, truth))
    inside = np.abs(value - truth) <= 1.96 * stderr + 1e-12
    told = np.isfinite(value)
    by_band = [inside[told[:, band], band].mean() for band in range(inside.shape[1]) if told[:, band].any()]
    spread = np.sqrt(np.nanmean((value - truth) ** 2, axis=0))
    ratio = np.nanmean(np.nanmedian(stderr, axis=0) / np.where(spread > 0, spread, np.nan))
    held = inside[told].mean()
    print(f"| {name} | {n} | {held:.3f} | {min(by_band):.2f} | {ratio:.2f} | {told.mean():.2f} |", flush=True)
    return held


HEAD = "| {} | {} | held | worst band | stderr / error | told |\n|---|---:|---:|---:|---:|---:|"


def scattered(draws):
    """Intervals of the waves' errors, on random points."""
    print(HEAD.format("scattered", "points"))
    held = []
    for d in (1, 2, 3):
        for weights in ("none", "given", "density"):
            for left, size in LEFT.items():
                for noisy, noise in NOISE.items():
                    for n in (200, 800):
                        rng = np.random.default_rng([d, n, len(weights)])
                        found = [scattered_once(rng, n, d, weights, size, noise) for _ in range(draws)]
                        held.append(row(f"{d}-D, weights {weights}, {left}{noisy}", n, found))
    print(f"\nheld {np.mean(held):.3f} on average, {min(held):.3f} at least\n")


def filters(draws):
    """Intervals of drawn filter centres, around what all centres find."""
    print(HEAD.format("filter, 600 points", "rows"))
    held, k = [], np.geomspace(0.3, 3, 8)
    for kind in ("waves", "heavy tails", "classes", "rare class"):
        given = fields(np.random.default_rng(1), kind)
        options = {"method": "filter", "engine": "blocked"}
        truth = error_spectrum(*given, k, **options).relative
        for rows in (24, 60, 200):
            drawn = [error_spectrum(*given, k, **options, rows=rows, seed=seed) for seed in range(draws)]
            held.append(row(kind, rows, [(one.relative, one.stderr, truth) for one in drawn]))
    print(f"\nheld {np.mean(held):.3f} on average, {min(held):.3f} at least\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = {"scattered": scattered, "filter": filters}
    parser.add_argument("what", nargs="*", choices=[*ways, []], default=[])
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    for name in options.what or ways:
        ways[name](options.draws)
