"""The error by frequency of a run as the page's map draws it: hundredths, over step and frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layerfreq.runs.errors import read_errors
from layerfreq.runs.run import Run

NOTHING = 255  # the cell of a band that says nothing
COLUMNS = 400  # of more measurements every k-th is shown, and the last


@dataclass
class ErrorMap:
    """Relative errors of one run.

    Attributes:
        k: (m,) angular frequencies.
        steps: (s,) measured steps.
        cells: (m, s) uint8, hundredths of the relative error, `NOTHING` in bands that say nothing.
        blind: (m, s) uint8, 1 where the error is no smaller than that of shuffled outputs.
    """

    k: Any
    steps: Any
    cells: Any
    blind: Any


def error_map(run: Run) -> ErrorMap | None:
    """Return what the map of a run shows; None where no error by frequency was measured, or no band says anything."""
    measured = list(read_errors(run.errors))
    if not measured:
        return None
    k = measured[-1][1].k
    kept = [(step, found) for step, found in measured if np.array_equal(found.k, k)]
    stride = -(-len(kept) // COLUMNS)
    kept = [kept[i] for i in sorted({*range(0, len(kept), stride), len(kept) - 1})]
    relative = np.stack([np.where(found.told, found.relative, np.nan) for _, found in kept], axis=1)
    seen = np.flatnonzero(np.isfinite(relative).any(axis=1) & (k > 0))  # the axis is logarithmic
    if not len(seen):
        return None
    part = slice(seen[0], seen[-1] + 1)
    relative = relative[part]
    chance = np.stack([found.chance for _, found in kept], axis=1)[part]
    cells = np.where(np.isfinite(relative), np.minimum(np.rint(100 * np.nan_to_num(relative)), NOTHING - 1), NOTHING)
    steps = np.array([step for step, _ in kept])
    return ErrorMap(k[part], steps, cells.astype(np.uint8), (relative >= chance).astype(np.uint8))
