"""Targets: class ids or vectors, turned into what an engine sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from layerfreq.data.arraylike import as_tensor
from layerfreq.data.distributed import Shards
from layerfreq.data.sketch import Sketched, sketch, sketch_classes
from layerfreq.errors import Code, InputError, converting, none_given, not_finite, unsupported, wrong_length
from layerfreq.isolation.torch_settings import own_settings

EXACT = 128  # most float columns that are summed one by one; below, a sketch of half as many hardly pays
CLASSES = 1024  # most distinct class ids that are summed one by one; above, a sketch is quicker


@dataclass(frozen=True)
class Targets:
    """The targets y of the effective target function, ready for the filter.

    The filter is linear and its weights sum to one, so engines filter `vectors` (which have mean zero) or
    one-hot `labels`, and add `offset` afterwards: y_low = filtered + offset. Centring costs nothing that way,
    and a large mean does not drown the variation.

    Attributes:
        labels: (n,) class indices 0..classes-1, or None if targets are vectors.
        vectors: (n, c) float64 with column means zero, or None if targets are classes.
        offset: (c,) float64, added to what the filter returns.
        energy: (n,) float64, |y_i|^2 after centring, if they are centred.
        mean_energy: |mean y|^2 after centring.
        centered: Whether the mean target was subtracted.
        rest: Where `vectors` are one exact column and then random-sign sums (see `sketch`), (n,) the energy that the
            sums stand for; None if all is exact.
    """

    labels: Int64[Tensor, " n"] | None
    vectors: Float[Tensor, "n c"] | None
    offset: Float[Tensor, " c"]
    energy: Float[Tensor, " n"]
    mean_energy: float
    rest: Float[Tensor, " n"] | None = None
    centered: bool = False

    @property
    def sketch(self) -> int | None:
        """Number of random-sign sums that stand for the columns, or None."""
        return None if self.rest is None else self.width - 1

    @property
    def width(self) -> int:
        """Number of columns c that are filtered (classes, for class ids)."""
        return self.offset.shape[0]

    @property
    def floor(self) -> float:
        """LFR as delta grows without limit: |mean y|^2 / mean |y|^2."""
        return min(1.0, self.mean_energy / float(self.energy.mean()))

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest |y_low|^2 that averages of the targets can have."""
        if self.sketch:
            return 0.0, math.inf
        shares = self.labels is not None and not self.centered  # averages of one-hot vectors sum to one
        return (1 / self.width if shares else 0.0), float(self.energy.max())

    def block(self, at: slice | Tensor, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "k c"]:
        """Return the targets of some points as a dense matrix, before `offset` is added."""
        if self.vectors is not None:
            return self.vectors[at].to(device=device, dtype=dtype)
        assert self.labels is not None
        labels = self.labels[at].to(device)
        dense = torch.zeros(labels.shape[0], self.width, dtype=dtype, device=device)
        return dense.scatter_(1, labels[:, None], 1.0)

    def chance(self, self_weight: Any) -> Any:
        """Return the LFR expected when the labels are shuffled over the points.

        Args:
            self_weight: mean over i of sum_j w_ij^2, with w_ij = G_ij / sum_j G_ij; a number or an array.

        Returns:
            [|m|^2 + S^2 (self_weight - 1/n)] / E, with m = mean y, E = mean |y|^2, S^2 = n/(n-1) (E - |m|^2).
        """
        n, energy = self.energy.shape[0], float(self.energy.mean())
        if n == 1:
            return self_weight * 0 + 1.0
        variance = n / (n - 1) * max(0.0, energy - self.mean_energy)
        return (self.mean_energy + variance * (self_weight - 1 / n)) / energy


def as_targets(targets: Any, n: int, *, center: bool | None = None, seed: int = 0) -> Targets:
    """Check targets and prepare them for an engine.

    Args:
        targets: (n,) integer class ids, or (n,) or (n, c) floats; tensor, array or list.
        n: Number of points they belong to.
        center: Whether to subtract the mean target first; None does so for floats.
        seed: Seed for the random signs, where targets are so wide that they are sketched.

    Raises:
        InputError: For a wrong length or shape, negative class ids, NaN or infinity, or targets without energy.
    """
    return prepare_targets(read_targets(targets, n), Shards(count=n), center=center, seed=seed)


def as_numbers(targets: Any) -> Tensor:
    """Return targets as a tensor on the CPU, in their own shape.

    Raises:
        InputError: If they are not numbers.
    """
    if targets is None:
        raise none_given("targets", "class ids or floats, one for each point")
    with converting("targets", "ids or floats"):
        return as_tensor(targets, "targets").detach().cpu()


def read_targets(targets: Any, n: int) -> Tensor:
    """Check targets and return class ids, int64 (n,), or floats (n, c), on the CPU.

    Raises:
        InputError: See `as_targets`.
    """
    y = as_numbers(targets)
    if y.ndim == 0 or y.shape[0] != n:
        raise wrong_length("targets", y.shape[0] if y.ndim else "a single number", n, "points")
    if y.is_complex():
        raise unsupported("targets", y.dtype, "real and imaginary part as two columns")
    if y.is_floating_point():
        return _read_vectors(y)
    if y.ndim != 1:
        remedy = (
            "y.squeeze(1), or floats for regression" if y.shape[1:] == (1,) else "one-hot or vector targets as floats"
        )
        raise Code.SHAPE(f"targets: integers of shape {tuple(y.shape)}, but class ids are (n,); pass {remedy}")
    y = y.long()
    if n and int(y.min()) < 0:
        raise InputError(f"targets: class id {int(y.min())} < 0; drop ignored points, or pass floats for regression")
    return y


