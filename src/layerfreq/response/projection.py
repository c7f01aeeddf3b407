"""One direction of inputs of any dimension: sums over the points at frequencies along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.validation import Curve
from layerfreq.errors import InputError
from layerfreq.response.given import Given, as_reals, own_bands, refuse_beyond
from layerfreq.response.grid import find_grid
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio, blind_chance, parts
from layerfreq.response.scattered import error_of_root, groups, jackknife, ratios

MOST = 128  # own frequencies
FLOORS = 3.0  # times the noise's mean, which noise alone exceeds one time in twenty


def on_projection(
    given: Given, frequencies: Curve | None, *, direction: Any, phase_blind: bool, seed: int
) -> ErrorSpectrum:
    """Measure along a direction; see `error_spectrum`."""
    along, said = _along(given.inputs, direction)
    n, places = given.n, len(np.unique(along))
    side = float(along.max() - along.min()) * places / (places - 1)
    limit = np.pi * places / side
    refuse_beyond(frequencies, limit, "the Nyquist frequency of points at this mean distance")
    k = own_bands(2 * np.pi / side, limit)[: MOST + 1] if frequencies is None else frequencies
    try:
        regular = bool(find_grid(along[:, None], given.eps).shape[0] == n)
    except InputError:
        regular = False
    both = np.stack([given.target, given.error])
    waves = np.exp(-1j * (along - along.min())[:, None] * k)

    def energies(sums: np.ndarray, count: int) -> np.ndarray:
        of_target, of_error = sums / count
        blind = (np.abs(of_target) - np.abs(of_target - of_error)) ** 2
        return np.stack([np.abs(of_target) ** 2, blind if phase_blind else np.abs(of_error) ** 2])

    def sums(used: np.ndarray | slice) -> np.ndarray:
        return np.einsum("snc,nm->smc", both[:, used], waves[used], optimize=True)

    total = sums(slice(None))
    found = energies(total, n)
    t, e = found.mean(axis=2)
    noise = np.mean(both**2, axis=(1, 2)) / n
    least = given.rounding * float(np.mean(given.target**2)) if regular else FLOORS * noise[0]
    relative = amplitude_ratio(e, t, least)
    stderr = None
    if not regular:
        others = [energies(total - sums(group), n - len(group)).mean(axis=2) for group in groups(n, seed)]
        squares = jackknife(np.array([ratios(one[1], one[0], relative) for one in others]))
        stderr = error_of_root(relative, squares)
    # Outputs in another order: their mean at every k as it was, and what varies of them as noise.
    mean, shift = given.output.mean(axis=0), waves.mean(axis=0)[:, None]
    varies = given.output.var(axis=0) * (1 - np.abs(shift) ** 2) / max(1, n - 1)
    expected = np.abs(total[0] / n - shift * mean) ** 2 + varies
    if phase_blind:
        expected = blind_chance(np.abs(total[0] / n), np.abs(shift * mean), np.maximum(varies, 0))
    notes = [*given.notes, said]
    if phase_blind:
        notes.append("phase-blind: magnitudes alone are compared")
    return ErrorSpectrum(
        k=k,
        target_energy=t,
        error_energy=e,
        relative=relative,
        chance=amplitude_ratio(expected.mean(axis=1), t, least),
        stderr=stderr,
        **parts(t, e),  # pyright: ignore[reportArgumentType]
        columns=found,
        floor=None if regular else np.full(len(k), noise[1]),
        leak=None,
        mse=float(np.mean(given.error**2)),
        n=n,
        d=given.inputs.shape[1],
        method="projection",
        notes=tuple(notes),
    )


def _along(inputs: Tensor, direction: Any) -> tuple[np.ndarray, str]:
    """Return the inputs' coordinate along a direction of unit length, (n,)."""
    x = inputs.cpu().double()
    x = x - x[0]  # differences first: an offset takes no digit
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
        p = torch.from_numpy(
            as_reals(direction, "direction", "pass one number per dimension of the inputs").reshape(-1)
        )
        if len(p) != x.shape[1] or not bool(torch.isfinite(p).all()) or not float(p.norm()) > 0:
            raise InputError(
                f"direction: {len(p)} numbers for {x.shape[1]} dimensions, or none that leads anywhere; pass one "
                "finite number each"
            )
        p, said = p / p.norm(), "along the given direction"
    along = (x @ p).numpy()
    if not along.max() - along.min() > 1e-12 * float(x.abs().max()):
        raise InputError("direction: the inputs do not vary along it; pass another, or None for the principal one")
    return along, said


def _from_rows(x: Tensor) -> Tensor:
    p = x.T @ torch.linalg.eigh(x @ x.T)[1][:, -1]
    return p / p.norm()
