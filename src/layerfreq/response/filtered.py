"""Inputs of any dimension: Gaussian filters over the points, by this project's engines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from layerfreq.data.source import InMemory
from layerfreq.data.targets import Targets
from layerfreq.data.validation import Curve
from layerfreq.engines import pick_engine
from layerfreq.engines.base import Points, RowCurves, enough_memory
from layerfreq.engines.rounding import rounding_alone
from layerfreq.errors import Code, InputError, warn_caller
from layerfreq.measure.sampling import draw
from layerfreq.measure.strategies import Meeting
from layerfreq.response.given import Given
from layerfreq.response.jackknife import GROUPS, standard_error
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio

KEPT, _, AWAY, MEAN = range(4)  # the planes of `RowCurves.by_column`
# Error, as a share of the target's energy, of what a filter keeps, for engines in float32 and in float64. What it takes
# away is a sum over the other points only, with the square of that error.
KNOWN = 1e-6, 1e-12
SQUARED = 1e-12, 1e-24


def on_filter(given: Given, frequencies: Curve | None, *, rows: int | None, engine: str, seed: int) -> ErrorSpectrum:
    """Measure with filters; see `error_spectrum`.

    One pass of an engine filters targets and errors side by side, and yields for each column what the filter keeps,
    |y_low|^2, and what it takes away, |y - y_low|^2.
    """
    n, c = given.target.shape
    if frequencies is not None and frequencies[0] <= 0:
        raise InputError("frequencies: 0 is not a valid cutoff; pass frequencies > 0")
    x, both = given.inputs, np.concatenate([given.target, given.error], axis=1)
    unit = float(np.abs(both).max()) or 1.0
    both /= unit
    name, make = pick_engine(engine, x.device, n, x.shape[1], 64 if frequencies is None else len(frequencies))
    k, lots, points = _pass(x, both, make, frequencies, rows, seed)
    total = Sums.total(lots)
    whole = np.mean(both**2, axis=0)
    target = float(whole[:c].mean())
    if target > 0 and not total.whole[:c].any():
        raise Code.CONSTANT(f"rows: all targets among the {rows} rows drawn are zero; draw more rows")
    # A band has a value if windows hold another point on average, and the target's energy is above rounding.
    double = name == "reference" or (name == "blocked" and x.dtype == torch.float64)
    rounding = max(given.rounding, KNOWN[double]) * target
    told = total.others / total.count - (n if points.rounded else points.coincident) >= 1
    least = np.where(told, rounding, np.inf)
    bands = total.bands(whole)
    (t, e), (low_t, low_e), (high_t, high_e) = (
        one.mean(axis=2) for one in (bands, total.energies(KEPT, whole), total.energies(AWAY, whole))
    )
    relative, stderr = amplitude_ratio(e, t, least), None
    notes = [*given.notes, f"filters of variance k^-2 over the points, engine {name!r}"]
    if points.rounded:
        notes.append(f"inputs: {rounding_alone(x.dtype)}")
        warn_caller(notes[-1])
    if rows is not None:
        stderr = standard_error(relative, (total.without(lot).bands(whole) for lot in lots), sampled=1 - rows / n)
        notes.append(f"{rows} of {n} points are filter centres, drawn at random")
    return ErrorSpectrum(
        k=k,
        target_energy=t * unit**2,
        error_energy=e * unit**2,
        relative=relative,
        chance=amplitude_ratio(total.shuffled(whole, both[:, :c], given.output / unit), t, least),
        stderr=stderr,
        low=amplitude_ratio(low_e, low_t, rounding),
        high=amplitude_ratio(high_e, high_t, max(given.rounding, SQUARED[double]) * target),
        columns=bands * unit**2,
        floor=None,
        leak=None,
        resolution=float(k[told][-1]) if told.any() else 0.0,
        constant=total.constant(whole, both.mean(axis=0)) * unit**2,
        mse=float(np.mean(given.error**2)),
        n=n,
        d=x.shape[1],
        method="filter",
        notes=tuple(notes),
    )


def _pass(
    x: Tensor, both: Float64[np.ndarray, "n two_c"], make: Any, frequencies: Curve | None, rows: int | None, seed: int
) -> tuple[Curve, list[Sums], Points]:
    """Return the frequencies, sums over lots of filter centres, and the points as engines see them."""
    targets = _side_by_side(torch.from_numpy(both))
    centres = draw(targets, len(x), rows, None, seed).order
    with torch.no_grad(), enough_memory(len(x), x.shape[1]):
        meeting = Meeting(InMemory(x), make, targets, cutoffs=None if frequencies is None else len(frequencies))
        gain = float(meeting.points.gain[0])
        k = np.sqrt(meeting.own_grid()) * gain if frequencies is None else frequencies
        meeting.begin(torch.from_numpy(np.clip(k / gain, 1e-150, 1e150) ** 2))
        lots = centres.tensor_split(1 if rows is None else min(GROUPS, rows))
        return k, [Sums.of(meeting.curves(lot), both[lot.numpy()]) for lot in lots], meeting.points


@dataclass(frozen=True)
class Sums:
    """Sums over some filter centres, for m cutoffs, c columns of targets and then c of errors.

    Attributes:
        count: Number of centres.
        planes: (4, m, 2 c) energy kept, its derivative, energy taken away, and the mean kept.
        whole: (2 c,) the centres' own energy.
        self_weight: (m,) sum_j w_ij^2.
        others: (m,) its reciprocal, the number of points in a window.
    """

    count: float
    planes: Float64[np.ndarray, "4 m two_c"]
    whole: Float64[np.ndarray, " two_c"]
    self_weight: Curve
    others: Curve

    @classmethod
    def of(cls, curves: Iterable[RowCurves], values: Float64[np.ndarray, "r two_c"]) -> Sums:
        """Add up the curves of some centres, whose own targets and errors are `values`."""
        found: list[Any] = [
            (one.by_column, one.self_weight.sum(dim=0), one.self_weight.reciprocal().sum(dim=0)) for one in curves
        ]
        planes, self_weight, others = (torch.stack(same).sum(dim=0).cpu().numpy() for same in zip(*found, strict=True))
        return cls(float(len(values)), planes, np.sum(values**2, axis=0), self_weight, others)

    @classmethod
    def total(cls, parts: Iterable[Sums]) -> Sums:
        """Return the sums over several lots of centres."""
        added: list[Any] = [sum(same) for same in zip(*(vars(one).values() for one in parts), strict=True)]
        return cls(*added)

    def without(self, lot: Sums) -> Sums:
        """Return the sums without those of one lot."""
        return Sums(*(mine - its for mine, its in zip(vars(self).values(), vars(lot).values(), strict=True)))

    def energies(self, plane: int, whole: Float64[np.ndarray, " two_c"]) -> Float64[np.ndarray, "2 m c"]:
        """Return a plane's energies of targets and of errors: means over all points, whose own energy is `whole`.

        They are estimated as ratios to the centres' own energy, as LFR is.
        """
        return np.stack(np.split(self.planes[plane], 2, axis=1)) * self.share(whole)[:, None, None]

    def share(self, whole: Float64[np.ndarray, " two_c"]) -> Float64[np.ndarray, " 2"]:
        """Return the ratio of all points' own energy to the centres' sum of it, for targets and for errors."""
        own, of_all = self.whole.reshape(2, -1).sum(axis=1), whole.reshape(2, -1).sum(axis=1)
        return np.where(own > 0, of_all / np.where(own > 0, own, 1.0), 1 / self.count)

    def bands(self, whole: Float64[np.ndarray, " two_c"]) -> Float64[np.ndarray, "2 m c"]:
        """Return the energy that each cutoff adds; the last one takes the rest, so that all add up to `whole`."""
        kept = self.energies(KEPT, whole)
        bands = np.diff(kept, axis=1, prepend=0.0)
        bands[:, -1] += whole.reshape(2, -1) - kept[:, -1]
        return bands

    def constant(
        self, whole: Float64[np.ndarray, " two_c"], mean: Float64[np.ndarray, " two_c"]
    ) -> Float64[np.ndarray, "2 m"]:
        """Return what bands of targets and of errors hold because of their means.

        A filter keeps the mean as it is, and |low|^2 = |low - mean|^2 + 2 mean low - mean^2.
        """
        kept = np.stack(np.split(2 * mean * self.planes[MEAN] - self.count * mean**2, 2, axis=1))
        kept = kept.mean(axis=2) * self.share(whole)[:, None]
        bands = np.diff(kept, axis=1, prepend=0.0)
        bands[:, -1] += (mean**2).reshape(2, -1).mean(axis=1) - kept[:, -1]
        return bands

    def shuffled(self, whole: Float64[np.ndarray, " two_c"], target: np.ndarray, output: np.ndarray) -> Curve:
        """Return the expected energy in each band of errors of shuffled outputs.

        Their mean remains, and the part of the rest that a window's weights do not average out.
        """
        n, count = len(output), self.count
        mean, variance = output.mean(axis=0), output.var(axis=0)
        spread = variance * n / (n - 1) * (self.self_weight[:, None] / count - 1 / n)
        means = self.planes[MEAN, :, : len(mean)] / count
        kept = (self.energies(KEPT, whole)[0] + mean**2 + spread - 2 * mean * means).mean(axis=1)
        expected = np.diff(kept, prepend=0.0)
        expected[-1] += np.mean(target**2 + mean**2 + variance - 2 * mean * target.mean(axis=0)) - kept[-1]
        return expected


def _side_by_side(y: Tensor) -> Targets:
    """Return columns as those of a sketch, for which engines return sums by column."""
    shift = y.mean(dim=0)
    energy = y.square().sum(dim=1)
    return Targets(None, y - shift, shift, energy, float(shift.square().sum()), torch.zeros(len(y), dtype=y.dtype))
