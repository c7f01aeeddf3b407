"""The result of measuring error by frequency."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from layerfreq.data.curves import ReadOnly
from layerfreq.data.validation import Curve
from layerfreq.errors import is_not

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

UNITS = "radians per unit of the inputs"
MUTE = 1e-3  # of the energy of a higher band; a band with less holds only leakage from that
STILL = 1e-14  # of the target's energy; a variation with less is rounding of sums
NOTHING = 1e-24  # of the target's energy; an error with less counts as zero


@dataclass(frozen=True, eq=False, repr=False)
class ErrorSpectrum(ReadOnly):
    """The energy of a target and of the error target - output, by angular frequency |k|.

    Energies are means over points and columns, as in the mean squared error. `relative` is the square root of their
    ratio, a ratio of amplitudes: 0 is learned, 1 is an output that lacks this frequency, 2 is the right amplitude with
    the opposite sign.

    Attributes:
        k: (m,) float64, increasing angular frequencies, in radians per unit of the inputs; the axis of delta^(-1/2).
        target_energy: (m,) float64, each band's share of the mean squared target.
        error_energy: (m,) float64, each band's share of the mean squared error. If noise was subtracted ("scattered")
            or filters differ ("filter"), it may be slightly negative.
        relative: (m,) float64, sqrt(error_energy / target_energy); NaN if the target in the band cannot be
            distinguished from rounding or from the noise of n points.
        chance: (m,) float64, `relative` expected if the outputs were shuffled over the points.
        stderr: (m,) float64, the standard error of `relative`; None if nothing is a sample ("grid", and "filter"
            without `rows`).
        low: (m,) float64, relative error of everything at or below k, e_low.
        high: (m,) float64, relative error of everything above k, e_high; NaN if there is nothing.
        columns: (2, m, c) float64, energies of target and error by target column; their means over c are
            `target_energy` and `error_energy`.
        floor: (m,) float64, the noise that n random points add to each band of the error; None if there is none.
        leak: (m,) float64, the part of the error's energy explained by jumps between opposite edges ("grid").
        resolution: Largest k at which a filter's window holds another point ("filter"), above which `relative` is
            NaN; else None.
        constant: (2, m) float64, what bands of target and error hold because of their means; None if unknown
            ("projection", or read from a run).
        mse: The mean squared error after window and centring.
        n: Number of points.
        d: Number of input dimensions.
        method: "grid", "scattered", "filter" or "projection".
        units: Units of `k`.
        notes: What was chosen and why, and what was done to the data.

    Examples:
        >>> t = torch.arange(100) / 100
        >>> slow, fast = torch.sin(2 * torch.pi * t), torch.sin(2 * torch.pi * 5 * t)
        >>> found = error_spectrum(t, slow + fast, slow)  # 5 cycles are not learned yet
        >>> low, high = found.learned_interval()
        >>> {"k", "cycles", "relative"} <= set(found.to_frame())
        True
        >>> axes = found.plot()
    """

    k: Curve
    target_energy: Curve
    error_energy: Curve
    relative: Curve
    chance: Curve
    stderr: Curve | None
    low: Curve
    high: Curve
    columns: Float64[np.ndarray, "2 m c"]
    floor: Curve | None
    leak: Curve | None
    mse: float
    n: int
    d: int
    method: str
    resolution: float | None = None
    constant: Float64[np.ndarray, "2 m"] | None = None
    units: str = UNITS
    notes: tuple[str, ...] = ()

    @property
    def cycles(self) -> Curve:
        """(m,) the frequencies in cycles per unit of the inputs, k / (2 pi)."""
        return self.k / (2 * np.pi)

    @cached_property
    def told(self) -> Bool[np.ndarray, " m"]:
        """(m,) bool, bands that hold target, and not only leakage from a far stronger, higher band."""
        energy = np.maximum(self.target_energy, 0)
        above = np.maximum.accumulate(energy[::-1])[::-1]
        return np.isfinite(self.relative) & (energy > MUTE * above)

    def learned(self, threshold: float = 0.1) -> float | None:
        """Return the largest k up to which the relative error stays below a threshold, over the bands in `told`.

        Args:
            threshold: A ratio of amplitudes.

        Returns:
            A k of this spectrum, or None if even the lowest band is above the threshold.

        Raises:
            InputError: If the threshold is not a positive number.

        Examples:
            >>> t = torch.arange(64.0) / 64
            >>> y = torch.sin(2 * torch.pi * t) + torch.sin(2 * torch.pi * 5 * t)
            >>> error_spectrum(t, y, torch.sin(2 * torch.pi * t)).learned()  # of 1 and 5 cycles, one
            6.283185307179586
        """
        return self._learned(threshold, 0.0)

    def learned_interval(self, threshold: float = 0.1) -> tuple[float | None, float | None]:
        """Return `learned` with every relative error two standard errors higher, and lower.

        Without standard errors both equal `learned`.
        """
        return self._learned(threshold, 2.0), self._learned(threshold, -2.0)

    def _learned(self, threshold: float, errors: float) -> float | None:
        if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 < threshold < np.inf:
            raise is_not("threshold", threshold, "a positive number", "0.1 for ten per cent of amplitude")
        k, worst = self.k[self.told], self.relative[self.told]
        if self.stderr is not None:
            worst = worst + errors * np.nan_to_num(self.stderr[self.told])
        under = worst < threshold
        count = len(under) if under.all() else int(np.argmin(under))
        return float(k[count - 1]) if count else None

    @cached_property
    def bias(self) -> float | None:
        """Spectral bias (E_high - E_low) / (E_high + E_low) of the error, split at half of the target's variance.

        1: all error is at high frequencies; -1: at low ones; 0: equally at both (Kiessling & Thor, AAAI 2022). The mean
        counts as neither; the band at the split is divided. None if no band except the mean's has a meaningful target,
        or the error does not vary.
        """
        on = self.k > 0
        varies = np.stack([self.target_energy, self.error_energy]) - (0 if self.constant is None else self.constant)
        target, error = np.maximum(varies[:, on], 0)
        least = STILL * np.maximum(self.target_energy, 0).sum()
        told = np.isfinite(self.relative[on]).any() and target.sum() > least
        if not told or error.sum() <= NOTHING * target.sum():
            return None
        share = np.concatenate([[0.0], target.cumsum() / target.sum()])
        below = np.concatenate([[0.0], error.cumsum() / error.sum()])
        at = int(np.searchsorted(share, 0.5))  # the first edge at or above a half; empty bands share one
        part = (0.5 - share[at - 1]) / (share[at] - share[at - 1])
        low = below[at - 1] + part * (below[at] - below[at - 1])
        return float(1 - 2 * low)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame, one row per band: k, cycles, energies, relative, chance, stderr, low, high."""
        import pandas as pd

        names = ("k", "cycles", "target_energy", "error_energy", "relative", "chance", "low", "high")
        stderr = np.zeros(len(self.k)) if self.stderr is None else self.stderr
        return pd.DataFrame({**{name: getattr(self, name).copy() for name in names}, "stderr": stderr.copy()})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the relative error over k, with chance and two standard errors.

        Args:
            ax: Axes to draw on; None makes a new figure.
        """
        from layerfreq.response.figure import plot_errors

        return plot_errors(self, ax)

    def __repr__(self) -> str:
        learned, bias = self.learned(), self.bias
        low, high = self.learned_interval()
        sure = "" if self.stderr is None else f" ({_number(low)} .. {_number(high)})"
        lines = [
            f"ErrorSpectrum of {self.n} points in {self.d} dimensions ({self.method})",
            f"  k           {self.k[0]:.4g} .. {self.k[-1]:.4g} {self.units}, {len(self.k)} bands",
            f"  error       {self.mse:.4g} mean squared",
            f"  learned     {_number(learned)}{sure}, relative error under 0.1",
            f"  bias        {'undefined' if bias is None else f'{bias:+.3f}'} (1: the error is all high, -1: all low)",
        ]
        return "\n".join([*lines, *(f"  note        {note}" for note in self.notes)])


def _number(value: float | None) -> str:
    return "nowhere" if value is None else f"{value:.4g}"


def amplitude_ratio(error: Curve, target: Curve, least: Curve | float) -> Curve:
    """Return sqrt(error / target), NaN if the target's energy is not above `least`."""
    fine = target > least
    with np.errstate(all="ignore"):
        return np.where(fine, np.sqrt(np.maximum(error, 0) / np.where(fine, target, 1.0)), np.nan)


