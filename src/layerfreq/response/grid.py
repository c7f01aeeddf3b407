"""Points on a regular grid: the fast Fourier transform, summed over rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from layerfreq.data.validation import Curve
from layerfreq.errors import InputError, first_line, is_not
from layerfreq.response.given import Given, refuse_beyond
from layerfreq.response.result import ErrorSpectrum, blind_chance, of_bands
from layerfreq.response.rings import Rings

SLACK = 1e-3  # of a step, by which coordinates may be off
MOST_SLACK = 0.1  # of a step, if the coordinates' own rounding is more than that


@dataclass(frozen=True)
class Grid:
    """The places of points on a regular grid.

    Attributes:
        place: (n,) index of each point's place, the last axis running fastest.
        shape: Number of places along each axis.
        steps: Distance of neighbours along each axis.
    """

    place: Int64[np.ndarray, " n"]
    shape: tuple[int, ...]
    steps: tuple[float, ...]


def find_grid(x: Float64[np.ndarray, "n d"], eps: float = 0.0) -> Grid:
    """Find the regular grid that some points fill, in any order; each axis has its own step.

    Args:
        x: Coordinates.
        eps: Spacing of the coordinates' numbers next to 1; they may be off by twice their rounding.

    Raises:
        InputError: If there is none: steps that differ along an axis, holes, or coincident points.
    """
    n, place, shape, steps = len(x), np.zeros(len(x), np.int64), [], []
    for axis, values in enumerate(x.T):
        order = np.sort(values)
        gaps = np.diff(order)
        blur = 2 * eps * max(abs(order[0]), abs(order[-1]))
        near = gaps <= max(SLACK * gaps.max(), min(blur, MOST_SLACK * gaps.max()))
        count = 1 + int((~near).sum())
        step = (order[-1] - order[0]) / (count - 1)
        at = (values - order[0]) / step
        if np.abs(at - np.rint(at)).max() > max(SLACK, min(blur / step, MOST_SLACK)):
            steps = f"steps along dimension {axis} are {gaps[~near].min():.4g} to {gaps.max():.4g}"
            raise InputError(f"inputs: no regular grid, {steps}; pass method='scattered'")
        place = place * count + np.rint(at).astype(np.int64)
        shape.append(count)
        steps.append(float(step))
    size = int(np.prod(np.array(shape, dtype=np.float64)))
    if size <= 4 * n:  # marking places takes a sixth of the time of sorting or hashing them
        seen = np.zeros(size, dtype=bool)
        seen[place] = True
        filled = int(np.count_nonzero(seen))
    else:
        filled = len(np.unique(place))
    text = " x ".join(map(str, shape))
    if filled < n:
        raise InputError(f"inputs: {n - filled} of {n} points share a place (grid of {text}); average or drop them")
    if filled < size:
        raise InputError(
            f"inputs: {size - filled} of {size} places of the grid of {text} are empty; pass method='scattered'"
        )
    return Grid(place, tuple(shape), tuple(steps))


def on_grid(given: Given, frequencies: Curve | None, *, window: Any, center: bool, phase_blind: bool) -> ErrorSpectrum:
    """Measure on a grid; see `error_spectrum`."""
    grid = find_grid(given.coordinates("grid"), given.eps)
    refuse_beyond(frequencies, np.pi / min(grid.steps), "the Nyquist frequency of the grid's finest step")
    weight = _window(window, grid.shape)
    target, error = (_field(y, grid, weight, center) for y in (given.target, given.error))
    turns = [
        *map(np.fft.fftfreq, grid.shape[:-1]),
        np.fft.rfftfreq(grid.shape[-1]),
    ]  # the other half of a real field is redundant
    rings = _rings(grid, turns, frequencies)
    *columns, expected = np.stack(
        [_energies(t, e, rings, phase_blind) for t, e in zip(target, error, strict=True)], axis=2
    )
    leak = np.mean([rings.add(_jumps(e, turns)) for e in error], axis=0)
    notes = [*given.notes, *_said(window, center, phase_blind)]
    left, whole = float(leak.sum()), float(columns[1].mean(axis=1).sum())
    if left > 0.01 * whole:
        share = min(1.0, left / whole)
        notes.append(f"jumps between opposite edges explain up to {share:.0%} of the error: see `leak`")
    axes = tuple(range(1, 1 + len(grid.shape)))
    means = [one.mean(axis=axes) for one in (target, error)]
    if phase_blind:
        means[1] = abs(means[0]) - abs(means[0] - means[1])
    return of_bands(
        rings.k,
        np.stack(columns),
        expected=expected.mean(axis=1),
        least=given.rounding * float(columns[0].mean(axis=1).sum()),
        kept=rings.kept,
        leak=leak,
        constant=rings.constant(np.mean(np.square(means), axis=1)),
        mse=float(np.mean(error**2)),
        n=given.n,
        d=given.inputs.shape[1],
        method="grid",
        notes=tuple(notes),
    )


def _rings(grid: Grid, turns: list[np.ndarray], frequencies: Curve | None) -> Rings:
    """Sort the modes of a real transform into rings; all but the outermost of the last axis stand for two modes."""
    last = grid.shape[-1]
    times = np.full(len(turns[-1]), 2.0)
    times[0] = 1.0
    if last % 2 == 0:
        times[-1] = 1.0
    return Rings.of(
        [2 * np.pi / step * turn for turn, step in zip(turns, grid.steps, strict=True)],
        frequencies,
        step=min(2 * np.pi / (count * h) for count, h in zip(grid.shape, grid.steps, strict=True)),
        times=np.tile(times, len(grid.place) // last),
    )


def _energies(target: np.ndarray, error: np.ndarray, rings: Rings, phase_blind: bool) -> Float64[np.ndarray, "3 m"]:
    """Return each ring's energy of a column: of the target, the error, and the error if outputs were shuffled.

    Shuffled outputs keep their mean; the rest of their energy is the same at every other mode.
    """
    from scipy import fft

    n, output = target.size, target - error
    of_target, of_error = (np.asarray(fft.rfftn(one)) / n for one in (target, error))
    energy, noise = np.abs(of_target) ** 2, np.full(of_target.shape, output.var() / (n - 1))
    noise.flat[0] = 0.0
    if phase_blind:
        mean = np.zeros(noise.shape)
        mean.flat[0] = abs(output.mean())
        blind = (np.abs(of_target) - np.abs(of_target - of_error)) ** 2
        found = energy, blind, blind_chance(np.abs(of_target), mean, noise)
    else:
        expected = energy + noise
        expected.flat[0] = error.mean() ** 2
        found = energy, np.abs(of_error) ** 2, expected
    return np.stack([rings.add(one) for one in found])


def _field(y: np.ndarray, grid: Grid, weight: np.ndarray, center: bool) -> np.ndarray:
    """Put columns on the grid, (c, ...), and window them to the same energy of white noise."""
    field = np.empty((y.shape[1], len(y)))
    field[:, grid.place] = y.T
    field = field.reshape(-1, *grid.shape)
    if center:
        field -= (field * weight).sum(axis=tuple(range(1, field.ndim)), keepdims=True) / weight.sum()
    return field * (weight / np.sqrt(np.mean(weight**2)))


def _window(name: Any, shape: tuple[int, ...]) -> np.ndarray:
    weight: Any = np.ones(())
    if name is None:
        return np.ones(shape)
    from scipy.signal import get_window

    if not isinstance(name, (str, tuple)):
        raise is_not("window", name, "the name of a window of SciPy's", "'hann' or None")
    try:
        for count in shape:
            weight = weight[..., None] * get_window(name, count)
    except (ValueError, TypeError) as error:
        raise InputError(f"window: {name!r} is unknown to SciPy ({first_line(error)}); pass 'hann' or None") from None
    if not float(np.abs(weight).sum()) > 0:
        raise InputError(f"window: {name!r} leaves nothing of a grid of {shape}; pass more points or window=None")
    return weight


def _jumps(field: np.ndarray, turns: list[np.ndarray]) -> np.ndarray:
    """Return |s_k|^2 of the smooth part that takes up all jumps between opposite edges (Moisan 2011)."""
    from scipy import fft

    jump, bend = np.zeros_like(field), np.zeros(())
    for axis, turn in enumerate(turns):
        bend = bend[..., None] + 2 * np.cos(2 * np.pi * turn) - 2
        first, last = (tuple(slice(None) if a != axis else i for a in range(field.ndim)) for i in (0, -1))
        step = field[last] - field[first]
        if field.shape[axis] > 2:  # less what the field rises by from one place to the next there
            second, before = (tuple(slice(None) if a != axis else i for a in range(field.ndim)) for i in (1, -2))
            step = step + (field[second] - field[first] + field[last] - field[before]) / 2
        jump[first] += step
        jump[last] -= step
    of_jump = np.asarray(fft.rfftn(jump)) / field.size
    bend.flat[0] = 1.0  # jumps sum to zero: the mean is not theirs
    energy = np.abs(of_jump / bend) ** 2
    energy.flat[0] = 0.0
    return energy


def _said(window: Any, center: bool, phase_blind: bool) -> list[str]:
    said = []
    if window is not None:
        said.append(f"window {window!r}: bands add up to the windowed error, and a line spreads over its neighbours")
    if center:
        said.append("the means were subtracted")
    if phase_blind:
        said.append("phase-blind: only magnitudes are compared, so bands do not add up to the error")
    return said
