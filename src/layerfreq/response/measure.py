"""Error by frequency, by a method that suits the points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from layerfreq.data.targets import read_targets
from layerfreq.errors import Code, InputError, is_not, shown, unknown
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.options import as_seed
from layerfreq.measure.sampling import row_limit
from layerfreq.response.filtered import on_filter
from layerfreq.response.given import MOST, Given, as_frequencies, as_given
from layerfreq.response.grid import find_grid, on_grid
from layerfreq.response.projection import on_projection
from layerfreq.response.result import ErrorSpectrum
from layerfreq.response.scattered import on_scattered

METHODS = ("grid", "scattered", "filter", "projection")
TAKES = {  # option -> the methods that it means something to
    "window": ("grid",),
    "center": ("grid",),
    "phase_blind": ("grid", "projection"),
    "weights": ("scattered",),
    "period": ("scattered",),
    "floor": ("scattered",),
    "direction": ("projection",),
    "rows": ("filter",),
    "engine": ("filter",),
}
OPTIONS = ("method", "frequencies", *TAKES, "seed")
SOME = 64  # points on which filters are tried, since their cost grows as the square of the number


@own_settings()
def error_spectrum(
    inputs: Any,
    targets: Any,
    outputs: Any,
    frequencies: Any = None,
    *,
    method: str = "auto",
    window: str | None = None,
    center: bool = False,
    phase_blind: bool = False,
    weights: Any = None,
    period: Any = None,
    floor: bool = True,
    direction: Any = None,
    rows: int | None = None,
    engine: str = "auto",
    seed: int = 0,
) -> ErrorSpectrum:
    """Measure what a network's output has learned of a target, frequency by frequency.

    k is angular frequency, in radians per unit of the inputs: the axis of delta^(-1/2). sin(k x) lies at k.

    Args:
        inputs: (n, ...) tensor or array, finite, flattened to (n, d): where the points are.
        targets: (n,) or (n, c) floats; or (n,) integer class ids, which become one-hot vectors.
        outputs: The network's outputs, in the shape of the targets; for class ids (n, c) probabilities, or logits, to
            which softmax is applied.
        frequencies: (m,) increasing, >= 0. "grid", "scattered": each mode is assigned to the nearest. "filter":
            positive cutoffs of filters with variance k^-2. "projection": where sums are taken. None: chosen from the
            data.
        method: "grid": regular grids of 1 to 3 dimensions, rows in any order, by the fast Fourier transform.
            "scattered": any points in 1 to 3 dimensions, treated as random, by the non-uniform Fourier transform
            (package `finufft`, else direct sums). "filter": any dimension, by Gaussian filters over the points.
            "projection": any dimension, along one direction. "auto": the first of grid, scattered (up to three
            dimensions) and filter that suits the points; `notes` says why.
        window: "grid": name of a SciPy window, such as "hann", for data that are not periodic; None for none.
        center: "grid": subtract the means of target and error first.
        phase_blind: "grid", "projection": compare magnitudes only, as the 1-D script of the frequency principle does.
        weights: "scattered": (n,) weights of the points; "density" for the inverse of a density estimate; None for
            equal weights.
        period: "scattered": sides of the box that the points were drawn from; None estimates them from the points'
            range.
        floor: "scattered": subtract the noise of random points from energies.
        direction: "projection": (d,); None for the inputs' first principal direction.
        rows: "filter": number of filter centres, drawn without replacement, with standard errors; None uses every point
            (exact).
        engine: "filter": as for `spectrum`. What the filter removes, e_high, is resolved down to an amplitude of 1e-6
            of the target's; with "reference", or "blocked" and float64 inputs, down to 1e-12.
        seed: Seed for drawn rows, and for the groups of points that standard errors are computed from.

    Returns:
        An `ErrorSpectrum`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Examples:
        >>> t = torch.arange(100) / 100
        >>> y = torch.sin(2 * torch.pi * t) + torch.sin(2 * torch.pi * 5 * t)
        >>> found = error_spectrum(t, y, torch.sin(2 * torch.pi * t))  # 5 cycles are not learned yet
        >>> found.relative[[1, 5]].round(6)
        array([0., 1.])
    """
    if method not in ("auto", *METHODS):
        raise unknown("method", method, ["auto", *METHODS])
    for name, flag in (("center", center), ("phase_blind", phase_blind), ("floor", floor)):
        if not isinstance(flag, (bool, np.bool_)):
            raise is_not(name, flag, "True or False", "one of them")
    seed, k = as_seed(seed), as_frequencies(frequencies)
    given = as_given(inputs, targets, outputs)
    why = ""
    if method == "auto":
        method, why = choose_method(given)
    said = {
        "window": window, "center": center or None, "phase_blind": phase_blind or None, "weights": weights,
        "period": period, "floor": None if floor else False, "direction": direction, "rows": rows,
        "engine": None if engine == "auto" else engine,
    }  # fmt: skip
    for name, value in said.items():
        if value is not None and method not in TAKES[name]:
            raise Code.CONFLICT(f"{name}: not an option of method {method!r}; pass method={TAKES[name][0]!r}")
    if method == "grid":
        found = on_grid(given, k, window=window, center=center, phase_blind=phase_blind)
    elif method == "scattered":
        found = on_scattered(given, k, weights=weights, period=period, floor=floor, seed=seed)
    elif method == "projection":
        found = on_projection(given, k, direction=direction, phase_blind=phase_blind, seed=seed)
    else:
        found = on_filter(given, k, rows=rows, engine=engine, seed=seed)
    notes = (*((why,) if why else ()), *found.notes)
    if not np.isfinite(found.relative).any():
        notes += ("no band's target can be distinguished from rounding or noise: the relative error is undefined",)
    return replace(found, notes=notes)


def choose_method(given: Given) -> tuple[str, str]:
    """Return the method that the points allow, and why."""
    x = given.inputs.cpu()
    d = int((x.amin(dim=0) < x.amax(dim=0)).sum())
    if d > MOST:
        return "filter", f"filter: inputs vary in {d} dimensions, Fourier transforms are for {MOST} at most"
    try:
        find_grid(given.coordinates("grid"), given.eps)
    except InputError as error:
        return "scattered", f"scattered: {str(error).removeprefix('inputs: ').split(';')[0]}"
    return "grid", "grid: the points fill a regular grid"


def as_error_options(error: Any) -> dict[str, Any] | None:
    """Return the argument of `Monitor(error=)` as options of `error_spectrum`; None stays.

    Args:
        error: The name of a method, "auto", or a mapping of options.

    Raises:
        InputError: For an unknown method or option.
    """
    if error is None:
        return None
    if isinstance(error, str):
        error = {"method": error}
    if not isinstance(error, Mapping):
        raise InputError(
            f"error: {shown(error)} is neither a method nor options; pass 'auto', {', '.join(map(repr, METHODS))}, "
            "or a dict of options of error_spectrum"
        )
    other = next((name for name in error if name not in OPTIONS), None)
    if other is not None:
        raise unknown("error", other, OPTIONS)
    method = error.get("method", "auto")
    if method not in ("auto", *METHODS):
        raise unknown("error", method, ("auto", *METHODS))
    as_frequencies(error.get("frequencies"))
    as_seed(error.get("seed", 0))
    return dict(error)


@own_settings()
def check_error(inputs: Any, targets: Any, options: Mapping[str, Any]) -> None:
    """Check options on the points before there are outputs.

    Raises:
        InputError: For points, targets or options that no measurement of the error takes.
    """
    y = read_targets(targets, len(inputs))
    blank = torch.zeros(y.shape) if y.ndim == 2 else torch.full((len(y), max(2, int(y.max()) + 1)), 0.5)
    given = as_given(inputs, targets, blank)
    method = options.get("method", "auto")
    at = slice(None)
    if (choose_method(given)[0] if method == "auto" else method) == "filter":
        at = torch.linspace(0, len(y) - 1, min(len(y), SOME)).long()
        rows = options.get("rows")
        few = None if rows is None else min(row_limit(rows, None, len(y)), len(at))
        options = {**options, "method": "filter", "rows": few}
    error_spectrum(given.inputs[at], y[at], blank[at], **options)
