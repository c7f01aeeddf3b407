"""Inputs, targets and outputs for error by frequency, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from layerfreq.data.arraylike import as_array
from layerfreq.data.targets import read_targets
from layerfreq.data.validation import Curve, as_features, increasing
from layerfreq.errors import Code, InputError, converting, naming, wrong_length

MOST = 3  # most dimensions of grids and scattered points


@dataclass(frozen=True)
class Given:
    """Inputs, targets and error.

    Attributes:
        inputs: (n, d) as they came.
        target: (n, c) float64.
        error: (n, c) float64, target - output.
        notes: What was done to them.
        rounding: Share of the target's energy below which a band may hold only the rounding of the targets.
    """

    inputs: Tensor
    target: Float64[np.ndarray, "n c"]
    error: Float64[np.ndarray, "n c"]
    notes: tuple[str, ...] = ()
    rounding: float = 1e-24

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.target)

    @property
    def output(self) -> Float64[np.ndarray, "n c"]:
        """(n, c) the output."""
        return self.target - self.error

    @property
    def eps(self) -> float:
        """Spacing of the inputs' numbers next to 1; that of float32 if all are float32 numbers, whatever the dtype."""
        x = self.inputs.double()
        return float(torch.finfo(torch.float32 if bool((x == x.float()).all()) else torch.float64).eps)

    def coordinates(self, method: str) -> Float64[np.ndarray, "n d"]:
        """Return the inputs' dimensions that vary.

        Raises:
            InputError: If there are more than three.
        """
        x = self.inputs.cpu().double().numpy()
        x = x[:, x.min(axis=0) < x.max(axis=0)]
        if x.shape[1] > MOST:
            raise Code.UNSUPPORTED(f"method: {method!r} takes {MOST} dimensions, not {x.shape[1]}; pass 'filter'")
        return x


def as_given(inputs: Any, targets: Any, outputs: Any) -> Given:
    """Check inputs, targets and outputs against each other.

    Class ids become one-hot vectors; the outputs then are probabilities, or logits of which the softmax is taken.

    Raises:
        InputError: For anything that is not n > 1 finite points, not all in one place, with a target and output each.
    """
    x = _numbers(inputs, "inputs")
    if len(x) == 1:
        raise Code.EMPTY("inputs: one point has no frequencies; pass several points")
    y = read_targets(targets, len(x))
    out = _numbers(outputs, "outputs")
    if len(out) != len(x):
        raise wrong_length("outputs", len(out), len(x), "points")
    if bool((x == x[0]).all()):
        raise Code.CONSTANT(f"inputs: all {len(x)} points are in one place; pass inputs that vary")
    span = float((x.double() - x[0].double()).abs().max())
    if not 1e-100 < span < 1e100:
        raise InputError(f"inputs: they range over {span:.1g}, whose powers leave float64; scale them")
    out, notes = out.cpu().double(), []
    if y.ndim == 1:
        if out.shape[1] <= int(y.max()):
            raise Code.SHAPE(
                f"outputs: {out.shape[1]} columns for class ids to {int(y.max())}; pass one column per class"
            )
        sums = out.sum(dim=1)
        if bool((out >= 0).all()) and bool((sums - 1).abs().max() < 1e-3):
            notes.append("class ids are one-hot vectors, against the outputs, which are probabilities")
        else:
            out = torch.softmax(out, dim=1)
            notes.append("class ids are one-hot vectors, against the softmax of the outputs")
        y = torch.nn.functional.one_hot(y, out.shape[1])
    # Eight units in the last place of the amplitude, since targets may be rounded more than once.
    rounding = max(Given.rounding, (8 * torch.finfo(y.dtype).eps) ** 2 if y.is_floating_point() else 0.0)
    y = y.double()
    if out.shape[1] != y.shape[1]:
        raise Code.SHAPE(f"outputs: {out.shape[1]} columns for {y.shape[1]} of targets; pass as many")
    largest = max(float(y.abs().max()), float(out.abs().max()))
    if 0 < largest < 1e-150:
        raise InputError(f"targets: with outputs at most {largest:.1g}, whose square is 0 in float64; scale both up")
    if largest > 1e150:
        raise InputError(f"targets: with outputs up to {largest:.1g}, whose square overflows; scale both down")
    return Given(x, y.numpy(), (y - out).numpy(), tuple(notes), rounding)


def as_frequencies(frequencies: Any) -> Curve | None:
    """Check frequencies.

    Raises:
        InputError: If they are not finite, increasing and >= 0.
    """
    if frequencies is None:
        return None
    k = as_reals(frequencies, "frequencies", "increasing floats >= 0").reshape(-1)
    return increasing(k, "frequencies", k >= 0, ">= 0")


def as_reals(value: Any, argument: str, remedy: str) -> np.ndarray:
    """Read real numbers of any shape.

    Raises:
        InputError: If they are anything else: complex numbers, booleans, text.
    """
    with converting(argument, remedy):
        found = as_array(value, argument)
        if isinstance(found, Tensor):
            found = found.detach().cpu()
            found = found.double() if found.is_floating_point() else found
        found = np.array(found)
        if found.dtype.kind not in "iuf":
            raise TypeError(found.dtype)
        return found.astype(np.float64)


def refuse_beyond(k: Curve | None, limit: float, why: str) -> None:
    """Raise if a frequency is higher than the points can resolve."""
    if k is not None and k[-1] > limit * (1 + 1e-9):
        raise InputError(f"frequencies: {k[-1]:g} is beyond {limit:.6g}, {why}; pass lower ones, or more points")


def _numbers(value: Any, argument: str) -> Tensor:
    with naming(argument):
        return as_features(value)
