"""Standard errors of relative errors, from estimates that each leave out one group of points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64

from layerfreq.data.validation import Curve

GROUPS = 24  # groups of points, each left out once


def groups(n: int, seed: int) -> list[np.ndarray]:
    """Split n points into groups at random."""
    return np.array_split(np.random.default_rng(seed).permutation(n), min(GROUPS, n))


def standard_error(relative: Curve, without: Iterable[Float64[np.ndarray, "2 m c"]], sampled: float = 1.0) -> Curve:
    """Return the standard error of relative errors; NaN where these are NaN.

    For their squares, the ratios of energies, it is the jackknife's, widened as Student's t is relative to the normal;
    if only noise is left, it is too large by up to a half. For the root it follows from the derivative, 1 / (2 root);
    near zero, where that is unbounded, it is the root of the standard error.

    Args:
        relative: (m,) roots of ratios of energies.
        without: (2, m, c) energies of target and of error, without one group each.
        sampled: The share by which drawing without replacement lowers the variance.
    """
    told = np.isfinite(relative)
    energies = (columns.mean(axis=2) for columns in without)
    others = np.array([np.where(told, error, 0.0) / np.where(told, target, 1.0) for target, error in energies])
    count = len(others)
    squares = (count - 1) / count * ((others - others.mean(axis=0)) ** 2).sum(axis=0) * (1 + 1.21 / (count - 1)) ** 2
    squares = sampled * squares
    with np.errstate(all="ignore"):
        return np.where(squares > 0, np.sqrt(squares) / np.maximum(2 * relative, squares**0.25), 0 * relative)
