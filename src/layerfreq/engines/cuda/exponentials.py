"""Kernels at all cutoffs as sums of exponentials on a fixed ladder of rates, times small matrices.

The kernel exp(-u D / 2), its derivative and its square (the kernel at 2u), D being a squared distance, are smooth
functions of log u. So they follow from exponentials exp(-v D / 2) at rates v a quarter of an octave apart, by
interpolation over the nearest rates; where u is small against the farthest distance, 1 and D take part, whose sums
over points are known in closed form. Not the largest error counts but the error beside the kernel: at a cutoff where
a point has few neighbours left, n tiny kernels must not add up to more than its own, which is one. The coefficients
are therefore least squares with the error weighted by 1 / (kernel + 1 / n). At half an octave that error is 2e-3
(n = 60000), at a third 1e-5 to 1e-4, at a quarter 1e-7 to 1e-6.

Rates are those of one lattice, whatever the data, so that the matrices of the fits are the same for every cutoff a
whole number of octaves away: five small ones, factored once per process, serve all grids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int64

STEPS = 4  # rates an octave
CHAIN = 2  # rates, an octave apart, that follow from one exponential by squaring
BELOW, ABOVE = 3, 2  # octaves of rates around a cutoff that its kernels are made of
LOWEST = 0.25  # v D / 2 of the lowest rate at the farthest distance; 1 and D stand for what is below
GONE = 2.0**110  # u D / 2 at the farthest distance, above which not even distances at the rounding error count
NOISE = 1e-8  # keeps the coefficients small: those of a kernel below 1, those of its derivative below 10
SAMPLES = 8  # distances an octave at which kernels are fitted
TO_BASE_2 = 0.5 / math.log(2)  # exp(-v D / 2) = 2^(-v TO_BASE_2 D)
TAPS = (BELOW + ABOVE) * STEPS
# Float32's own numbers, so that kernels see the very rates that were fitted.
LATTICE = np.exp2(np.arange(STEPS) / STEPS).astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Ladder:
    """Exponentials of the squared distance D that span the kernels at all cutoffs.

    Attributes:
        exponents: (q,) b > 0; exponential CHAIN * k + l is 2^(-b_k 2^l D), l = 0 .. CHAIN - 1.
        values: (CHAIN q + 2, 2 m) the kernels, and then the kernels times D, from the exponentials, 1 and D.
        square: (CHAIN q + 2, m) the squared kernels.
    """

    exponents: Float32[np.ndarray, " q"]
    values: Float64[np.ndarray, "p two_m"]
    square: Float64[np.ndarray, "p m"]

    def functions(self, squared: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, "k p"]:
        """Return the exponentials, 1 and D at some squared distances, in float64."""
        return np.stack([*np.exp2(-np.outer(self.rates, squared)), np.ones_like(squared), squared], axis=1)

    @property
    def rates(self) -> Float64[np.ndarray, " r"]:
        """The rates to base 2 of all the exponentials, in the order of the sums."""
        return (self.exponents.astype(np.float64)[:, None] * 2.0 ** np.arange(CHAIN)).reshape(-1)


def ladder(inv_delta: Float64[np.ndarray, " m"], farthest: float, n: int) -> Ladder:
    """Choose the rates for some cutoffs, and find the coefficients.

    Args:
        inv_delta: (m,) increasing cutoffs.
        farthest: An upper bound of the squared distances.
        n: Number of points that the sums run over.
    """
    farthest = max(farthest, 2.0**-100)
    inv_delta = np.clip(inv_delta, None, 2 * GONE / farthest)
    wanted = np.concatenate([inv_delta, 2 * inv_delta]) * TO_BASE_2
    first = np.ceil(STEPS * (np.log2(wanted) - BELOW) - 1e-6).astype(np.int64)
    # Below the lowest rate 1 and D stand for what is missing; where all cutoffs are far above it, they are not needed.
    lowest = max(math.floor(STEPS * math.log2(2 * LOWEST * TO_BASE_2 / farthest)), int(first[0]))
    blocks = math.ceil((max(int(first[-1]), lowest) + TAPS - lowest) / (CHAIN * STEPS))
    # Chains: those that begin in the first octave of each block of CHAIN octaves.
    begin = (np.arange(blocks)[:, None] * CHAIN * STEPS + np.arange(STEPS)).reshape(-1)
    exponents = _rate(lowest + begin)
    kernel, slow = (np.zeros((len(wanted), CHAIN * len(exponents) + 2)) for _ in range(2))
    place = (begin[:, None] + STEPS * np.arange(CHAIN)).reshape(-1).argsort()  # of the rates, in the order of the sums
    window = np.maximum(first, lowest)[:, None] - lowest + np.arange(TAPS)
    for fit, at in _fits(first, lowest, n):
        base = _rate(np.maximum(first[at], lowest))
        found = fit.coefficients(wanted[at] / base)
        for out, part in ((kernel, found[0]), (slow, found[1] / base[:, None])):
            out[at[:, None], place[window[at]]] = part[:, :TAPS]
            if fit.lowest:
                out[at, -2:] = part[:, TAPS:] * np.stack([np.ones_like(base), base], axis=1)
    m = len(inv_delta)
    return Ladder(exponents.astype(np.float32), np.hstack([kernel[:m].T, slow[:m].T]), kernel[m:].T)


def _rate(number: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Return the rates, to base 2, of some places of the lattice."""
    return np.ldexp(LATTICE[number % STEPS], number // STEPS)


def _fits(first: Int64[np.ndarray, " k"], lowest: int, n: int) -> Iterator[tuple[Fit, Int64[np.ndarray, " j"]]]:
    """Yield the fits that cutoffs need whose windows begin at some places of the lattice, and which need them."""
    n = 1 << max(0, n - 1).bit_length()  # weighted for so many: all sizes of data share a few fits
    kind = np.where(first < lowest, STEPS, first % STEPS)
    for phase in np.unique(kind):
        below = bool(phase == STEPS)
        yield _fit(lowest % STEPS if below else int(phase), n, below), np.flatnonzero(kind == phase)


@dataclass(frozen=True)
class Fit:
    """Least squares of kernels by the `TAPS` rates from one on, in units of that rate.

    Attributes:
        lowest: Whether they are the lowest rates, where 1 and D take part, and no distance is far.
        squared: (s,) the squared distances at which kernels are fitted.
        weight: (s,) of the errors there.
        basis: (s, p) orthogonal, of the weighted functions.
        triangle: (p, p) what makes the functions of it.
        size: (p,) what the functions were divided by.
    """

    lowest: bool
    squared: Float64[np.ndarray, " s"]
    weight: Float64[np.ndarray, " s"]
    basis: Float64[np.ndarray, "s p"]
    triangle: Float64[np.ndarray, "p p"]
    size: Float64[np.ndarray, " p"]

    def coefficients(self, rate: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, "2 k p"]:
        """Return those of the kernels of some rates, and of the kernels times D."""
        kernel = np.exp2(-np.outer(self.squared, rate)) * self.weight[:, None]
        right = self.basis.T @ np.hstack([kernel, self.squared[:, None] * kernel])
        found = np.linalg.solve(self.triangle, right) / self.size[:, None]
        return np.stack(np.split(found.T, 2))


@lru_cache(maxsize=64)
def _fit(phase: int, n: int, lowest: bool) -> Fit:
    """Factor the fit of a place on the lattice, for sums over n points."""
    rates = _rate(phase + np.arange(TAPS)) / _rate(np.array([phase]))
    # Distances where a kernel is neither one nor, by far, zero: as far as there are any.
    reach = 2 * LOWEST * TO_BASE_2 if lowest else 64 / math.log(2)
    squared = np.append(reach * 2.0 ** -(np.arange(20 * SAMPLES) / SAMPLES), 0.0)
    design = np.exp2(-np.outer(squared, rates))
    if lowest:
        weight = np.ones_like(squared)
        design = np.hstack([design, np.ones((len(squared), 1)), squared[:, None]])
    else:  # that of the kernels in the middle of those that the fit serves
        weight = 1 / (np.exp2(-squared * 2.0 ** (BELOW - 0.5 / STEPS)) + 1 / n)
    design = design * weight[:, None]
    size = np.sqrt(np.square(design).sum(axis=0))
    ridge = NOISE * np.eye(len(size))
    basis, triangle = np.linalg.qr(np.vstack([design / size, ridge]))
    return Fit(lowest, squared, weight, basis[: len(squared)], triangle, size)
