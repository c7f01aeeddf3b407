"""The seam between tiles of pairs and what their sums are expanded in.

The kernels at all cutoffs are combinations of few functions of the distance. An `Expansion` says which, and adds a
tile's pairs to the sums of these functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped


class Side(NamedTuple):
    """The points along one side of a tile."""

    sizes: Shaped[np.ndarray, " k"]  # |x|^2 of the centred points
    place: Int64[np.ndarray, " k"]  # where they are in `raw`
    raw: Shaped[np.ndarray, "n d"]  # features as they came


class Tile(NamedTuple):
    """Pairs of h filter centres and w columns, as compiled loops take them."""

    products: Shaped[np.ndarray, "h w"]  # inner products of centred points
    rows: Side
    columns: Side
    own: Int64[np.ndarray, " h"]  # each row's own column, which is left out, or a number outside 0 .. w - 1
    gain: Shaped[np.ndarray, " d"]  # what differences of `raw` are multiplied by

    def row(self, i: int) -> Tile:
        """Return the tile of one of its rows."""
        at = slice(i, i + 1)
        rows = self.rows._replace(sizes=self.rows.sizes[at], place=self.rows.place[at])
        return self._replace(products=self.products[at], rows=rows, own=self.own[at])


class Classes(NamedTuple):
    """Which of a tile's columns, sorted by class, belong to which class."""

    starts: Int64[np.ndarray, " runs_1"]  # where each class begins, and where the last one ends
    labels: Int64[np.ndarray, " runs"]


class Expansion(ABC):
    """r functions of the squared distance that span the kernels at m cutoffs.

    Attributes:
        values: (r, 2 m) turns sums of the functions to sums of the kernel, and of its derivative in 1/delta.
        square: (r, m) turns them to sums of its square.
    """

    values: Float64[np.ndarray, "r two_m"]
    square: Float64[np.ndarray, "r m"]

    @abstractmethod
    def deposit(
        self, tile: Tile, targets: Classes | Float32[np.ndarray, "w c"], sums: Float64[np.ndarray, "h c_1 r"]
    ) -> Bool[np.ndarray, " h"]:
        """Add a tile's pairs to the sums of the functions.

        Args:
            tile: The pairs.
            targets: Of its columns.
            sums: For every class or target column; then, for target columns, those of the weight one.

        Returns:
            The rows that have a pair for which the expansion does not hold; nothing of these is added.
        """
