"""The CPU engine: one matrix product and one pass of binning serve every cutoff.

Distances come from BLAS products of centred points, each thread working on a tile of its own; the compiled loops of
`kernels` bin them, and `basis` turns bins into all cutoffs. Where every point is a filter centre, each product is
used twice, for the row and for the column.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from layerfreq.engines.base import CACHED, PairSums, Points, chunks
from layerfreq.engines.basis import Basis, kernel_basis
from layerfreq.targets import Targets

STRIP = 256  # rows of a task
TILE = 4096  # columns of a task; also the side of the square of products that is kept where symmetry is used
SUMS_LIMIT = 192 << 20  # bytes of sums held for all rows at once; beyond it symmetry is not used


def cpu(points: Points, targets: Targets, inv_delta: Tensor) -> Callable[[Tensor], PairSums]:
    """Prepare the pair sums of float32 features to about 1e-6 in LFR, at all cutoffs for the price of one.

    float64 features get their distances in float64; the bins' error stays (engine "blocked" has none).
    """
    with threadpool_limits(1, user_api="blas"):  # threads woken here would still be spinning when the tiles start
        work = _prepare(points, targets, inv_delta.numpy())

    def sums(rows: Tensor) -> PairSums:
        every = len(rows) == len(points) and work.sums_size(len(rows)) <= SUMS_LIMIT
        with _threads() as run:
            parts = list(_all_rows(work, run) if every else run(lambda r: _strip(work, r), rows.split(work.strip)))
        return sum(parts[1:], parts[0])

    return sums


@dataclass(frozen=True)
class _Work:
    """The points sorted by class, and everything that the tiles share."""

    raw: np.ndarray  # (n, d) features as they came
    order: np.ndarray  # (n,) the sorted points' places in raw
    place: np.ndarray  # (n,) and back
    x: np.ndarray  # (n, d) sorted, centred, scaled
    sizes: np.ndarray  # (n,) |x|^2
    gain: Any
    starts: np.ndarray | None  # (classes + 1,) where classes begin, or None for vectors
    vectors: np.ndarray  # (n, c) sorted float32 vectors, or (0, 0) for classes
    targets: Targets
    basis: Basis
    widest: Callable[[], Basis]  # makes the basis for all distances down to zero

    @cached_property
    def wide(self) -> _Work | None:
        """The same with room for all distances, or None if this has it."""
        basis = self.widest()
        return None if basis.lowest == self.basis.lowest else replace(self, basis=basis)

    def sums_size(self, rows: int) -> int:
        return rows * (self.targets.width + 1) * self.basis.square.shape[0] * 8

    @property
    def strip(self) -> int:
        """Rows of a task, fewer where there are thousands of classes."""
        return max(1, min(STRIP, STRIP * (32 << 20) // max(1, self.sums_size(STRIP))))

    def zeros(self, rows: int) -> np.ndarray:
        return np.zeros((rows, self.targets.width + 1, self.basis.square.shape[0]))


def _prepare(points: Points, targets: Targets, inv_delta: np.ndarray) -> _Work:
    n, d = points.features.shape
    dtype = torch.float64 if points.double else torch.float32
    raw = points.features.cpu().to(dtype).contiguous()
    order = torch.arange(n) if targets.labels is None else torch.argsort(targets.labels, stable=True)
    x, sizes = torch.empty(n, d, dtype=dtype), torch.empty(n, dtype=dtype)
    device = points.features.device
    for s in chunks(n, d, CACHED):
        block = points.block(order[s].to(device)).cpu()
        x[s], sizes[s] = block, block.square().sum(dim=1)
    starts, vectors = None, torch.empty(0, 0)
    if targets.labels is not None:
        counts = torch.bincount(targets.labels, minlength=targets.width)
        starts = np.concatenate([[0], counts.cumsum(0).numpy()])
    else:
        vectors = targets.block(order, torch.float32, torch.device("cpu")).contiguous()
    x_, sizes_ = x.numpy(), sizes.numpy()
    widest = partial(kernel_basis, inv_delta, 4 * float(sizes.max()), 1e-7 / n)
    return _Work(
        raw=raw.numpy(),
        order=order.numpy(),
        place=torch.argsort(order).numpy(),
        x=x_,
        sizes=sizes_,
        gain=x_.dtype.type(points.gain),
        starts=starts,
        vectors=vectors.numpy(),
        targets=targets,
        basis=widest(nearest=_nearest(x_, sizes_)),
        widest=widest,
    )


def _nearest(x: np.ndarray, sizes: np.ndarray) -> float:
    """A bound that few squared distances fall below, from a sample; 0.0 where some points lie close together."""
    some = np.linspace(0, len(x) - 1, min(len(x), 64)).astype(int)
    squared = sizes[some, None] + sizes - 2 * (x[some] @ x.T)
    squared[np.arange(len(some)), some] = np.inf
    nearest = float(squared.min())
    return nearest / 4 if 0.05 * float(sizes.max()) < nearest < np.inf else 0.0


def _deposit(
    work: _Work, products: np.ndarray, rows: np.ndarray, start: int, sums: np.ndarray, nearest: np.ndarray
) -> None:
    """Add what columns start, start + 1, ... mean for some rows; all numbers count the sorted points."""
    from layerfreq.engines import kernels

    stop = start + products.shape[1]
    columns = slice(start, stop)
    shared = (products, work.sizes[rows], work.sizes[columns], work.raw, work.order[rows], work.order[columns])
    basis = work.basis
    tail = (np.int32(basis.lowest), np.int32(basis.highest), basis.moments, sums, nearest)
    if work.starts is None:
        kernels.deposit_vectors(*shared, work.gain, rows - start, work.vectors[columns], *tail)
        return
    first, last = np.searchsorted(work.starts, [start, stop - 1], side="right") - 1
    edges = np.clip(work.starts[first : last + 2], start, stop) - start
    kernels.deposit_labels(*shared, work.gain, rows - start, edges, np.arange(first, last + 1), *tail)


def _curves(work: _Work, rows: np.ndarray, sums: np.ndarray) -> PairSums:
    from layerfreq.engines import kernels

    if work.starts is not None:
        sums[:, -1] = sums[:, :-1].sum(axis=1)
    basis, targets, at = work.basis, work.targets, torch.from_numpy(work.order[rows])
    own = targets.block(at, torch.float64, torch.device("cpu")).numpy()
    out = [np.empty((len(rows), basis.square.shape[1])) for _ in range(3)]
    values, squares = sums @ basis.values, sums[:, -1] @ basis.square
    kernels.curves(values, squares, own, targets.offset.numpy(), *out)
    energy, slope, self_weight = (torch.from_numpy(part).T for part in out)
    return PairSums.of_rows(energy, slope, self_weight, targets.energy[at])


def _strip(work: _Work, rows: Tensor) -> PairSums:
    """Sum some rows against all columns."""
    at = work.place[rows.numpy()]
    x, sums, nearest = work.x[at], work.zeros(len(at)), np.ones(len(at), np.int32)
    products = _scratch((len(at), min(TILE, len(work.x))), work.x.dtype)
    for start in range(0, len(work.x), TILE):
        columns = work.x[start : start + TILE]
        tile = products[:, : len(columns)]
        np.matmul(x, columns.T, out=tile)
        _deposit(work, tile, at, start, sums, nearest)
    return _finish(work, at, sums, nearest)


def _finish(work: _Work, at: np.ndarray, sums: np.ndarray, nearest: np.ndarray) -> PairSums:
    """Sum the rows up; those with a distance shorter than the basis expects are done again with a wider one."""
    short = nearest <= 0
    if not short.any() or work.wide is None:
        return _curves(work, at, sums)
    again = _strip(work.wide, torch.from_numpy(work.order[at[short]]))
    return again if short.all() else again + _curves(work, at[~short], sums[~short])


def _all_rows(work: _Work, run: Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]) -> Iterator[PairSums]:
    """Sum all rows, computing each product once, for a square of points by points at a time."""
    from layerfreq.engines import kernels

    n = len(work.x)
    sums, nearest = work.zeros(n), np.ones(n, np.int32)
    count = -(-n // TILE)
    edges = [n * i // count for i in range(count + 1)]
    side = int(max(np.diff(edges)))
    store = np.empty((side, side + 16), work.x.dtype)  # rows a power of two apart would share cache sets
    for a, a_end in zip(edges, edges[1:], strict=False):
        for b, b_end in zip(edges, edges[1:], strict=False):
            if b < a:
                continue
            tile, diagonal = store[: a_end - a, : b_end - b], a == b

            def multiply(i: int, a: int = a, b: int = b, b_end: int = b_end, tile: Any = tile) -> None:
                skip = i if a == b else 0
                np.matmul(
                    work.x[a + i : a + i + STRIP][: len(tile) - i],
                    work.x[b + skip : b_end].T,
                    out=tile[i : i + STRIP, skip:],
                )

            def down(i: int, a: int = a, b: int = b, tile: Any = tile) -> None:
                rows, part = np.arange(a + i, a + min(i + STRIP, len(tile))), tile[i : i + STRIP]
                if a == b:
                    part = _copy(part)
                    kernels.transpose(tile[:i, i : i + STRIP], part[:, :i])
                at = slice(rows[0], rows[-1] + 1)
                _deposit(work, part, rows, b, sums[at], nearest[at])

            def across(j: int, a: int = a, b: int = b, tile: Any = tile) -> None:
                rows = np.arange(b + j, b + min(j + STRIP, tile.shape[1]))
                part = _scratch((len(rows), len(tile)), tile.dtype)
                kernels.transpose(tile[:, j : j + STRIP], part)
                at = slice(rows[0], rows[-1] + 1)
                _deposit(work, part, rows, a, sums[at], nearest[at])

            list(run(multiply, range(0, len(tile), STRIP)))
            list(run(down, range(0, len(tile), STRIP)))
            if not diagonal:
                list(run(across, range(0, tile.shape[1], STRIP)))
    return run(lambda s: _finish(work, np.arange(n)[s], sums[s], nearest[s]), chunks(n, 1, STRIP))


_kept = threading.local()


def _scratch(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """Room of this thread's own, used again, because fresh memory is slow to come by."""
    size = shape[0] * shape[1]
    buffer = getattr(_kept, "buffer", None)
    if buffer is None or buffer.dtype != dtype or buffer.size < size:
        _kept.buffer = buffer = np.empty(size, dtype)
    return buffer[:size].reshape(shape)


def _copy(part: np.ndarray) -> np.ndarray:
    out = _scratch((part.shape[0], part.shape[1]), part.dtype)
    out[:] = part
    return out


@contextmanager
def _threads() -> Iterator[Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]]:
    """As many threads as PyTorch uses, each with BLAS to itself."""
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield pool.map
