"""What every engine gets and returns: the interface between the measure and how its sums are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from layerfreq.data.targets import Targets
from layerfreq.errors import Code

LAUNCHED = 1 << 24  # numbers taken at a time on an accelerator, since each piece costs a dozen launches
FEWEST = 16  # filter centres at a time, below which running out of memory is an error


@dataclass(frozen=True)
class Points:
    """Features as an engine sees them: centred, and scaled to a size near one.

    All dimensions are scaled by one power of two, or, at scale "maxabs", each by its own largest absolute value. The
    features themselves are not changed; blocks are converted when used. Centring is done in float64, so that features
    far from the origin keep their differences.

    Attributes:
        features: (n, d), any real dtype, any device; if points are spread over ranks, those of this rank.
        shift: (d,) the mean of the features over all ranks; so are the numbers below.
        gain: (d,) the factor for the centred features.
        spread: mean |x|^2 of the centred and scaled points; 0.0 at scale "maxabs", where nothing needs it.
        radius: Largest |x| of the centred and scaled points.
        first: Index of the first of these points among all points, if they are a part of them.
        index: (n,) the index of each among all points, if they are not consecutive.
        coincident: Mean number of points at a point's place, itself included.
        rounded: Whether they differ by the rounding of their dtype alone, as in `rounding.rounded`.
    """

    features: Tensor
    shift: Float[Tensor, " d"]
    gain: Float[Tensor, " d"]
    spread: float
    radius: float
    first: int = 0
    index: Tensor | None = None
    coincident: float = 1.0
    rounded: bool = False

    def numbers(self, at: Tensor) -> Tensor:
        """Return the indices that some of these points have among all points, on the CPU."""
        return self.first + at if self.index is None else self.index[at]

    @property
    def wide(self) -> torch.dtype:
        """The widest float type of the device, used for differences."""
        return self.shift.dtype

    @property
    def double(self) -> bool:
        """Whether the features came in float64."""
        return self.features.dtype == torch.float64

    def __len__(self) -> int:
        return self.features.shape[0]

    def block(self, at: slice | Tensor) -> Float[Tensor, "k d"]:
        """Return some of the points, centred and scaled, in the widest float type of the device."""
        return (self.features[at].to(self.wide) - self.shift).mul_(self.gain)

    def difference(self, one: Tensor, other: Tensor) -> Float[Tensor, "k d"]:
        """Return scaled differences of the original features: centring would cost digits for close pairs."""
        return (one.to(self.wide) - other.to(self.wide)).mul_(self.gain)


def piece(device: torch.device, on_host: int) -> int:
    """Return how many numbers to take at a time: `on_host` on the CPU, more on accelerators."""
    return on_host if device.type == "cpu" else LAUNCHED


def chunks(n: int, width: int, numbers: int = 1 << 22) -> Iterator[slice]:
    """Split n rows of some width into slices of at most about `numbers` numbers each."""
    step = max(1, numbers // max(1, width))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


@dataclass(frozen=True)
class RowCurves:
    """An engine's results for some filter centres, on its device if that supports float64, else on the CPU.

    Attributes:
        rows: (r,) the centres' indices among all points, on the CPU.
        energy: (r, m) |y_i^low|^2.
        slope: (r, m) its derivative with respect to 1/delta.
        self_weight: (r, m) sum_j w_ij^2, with w_ij = G_ij / sum_j G_ij.
        by_column: (4, m, c), if `targets.sketch` is set: each target column's part of `energy` and of `slope`, the
            energy that the filter takes away from it, and what it keeps, summed over these centres; else None.
    """

    rows: Int64[Tensor, " r"]
    energy: Float64[Tensor, "r m"]
    slope: Float64[Tensor, "r m"]
    self_weight: Float64[Tensor, "r m"]
    by_column: Float64[Tensor, "4 m c"] | None = None


Rows = TypeVar("Rows")
Columns = TypeVar("Columns")


class Engine(ABC, Generic[Rows, Columns]):
    """A way to compute the filter's sums. To add one: write its file, and register it in `engines/__init__.py`.

    Filter centres stay, and points come to them block by block: `begin` turns some centres into rows, `prepare` turns a
    block of points into columns, `add` adds their contribution to the centres, and `finish` turns the sums into curves.
    Blocks may come from elsewhere. The form of rows and columns is up to the engine.

    Args:
        points: The available features, all points or a part; distances are those of the scaled points.
        targets: The targets of all points.
        inv_delta: (m,) float64, values of 1/delta for the scaled points, on the CPU.
    """

    def __init__(self, points: Points, targets: Targets, inv_delta: Float64[Tensor, " m"]) -> None:
        self.points, self.targets, self.inv_delta = points, targets, inv_delta

    @classmethod
    def bytes_each(cls, itemsize: int) -> int:
        """Return the bytes that a number of a filter centre or a column takes: as it came (itemsize) and prepared."""
        return itemsize + 8

    @property
    @abstractmethod
    def height(self) -> int:
        """Number of filter centres that the engine takes at a time."""

    @abstractmethod
    def begin(self, index: Int64[Tensor, " r"]) -> Rows:
        """Start the sums of filter centres: (r,) indices into the available points."""

    @abstractmethod
    def prepare(self, points: Points) -> Columns:
        """Prepare a block of points; `points.first` is its position among all points."""

    @abstractmethod
    def add(self, rows: Rows, columns: Columns) -> None:
        """Add the contribution of a block of columns to the rows; a point itself is among the columns."""

    @abstractmethod
    def finish(self, rows: Rows) -> RowCurves:
        """Turn the sums over all columns into curves."""

    def run(self, index: Int64[Tensor, " r"]) -> Iterator[RowCurves]:
        """Compute the curves of filter centres against all available points, some centres at a time.

        Raises:
            InputError: If memory does not suffice for a few centres at a time.
        """
        columns, waiting = self.prepare(self.points), list(index.split(self.height))
        while waiting:
            some = waiting.pop(0)
            try:
                rows = self.begin(some)
                self.add(rows, columns)
                found = self.finish(rows)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(some) <= FEWEST:
                    raise Code.MEMORY(
                        f"engine: memory does not suffice even for {FEWEST} filter centres at a time; "
                        "pass fewer cutoffs, fewer target columns or fewer points"
                    ) from None
                rows = None
                waiting = [*some.chunk(2), *waiting]
                continue
            yield found


@contextmanager
def enough_memory(n: int, d: int) -> Iterator[None]:
    """Turn running out of memory inside into a one-line error.

    Raises:
        InputError: If it does.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise Code.MEMORY(
            f"features: memory does not suffice to prepare {n} points of {d} features; pass fewer points or features, "
            "or spread them over processes (group)"
        ) from None


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: NumPy's, an accelerator's, or the CPU allocator's."""
    # The last two: of CUDA and of Triton, where they allocate beside PyTorch; of cuBLAS and other libraries.
    said = "allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED"
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in said)