def _read_vectors(y: Tensor) -> Tensor:
    shape = tuple(y.shape)
    y = y.reshape(len(y), math.prod(shape[1:]))
    if y.shape[1] == 0:
        raise Code.SHAPE(f"targets: shape {shape} has no columns; pass (n,) or (n, c)")
    bad = sum(int((~torch.isfinite(part)).any(dim=1).sum()) for part in _pieces(y))
    if bad:
        raise not_finite("targets", bad, len(y))
    return y


@own_settings()
def prepare_targets(y: Tensor, shards: Shards, *, center: bool | None, seed: int) -> Targets:
    """Gather the checked targets of all ranks, and prepare them for an engine.

    Args:
        y: From `read_targets`, of this rank's points.
        shards: The ranks, all of which get the same.
        center: Whether to subtract the mean target first; None does so for floats.
        seed: Seed for the random signs of wide targets.

    Raises:
        InputError: If the targets have no energy.
    """
    if y.ndim == 1:
        return _from_classes(shards.join(y), bool(center), seed)
    center = center is not False
    largest = shards.largest(max((float(part.abs().max()) for part in _pieces(y)), default=0.0))
    unit = _unit(largest)
    if y.shape[1] <= EXACT:
        return _from_vectors(shards.join(y).double() * unit, center)
    return _from_sketch(sketch(lambda at: shards.join(y[:, at]).double() * unit, shards.n, y.shape[1], seed), center)


def lots(each: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    """Cut the targets that are floats into lots of two or more that have few enough columns to be summed exactly."""
    found: list[dict[Any, Any]] = []
    room = 0
    for name, y in each.items():
        columns = math.prod(y.shape[1:]) if y.is_floating_point() else EXACT + 1
        if columns > EXACT:
            continue
        if columns > room:
            found.append({})
            room = EXACT
        found[-1][name] = y
        room -= columns
    return [lot for lot in found if len(lot) > 1]


def side_by_side(each: Sequence[Targets]) -> Targets:
    """Return the columns of several targets as those of one, which engines sum column by column.

    That is how they sum random signs; here they stand for nothing, so `rest` is zero.

    Args:
        each: Vectors.
    """
    vectors, offset = (torch.cat([getattr(y, name) for y in each], dim=-1) for name in ("vectors", "offset"))
    energy = torch.stack([y.energy for y in each]).sum(dim=0)
    mean_energy, centered = sum(y.mean_energy for y in each), all(y.centered for y in each)
    return Targets(None, vectors, offset, energy, mean_energy, torch.zeros_like(energy), centered)


def _unit(largest: float) -> float:
    """Return the power of two that brings targets below one: no digit changes, and LFR does not depend on units."""
    return math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest)[1])))


def _from_sketch(found: Sketched, center: bool) -> Targets:
    offset = torch.zeros(found.columns.shape[1], dtype=torch.float64)
    if center:
        return _checked(Targets(None, found.columns, offset, found.energy, 0.0, found.rest, centered=True))
    offset[0] = found.mean
    energy = (found.columns[:, 0] + found.mean).square() + found.rest
    return _checked(Targets(None, found.columns, offset, energy, found.mean**2, found.rest))


def _pieces(y: Tensor) -> tuple[Tensor, ...]:
    """Split wide targets into blocks of rows."""
    return y.split(max(1, (1 << 22) // y.shape[1])) if len(y) else ()


def _from_classes(y: Tensor, center: bool, seed: int) -> Targets:
    ids, labels = torch.unique(y, return_inverse=True)
    if len(ids) > CLASSES:
        return _from_sketch(sketch_classes(labels, len(ids), seed), center)
    share = torch.bincount(labels, minlength=len(ids)).double() / len(labels)
    mean_energy = float(share.square().sum())
    if not center:
        return Targets(labels, None, torch.zeros_like(share), torch.ones(len(labels), dtype=torch.float64), mean_energy)
    energy = 1 - 2 * share[labels] + mean_energy
    return _checked(Targets(labels, None, -share, energy, 0.0, centered=True))


def _from_vectors(y: Tensor, center: bool) -> Targets:
    # One of them is subtracted first, so that a mean much larger than the variation costs no digits.
    vectors = y - y[0]
    shift = vectors.mean(dim=0)
    vectors -= shift
    if center:
        vectors *= _unit(float(vectors.abs().max()))
        energy = vectors.square().sum(dim=1)
        return _checked(Targets(None, vectors, torch.zeros_like(shift), energy, 0.0, centered=True))
    mean = y[0] + shift
    return _checked(Targets(None, vectors, mean, y.square().sum(dim=1), float(mean.square().sum())))


def _checked(targets: Targets) -> Targets:
    if float(targets.energy.sum()) <= 0:
        what, remedy = "all zero", "pass targets that vary"
        if targets.centered:
            what, remedy = "all equal, so that centring leaves nothing", "pass targets that vary, or center=False"
        raise Code.CONSTANT(f"targets: {what}, and a ratio of energies is undefined; {remedy}")
    return targets
