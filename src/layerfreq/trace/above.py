"""What the layers above a value read of its tokens, where that can be told for certain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from layerfreq.trace.graph import Layout
from layerfreq.trace.operators import TAKES_A_PART
from layerfreq.trace.trace import Trace, Value

_POOLS = {"mean": "mean", "sum": "mean", "amax": "max"}  # operator -> the reading that says the same


@dataclass(frozen=True)
class Above:
    """What the layers above read of a value's tokens.

    Attributes:
        tokens: The tokens that they read, if these are a part of all; empty if it cannot be told which.
        of: How many tokens there are.
        pooled: "mean" or "max" if they read that of all tokens; else "".
        single: Whether they read one token of each point, even if it cannot be told which.
    """

    tokens: tuple[int, ...]
    of: int
    pooled: str = ""
    single: bool = False


def read_above(value: Value, found: Trace, axis: int | None) -> Above | None:
    """Return what the layers above read of a value (n, t, d) or (n, d, t), if that is a part or one vector of all.

    Args:
        value: The value.
        found: The trace that it is of.
        axis: The axis of its features, 1 or 2; None if it is unclear.

    Returns:
        What they read; None if that is all of it, as far as can be told.
    """
    nodes, whole, tokens, value_size = found.flow.nodes, value.layout, None, math.prod(value.shape)
    n, length, width = value.shape[0], value.shape[3 - (axis or 2)], value.shape[axis or 2]
    for i in found.flow.alone_after(value.node):
        node = nodes[i]
        if node.layout is not None and node.op in TAKES_A_PART and math.prod(node.layout[0]) == value_size:
            break  # all of it in another order, as of points sorted by length where sequences are packed
        if node.op in TAKES_A_PART:
            tokens = _tokens(whole, node.layout, 3 - axis) if axis and node.op in ("select", "slice") else ()
            if not tokens:
                size = 0 if node.layout is None or node.op in ("select", "slice") else math.prod(node.layout[0])
                return Above((), length, single=axis is not None and size == n * width)
        elif tokens is not None or node.layout is None:
            break
        elif node.op in _POOLS:
            one = axis and width != length and math.prod(node.layout[0]) == n * width
            return Above((), length, _POOLS[node.op]) if one else None
        elif node.layout[0] == value.shape and (node.pointwise or node.op == "native_layer_norm"):
            whole = node.layout
        else:
            break
    return None if tokens is None else Above(tokens, length)


def _tokens(whole: Layout, part: Layout, axis: int) -> tuple[int, ...]:
    """Return which tokens a view shows, in order; none if it shows something of all of them."""
    if whole is None or part is None:
        return ()
    (shape, strides, offset), (part_shape, part_strides, part_offset) = whole, part
    size = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    numbers = torch.arange(shape[axis], device="cpu").reshape([-1 if k == axis else 1 for k in range(len(shape))])
    memory = torch.full((size,), -1, device="cpu")
    memory.as_strided(shape, strides).copy_(numbers.expand(shape))
    seen = memory.as_strided(part_shape, part_strides, part_offset - offset).unique().tolist()
    return () if len(seen) == shape[axis] else tuple(seen)
