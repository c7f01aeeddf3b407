"""Whether features differ by their rounding alone, so that distances between points are those of rounding errors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from layerfreq.engines.base import Points, chunks, piece

UNITS = 2  # of a dtype's spacing next to 1: a few operations' roundings, relative to a feature's mean
NUMBERS = 1 << 20  # converted at a time


def rounded(points: Points, n: int, squares: Callable[[Points], Float[Tensor, " d"]]) -> bool:
    """Return whether at least half of the points' variance is that of features which differ by their rounding.

    A feature does so if its standard deviation is at most `UNITS` spacings of its mean, in the dtype that it came in.
    What was rounded before, in a narrower dtype, is not known here. Features are looked at only if the points lie so
    close together, compared with their mean, that this is possible at all.

    Args:
        points: All points.
        n: How many there are.
        squares: Adds up the squares of some points' features, as from `squares_of`.
    """
    if points.radius == 0:  # all are equal, which is no rounding
        return False
    eps = torch.finfo(points.features.dtype).eps
    least = (UNITS * eps * points.shift.abs() * points.gain).square()
    # Without a spread: the largest number of a feature, or of all, is at least 1/2.
    if (points.spread or 1 / (4 * n)) > 2 * float(least.sum()):
        return False
    found = squares(points)
    return 2 * float(found[found <= n * least].sum()) >= float(found.sum())


def squares_of(points: Points) -> Float[Tensor, " d"]:
    """Return the sum over points of each feature squared, centred and scaled."""
    total = torch.zeros_like(points.shift)
    for s in chunks(len(points), len(points.shift), piece(points.features.device, NUMBERS)):
        total += points.block(s).square_().sum(dim=0)
    return total


def rounding_alone(dtype: torch.dtype) -> str:
    """Return in words that features differ by the rounding of their dtype alone, and what to do."""
    name = str(dtype).removeprefix("torch.")
    wider = "" if dtype == torch.float64 else "compute them in float64, or "
    return (
        f"they differ by little more than the rounding of {name}, so that what tells points apart is noise; "
        f"{wider}subtract their mean before they are rounded"
    )
