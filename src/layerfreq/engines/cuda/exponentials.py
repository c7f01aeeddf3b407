"""Kernels at all cutoffs as sums of exponentials on a fixed ladder of rates, times small matrices.

The kernel exp(-u D / 2), its derivative and its square (the kernel at 2u), D being a squared distance, are smooth
functions of log u. So they follow from exponentials exp(-v D / 2) at rates v a quarter of an octave apart, by
interpolation over the nearest rates; where u is small against the farthest distance, 1 and D take part, whose sums
over points are known in closed form. Not the largest error counts but the error beside the kernel: at a cutoff where
a point has few neighbours left, n tiny kernels must not add up to more than its own, which is one. The coefficients
are therefore least squares with the error weighted by 1 / (kernel + 1 / n). At half an octave that error is 2e-3
(n = 60000), at a third 1e-5 to 1e-4, at a quarter 1e-7 to 1e-6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

STEPS = 4  # rates an octave
CHAIN = 2  # rates, an octave apart, that follow from one exponential by squaring
BELOW, ABOVE = 3, 2  # octaves of rates around a cutoff that its kernels are made of
LOWEST = 0.25  # v D / 2 of the lowest rate at the farthest distance; 1 and D stand for what is below
GONE = 2.0**110  # u D / 2 at the farthest distance, above which not even distances at the rounding error count
NOISE = 1e-8  # keeps the coefficients small: those of a kernel below 1, those of its derivative below 10
SAMPLES = 8  # distances an octave at which kernels are fitted
TO_BASE_2 = 0.5 / math.log(2)  # exp(-v D / 2) = 2^(-v TO_BASE_2 D)


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
    low = max(2 * LOWEST / farthest, float(inv_delta[0]) * 2.0**-BELOW)
    # At least as many rates as one cutoff is made of: the window below always finds them.
    octaves = max(math.log2(2 * float(inv_delta[-1]) / low) + ABOVE, BELOW + ABOVE)
    blocks = math.ceil((octaves + 1 / STEPS) / CHAIN)
    # Chains: those that begin in the first octave of each block of CHAIN octaves.
    begin = (np.arange(blocks)[:, None] * CHAIN + np.arange(STEPS) / STEPS).reshape(-1)
    exponents = (low * TO_BASE_2 * 2.0**begin).astype(np.float32)
    empty = Ladder(exponents, np.zeros((0, 0)), np.zeros((0, 0)))
    rates = empty.rates / TO_BASE_2
    order = np.argsort(rates)
    wanted = np.concatenate([inv_delta, 2 * inv_delta])
    kernel, slow = _coefficients(wanted, rates[order], farthest, n)
    back = np.concatenate([np.argsort(order), [len(rates), len(rates) + 1]])
    kernel, slow, m = kernel[:, back].T, slow[:, back].T, len(inv_delta)
    return Ladder(exponents, np.hstack([kernel[:, :m], slow[:, :m]]), kernel[:, m:])


def _coefficients(
    inv_delta: Float64[np.ndarray, " k"], rates: Float64[np.ndarray, " r"], farthest: float, n: int
) -> tuple[Float64[np.ndarray, "k p"], Float64[np.ndarray, "k p"]]:
    """Fit the kernel, and the kernel times D, for each cutoff by the rates around it, 1 and D."""
    taps = (BELOW + ABOVE) * STEPS
    first = np.searchsorted(rates, inv_delta * 2.0**-BELOW * (1 - 1e-6))
    first = np.clip(first, 0, len(rates) - taps)
    window = first[:, None] + np.arange(taps)
    # Distances where the kernel is neither one nor, by far, zero: in units of 2 / u, as far as there are any.
    reach = np.minimum(inv_delta * farthest / 2, 64 * 2.0**BELOW)
    octaves = np.arange(20 * SAMPLES) / SAMPLES
    s = np.hstack([reach[:, None] * 2.0**-octaves, np.zeros((len(reach), 1))])
    exact = np.exp(-s)
    weight = 1 / (exact + 1 / n)
    unit = np.minimum(reach, 1)[:, None]  # of s times the kernel: its size
    design = np.exp(-s[:, :, None] * (rates[window] / inv_delta[:, None])[:, None, :])
    # 1 and D only where rates below are missing: elsewhere they would not vanish far away.
    near = (first == 0)[:, None, None]
    design = np.concatenate([design, np.broadcast_to(near, (*s.shape, 1)), near * (s / reach[:, None])[:, :, None]], 2)
    design = design * weight[:, :, None]
    size = np.sqrt(np.square(design).sum(axis=1, keepdims=True))
    size[size == 0] = 1
    ridge = np.broadcast_to(NOISE * np.eye(taps + 2), (len(s), taps + 2, taps + 2))
    basis, triangle = np.linalg.qr(np.concatenate([design / size, ridge], axis=1))
    right = np.stack([exact * weight, s / unit * exact * weight], axis=2)
    found = np.linalg.solve(triangle, np.swapaxes(basis[:, : s.shape[1]], 1, 2) @ right) / np.swapaxes(size, 1, 2)
    kernel, slow = (np.zeros((len(s), len(rates) + 2)) for _ in range(2))
    for out, part, scale in ((kernel, found[:, :, 0], 1.0), (slow, found[:, :, 1], unit * 2 / inv_delta[:, None])):
        part = part * scale
        np.put_along_axis(out, window, part[:, :taps], axis=1)
        out[:, -2] = part[:, -2]
        out[:, -1] = part[:, -1] * inv_delta / (2 * reach)
    return kernel, slow