def blind_chance(target: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return E (|t| - |o|)^2 for a complex Gaussian o, what shuffled outputs are at a frequency: |o| has Rice's mean.

    Args:
        target: |t|.
        mean: |E o|.
        variance: E |o - E o|^2; real modes, Nyquist's, are taken for complex ones.
    """
    from scipy.special import i0e, i1e

    with np.errstate(all="ignore"):
        ratio = np.where(variance > 0, mean**2 / variance, np.inf)
        size = np.sqrt(np.pi * variance) / 2 * ((1 + ratio) * i0e(ratio / 2) + ratio * i1e(ratio / 2))
    size = np.where(np.isfinite(size), size, mean)
    return target**2 - 2 * target * size + mean**2 + variance


def of_bands(
    k: Curve,
    columns: Float64[np.ndarray, "2 m c"],
    *,
    expected: Curve,
    least: Curve | float,
    kept: Any = slice(None),
    stderr: Curve | None = None,
    floor: Curve | None = None,
    leak: Curve | None = None,
    constant: Float64[np.ndarray, "2 m"] | None = None,
    **about: Any,
) -> ErrorSpectrum:
    """Return the spectrum of bands whose energies add up.

    Args:
        k: (m,) frequencies.
        columns: (2, m, c) energies of target and error.
        expected: (m,) the error's energy if outputs were shuffled.
        least: The target's energy in a band above which a relative error is told.
        kept: Which bands are shown.
        stderr: As for `ErrorSpectrum`, as are `floor`, `leak`, `constant` and, of the whole, `about`.
    """
    t, e = columns.mean(axis=2)
    target, error = t[kept], e[kept]
    return ErrorSpectrum(
        k=k[kept],
        target_energy=target,
        error_energy=error,
        relative=amplitude_ratio(e, t, least)[kept],
        chance=amplitude_ratio(expected, t, least)[kept],
        stderr=None if stderr is None else stderr[kept],
        columns=columns[:, kept],
        floor=None if floor is None else floor[kept],
        leak=None if leak is None else leak[kept],
        constant=None if constant is None else constant[:, kept],
        **parts(target, error),
        **about,
    )


def parts(target: Curve, error: Curve) -> dict[str, Any]:
    """Return e_low and e_high of bands that add up: all up to each k, and all above it."""
    total = max(float(target.sum()), 0.0)
    rest = [np.concatenate([one[::-1].cumsum()[::-1][1:], [0.0]]) for one in (error, target)]
    return {
        "low": amplitude_ratio(error.cumsum(), target.cumsum(), NOTHING * total),
        "high": amplitude_ratio(rest[0], rest[1], NOTHING * total),
    }
