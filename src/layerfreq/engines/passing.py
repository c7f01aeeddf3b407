"""Squared distances of points that pass by once, some of them at a time, the filter centres before all others.

What is kept of the features are those of the centres. As other points come by, their products with the centres and
their sizes are added up as in `distances`, about the centres' mean s, which is known by then. Points are centred while
they are in the cache, centres by algebra, (c - s) (x - s) = c (x - s) - s (x - s), unless s is so large that this
cancels. The mean of all points, which their spread needs, follows from float64 sums at the end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from layerfreq.data.validation import drift
from layerfreq.engines.base import Points
from layerfreq.engines.coincidence import bits_of, mean_count, weights
from layerfreq.engines.distances import CACHED, CLOSE, Distances, both_ways, differences, unit_of, within_range
from layerfreq.engines.rounding import rounded, squares_of
from layerfreq.engines.threads import hands, parts, threads
from layerfreq.isolation.memory import reserve

WIDTH = 4096  # most columns at a time
FAR = 3.0  # |s|^2 of the centres' mean size about s, beyond which products of centres as they came lose digits
CANCELS = 1e-6  # of the points' mean size about the centres' mean, a spread below which has lost digits


class Passing:
    """Distances of filter centres to points that are seen once.

    Args:
        index: (r,) the centres' numbers among all points, increasing.
        n: How many points there are.

    Attributes:
        drift: How far apart the features of a centre were that came twice, relative to how far centres are spread.
    """

    def __init__(self, index: Int64[Tensor, " r"], n: int) -> None:
        self.drift = 0.0
        self._index, self._n, self._met = index.numpy(), n, 0
        self._squared, self._sizes = np.empty((len(index), n)), np.full(n, np.nan)
        self._prints = torch.zeros(n, dtype=torch.int64)
        self._centred: np.ndarray | None = None  # the centres, where their own features will not do
        self._lost = False  # features that are not finite, or beyond float32's range

    @np.errstate(all="ignore")  # what overflows is looked for
    def see(self, numbers: Int64[Tensor, " k"], block: Float[Tensor, "k d"]) -> None:
        """Take in some points; the centres have to come first, in their order.

        Args:
            numbers: Theirs among all points; those of centres that come again stand last.
            block: Their features, of any float type; nothing of those that are no centres is kept.

        Raises:
            ValueError: If their width differs from that of points before.
        """
        kind, block = block.dtype, (block if block.dtype == torch.float64 else block.float()).contiguous()
        if self._met == 0:
            self._dtype = kind
            self._rows = reserve(len(self._index), block.shape[1], block.dtype, block.device).numpy()
        if block.shape[1] != self._rows.shape[1]:
            raise ValueError("its width differs between batches")
        if self._lost:
            return
        fresh = min(len(self._index) - self._met, len(block))
        if fresh:
            self._rows[self._met : self._met + fresh] = block[:fresh].numpy()
            self._met += fresh
            if self._met == len(self._index):
                self._begin()
        rest, numbers = block[fresh:], numbers[fresh:]
        if len(rest) and not self._lost:
            self._meet(rest, numbers)

    @np.errstate(all="ignore")
    def distances(self) -> Distances | None:
        """Return what was found; None if features have to be scaled before, or digits were lost."""
        if self._lost or (self._sizes.any() and not within_range(self._sizes)):
            return None
        away, size = self._total / self._n, float(self._sizes.mean())
        spread = size - float(np.square(away).sum())
        if spread < CANCELS * size:
            return None
        unit = unit_of(self._sizes)
        points = Points(
            torch.empty(0, len(away), dtype=self._dtype),
            torch.from_numpy(self._shift + away),
            torch.full((len(away),), unit, dtype=torch.float64),
            spread * unit * unit,
            float(np.sqrt(self._sizes.max())) * unit,
            coincident=mean_count(self._prints),
        )
        rows = replace(points, features=torch.from_numpy(self._rows))  # as good a sample of each feature as any
        alone = rounded(points, len(self._rows), lambda _: squares_of(rows))
        points = replace(points, rounded=alone)
        self._squared *= unit * unit
        return Distances(points, torch.from_numpy(self._index), self._squared)

    def _begin(self) -> None:
        """Find the centres' mean, and let them meet each other."""
        from layerfreq.engines.cpu import kernels

        rows, (r, d) = self._rows, self._rows.shape
        self._shift, self._total, found = rows[0].astype(np.float64), np.zeros(d), np.zeros(d)
        count = hands(4 * r * d)
        with threads(count) as run:
            columns = parts(d, WIDTH, count=count)
            list(run(lambda at: kernels.total_of(rows, at.start, self._shift[at], found[at]), columns))
        self._shift += found / r
        products, self._own_sizes = self._look(rows, self._index)
        if float(np.square(self._shift).sum()) > FAR * float(self._own_sizes.mean()):
            self._centred = np.subtract(rows, self._shift, out=np.empty_like(rows), casting="same_kind")
        self._add(rows, self._index, products, self._own_sizes)

    def _meet(self, block: Tensor, numbers: Tensor) -> None:
        """Let points come by the centres."""
        before = int(np.isfinite(self._sizes[numbers]).sum())
        if before:
            again = np.searchsorted(self._index, numbers[-before:].numpy())
            kept = torch.from_numpy(self._rows[again])
            self.drift = max(self.drift, drift(kept, block[-before:], float(self._own_sizes.mean())))
            block, numbers = block[:-before], numbers[:-before]
        if not len(block):
            return
        x, at = block.numpy(), numbers.numpy()  # NumPy takes a tensor of one number for that number
        self._add(x, at, *self._look(x, at))

    def _add(self, x: np.ndarray, numbers: np.ndarray, products: np.ndarray, sizes: np.ndarray) -> None:
        """Turn products of centres and points into squared distances; those of close pairs are taken directly."""
        both = self._own_sizes[:, None] + sizes
        squared = both - 2 * products
        itself = self._index[:, None] == numbers
        first, second = np.nonzero((squared < CLOSE * both) & ~itself)
        squared[first, second] = differences(self._rows, x, first, second, np.ones(x.shape[1]))
        squared[itself] = 0.0
        self._squared[:, numbers] = squared

    def _look(self, x: np.ndarray, numbers: np.ndarray) -> tuple[Float64[np.ndarray, "r k"], Float64[np.ndarray, " k"]]:
        """Return the points' products with the centres, and their sizes, about the centres' mean; add them to sums."""
        from layerfreq.engines.cpu import kernels

        centres, shift, (k, d), r = self._centred, self._shift, x.shape, len(self._index)
        total, own, bits, weight = np.zeros(d), x is self._rows, bits_of(torch.from_numpy(x)), weights(d).numpy()
        width = max(256, min(WIDTH, CACHED // (r + k)))

        def part(columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
            products, sizes, across, prints = np.zeros((r, k)), np.zeros(k), np.zeros(k), np.zeros(k, np.int64)
            product, room = np.empty((r, k), x.dtype), np.empty(k * width, x.dtype)
            for start in range(columns.start, columns.stop, width):
                at = slice(start, min(start + width, columns.stop))
                block = room[: k * (at.stop - at.start)].reshape(k, -1)
                kernels.fingerprints(bits, start, weight[at], prints)
                kernels.centre_and_add(x, start, shift[at], block, sizes, across, total[at])
                if own:
                    kernels.multiply(block, block, product, own=True)
                else:
                    kernels.multiply(self._rows if centres is None else centres, block, product, start)
                np.add(products, product, out=products)
            return products, sizes, across, prints

        count = hands(2 * r * k * d)
        with threads(count) as run, np.errstate(all="ignore"):
            found = list(run(part, parts(d, d, count=count)))
        products, sizes, across, prints = (np.sum(one, axis=0) for one in zip(*found, strict=True))
        self._total += total
        self._sizes[numbers], self._prints[torch.from_numpy(numbers)] = sizes, torch.from_numpy(prints)
        self._lost = self._lost or not bool(np.isfinite(sizes).all())
        if own:
            return both_ways(products), sizes
        return products if centres is not None else products - across, sizes
