"""The CPU engine: one matrix product and one pass over the pairs serve every cutoff.

Distances come from products of centred points, each thread working on a tile of its own. Kernels at all cutoffs are
combinations of few functions of the distance, whose sums an `Expansion` collects: polynomials (`chebyshev`) if points
keep some distance, otherwise `bins`. If rows and columns are the same points, each product is used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.targets import Targets
from layerfreq.engines.base import FEWEST, Engine, Points, RowCurves
from layerfreq.engines.cpu.bins import NEAR, SHORTEST, Basis, few, kernel_basis
from layerfreq.engines.cpu.chebyshev import Series, kernel_series
from layerfreq.engines.cpu.expansion import Across, Beyond, Classes, Expansion, Side, Tile, Weights
from layerfreq.engines.cpu.folded import Folded
from layerfreq.engines.threads import every_two, hands, in_turn, one_blas_thread, parts, scratch, threads
from layerfreq.errors import InputError

STRIP = 1280  # most rows of a tile: products want large tiles, the caches small ones
WIDTH = 2560  # most columns of a tile
SQUARE = 512  # most rows of a tile whose columns are centres, too, if pairs are added as fast as they are read
SUMS_LIMIT = 192 << 20  # most bytes of sums held at a time
FOLDED = 4096  # filter centres that are folded before their curves are handed on
CURVES = 1 << 18  # numbers turned into curves at a time, which should stay in the cache
TOGETHER = 16  # filter centres for which a thread holds the sums of all classes at a time
FLOAT64 = 4  # cost of an operation on many small matrices, relative to one of the products in float32
PAIR = 100  # operations per pair, without its product
SAMPLE = 32  # points whose distances are looked at first
FEW_NEAR = 16  # of these points, at least, for each pair that is much nearer than others and left out of a series
SHARE = 0.5  # of their pairs at the same few distances: more have equal errors, which do not average out
LEVELS = 8  # values that a feature has at these points, on average: with as few, distances lie in clusters, too
STRETCH = 2.0**20  # factor for features, so that float32 has exponents for close pairs: below 1e-24, they coincide
TOO_CLOSE = (
    "engine: 'cpu' takes points closer than 1e-20 of the farthest for one, and there are some; pass engine='blocked', "
    "or leave out what is so far away"
)


@dataclass
class Columns:
    """Points prepared as columns: sorted by class, centred, scaled."""

    raw: np.ndarray  # (n, d) features as they came
    order: np.ndarray  # (n,) the sorted points' places in raw
    x: np.ndarray  # (n, d)
    sizes: np.ndarray  # (n,) |x|^2
    first: int  # index of raw's first point among all points
    starts: np.ndarray | None  # (classes + 1,) where classes begin, or None for vectors
    vectors: np.ndarray  # (n, c) sorted float32 vectors, or (0, 0) for classes

    @cached_property
    def place(self) -> np.ndarray:
        """(n,) the places of raw's points among the sorted ones."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(place))
        return place

    def targets(self, at: slice) -> Classes | np.ndarray:
        """Return the targets of some of the sorted points."""
        if self.starts is None:
            return self.vectors[at]
        first, last = np.searchsorted(self.starts, [at.start, at.stop - 1], side="right") - 1
        edges = np.clip(self.starts[first : last + 2], at.start, at.stop) - at.start
        return Classes(edges, np.arange(first, last + 1))


class Block(NamedTuple):
    """Some of the sorted points, ready to be columns of many tiles."""

    at: slice
    side: Side
    targets: Weights
    ready: Any  # the targets as the expansion takes them


@dataclass
class Rows:
    """Filter centres, and their sums over the columns so far."""

    index: np.ndarray  # (r,) among all points
    place: np.ndarray  # (r,) among the available points
    x: np.ndarray  # (r, d)
    sizes: np.ndarray  # (r,) |x|^2
    sums: np.ndarray  # (r, c + 1, functions)
    every: bool  # whether these are all available points, in the order of their columns
    beyond: dict[int, Beyond] = field(default_factory=dict)  # row -> sums over its strays


