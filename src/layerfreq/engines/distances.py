"""Squared distances of points with far more features than points, from one pass over the features.

Some columns at a time are centred while they are in the cache, and their products are added up in float64: nothing as
large as the features is copied. All that the engine needs of wide features, as from convolutions, is a small matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.validation import Scale
from layerfreq.engines.base import Points
from layerfreq.engines.coincidence import coincident
from layerfreq.engines.rounding import rounded, squares_of
from layerfreq.engines.statistics import gains
from layerfreq.engines.threads import hands, parts, threads

WIDE = 2048  # features from which distances are found this way
PAIRS = 1 << 22  # most pairs of a filter centre and a point
BYTES = 40  # most bytes per pair
CACHED = 1 << 19  # numbers in the columns that are centred at a time, which should stay in the cache
CLOSE = 1 / 32  # of |x|^2 + |y|^2: squared distances below have lost digits in the product
SAFE = 2.0**80  # for |x|^2 above this, or below its reciprocal, products leave float32's range


@dataclass(frozen=True)
class Distances:
    """The distances of some filter centres to all points.

    Attributes:
        points: Centre and size of the points; their features are empty, (0, d).
        index: (r,) the centres' indices among all points, increasing.
        squared: (r, n) squared distances of the scaled points; exactly 0 where features are equal.
    """

    points: Points
    index: Int64[Tensor, " r"]
    squared: Float64[np.ndarray, "r n"]


def can_look(features: Tensor, rows: int, room: int | None) -> bool:
    """Whether `look` is quicker for features (n, d), and there is room for the distances of so many centres."""
    plain = features.device.type == "cpu" and features.dtype in (torch.float32, torch.float64)
    if not plain or not features.is_contiguous() or features.shape[1] < WIDE:
        return False
    pairs = rows * len(features)
    return pairs <= PAIRS and (room is None or BYTES * pairs <= room)


def look(features: Tensor, index: Int64[Tensor, " r"], scale: Scale) -> Distances | None:
    """Find the distances of some points to all.

    Args:
        features: (n, d) finite, float32 or float64, contiguous, on the CPU.
        index: (r,) the filter centres, increasing.
        scale: "maxabs" scales every dimension by itself.

    Returns:
        The distances; None if the features are so large or small that they would have to be scaled first.
    """
    from layerfreq.engines.cpu import kernels

    x, n, d = features.numpy(), len(features), features.shape[1]
    every = len(index) == n
    shift, gain = np.empty(d), np.ones(d)
    width = max(256, min(4096, CACHED // n))

    def part(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        products, sizes = np.zeros((len(index), n)), np.zeros(n)
        room, product = np.empty(n * width, x.dtype), np.empty(products.shape, x.dtype)
        for start in range(columns.start, columns.stop, width):
            at = slice(start, min(start + width, columns.stop))
            block = room[: n * (at.stop - at.start)].reshape(n, -1)
            _centre(x, at, scale, shift, gain, block, sizes)
            kernels.multiply(block if every else block[index.numpy()], block, product, own=every)
            np.add(products, product, out=products)
        return products, sizes

    count = hands(2 * len(index) * n * d)
    with threads(count) as run, np.errstate(all="ignore"):
        found = list(run(part, parts(d, d, count=count)))
        products, sizes = (np.sum(each, axis=0) for each in zip(*found, strict=True))
        if not within_range(sizes):
            return None
        if every:
            products = both_ways(products)
        squared = _squared(x, products, sizes, index.numpy(), gain)
    return _scaled(features, squared, sizes, index, shift, gain, scale)


def both_ways(products: Float64[np.ndarray, "n n"]) -> Float64[np.ndarray, "n n"]:
    """Return the products of points with each other, given those up to the diagonal."""
    return np.tril(products) + np.tril(products, -1).T


def _centre(
    x: np.ndarray, at: slice, scale: Scale, shift: np.ndarray, gain: np.ndarray, block: np.ndarray, sizes: np.ndarray
) -> None:
    """Write some columns, centred and scaled, to `block`, their shift and gain to `shift` and `gain`; add to |x|^2."""
    from layerfreq.engines.cpu import kernels

    found = np.zeros((3, block.shape[1]))
    origin = x[0, at].astype(np.float64)
    if scale == "maxabs":
        kernels.extent_of(x, at.start, origin, found[0], found[1], found[2])
    else:
        kernels.total_of(x, at.start, origin, found[0])
    mean = found[0] / len(x)
    shift[at] = origin + mean
    if scale == "maxabs":
        largest = torch.from_numpy(np.maximum(found[2] - mean, mean - found[1]))
        gain[at] = gains(largest, torch.float64 if x.dtype == np.float64 else torch.float32, scale).numpy()
    kernels.centre_of(x, at.start, shift[at], gain[at], block, sizes)


def _squared(x: np.ndarray, products: np.ndarray, sizes: np.ndarray, index: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Turn products into squared distances; those of close pairs come from the features themselves."""
    both = sizes[index, None] + sizes
    squared = both - 2 * products
    close = squared < CLOSE * both
    close[np.arange(len(index)), index] = False
    symmetric = len(index) == len(x)
    first, second = np.nonzero(np.triu(close) if symmetric else close)
    exact = differences(x, x, index[first], second, gain)
    squared[first, second] = exact
    if symmetric:
        squared[second, first] = exact
    squared[np.arange(len(index)), index] = 0.0
    return squared


def differences(
    x: np.ndarray, y: np.ndarray, first: np.ndarray, second: np.ndarray, gain: np.ndarray
) -> Float64[np.ndarray, " p"]:
    """Return squared distances of the points x[first] and y[second], from differences in float64."""
    from layerfreq.engines.cpu import kernels

    exact = np.empty(len(first))
    count = hands(2 * len(first) * x.shape[1])
    with threads(count) as run:
        pairs = parts(len(first), max(1, len(first)), count=count)
        list(run(lambda s: kernels.differences(x, y, first[s], second[s], gain, exact[s]), pairs))
    return exact


def _scaled(
    features: Tensor,
    squared: np.ndarray,
    sizes: np.ndarray,
    index: Tensor,
    shift: np.ndarray,
    gain: np.ndarray,
    scale: Scale,
) -> Distances:
    """Scale distances by a power of two that brings the farthest point's size near one."""
    unit = 1.0 if scale == "maxabs" else unit_of(sizes)
    squared *= unit * unit
    sizes = sizes * (unit * unit)
    points = Points(
        features[:0],
        torch.from_numpy(shift),
        torch.from_numpy(gain * unit),
        0.0 if scale == "maxabs" else float(sizes.mean()),
        math.sqrt(float(sizes.max())),
        coincident=coincident(features, torch.from_numpy(sizes), Shards(count=len(features))),
    )
    alone = rounded(points, len(features), lambda points: squares_of(replace(points, features=features)))
    return Distances(replace(points, rounded=alone), index, squared)


def unit_of(sizes: Float64[np.ndarray, " n"]) -> float:
    """Return the power of two that brings the largest |x| near one, given |x|^2."""
    return math.ldexp(1.0, -math.frexp(math.sqrt(float(sizes.max())))[1])


def within_range(sizes: Float64[np.ndarray, " n"]) -> bool:
    """Whether products of points of sizes |x|^2 stay within float32's range; not all sizes may be zero."""
    return 1 / SAFE < float(sizes.max(initial=0.0)) < SAFE
