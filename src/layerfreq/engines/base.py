"""What every engine is given and what it fills: the seam between the measure and how its sums are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from layerfreq.errors import InputError
from layerfreq.targets import Targets

CACHED = 1 << 17  # numbers converted at a time, so that they stay in the cache


@dataclass(frozen=True)
class Points:
    """Features as an engine sees them: centred, and scaled by a power of two to a size near one.

    The features themselves stay as they came; blocks are converted when they are used. Centring happens in
    float64, so that features far from the origin keep their differences.

    Attributes:
        features: (n, d), any real dtype, any device.
        shift: (d,) the mean of the features.
        gain: The power of two that the centred features are multiplied by.
        spread: mean |x - mean x|^2 of the centred and scaled points.
    """

    features: Tensor
    shift: Float[Tensor, " d"]
    gain: float
    spread: float

    @property
    def wide(self) -> torch.dtype:
        """The widest float of the device, in which differences are taken."""
        return self.shift.dtype

    @property
    def double(self) -> bool:
        """Whether the features came in float64."""
        return self.features.dtype == torch.float64

    def __len__(self) -> int:
        return self.features.shape[0]

    def block(self, at: slice | Tensor) -> Float[Tensor, "k d"]:
        """Return some of the points, centred and scaled, in the widest float of the device."""
        return (self.features[at].to(self.wide) - self.shift).mul_(self.gain)


def as_points(features: Float[Tensor, "n d"] | Tensor) -> Points:
    """Find the centre and the size of a set of features.

    Args:
        features: (n, d), finite.

    Raises:
        InputError: If the features are so large that their differences overflow.
    """
    wide = torch.float32 if features.device.type == "mps" else torch.float64
    n, d = features.shape
    first = features[0].to(wide)
    # Differences to a point of the set: constant features become exact zeros, whatever their offset.
    total = sum(((features[s].to(wide) - first).sum(dim=0) for s in chunks(n, d, CACHED)), torch.zeros_like(first))
    shift = first + total / n
    largest = max(float((features[s].to(wide) - shift).abs_().max()) if d else 0.0 for s in chunks(n, d, CACHED))
    if not math.isfinite(largest):
        raise InputError("features: differences overflow float64; scale the features down")
    exponent = math.frexp(largest)[1] if largest > 0 else 0
    limit = 500 if wide == torch.float64 else 60
    points = Points(features, shift, math.ldexp(1.0, max(-limit, min(limit, -exponent))), 0.0)
    spread = sum(float(points.block(s).square_().sum()) for s in chunks(n, d, CACHED)) / n
    return Points(features, shift, points.gain, spread)


def chunks(n: int, width: int, numbers: int = 1 << 22) -> Iterator[slice]:
    """Cut n rows of some width into slices of at most about `numbers` numbers each."""
    step = max(1, numbers // max(1, width))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


@dataclass
class PairSums:
    """What an engine returns: sums over the rows it was asked for, one number a cutoff.

    Results of disjoint sets of rows add up.

    Attributes:
        rows: How many rows were summed.
        energy: (m,) sum_i |y_i^low|^2.
        slope: (m,) its derivative with respect to 1/delta.
        self_weight: (m,) sum_i sum_j w_ij^2, with w_ij = G_ij / sum_j G_ij.
        neighbours: (m,) sum_i 1 / sum_j w_ij^2, Kish's effective number of points.
        energy_square: (m,) sum_i |y_i^low|^4, for standard errors.
        energy_target: (m,) sum_i |y_i^low|^2 |y_i|^2, for standard errors.
    """

    rows: int
    energy: Float64[Tensor, " m"]
    slope: Float64[Tensor, " m"]
    self_weight: Float64[Tensor, " m"]
    neighbours: Float64[Tensor, " m"]
    energy_square: Float64[Tensor, " m"]
    energy_target: Float64[Tensor, " m"]

    @classmethod
    def of_rows(
        cls,
        energy: Float[Tensor, "m r"],
        slope: Float[Tensor, "m r"],
        self_weight: Float[Tensor, "m r"],
        target_energy: Float64[Tensor, " r"],
    ) -> PairSums:
        """Sum what was found for each of r rows."""
        energy, slope, self_weight = (part.cpu().double() for part in (energy, slope, self_weight))
        return cls(
            rows=energy.shape[1],
            energy=energy.sum(dim=1),
            slope=slope.sum(dim=1),
            self_weight=self_weight.sum(dim=1),
            neighbours=self_weight.reciprocal().sum(dim=1),
            energy_square=energy.square().sum(dim=1),
            energy_target=(energy * target_energy).sum(dim=1),
        )

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@runtime_checkable
class Engine(Protocol):
    """A way to compute the pair sums. To add one: write its file, and register it in `engines/__init__.py`."""

    def __call__(
        self,
        points: Points,
        targets: Targets,
        inv_delta: Float64[Tensor, " m"],
    ) -> Callable[[Int64[Tensor, " r"]], PairSums]:
        """Prepare the sums over filter centres against all points.

        Args:
            points: The features; distances are those of the scaled points.
            targets: The targets of all points.
            inv_delta: (m,) values of 1/delta for the scaled points, on the CPU.

        Returns:
            A function of (r,) indices of filter centres, on the CPU; it may be called for one batch after another.
        """
        ...