class Cpu(Engine[Rows, Columns]):
    """Pair sums of float32 features to about 1e-6 in LFR, at all cutoffs for the price of one.

    float64 features get their distances in float64, which are then rounded to float32 (engine "blocked" keeps
    float64 throughout).
    """

    def __init__(self, points: Points, targets: Targets, inv_delta: Tensor) -> None:
        super().__init__(points, targets, inv_delta)
        self._shift, gain = points.shift.cpu().double().numpy(), points.gain.cpu().double().numpy()
        self._stretch = STRETCH if gain.max(initial=0.0) < 2.0**1000 else 1.0
        self._gain = gain * self._stretch
        self._cutoffs, self._radius = inv_delta.numpy() / self._stretch**2, points.radius * self._stretch
        # Beyond, gains or their reciprocals are no normal numbers of float32.
        gain = self._gain[self._gain > 0]
        single = not points.double and bool(np.all((gain > 2.0**-120) & (gain < 2.0**120)))
        self._dtype = torch.float32 if single else torch.float64
        self._raw = self._numpy(points)
        self._gain_of_pairs = self._gain.astype(self._raw.dtype)
        if self._cutoffs[-1] > NEAR / SHORTEST:
            self._refuse_closer_pairs()
        with one_blas_thread():
            looked_at = self._looked_at()
            self._shared, share = few(looked_at)  # squared distances that many pairs have, and how many
            self._series = None if share > SHARE or self._discrete() else self._find_series(looked_at)
        self._functions: Expansion = self._series or self._bins

    def _refuse_closer_pairs(self) -> None:
        """Raise if a sample has distinct points that would coincide here although the cutoffs tell them apart."""
        some = np.linspace(0, len(self._raw) - 1, min(len(self._raw), 8 * SAMPLE)).astype(int)
        step = (np.diff(self._raw[some].astype(np.float64), axis=0) * self._gain).T
        squared = np.square(step).sum(axis=0)
        if np.any((squared < SHORTEST) & np.any(step != 0, axis=0)):
            raise InputError(TOO_CLOSE)

    @cached_property
    def _bins(self) -> Basis:
        with one_blas_thread():  # more would take 100 times longer beside threads that spin after a forward pass
            tolerance = 1e-7 / len(self.targets.energy)
            return kernel_basis(self._cutoffs, 4 * self._radius**2, tolerance, self._shared)

    @cached_property
    def _own(self) -> Columns:
        return self._prepare(self.points, self._raw)

    @classmethod
    def bytes_each(cls, itemsize: int) -> int:
        """See `Engine.bytes_each`."""
        return 2 * itemsize if itemsize >= 4 else itemsize + 8

    @property
    def height(self) -> int:
        """See `Engine.height`."""
        return max(1, SUMS_LIMIT // ((self.targets.width + 1) * len(self._functions.square) * 8))

    def run(self, index: Tensor) -> Iterator[RowCurves]:
        """See `Engine.run`; the sums of many classes are folded once a centre has met all points."""
        if not self._folds:
            yield from super().run(index)
            return
        for some in index.split(FOLDED):
            yield self._folded(some)

    @property
    def _folds(self) -> bool:
        """Whether folding the classes saves more than using each product twice does."""
        c, (r, m) = self.targets.width, self._functions.square.shape
        if self.targets.labels is None or self.targets.sketch:
            return False
        n, d = self._raw.shape
        saved = c * r * (2 * m - r) - r**2 * 2 * m
        return saved > 0 and (self.height < n or FLOAT64 * saved > n * d)

    def _folded(self, index: Tensor) -> RowCurves:
        """Return the curves of some centres, taking so few at a time that the sums of all classes stay in the cache."""
        from layerfreq.engines.cpu import kernels

        columns, rows, targets = self._own, self._centres(index), self.targets
        assert targets.labels is not None
        n, c, r = len(columns.x), targets.width, len(self._functions.square)
        label = targets.labels[torch.from_numpy(rows.index)].numpy()
        folded = Folded.empty(targets.offset.double().numpy(), label, r)
        out, astray = np.empty((3, len(rows.x), len(self.inv_delta))), set()
        step = max(FEWEST, min(STRIP * WIDTH // n, STRIP))
        every = self._block(columns, slice(0, n))

        def strip(at: slice) -> None:
            products = scratch(at.stop - at.start, n, columns.x.dtype)
            kernels.multiply(rows.x[at], columns.x, products)
            for start in range(at.start, at.stop, TOGETHER):
                some = slice(start, min(start + TOGETHER, at.stop))
                sums = scratch((some.stop - start) * (c + 1), r, np.float64, 1).reshape(-1, c + 1, r)
                sums[:] = 0
                tile = self._tile(rows, some, products[start - at.start : some.stop - at.start], columns, every)
                strays = self._functions.deposit(tile, every.ready, sums)
                astray.update(() if strays is None else (start + strays.row).tolist())
                folded.take(some, sums[:, :c])
            folded.curves(self._functions, at, out[:, at])

        count = hands(len(rows.x) * n * (columns.x.shape[1] + PAIR) + len(rows.x) * c * r**2)
        with threads(count) as run:
            list(run(strip, parts(len(rows.x), step, count=count)))
        found = self._as_curves(rows, out)
        for some in torch.tensor(sorted(astray), dtype=torch.int64).split(self.height) if astray else ():
            again = self.begin(torch.from_numpy(rows.place)[some])
            self.add(again, columns)
            curves = self.finish(again)
            found.energy[some], found.slope[some] = curves.energy, curves.slope
            found.self_weight[some] = curves.self_weight
        return found

    def begin(self, index: Tensor) -> Rows:
        """See `Engine.begin`."""
        rows = self._centres(index)
        rows.sums = np.zeros((len(rows.x), self.targets.width + 1, len(self._functions.square)))
        return rows

    def _centres(self, index: Tensor) -> Rows:
        every = len(index) == len(self.points)
        place = self._own.order if every else index.numpy()
        x, sizes = (self._own.x, self._own.sizes) if every else self._centred(self._raw, place)
        return Rows(
            index=self.points.numbers(torch.from_numpy(place)).numpy(),
            place=place,
            x=x,
            sizes=sizes,
            sums=np.empty((0, 0, 0)),
            every=every,
        )

    def prepare(self, points: Points) -> Columns:
        """See `Engine.prepare`."""
        return self._own if points is self.points else self._prepare(points, self._numpy(points))

    def add(self, rows: Rows, columns: Columns) -> None:
        """See `Engine.add`."""
        from layerfreq.engines.cpu import kernels

        count = hands(len(rows.x) * len(columns.x) * (columns.x.shape[1] + PAIR))
        with threads(count) as run:
            if rows.every and columns is self._own:
                self._add_square(rows, columns, count, run)
                return
            blocks = self._blocks(columns)

            def strip(at: slice) -> None:
                for block in blocks:
                    tile = scratch(at.stop - at.start, len(block.side.sizes), columns.x.dtype)
                    kernels.multiply(rows.x[at], columns.x[block.at], tile)
                    self._deposit(rows, at, tile, columns, block)

            list(run(strip, parts(len(rows.x), STRIP, count=count)))

    def _add_square(self, rows: Rows, columns: Columns, count: int, run: Callable[..., Any]) -> None:
        """Add the points to each other, a product of two blocks serving both; every block is in one tile at a time."""
        from layerfreq.engines.cpu import kernels

        x, most = columns.x, SQUARE if self._series else STRIP
        # Where one tile takes all, runs of a class are longer, which saves more than a product that serves twice.
        cuts = parts(len(x), most, 1 if count == 1 and len(x) <= most else 2, count)
        blocks = [self._block(columns, at) for at in cuts]

        def pair(two: tuple[int, int]) -> None:
            one, other = blocks[two[0]], blocks[two[1]]
            products = scratch(len(one.side.sizes), len(other.side.sizes), x.dtype)
            kernels.multiply(x[one.at], x[other.at], products)
            own = np.arange(len(products)) if one is other else np.full(len(products), -1)
            tile = Tile(products, one.side, other.side, own, self._gain_of_pairs)
            self._deposit_tile(rows, one.at, tile, other, None if one is other else one)

        in_turn(pair, every_two(len(blocks)), run)

    def _blocks(self, columns: Columns) -> list[Block]:
        return [self._block(columns, at) for at in parts(len(columns.x), WIDTH, count=1) if at.start < at.stop]

    def _block(self, columns: Columns, at: slice) -> Block:
        """Return some of the sorted points as columns of tiles."""
        targets = columns.targets(at)
        side = Side(columns.sizes[at], columns.order[at], columns.raw)
        return Block(at, side, targets, self._functions.ready(targets))

    def _deposit(self, rows: Rows, at: slice, products: np.ndarray, columns: Columns, block: Block) -> None:
        """Add a tile of products to the sums of the rows `at`."""
        self._deposit_tile(rows, at, self._tile(rows, at, products, columns, block), block, None)

    def _deposit_tile(self, rows: Rows, at: slice, tile: Tile, block: Block, across: Block | None) -> None:
        """Add a tile to the sums of the rows `at`, and with `across` to those of its columns."""
        other = Across(across.ready, rows.sums[block.at]) if across else None
        strays = self._functions.deposit(tile, block.ready, rows.sums[at], other)
        if strays is None:
            return
        self._add_strays(rows, at.start + strays.row, strays.squared, block.targets, strays.column)
        if across:
            self._add_strays(rows, block.at.start + strays.column, strays.squared, across.targets, strays.row)

    def _add_strays(
        self, rows: Rows, of: np.ndarray, squared: np.ndarray, targets: Weights, columns: np.ndarray
    ) -> None:
        """Add the kernels of pairs for which the functions do not hold."""
        m = len(self._cutoffs)
        for row in np.unique(of).tolist():
            if row not in rows.beyond:
                rows.beyond[row] = Beyond(np.zeros((self.targets.width + 1, 2 * m)), np.zeros(m))
            mine = of == row
            rows.beyond[row].add(self._cutoffs, squared[mine], targets, columns[mine])

    def _tile(self, rows: Rows, at: slice, products: np.ndarray, columns: Columns, block: Block) -> Tile:
        index = rows.index[at] - columns.first
        inside = (index >= 0) & (index < len(columns.order))
        own = np.where(inside, columns.place[np.where(inside, index, 0)] - block.at.start, -1)
        side = Side(rows.sizes[at], rows.place[at], self._raw)
        return Tile(products, side, block.side, own, self._gain_of_pairs)

    def finish(self, rows: Rows) -> RowCurves:
        """See `Engine.finish`."""
        out = np.empty((3, len(rows.x), len(self.inv_delta)))
        each = self._functions.values.shape[1]
        step = max(FEWEST, CURVES // (rows.sums.shape[1] * each))
        count = hands(2 * rows.sums.size * each)
        with threads(count) as run:
            columns = list(run(lambda at: self._curves(rows, at, out[:, at]), parts(len(rows.x), step, count=count)))
        by_column = torch.from_numpy(np.sum(columns, axis=0)).transpose(1, 2) if self.targets.sketch else None
        if by_column is not None:
            by_column[1] /= self._stretch**2
        return replace(self._as_curves(rows, out), by_column=by_column)

    def _as_curves(self, rows: Rows, out: np.ndarray) -> RowCurves:
        energy, slope, self_weight = torch.from_numpy(out)
        slope /= self._stretch**2
        return RowCurves(torch.from_numpy(rows.index), energy, slope, self_weight)

    def _curves(self, rows: Rows, at: slice, out: np.ndarray) -> np.ndarray:
        from layerfreq.engines.cpu import kernels

        sums, functions = rows.sums[at], self._functions
        if self.targets.labels is not None:
            kernels.add_classes(sums)
        h, c, r = sums.shape
        values = scratch(h * c, functions.values.shape[1], np.float64)
        np.matmul(sums.reshape(h * c, r), functions.values, out=values)
        values, squares = values.reshape(h, c, -1), sums[:, -1] @ functions.square
        for row in rows.beyond.keys() & range(at.start, at.stop):
            values[row - at.start] += rows.beyond[row].values
            squares[row - at.start] += rows.beyond[row].square
        own = self.targets.block(torch.from_numpy(rows.index[at]), torch.float64, torch.device("cpu")).numpy()
        by_column = np.zeros((4, own.shape[1], len(self.inv_delta)) if self.targets.sketch else (0, 0, 0))
        energy, change, self_weight = out
        kernels.curves(values, squares, own, self.targets.offset.numpy(), energy, change, self_weight, by_column)
        return by_column

    def _prepare(self, points: Points, raw: np.ndarray) -> Columns:
        n, targets = len(points), self.targets
        numbers = points.numbers(torch.arange(n))
        labels = None if targets.labels is None else targets.labels[numbers]
        order = np.arange(n) if labels is None else torch.argsort(labels, stable=True).numpy()
        starts, vectors = None, np.empty((0, 0), np.float32)
        if labels is not None:
            starts = np.concatenate([[0], torch.bincount(labels, minlength=targets.width).cumsum(0).numpy()])
        else:
            vectors = targets.block(numbers, torch.float32, torch.device("cpu")).contiguous().numpy()
        return Columns(raw, order, *self._centred(raw, order), points.first, starts, vectors)

    def _centred(self, raw: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from layerfreq.engines.cpu import kernels

        x, sizes = np.empty((len(order), raw.shape[1]), raw.dtype), np.empty(len(order), raw.dtype)

        def centre(at: slice) -> None:
            kernels.centre(raw, order[at], self._shift, self._gain, x[at], sizes[at])

        count = hands(4 * x.size)
        with threads(count) as run:
            list(run(centre, parts(len(x), STRIP, count=count)))
        return x, sizes

    def _numpy(self, points: Points) -> np.ndarray:
        return points.features.cpu().to(self._dtype).contiguous().numpy()

    def _find_series(self, squared: np.ndarray) -> Series | None:
        """Return a series for the distances in a sample of the points, if there is a short one and it pays."""
        farthest = float(squared.max(where=np.isfinite(squared), initial=0.0))
        near = squared <= 0.05 * farthest
        nearest = 0.0
        if np.count_nonzero(near) <= len(squared) // FEW_NEAR:  # strays: a wide series costs all others digits
            nearest = 0.8 * float(squared.min(where=~near, initial=farthest))
        if self.targets.labels is None and not nearest:
            return None  # distances may be few, as for points in two places, for which bins are more accurate
        return kernel_series(self._cutoffs, nearest, 1.2 * farthest, 1e-6 / len(self.targets.energy))

    def _discrete(self) -> bool:
        """Return whether features have few values each: then distances cluster, whatever the scale of each feature."""
        x = self._own.x[np.linspace(0, len(self.points) - 1, min(len(self.points), SAMPLE)).astype(int)]
        values = 1 + (np.diff(np.sort(x, axis=0), axis=0) != 0).sum(axis=0)
        return bool((values > 1).any() and values[values > 1].mean() <= min(LEVELS, len(x) / 4))

    def _looked_at(self) -> np.ndarray:
        """Return squared distances of a few points to all, infinite for a point and itself."""
        n = len(self.points)
        some = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
        x, sizes = self._own.x, self._own.sizes
        squared = sizes[some, None] + sizes - 2 * (x[some] @ x.T)
        squared[np.arange(len(some)), some] = np.inf
        return squared
