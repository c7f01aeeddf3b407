"""Sums of exponentials of the distances, on the GPU. Imported only when the `cuda` engine is used.

What n = 60000, d = 512, 48 exponentials (50 cutoffs over 12 octaves) take, and what one H100 or H200 needs for each at
its published peak rates: together some 75 ms, or 21 ps a pair. Measured on one: 43 ps (docs/engines-cuda.md).

- Products: 3 x 2 n^2 d = 1.1e13 operations in TF32, 22 ms at 494 TFLOP/s. Half of that rate would be good.
- Powers: 24 n^2 = 8.6e10, 23 ms at 16 a clock and multiprocessor (132 of them, 1.76 GHz).
- 24 scalings, 24 squarings and 48 additions a pair: 3.5e11, 12 ms at 128 a clock and multiprocessor.
- Sums handed over: 48 n^2 / 64 = 2.7e9 additions in float64 to what stays in the second-level cache.
- Memory: 469 blocks of centres read all the points, 58 GB in all, 17 ms if none of it came from the cache; and
  each block its own centres anew for every tile, 115 GB from the cache.
- Tiles with close pairs: 4 n^2 d = 7.4e12 operations if all were, 250 ms; features in ten tight classes: a tenth.
"""

from __future__ import annotations

import triton
import triton.language as tl

CLOSE = tl.constexpr(1 / 32)  # of |x|^2 + |y|^2: shorter squared distances have lost digits in the product


@triton.jit
def write_one(at):
    """Write a number, which shows whether kernels are compiled and run at all."""
    tl.store(at, 1)


@triton.jit
def _differences(x, x_rest, y, y_rest, dim, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return |x_i - y_j|^2 from differences: x and y point at the first coordinates, the rests at what float32 cut."""
    squared = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(dim):
        difference = tl.load(x)[:, None] - tl.load(y)[None, :]
        difference += tl.load(x_rest)[:, None] - tl.load(y_rest)[None, :]
        squared += difference * difference
        x += rows
        x_rest += rows
        y += columns
        y_rest += columns
    return squared


@triton.jit
def _halved_product(
    a_at,
    b_at,
    dim,
    rows,
    columns,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return products of numbers that are sums of two float16: all but those of the two small parts."""
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(0, dim, BLOCK_K):
        a, b = tl.load(a_at), tl.load(b_at)
        part = tl.dot(tl.load(a_at + rows), b)
        part = tl.dot(a, tl.load(b_at + columns), part)
        product += tl.dot(a, b, part)
        a_at += 2 * BLOCK_K * rows
        b_at += 2 * BLOCK_K * columns
    return product


# Compiling takes seconds: once for all shapes.
@triton.jit(do_not_specialize=["rows", "dim", "tiles", "tiles_each", "width", "chains", "functions"])
def add_exponentials(
    x,  # (dim, padded rows) the filter centres, float32
    x_rest,  # what float32 cut off them
    x_size,  # (padded rows,) |x|^2
    x_halves,  # (dim, 2, padded rows) float16, or anything without HALVES: x / x_unit and what that cut off
    x_unit,  # (padded rows,) powers of two
    y,  # (dim, tiles * BLOCK_N) the points of the columns, float32
    y_rest,
    y_size,
    y_halves,
    y_unit,
    own,  # (padded rows,) the column in which a centre meets itself, or -1
    tile_class,  # (tiles,) the class of a tile's points
    tile_filled,  # (tiles,) how many of its columns are points
    targets,  # (width, tiles * BLOCK_N) target vectors, or anything for classes
    exponents,  # (chains,) b > 0
    sums,  # (width, functions, rows) float64: the sums are added to it
    rows,
    padded_rows,
    dim,
    tiles,
    tiles_each,  # how many tiles a program takes
    width,
    chains,
    functions,  # CHAIN * chains, and those that are added elsewhere
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHAIN: tl.constexpr,
    VECTORS: tl.constexpr,
    DIRECT: tl.constexpr,
    HALVES: tl.constexpr,
    MATRIX_MODE: tl.constexpr,
):
    """Add sum_j 2^(-b D_ij) y_j to the sums of BLOCK_M centres, over some tiles of columns and every exponent."""
    # Programs that run at the same time: blocks of rows along the first axis, then parts of the columns.
    block = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    row_own = tl.load(own + row)
    row_size = tl.load(x_size + row)
    lane = tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    columns = tiles * BLOCK_N
    first = tl.program_id(1) * tiles_each
    for tile in range(first, tl.minimum(first + tiles_each, tiles)):
        column = tile * BLOCK_N + lane
        # Neither itself, which counts as exactly one in the end, nor the padding: infinitely far, 2^-inf = 0.
        others = (lane < tl.load(tile_filled + tile))[None, :] & (column[None, :] != row_own[:, None])
        if DIRECT:
            squared = _differences(
                x + row, x_rest + row, y + column, y_rest + column, dim, padded_rows, columns, BLOCK_M, BLOCK_N
            )
        else:
            size = row_size[:, None] + tl.load(y_size + column)[None, :]
            # A fresh product per chunk, added up outside the matrix unit, whose accumulators cut digits off.
            if HALVES:
                product = _halved_product(
                    x_halves + row[:, None] + 2 * depth[None, :] * padded_rows,
                    y_halves + column[None, :] + 2 * depth[:, None] * columns,
                    dim, padded_rows, columns, BLOCK_M, BLOCK_N, BLOCK_K,
                )  # fmt: skip
                unit = tl.load(x_unit + row)[:, None] * tl.load(y_unit + column)[None, :]
                squared = size - 2 * unit * product
            else:
                squared = size
                a_at = x + row[:, None] + depth[None, :] * padded_rows
                b_at = y + column[None, :] + depth[:, None] * columns
                for _ in range(0, dim, BLOCK_K):
                    squared -= 2 * tl.dot(tl.load(a_at), tl.load(b_at), input_precision=MATRIX_MODE)
                    a_at += BLOCK_K * padded_rows
                    b_at += BLOCK_K * columns
            close = (squared < CLOSE * size) & others
            if tl.max(tl.max(close.to(tl.int32), axis=1), axis=0) > 0:
                squared = _differences(
                    x + row, x_rest + row, y + column, y_rest + column, dim, padded_rows, columns, BLOCK_M, BLOCK_N
                )
        squared = tl.where(others, squared, float("inf"))
        place = sums + row
        if not VECTORS:
            place += tl.load(tile_class + tile).to(tl.int64) * functions * rows
        for chain in range(chains):
            power = tl.exp2(squared * -tl.load(exponents + chain))
            for link in tl.static_range(CHAIN):
                if link > 0:
                    power *= power
                if VECTORS:
                    at = place
                    value = targets + column
                    for _ in range(width):
                        found = tl.sum(power * tl.load(value)[None, :], axis=1).to(tl.float64)
                        tl.atomic_add(at, found, mask=row < rows, sem="relaxed")
                        at += functions * rows
                        value += columns
                else:
                    tl.atomic_add(place, tl.sum(power, axis=1).to(tl.float64), mask=row < rows, sem="relaxed")
                place += rows
