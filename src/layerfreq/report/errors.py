"""The error by frequency of a run as the page shows it: a map over training, energies, and what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerfreq.response.figure import LEARNED
from layerfreq.response.result import ErrorSpectrum
from layerfreq.runs.errors import read_errors
from layerfreq.runs.run import Run

NOTHING = 255  # the cell of a band that says nothing
COLUMNS = 400  # of more measurements every k-th is shown, and the last
MOST = 1e37  # of an energy, which the page has in single precision


@dataclass
class ErrorMap:
    """Errors of one run over s measured steps: the map's m bands are those that say something, of b above k = 0.

    Attributes:
        k: (m,) angular frequencies of the map.
        steps: (s,) measured steps.
        cells: (m, s) uint8, hundredths of the relative error, `NOTHING` in bands that say nothing.
        blind: (m, s) uint8, 1 where the error is no smaller than that of shuffled outputs.
        learned: (2, 3, s) for each threshold of `layerfreq.response.figure.LEARNED` the k up to which the relative
            error is below it, and that with every error two standard errors higher and lower; NaN if nowhere.
        bands: (b,) angular frequencies of the energies.
        target: (s, b) energy of the target, or (1, b) where it is the same at every step.
        error: (s, b) energy of the error.
        chance: (s, b) energy that the error of shuffled outputs is expected to have.
    """

    k: Any
    steps: Any
    cells: Any
    blind: Any
    learned: Any
    bands: Any
    target: Any
    error: Any
    chance: Any


def error_map(run: Run) -> ErrorMap | None:
    """Return what the page shows of a run; None if no error by frequency was measured, or no band says anything."""
    measured = list(read_errors(run.errors))
    if not measured:
        return None
    k = measured[-1][1].k
    kept = [(step, found) for step, found in measured if np.array_equal(found.k, k)]
    stride = -(-len(kept) // COLUMNS)
    kept = [kept[i] for i in sorted({*range(0, len(kept), stride), len(kept) - 1})]
    spectra = [found for _, found in kept]
    relative = np.stack([np.where(found.told, found.relative, np.nan) for found in spectra], axis=1)
    seen = np.flatnonzero(np.isfinite(relative).any(axis=1) & (k > 0))  # the axis is logarithmic
    if not len(seen):
        return None
    part = slice(seen[0], seen[-1] + 1)
    relative = relative[part]
    chance = np.stack([found.chance for found in spectra], axis=1)[part]
    cells = np.where(np.isfinite(relative), np.minimum(np.rint(100 * np.nan_to_num(relative)), NOTHING - 1), NOTHING)
    above = k > 0
    target = np.stack([found.target_energy[above] for found in spectra])
    by_chance = target * np.stack([found.chance[above] for found in spectra]) ** 2
    return ErrorMap(
        k=k[part],
        steps=np.array([step for step, _ in kept]),
        cells=cells.astype(np.uint8),
        blind=(relative >= chance).astype(np.uint8),
        learned=np.stack([_learned(spectra, threshold, float(k[seen[0]])) for threshold in LEARNED]),
        bands=k[above],
        target=_energy(target[:1] if (target == target[0]).all() else target),
        error=_energy(np.stack([found.error_energy[above] for found in spectra])),
        chance=_energy(by_chance),
    )


def _learned(spectra: Sequence[ErrorSpectrum], threshold: float, lowest: float) -> Any:
    """Return (3, s) what is learned with the ends of its interval; one that ends below all bands ends at the lowest."""
    rows = [(found.learned(threshold), *found.learned_interval(threshold)) for found in spectra]
    value, low, high = np.array(rows, dtype=np.float64).T
    return np.stack([value, np.where(np.isnan(low), lowest, low), high])


def _energy(value: Any) -> Any:
    """Return energies for a logarithmic axis: 0 for those that are unknown, or below zero due to noise."""
    return np.clip(np.nan_to_num(value), 0, MOST)
