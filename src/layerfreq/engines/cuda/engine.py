"""One NVIDIA GPU: every cutoff from one pass over the distances, in Triton."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float16, Float32, Float64
from torch import Tensor

from layerfreq.data.targets import Targets
from layerfreq.engines.base import LAUNCHED, Engine, Points, RowCurves, chunks
from layerfreq.engines.cuda.device import check_device, fails, why_not
from layerfreq.engines.cuda.exponentials import CHAIN, Ladder, ladder
from layerfreq.engines.reference import Sums
from layerfreq.errors import first_line
from layerfreq.extras import needs

MATRIX_MODE = "tf32x3"  # three TF32 products make one of float32's accuracy; "ieee" before Ampere
BLOCK_M = 128  # filter centres of a program
BLOCK_N = (64, 32, 16)  # points in a tile; the smaller ones where classes are small; 128 runs out of registers
BLOCK_K = 32  # coordinates in a product
WARPS = 8
LEAST_HEIGHT = 16
WASTE = 1.3  # tiles may hold this many times the points, before smaller ones are taken
DIRECT = 16  # coordinates up to which all distances are taken from differences: no slower than the product
PROGRAMS = 1024  # wanted at once: some for each multiprocessor
STAGES = 3  # chunks of coordinates on their way to a product
# Not measured yet, and therefore off (`benchmarks/gpu.py --variants`):
HALVES = False  # products of two float16 to a number, split beforehand, instead of MATRIX_MODE's
GROUP = 0  # blocks of centres that meet all points before the next ones do, or 0: all those at hand
SUMS_BYTES = 1 << 27  # held for the centres at hand
HEIGHT = 1 << 14  # centres at hand


class Halves(NamedTuple):
    """Points as sums of two float16, each in a unit of its own, so that none of its digits leaves float16's range.

    Attributes:
        parts: (d, 2, padded) float16, x / unit to the nearest, and the rest of it.
        unit: (padded,) float32, powers of two.
    """

    parts: Tensor
    unit: Tensor


@dataclass
class Rows:
    """Filter centres and their sums.

    Attributes:
        index: (r,) their indices among all points.
        x: (d, padded) in float32.
        rest: What float32 cut off.
        size: (padded,) |x|^2.
        halves: x as a sum of two float16 in a unit, or nothing without HALVES.
        y: (r, w) their targets, and one.
        sums: (w, p, r) float64, of the ladder's exponentials, one and D, times the targets, themselves left out.
    """

    index: Tensor
    x: Tensor
    rest: Tensor
    size: Tensor
    halves: Halves
    y: Tensor
    sums: Tensor


@dataclass
class Columns:
    """Points in tiles, each of one class.

    Attributes:
        first: Index of the first of these points among all points.
        place: (n,) the column of each point.
        block: Columns in a tile.
        x: (d, tiles * block) in float32, and zero in columns that hold no point.
        rest: What float32 cut off.
        size: (tiles * block,) |x|^2.
        halves: x as a sum of two float16 in a unit, or nothing without HALVES.
        label: (tiles,) the class of a tile's points, or 0.
        filled: (tiles,) how many columns hold a point.
        y: (w, tiles * block) target vectors and one, or nothing for classes.
        moments: (w, d + 2) float64, the sums of x, of |x|^2 and of one, times the targets.
    """

    first: int
    place: Tensor
    block: int
    x: Tensor
    rest: Tensor
    size: Tensor
    halves: Halves
    label: Tensor
    filled: Tensor
    y: Tensor
    moments: Tensor


class Cuda(Engine[Rows, Columns]):
    """Sums of exponentials at a ladder of rates, fused with the distances; kernels at all cutoffs follow from them.

    Distances have float32's accuracy: features are centred and scaled in float64 and cut to float32; their inner
    products are taken in three TF32 products ("tf32x3", never plain TF32), chunk by chunk; tiles with a pair closer
    than 1/32 of |x|^2 + |y|^2 take differences instead, with what float32 cut off. float64 features get the same
    float32 distances; "blocked" keeps float64. Sums within a tile are float32, across tiles float64.
    """

    def __init__(self, points: Points, targets: Targets, inv_delta: Float64[Tensor, " m"]) -> None:
        super().__init__(points, targets, inv_delta)
        self._interpreted = interpreted = check_device(points.features.device)
        needs("triton", "layerfreq[cuda]", "engine")
        if not interpreted and (reason := why_not(points.features.device)):
            raise fails(reason)
        from layerfreq.engines.cuda.triton_kernels import add_exponentials

        self._add_exponentials: Any = add_exponentials
        self._mode = MATRIX_MODE
        if not interpreted:
            self._mode = matrix_mode(torch.cuda.get_device_capability(points.features.device))
        self._direct = points.features.shape[1] <= DIRECT

    @property
    def _device(self) -> torch.device:
        return self.points.features.device

    @property
    def _width(self) -> int:
        """Sums of a point and function: of each class, or of each target column and of one."""
        return self.targets.width + (self.targets.labels is None)

    @cached_property
    def _ladder(self) -> Ladder:
        # A little more than the diameter: distances in float32 may exceed it.
        return ladder(self.inv_delta.numpy(), 4.001 * self.points.radius**2, len(self.targets.energy))

    @property
    def height(self) -> int:
        """See `Engine.height`."""
        return max(LEAST_HEIGHT, min(HEIGHT, SUMS_BYTES // (8 * self._width * (len(self._ladder.rates) + 2))))

    def begin(self, index: Tensor) -> Rows:
        """See `Engine.begin`."""
        everywhere = self.points.numbers(index)
        if self.targets.labels is not None:  # centres beside those of their class: few tiles have close pairs
            order = torch.argsort(self.targets.labels[everywhere], stable=True)
            index, everywhere = index[order], everywhere[order]
        place = torch.arange(len(index), device=self._device)
        width = len(index) + -len(index) % (BLOCK_M * max(GROUP, 1))
        x, rest, size, halves = self._cut(self.points, index.to(self._device), place, width)
        y = self.targets.block(everywhere, torch.float64, self._device)
        if self.targets.labels is None:
            y = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
        functions = len(self._ladder.rates) + 2
        sums = torch.zeros(self._width, functions, len(index), dtype=torch.float64, device=self._device)
        return Rows(everywhere, x, rest, size, halves, y, sums)

    def prepare(self, points: Points) -> Columns:
        """See `Engine.prepare`."""
        n, device = len(points), self._device
        classes = self.targets.labels is not None
        at = slice(points.first, points.first + n)
        label = torch.zeros(n, dtype=torch.int64) if self.targets.labels is None else self.targets.labels[at]
        counts = torch.bincount(label, minlength=self._width if classes else 1)
        block, tiles = _tiles(counts)
        # Points in the order of their classes, and each class beginning with a tile. Where each goes is found on the
        # host, which has the labels: it never waits for the device.
        order = torch.argsort(label, stable=True)
        begin = (tiles.cumsum(0) - tiles) * block - (counts.cumsum(0) - counts)
        column = torch.arange(n) + begin.repeat_interleave(counts)
        total = int(tiles.sum())
        tile_label = torch.arange(len(tiles)).repeat_interleave(tiles)
        within = torch.arange(total) - (tiles.cumsum(0) - tiles)[tile_label]
        filled = (counts[tile_label] - within * block).clamp(max=block)
        order, column = order.to(device), column.to(device)
        place = torch.empty_like(order)
        place[order] = column

        x, rest, size, halves = self._cut(points, order, column, total * block)
        y = torch.zeros(0, device=device)
        if not classes:
            y = torch.zeros(self._width, total * block, device=device)
            y[:-1, place] = self.targets.block(at, torch.float32, device).T
            y[-1, place] = 1
        tile_label, filled = tile_label.int().to(device), filled.int().to(device)
        moments = self._moments(points)
        return Columns(points.first, place, block, x, rest, size, halves, tile_label, filled, y, moments)

    def _cut(self, points: Points, at: Tensor, place: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Halves]:
        """Put points into columns; the other columns are zero.

        Returns:
            (d, width) float32, what float32 cut off, |x|^2, and float32 in halves. Coordinates fill whole chunks.
        """
        d = points.features.shape[1]
        x = torch.zeros(d if self._direct else d + -d % BLOCK_K, width, device=self._device)
        rest, size = torch.zeros_like(x), torch.zeros_like(x[0])
        split = HALVES and not self._direct
        room = width if split else 0
        halves = Halves(x.new_zeros(len(x), 2, room, dtype=torch.float16), x.new_ones(room))
        for s in chunks(len(at), d, LAUNCHED):
            exact = points.block(at[s]).T
            short = exact.float()
            x[:d, place[s]] = short
            rest[:d, place[s]] = (exact - short).float()
            size[place[s]] = exact.square().sum(dim=0).float()
            if split:
                halves.parts[:d, :, place[s]], halves.unit[place[s]] = _halved(short)
        return x, rest, size, halves

    def _moments(self, points: Points) -> Tensor:
        d = points.features.shape[1]
        moments = torch.zeros(self._width, d + 2, dtype=torch.float64, device=self._device)
        for s in chunks(len(points), d + self._width, LAUNCHED):
            x = points.block(s)
            x = torch.cat([x, x.square().sum(dim=1, keepdim=True), torch.ones_like(x[:, :1])], dim=1)
            at = slice(points.first + s.start, points.first + s.stop)
            moments[: self.targets.width] += self.targets.block(at, torch.float64, self._device).T @ x
            if self.targets.labels is None:
                moments[-1] += x.sum(dim=0)
        return moments

    def add(self, rows: Rows, columns: Columns) -> None:
        """See `Engine.add`."""
        r, n = len(rows.index), len(columns.place)
        if not r or not n:
            return
        own = torch.full((len(rows.size),), -1, dtype=torch.int32, device=self._device)
        index = rows.index - columns.first
        here = torch.nonzero((index >= 0) & (index < n))[:, 0]
        index, here = index[here].to(self._device), here.to(self._device)
        own[here] = columns.place[index].int()

        blocks, tiles = len(rows.size) // BLOCK_M, len(columns.label)
        each = -(-tiles // max(1, min(tiles, PROGRAMS // blocks)))
        group = GROUP or blocks
        with nullcontext() if self._interpreted else torch.cuda.device(self._device):
            try:
                self._launch(rows, columns, own, (group, -(-tiles // each), blocks // group), each)
            except Exception as error:
                if not type(error).__module__.startswith("triton"):
                    raise
                raise fails(first_line(error)) from None
        # Sums of one and of D follow from sums of x and |x|^2; a point's distance to itself is zero.
        d = columns.moments.shape[1] - 2
        first, second, count = columns.moments.split([d, 1, 1], dim=1)
        rows.sums[:, -2] += count
        rows.sums[:, -2, here] -= rows.y[here].T
        for s in chunks(r, d, LAUNCHED):
            x = rows.x[:d, s].double() + rows.rest[:d, s]
            rows.sums[:, -1, s] += second + count * x.square().sum(dim=0) - 2 * (first @ x)

    def _launch(self, rows: Rows, columns: Columns, own: Tensor, grid: tuple[int, int, int], tiles_each: int) -> None:
        exponents = torch.from_numpy(self._ladder.exponents).to(self._device)
        self._add_exponentials[grid](
            rows.x,
            rows.rest,
            rows.size,
            *rows.halves,
            columns.x,
            columns.rest,
            columns.size,
            *columns.halves,
            own,
            columns.label,
            columns.filled,
            columns.y,
            exponents,
            rows.sums,
            len(rows.index),
            len(rows.size),
            len(rows.x),
            len(columns.label),
            tiles_each,
            self._width,
            len(exponents),
            rows.sums.shape[1],
            BLOCK_M=BLOCK_M,
            BLOCK_N=columns.block,
            BLOCK_K=BLOCK_K,
            CHAIN=CHAIN,
            VECTORS=self.targets.labels is None,
            DIRECT=self._direct,
            HALVES=HALVES,
            MATRIX_MODE=self._mode,
            **compiling(),
        )

    def finish(self, rows: Rows) -> RowCurves:
        """See `Engine.finish`."""
        m, index, found = len(self.inv_delta), rows.index, []
        values, square = (torch.from_numpy(a).to(self._device) for a in (self._ladder.values, self._ladder.square))
        for s in chunks(len(index), 2 * m * (self._width + 1), LAUNCHED):
            sums = rows.sums[:, :, s]
            total = sums.sum(dim=0, keepdim=True) if self.targets.labels is not None else sums[-1:]
            by_column = sums if self.targets.labels is not None else sums[:-1]
            both = torch.cat([values.T @ by_column, values.T @ total])
            kept, slow = both[:, :m].transpose(0, 1), both[:, m:].transpose(0, 1)
            kept[:, :-1] += rows.y[s, : self.targets.width].T
            kept[:, -1] += 1
            part = Sums(index[s], kept, slow, 1 + square.T @ total[0])
            found.append(part.curves(self.targets))
        energy, slope, self_weight = (
            torch.cat([getattr(f, k) for f in found]) for k in ("energy", "slope", "self_weight")
        )
        columns = [part.by_column for part in found if part.by_column is not None]
        return RowCurves(index, energy, slope, self_weight, torch.stack(columns).sum(dim=0) if columns else None)


def compiling() -> dict[str, Any]:
    """Return the options with which the kernel is compiled."""
    # Where fused operations are left to Triton's default, 3.9 warns, and 3.10 is slower.
    return {"num_warps": WARPS, "num_stages": STAGES, "enable_fp_fusion": True}


def matrix_mode(capability: tuple[int, int]) -> str:
    """Return how products are taken on GPUs of a compute capability."""
    return MATRIX_MODE if capability >= (8, 0) else "ieee"


def _halved(x: Float32[Tensor, "d k"]) -> tuple[Float16[Tensor, "d 2 k"], Float32[Tensor, " k"]]:
    """Return points as sums of two float16, and their units: as `Halves`."""
    # The largest coordinate becomes 2^13 to 2^14: the smallest float16 is 2^-37 of it, and no sum leaves float32.
    exponent = torch.frexp(x.abs().amax(dim=0)).exponent.clamp(-100, 100) - 14
    unit, scale = (torch.ldexp(torch.ones_like(x[0]), e) for e in (exponent, -exponent))
    scaled = x * scale
    large = scaled.half()
    return torch.stack([large, (scaled - large).half()], dim=1), unit


def _tiles(counts: Tensor) -> tuple[int, Tensor]:
    """Return the size of a tile, and how many tiles each class takes."""
    n = int(counts.sum())
    fitting = (b for b in BLOCK_N if int((-(-counts // b)).sum()) * b <= WASTE * n)
    block = next(fitting, BLOCK_N[-1])
    return block, -(-counts // block)
