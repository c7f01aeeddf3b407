"""One direction of inputs of any dimension: sums over the points at frequencies along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.validation import Curve
from layerfreq.errors import Code, InputError
from layerfreq.response.given import Given, as_reals, refuse_beyond
from layerfreq.response.grid import find_grid
from layerfreq.response.jackknife import groups, standard_error
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio, blind_chance, of_bands
from layerfreq.response.rings import own_bands

MOST = 128  # most frequencies that are chosen from the data
FLOORS = 3.0  # times the mean of the noise; noise alone exceeds it one time in twenty


def on_projection(
    given: Given, frequencies: Curve | None, *, direction: Any, phase_blind: bool, seed: int
) -> ErrorSpectrum:
    """Measure along a direction; see `error_spectrum`."""
    along, said = _along(given.inputs, direction)
    n, k, regular = given.n, _frequencies(along, frequencies), _is_regular(along, given.eps)
    waves = np.exp(-1j * (along - along.min())[:, None] * k)
    both = np.stack([given.target, given.error])

    def sums(used: np.ndarray | slice) -> np.ndarray:
        return np.einsum("snc,nm->smc", both[:, used], waves[used], optimize=True)

    total = sums(slice(None))
    found = _energies(total / n, phase_blind)
    noise = np.mean(both**2, axis=(1, 2)) / n
    least = given.rounding * float(np.mean(given.target**2)) if regular else FLOORS * noise[0]
    stderr = None
    if not regular:  # points are random along the direction
        others = (_energies((total - sums(some)) / (n - len(some)), phase_blind) for some in groups(n, seed))
        t, e = found.mean(axis=2)
        stderr = standard_error(amplitude_ratio(e, t, least), others)
    notes = [*given.notes, said]
    if phase_blind:
        notes.append("phase-blind: only magnitudes are compared")
    return of_bands(
        k,
        found,
        expected=_shuffled(given.output, total[0] / n, waves, phase_blind),
        least=least,
        stderr=stderr,
        floor=None if regular else np.full(len(k), noise[1]),
        mse=float(np.mean(given.error**2)),
        n=n,
        d=given.inputs.shape[1],
        method="projection",
        notes=tuple(notes),
    )


def _frequencies(along: np.ndarray, frequencies: Curve | None) -> Curve:
    """Return the multiples of the lowest frequency of points along a line, or the frequencies asked for, checked."""
    places = len(np.unique(along))
    side = float(along.max() - along.min()) * places / (places - 1)
    limit = np.pi * places / side
    refuse_beyond(frequencies, limit, "the Nyquist frequency of points at this mean distance")
    return own_bands(2 * np.pi / side, limit)[: MOST + 1] if frequencies is None else frequencies


def _is_regular(along: np.ndarray, eps: float) -> bool:
    try:
        return find_grid(along[:, None], eps).shape[0] == len(along)
    except InputError:
        return False


def _energies(means: np.ndarray, phase_blind: bool) -> np.ndarray:
    """Return the energies of target and error, (2, m, c), from the means of both times a wave."""
    target, error = np.abs(means)
    if phase_blind:
        error = target - np.abs(means[0] - means[1])
    return np.stack([target**2, error**2])


def _shuffled(output: np.ndarray, target: np.ndarray, waves: np.ndarray, phase_blind: bool) -> Curve:
    """Return the error's energy if outputs were shuffled, (m,).

    Their mean contributes to every k as before, and the rest is noise.
    """
    shift = waves.mean(axis=0)[:, None]
    mean, varies = shift * output.mean(axis=0), output.var(axis=0) * (1 - np.abs(shift) ** 2) / max(1, len(output) - 1)
    if phase_blind:
        return blind_chance(np.abs(target), np.abs(mean), np.maximum(varies, 0)).mean(axis=1)
    return (np.abs(target - mean) ** 2 + varies).mean(axis=1)


def _along(inputs: Tensor, direction: Any) -> tuple[np.ndarray, str]:
    """Return the inputs' coordinate along a direction of unit length, (n,)."""
    x = inputs.cpu().double()
    x = x - x[0]  # so that an offset costs no digits
    x = x - x.mean(dim=0)
    if direction is None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(x.shape[1], generator=generator, dtype=x.dtype)
        p = start / start.norm()
        if min(x.shape) <= 512:
            p = torch.linalg.eigh(x.T @ x)[1][:, -1] if x.shape[1] <= len(x) else _from_rows(x)
        else:
            for _ in range(100):  # power steps
                p = x.T @ (x @ p)
                p = p / p.norm()
        p = p * torch.sign(p[p.abs().argmax()])
        said = "along the inputs' first principal direction"
    else:
        p = torch.from_numpy(as_reals(direction, "direction", "one number per dimension of the inputs").reshape(-1))
        if len(p) != x.shape[1] or not bool(torch.isfinite(p).all()) or not float(p.norm()) > 0:
            raise Code.SHAPE(f"direction: {len(p)} numbers for {x.shape[1]} dimensions; pass finite ones, not all 0")
        p, said = p / p.norm(), "along the given direction"
    along = (x @ p).numpy()
    if not along.max() - along.min() > 1e-12 * float(x.abs().max()):
        raise Code.CONSTANT("direction: the inputs do not vary along it; pass another, or None for the principal one")
    return along, said


def _from_rows(x: Tensor) -> Tensor:
    p = x.T @ torch.linalg.eigh(x @ x.T)[1][:, -1]
    return p / p.norm()
