"""Inputs of any dimension: Gaussian filters over the points, by this project's engines."""

from __future__ import annotations

import numpy as np
import torch

from layerfreq.data.source import InMemory
from layerfreq.data.targets import Targets
from layerfreq.data.validation import Curve
from layerfreq.engines import pick_engine
from layerfreq.engines.base import enough_memory
from layerfreq.errors import InputError
from layerfreq.measure.strategies import Meeting
from layerfreq.response.given import Given
from layerfreq.response.result import ErrorSpectrum, amplitude_ratio


def on_filter(given: Given, frequencies: Curve | None, *, engine: str) -> ErrorSpectrum:
    """Measure with filters; see `error_spectrum`.

    One pass of an engine filters targets and errors side by side, and yields for each column what the filter keeps,
    |y_low|^2, and its product with what it was given, y.y_low; the high part follows, |y - y_low|^2.
    """
    n, c = given.target.shape
    if frequencies is not None and frequencies[0] <= 0:
        raise InputError("frequencies: 0 is not a valid cutoff; pass frequencies > 0")
    x, both = given.inputs, np.concatenate([given.target, given.error], axis=1)
    unit = float(np.abs(both).max()) or 1.0
    targets = _side_by_side(torch.from_numpy(both / unit))
    name, make = pick_engine(engine, x.device, n, x.shape[1], 64 if frequencies is None else len(frequencies))
    with torch.no_grad(), enough_memory(n, x.shape[1]):
        meeting = Meeting(InMemory(x), make, targets, cutoffs=None if frequencies is None else len(frequencies))
        gain = float(meeting.points.gain[0])
        k = np.sqrt(meeting.own_grid()) * gain if frequencies is None else frequencies
        cutoffs = np.clip((k / gain) ** 2, 1e-300, 1e300)
        meeting.begin(torch.from_numpy(cutoffs))
        planes, weight, others = np.zeros((4, len(k), 2 * c)), np.zeros(len(k)), np.zeros(len(k))
        for some in meeting.curves(torch.arange(n)):
            assert some.by_column is not None
            planes += some.by_column.numpy()
            weight += some.self_weight.sum(dim=0).numpy()
            others += some.self_weight.reciprocal().sum(dim=0).numpy() / n
    planes, weight = planes / n, weight / n
    whole = np.mean((both / unit) ** 2, axis=0)
    kept, cross, means = planes[0], planes[2], planes[3]
    high = np.maximum(whole - 2 * cross + kept, 0)

    def of(plane: np.ndarray) -> np.ndarray:
        return np.stack([plane[..., :c], plane[..., c:]]).mean(axis=-1) * unit**2

    # What comes in with each cutoff; the last takes the rest, so that all add up.
    bands = np.diff(kept, axis=0, prepend=0.0)
    bands[-1] += whole - kept[-1]
    t, e = of(bands)
    target = float(of(whole)[0])
    output = given.output
    mean, spread = output.mean(axis=0), output.var(axis=0) * n / (n - 1)
    # Outputs in another order: their mean stays, and of the rest what a window's weights do not average out.
    shuffled = kept[:, :c] * unit**2 + mean**2 + spread * (weight[:, None] - 1 / n) - 2 * mean * means[:, :c] * unit
    shuffled = shuffled.mean(axis=1)
    final = float(np.mean(given.target**2 + (mean**2 + output.var(axis=0)) - 2 * mean * given.target.mean(axis=0)))
    expected = np.diff(shuffled, prepend=0.0)
    expected[-1] += final - shuffled[-1]
    told = others - meeting.points.coincident >= 1  # windows hold another point, on average
    rounding = max(given.rounding, 1e-6 if name in ("cpu", "cuda") else 1e-12) * target  # the engines' accuracy
    least = np.where(told, rounding, np.inf)
    return ErrorSpectrum(
        k=k,
        target_energy=t,
        error_energy=e,
        relative=amplitude_ratio(e, t, least),
        chance=amplitude_ratio(expected, t, least),
        stderr=None,
        low=amplitude_ratio(of(kept)[1], of(kept)[0], rounding),
        high=amplitude_ratio(of(high)[1], of(high)[0], rounding),
        columns=np.stack([bands[:, :c], bands[:, c:]]) * unit**2,
        floor=None,
        leak=None,
        resolution=float(k[told][-1]) if told.any() else 0.0,
        mse=float(np.mean(given.error**2)),
        n=n,
        d=x.shape[1],
        method="filter",
        notes=(*given.notes, f"filters of variance k^-2 over the points, engine {name!r}"),
    )


def _side_by_side(y: torch.Tensor) -> Targets:
    """Columns that an engine shall tell one by one: as those of a sketch that stands for nothing else."""
    shift = y.mean(dim=0)
    energy = y.square().sum(dim=1)
    return Targets(None, y - shift, shift, energy, float(shift.square().sum()), torch.zeros(len(y), dtype=y.dtype))
