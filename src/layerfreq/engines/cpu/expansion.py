"""The interface between tiles of pairs and the functions that kernels are expanded in.

The kernels at all cutoffs are combinations of few functions of the distance. An `Expansion` defines these functions,
and adds a tile's pairs to their sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Shaped


class Side(NamedTuple):
    """The points along one side of a tile."""

    sizes: Shaped[np.ndarray, " k"]  # |x|^2 of the centred points
    place: Int64[np.ndarray, " k"]  # their rows in `raw`
    raw: Shaped[np.ndarray, "n d"]  # features as they came


class Tile(NamedTuple):
    """Pairs of h filter centres and w columns, as compiled loops take them."""

    products: Shaped[np.ndarray, "h w"]  # inner products of centred points
    rows: Side
    columns: Side
    own: Int64[np.ndarray, " h"]  # each row's own column, which is left out; outside 0 .. w - 1 if there is none
    gain: Shaped[np.ndarray, " d"]  # factor for differences of `raw`


class Classes(NamedTuple):
    """Which of a tile's columns, sorted by class, belong to which class."""

    starts: Int64[np.ndarray, " runs_1"]  # where each class begins, and where the last one ends
    labels: Int64[np.ndarray, " runs"]


Weights = Classes | Float32[np.ndarray, "w c"]  # the targets of a tile's points


class Across(NamedTuple):
    """A tile's rows as points, if its columns are centres, too."""

    targets: Any  # of the rows, as `Expansion.ready` returned them
    sums: Float64[np.ndarray, "w c_1 r"]  # of the columns


class Strays(NamedTuple):
    """Pairs of a tile at distances for which an expansion does not hold."""

    row: Int32[np.ndarray, " k"]
    column: Int32[np.ndarray, " k"]
    squared: Float32[np.ndarray, " k"]  # distance


class Beyond(NamedTuple):
    """Sums of a filter centre's kernels over its strays."""

    values: np.ndarray  # (c + 1, 2 m) of the kernel and of its derivative
    square: np.ndarray  # (m,) of its square

    def add(self, cutoffs: np.ndarray, squared: np.ndarray, targets: Weights, columns: np.ndarray) -> None:
        """Add pairs with given squared distances and columns."""
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
        values: (r, 2 m) turns sums of the functions into sums of the kernel, and of its derivative in 1/delta.
        square: (r, m) turns them into sums of its square.
    """

    values: Float64[np.ndarray, "r two_m"]
    square: Float64[np.ndarray, "r m"]

    def ready(self, targets: Weights) -> Any:
        """Return the targets of some points as `deposit` takes them, once for many tiles."""
        return targets

    @abstractmethod
    def deposit(
        self, tile: Tile, targets: Any, sums: Float64[np.ndarray, "h c_1 r"], across: Across | None = None
    ) -> Strays | None:
        """Add a tile's pairs to the sums of the functions.

        Args:
            tile: The pairs.
            targets: Targets of its columns, as `ready` returned them.
            sums: For every class or target column, then for the weight one; added to.
            across: If given, every pair is added to its column's sums, too; no point may be on both sides then.

        Returns:
            The pairs for which the expansion does not hold; these are not added.
        """
