"""Modes of a Fourier transform, each counted at the nearest of some frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

from layerfreq.data.validation import Curve


@dataclass(frozen=True, eq=False)
class Rings:
    """Rings of modes around zero.

    Attributes:
        k: (m,) their frequencies.
        at: (modes,) the ring of each mode; m for those in none.
        times: (modes,) how many modes each stands for.
        zero: The ring of the constant.
        own: Whether k are the modes' own frequencies, of which those of no mode are left out.
    """

    k: Curve
    at: Int64[np.ndarray, " modes"]
    times: Float64[np.ndarray, " modes"]
    zero: int
    own: bool

    @classmethod
    def of(
        cls,
        axes: list[Float64[np.ndarray, " _"]],
        frequencies: Curve | None,
        *,
        step: float,
        top: float = np.inf,
        times: Float64[np.ndarray, " modes"] | float = 1.0,
    ) -> Rings:
        """Sort the modes of a box into rings.

        Args:
            axes: The modes' frequencies along each axis; the last runs fastest.
            frequencies: Frequencies of the rings; None for multiples of `step`.
            step: The lowest frequency along any axis.
            top: Modes above it are in no ring.
            times: How many modes each stands for.
        """
        size = np.zeros(())
        for axis in axes:
            size = size[..., None] + axis**2
        size = np.sqrt(size).ravel()
        k = own_bands(step, float(size.max())) if frequencies is None else frequencies
        at = nearest(k, size)
        at[size > top] = len(k)
        return cls(k, at, np.broadcast_to(times, size.shape), int(at[np.argmin(size)]), frequencies is None)

    def add(self, energy: np.ndarray) -> Curve:
        """Sum energies of modes over each ring."""
        return np.bincount(self.at, energy.ravel() * self.times, len(self.k) + 1)[: len(self.k)]

    @cached_property
    def modes(self) -> Curve:
        """(m,) how many modes each ring has."""
        return self.add(np.ones(len(self.at)))

    @property
    def kept(self) -> Bool[np.ndarray, " m"]:
        """(m,) the rings to show."""
        return (self.modes > 0) | (not self.own)

    def constant(self, energies: Float64[np.ndarray, " 2"]) -> Float64[np.ndarray, "2 m"]:
        """Put the energies of two means into the ring that holds them."""
        found = np.zeros((2, len(self.k)))
        found[:, self.zero] = energies
        return found


def nearest(k: Curve, size: np.ndarray) -> Int64[np.ndarray, " modes"]:
    """Return which of some frequencies is nearest to each size; the lower one halfway, up to rounding."""
    return np.searchsorted((k[1:] + k[:-1]) / 2 * (1 + 1e-12), size)


def own_bands(step: float, highest: float) -> Curve:
    """Return the multiples of a step that reach some frequency."""
    return step * np.arange(math.floor(highest / step + 0.5) + 1)
