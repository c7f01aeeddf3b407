"""The seam between tiles of pairs and what their sums are expanded in.

The kernels at all cutoffs are combinations of few functions of the distance. An `Expansion` says which, and adds a
tile's pairs to the sums of these functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Shaped


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


class Classes(NamedTuple):
    """Which of a tile's columns, sorted by class, belong to which class."""

    starts: Int64[np.ndarray, " runs_1"]  # where each class begins, and where the last one ends
    labels: Int64[np.ndarray, " runs"]


Weights = Classes | Float32[np.ndarray, "w c"]  # the targets of a tile's points


class Across(NamedTuple):
    """What a tile's rows are as points, where its columns are centres, too."""

    targets: Any  # of the rows, as `Expansion.ready` returned them
    sums: Float64[np.ndarray, "w c_1 r"]  # of the columns


class Strays(NamedTuple):
    """Pairs of a tile for which an expansion does not hold."""

    row: Int32[np.ndarray, " k"]
    column: Int32[np.ndarray, " k"]
    squared: Float32[np.ndarray, " k"]  # distance


class Beyond(NamedTuple):
    """Sums of kernels of a filter centre, for pairs whose distance no function of an expansion holds for."""

    values: np.ndarray  # (c + 1, 2 m) of the kernel and of its derivative
    square: np.ndarray  # (m,) of its square

    def add(self, cutoffs: np.ndarray, squared: np.ndarray, targets: Weights, columns: np.ndarray) -> None:
        """Add pairs: their squared distances, and which of the points they are with."""
        squared = squared.astype(np.float64)[:, None]
        kernel = np.exp(squared * (cutoffs / -2))
        both = np.hstack([kernel, kernel * (squared / -2)])
        self.square[:] += np.square(kernel).sum(axis=0)
        self.values[-1] += both.sum(axis=0)
        if isinstance(targets, Classes):
            label = targets.labels[np.searchsorted(targets.starts[1:], columns, side="right")]
            np.add.at(self.values, label, both)
        else:
            self.values[:-1] += targets[columns].T @ both


class Expansion(ABC):
    """r functions of the squared distance that span the kernels at m cutoffs.

    Attributes:
        values: (r, 2 m) turns sums of the functions to sums of the kernel, and of its derivative in 1/delta.
        square: (r, m) turns them to sums of its square.
    """

    values: Float64[np.ndarray, "r two_m"]
    square: Float64[np.ndarray, "r m"]

    def ready(self, targets: Weights) -> Any:
        """Return the targets of some points as `deposit` takes them: for many tiles, once."""
        return targets

    @abstractmethod
    def deposit(
        self, tile: Tile, targets: Any, sums: Float64[np.ndarray, "h c_1 r"], across: Across | None = None
    ) -> Strays | None:
        """Add a tile's pairs to the sums of the functions.

        Args:
            tile: The pairs.
            targets: Targets of its columns, as `ready` returned them.
            sums: For every class or target column; then, for target columns, those of the weight one.
            across: Where no point is on both sides of it, and every pair is to serve its column, too.

        Returns:
            The pairs for which the expansion does not hold; nothing of these is added.
        """
