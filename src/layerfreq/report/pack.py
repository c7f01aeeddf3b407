"""Numbers as compact text inside a page: curves rounded and differenced, everything deflated, then base64.

A curve is rounded to `LEVELS` steps between its own smallest and largest value. Its second differences are small,
so they deflate to about a byte a point; the page's script adds them up again, a curve at a time, when it needs them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

LEVELS = (1 << 14) - 1


class Pack:
    """Named arrays in one block of bytes.

    Attributes:
        index: name -> (type, first byte, number of entries), for whoever reads them back.
    """

    def __init__(self) -> None:
        self.index: dict[str, tuple[str, int, int]] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, values: Any, dtype: str) -> None:
        """Add an array under a name; dtype is one of f8, f4, i4, u2 and u1."""
        array = np.ascontiguousarray(values, dtype="<" + dtype)
        raw = array.tobytes()
        self.index[name] = (dtype, self._size, array.size)
        padded = raw + bytes(-len(raw) % 8)  # a script can view numbers only at multiples of their size
        self._parts.append(padded)
        self._size += len(padded)

    def add_curves(self, name: str, curves: Sequence[Any]) -> None:
        """Add curves (m,) of any lengths, rounded: their least and largest values, and their differences' bytes."""
        low = [float(curve.min()) for curve in curves]
        high = [float(curve.max()) for curve in curves]
        self.add(f"{name}.low", low, "f4")
        self.add(f"{name}.high", high, "f4")
        coded = [code(curve, a, b) for curve, a, b in zip(curves, low, high, strict=True)]
        joined = np.concatenate(coded) if coded else np.zeros(0, dtype=np.uint16)
        self.add(f"{name}.bytes", np.concatenate([joined & 0xFF, joined >> 8]), "u1")

    def text(self) -> str:
        """Return all arrays as base64 of a zlib stream."""
        return deflated(b"".join(self._parts))


def deflated(raw: bytes) -> str:
    """Return bytes as base64 of a zlib stream, as the page's script inflates them."""
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


def code(curve: Any, low: float, high: float) -> Any:
    """Round a curve (m,) to `LEVELS` steps and return its second differences as uint16, small ones first.

    All arithmetic is modulo 2^16; the sign moves to the lowest bit, so that the upper bytes are mostly 0.
    """
    width = (high - low) or 1.0
    rounded = np.rint((np.asarray(curve) - low) / width * LEVELS).astype(np.int64)
    second = np.diff(np.diff(rounded, prepend=0), prepend=0)
    signed = ((second + 0x8000) & 0xFFFF) - 0x8000
    return (((signed << 1) ^ (signed >> 15)) & 0xFFFF).astype(np.uint16)


def decode(coded: Any, low: float, high: float) -> Any:
    """Return the curve (m,) that `code` rounded, as the page's script does."""
    zigzag = np.asarray(coded, dtype=np.int64)
    second = (zigzag >> 1) ^ -(zigzag & 1)
    rounded = np.cumsum(np.cumsum(second)) & 0xFFFF
    return low + rounded / LEVELS * (high - low)
