"""Points anywhere in up to three dimensions: sums over them at the modes of their box, less the noise of n points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Complex128, Float64

from layerfreq.data.validation import Curve
from layerfreq.errors import Code, InputError, is_not, shown
from layerfreq.response.given import Given, as_reals, refuse_beyond
from layerfreq.response.grid import Grid, find_grid
from layerfreq.response.jackknife import groups, standard_error
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio, of_bands
from layerfreq.response.rings import Rings

MOST = 2e11  # products that a direct sum may take, some minutes
PIECE = 1 << 22  # numbers held at a time by a direct sum
LEAST = 1.5  # points that weights amount to, by Kish's effective number
KERNELS = 5000  # points that a density estimate is made of, at most


@dataclass(frozen=True)
class _Sums:
    """Sums over some points, weighted; those over all but a group are a difference.

    Attributes:
        waves: (2, c, modes) of target and error.
        weight: Of the weights.
        squares: Of their squares.
        noise: (2, c) of the squares of weighted targets and errors.
    """

    waves: Complex128[np.ndarray, "2 c modes"]
    weight: float
    squares: float
    noise: Float64[np.ndarray, "2 c"]

    def __sub__(self, group: _Sums) -> _Sums:
        return _Sums(*(mine - its for mine, its in zip(vars(self).values(), vars(group).values(), strict=True)))

    def energies(self, rings: Rings, random: bool) -> Float64[np.ndarray, "2 m c"]:
        """Return what each ring holds of target and error; less the noise that random points put there."""
        found = np.stack([[rings.add(np.abs(one / self.weight) ** 2) for one in columns] for columns in self.waves])
        found = found.swapaxes(1, 2)
        if not random:
            return found
        noise = self.noise / self.weight**2
        return (found - rings.modes[:, None] * noise[:, None]) / (1 - self.squares / self.weight**2)


def on_scattered(
    given: Given, frequencies: Curve | None, *, weights: Any, period: Any, floor: bool, seed: int
) -> ErrorSpectrum:
    """Measure on scattered points; see `error_spectrum`."""
    x = given.coordinates("scattered")
    together = len(x) - distinct(x)
    if together:
        raise InputError(f"inputs: {together} of {len(x)} points are in the place of another; average or drop them")
    grid = _grid_or_none(x, given.eps)
    random = floor and grid is None
    sides, shape, rings = _modes(x, grid, period, frequencies)
    w, weighted = as_weights(weights, x, seed)
    turned = (2 * np.pi / sides) * (x - x.min(axis=0))
    add_up, how = _way(given.n, len(rings.at) * given.target.shape[1])
    notes = [*given.notes, *weighted, how]
    if grid is not None:
        notes.append("the points fill a grid: nothing is random, no noise is subtracted")

    def sums(used: np.ndarray | slice) -> _Sums:
        both = np.stack([given.target[used], given.error[used]]) * w[used, None]
        waves = add_up(turned[used], np.concatenate(both, axis=1), shape).reshape(2, both.shape[2], -1)
        return _Sums(waves, float(w[used].sum()), float((w[used] ** 2).sum()), (both**2).sum(axis=1))

    whole = sums(slice(None))
    found = whole.energies(rings, random)
    t, e = found.mean(axis=2)
    noise = whole.noise.mean(axis=1)[:, None] * rings.modes
    least = given.rounding * float(t.sum())
    stderr = None
    if random:  # twice the standard deviation of what noise alone leaves in so many modes
        least = np.maximum(least, 2 * noise[0] * np.sqrt(2 / np.maximum(rings.modes, 1)))
        others = ((whole - sums(group)).energies(rings, random) for group in groups(given.n, seed))
        stderr = standard_error(amplitude_ratio(e, t, least), others)
    means = [np.average(y, axis=0, weights=w) for y in (given.target, given.error)]
    constant = rings.constant(np.mean(np.square(means), axis=1))
    return of_bands(
        rings.k,
        found,
        expected=t + constant[1] - constant[0],  # shuffled outputs keep their mean; the rest is noise, subtracted
        least=least,
        kept=rings.kept,
        stderr=stderr,
        floor=noise[1] if random else None,
        constant=constant,
        mse=float(np.average(np.mean(given.error**2, axis=1), weights=w)),
        n=given.n,
        d=given.inputs.shape[1],
        method="scattered",
        notes=tuple(notes),
    )


def _modes(
    x: Float64[np.ndarray, "n d"], grid: Grid | None, period: Any, frequencies: Curve | None
) -> tuple[Float64[np.ndarray, " d"], tuple[int, ...], Rings]:
    """Return the sides of the points' box, how many modes along each are summed, and the rings that these fill."""
    sides, shape = _box(x, grid, period)
    finest = min(side / count for side, count in zip(sides, shape, strict=True))
    refuse_beyond(frequencies, np.pi / finest, "the Nyquist frequency of points at this mean distance")
    steps, top = 2 * np.pi / sides, np.inf
    if frequencies is not None and grid is None:  # modes beyond all that is asked for are not summed
        top = float(frequencies[-1] + (frequencies[-1] - (frequencies[-2] if len(frequencies) > 1 else 0.0)) / 2)
        shape = tuple(min(count, 2 * int(top / step) + 1) for count, step in zip(shape, steps, strict=True))
    axes = [step * (np.arange(count) - count // 2) for step, count in zip(steps, shape, strict=True)]
    return sides, shape, Rings.of(axes, frequencies, step=float(steps.min()), top=top)


def _grid_or_none(x: np.ndarray, eps: float) -> Grid | None:
    try:
        return find_grid(x, eps)
    except InputError:
        return None


def _box(x: np.ndarray, grid: Grid | None, period: Any) -> tuple[Float64[np.ndarray, " d"], tuple[int, ...]]:
    """Return the sides of the box, and how many modes along each."""
    spans = x.max(axis=0) - x.min(axis=0)
    counts = np.array(grid.shape if grid else [distinct(one[:, None]) for one in x.T], dtype=np.float64)
    sides = spans * counts / (counts - 1)
    if period is not None:
        given = as_reals(period, "period", "the sides of the box").reshape(-1)
        if len(given) not in (1, len(spans)):
            raise Code.SHAPE(f"period: {len(given)} sides for {len(spans)} dimensions; pass one each, or one for all")
        sides = np.array(np.broadcast_to(given, spans.shape))
        if not np.isfinite(sides).all() or (sides < spans).any():
            raise InputError(
                f"period: {shown(period)} is not finite, or below the range {spans.tolist()}; pass the box's sides"
            )
    if grid is not None and period is None:
        return sides, grid.shape
    each = (np.prod(sides) / len(x)) ** (1 / len(sides))
    shape = np.maximum(1, 2 * np.floor((sides / each - 1) / 2) + 1).astype(int)
    return sides, tuple(int(count) for count in shape)


def distinct(x: Float64[np.ndarray, "n d"]) -> int:
    """Return how many rows differ; by sorting, which takes a fifth of the time of `np.unique`."""
    rows = x[np.lexsort(x.T)]
    return 1 + int(np.count_nonzero((rows[1:] != rows[:-1]).any(axis=1)))


def as_weights(weights: Any, x: Float64[np.ndarray, "n d"], seed: int) -> tuple[Float64[np.ndarray, " n"], list[str]]:
    """Return weights that sum to one, and what was done.

    Raises:
        InputError: If they are not positive numbers, one per point.
    """
    n = len(x)
    if weights is None:
        return np.full(n, 1 / n), []
    if isinstance(weights, str):
        if weights != "density":
            raise is_not("weights", weights, "'density'", "that, None, or one number per point")
        from scipy.stats import gaussian_kde

        some = np.random.default_rng(seed).permutation(n)[:KERNELS]
        try:
            kernels = gaussian_kde(x[some].T)
            density = np.zeros(n)
            for at, image in _images(x, 3 * np.sqrt(np.diag(kernels.covariance))):
                density[at] += kernels(image.T)
        except (np.linalg.LinAlgError, ValueError):
            raise Code.CONSTANT("weights: points in a plane or line have no density; pass weights") from None
        w = 1 / np.maximum(density, 1e-3 * np.median(density))
        return w / w.sum(), ["weights are one over a Gaussian density estimate, mirrored at the edges of the points"]
    w = as_reals(weights, "weights", "one positive number per point").reshape(-1)
    if len(w) != n or not np.isfinite(w).all() or not (w > 0).all():
        raise Code.SHAPE(f"weights: {len(w)} for {n} points, or not all > 0; pass one positive number per point")
    w = w / w.max()
    w = w / w.sum()
    if 1 / (w @ w) < LEAST:
        raise InputError(f"weights: one point has {w.max():.0%} of them, which leaves no others; pass more even ones")
    return w, ["points are weighted as given"]


def _images(
    x: Float64[np.ndarray, "n d"], reach: Float64[np.ndarray, " d"]
) -> Iterator[tuple[np.ndarray, Float64[np.ndarray, "k d"]]]:
    """Yield points, and their images in those edges of their range within reach: which, and where the images are.

    An image has the density that kernels carry over the edge.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    edge = np.where(x - low < high - x, low, high)
    for turned in itertools.product((False, True), repeat=x.shape[1]):
        at = np.flatnonzero((~np.array(turned) | (np.abs(x - edge) < reach)).all(axis=1))
        if len(at):
            yield at, np.where(turned, 2 * edge[at] - x[at], x[at])


def _way(n: int, modes: int) -> tuple[Callable[..., np.ndarray], str]:
    if find_spec("finufft") is not None:
        return _finufft, "sums by finufft"
    if n * modes > MOST:
        raise Code.MEMORY(
            f"inputs: {n} points and {modes} modes are too many; pip install finufft, or pass lower frequencies"
        )
    return direct, "direct sums, since finufft is not installed"


def _finufft(turned: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    import finufft  # pyright: ignore[reportMissingImports]

    kind = {1: finufft.nufft1d1, 2: finufft.nufft2d1, 3: finufft.nufft3d1}[len(shape)]
    strengths = np.ascontiguousarray(values.T, dtype=np.complex128)
    axes = [np.ascontiguousarray(axis - np.pi) for axis in turned.T]  # a shift of all: no energy changes
    return kind(*axes, strengths, shape, eps=1e-13, isign=-1).reshape(len(strengths), -1)


def direct(
    turned: Float64[np.ndarray, "n d"], values: Float64[np.ndarray, "n c"], shape: tuple[int, ...]
) -> Complex128[np.ndarray, "c modes"]:
    """Return sum_j values_j exp(-i q.turned_j), q along each axis from -(count // 2) on, the last running fastest."""
    total = np.zeros((values.shape[1], *shape), np.complex128)
    step = max(1, PIECE // sum(shape))
    for start in range(0, len(values), step):
        at = slice(start, start + step)
        waves = [
            np.exp(-1j * turned[at, axis, None] * (np.arange(count) - count // 2)) for axis, count in enumerate(shape)
        ]
        for column, value in enumerate(values[at].T):
            _sum_into(total[column], value.astype(np.complex128), waves)
    return total.reshape(len(total), -1)


def _sum_into(total: np.ndarray, value: np.ndarray, waves: list[np.ndarray]) -> None:
    if len(waves) == 1:
        total += value @ waves[0]
    elif len(waves) == 2:
        total += (waves[0] * value[:, None]).T @ waves[1]
    else:
        for q, wave in enumerate(waves[0].T):
            _sum_into(total[q], value * wave, waves[1:])
