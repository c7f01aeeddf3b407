"""The measure: how much of a target function is left when its high frequencies over the features are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from layerfreq.data.distributed import Shards
from layerfreq.data.source import InMemory, OverRanks, Source
from layerfreq.data.targets import Targets, prepare_targets, read_targets, side_by_side
from layerfreq.data.validation import Curve, Scale, as_cutoffs, as_features, as_scale
from layerfreq.engines import USUAL, Points, enough_memory, pick_engine
from layerfreq.engines.rounding import rounding_alone
from layerfreq.errors import InputError, warn_caller
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.bounds import within_bounds
from layerfreq.measure.intervals import FAINT
from layerfreq.measure.known import Known
from layerfreq.measure.options import check_options
from layerfreq.measure.result import Spectrum
from layerfreq.measure.sampling import Draw, Tally, draw
from layerfreq.measure.strategies import Meeting

DEFAULTS = {"scale": "raw", "center": None, "rows": None, "rtol": None, "engine": "auto", "seed": 0}


def spectrum(
    features: Any,
    targets: Any,
    inv_delta: Any = None,
    *,
    scale: Scale = "raw",
    center: bool | None = None,
    rows: int | None = None,
    rtol: float | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    seed: int = 0,
    group: Any = None,
) -> Spectrum:
    """Measure LFR and RDF of the target function {(features_i, targets_i)}.

    The filter is y_i^low = sum_j G_ij y_j / sum_j G_ij with G_ij = exp(-|x_i - x_j|^2 / (2 delta)), j = i
    included; LFR(1/delta) = sum_i |y_i^low|^2 / sum_i |y_i|^2, RDF = d LFR / d(1/delta)
    (Xu & Zhou, AAAI 2021, section "Ratio density function"). delta is the filter's variance.

    Args:
        features: (n, ...) tensor or array, finite, flattened to (n, d).
        targets: (n,) integer class ids (taken as one-hot), or (n,) or (n, c) floats. More than 128 float columns or
            1024 distinct ids are reduced to random-sign sums; `stderr` then includes the resulting error.
        inv_delta: (m,) increasing, > 0; None picks a logarithmic grid that covers the data's own distances,
            or those of the filter centres if they are drawn.
        scale: "raw" uses features as they are; "rms" uses (f - mean f) / sqrt(mean |f - mean f|^2), so that 1/delta is
            dimensionless; "maxabs", the paper's, centres every dimension and divides it by its largest absolute value
            (constant dimensions stay 0). The authors' code adds 1e-9 to that value; here nothing is added.
        center: Whether to subtract the mean target first, so that LFR starts at 0. None does so for floats, whose mean
            depends on their unit, and not for class ids, as published; `Spectrum.center` says what was done. One-hot
            vectors with center=False give the same as class ids.
        rows: Number of filter centres, drawn without replacement; None makes every point one (exact). If they are too
            few for a reliable `stderr`, a warning says how many it takes.
        rtol: Instead of `rows`: draw as many as needed for this relative standard error of LFR at every cutoff
            (relative to 0.01 where LFR is smaller).
        engine: "auto": "cpu" on the CPU for about 300 points or more, "cuda" on an NVIDIA GPU (Ampere or later, with
            Triton) above 1,024 points, otherwise "blocked" (measured in docs/benchmarks.md). "cpu": all cutoffs from
            one pass, LFR to 1e-5. "cuda": the same on one NVIDIA GPU, 1e-6.
            "blocked": any device; float64 features keep float64 accuracy. "reference": float64, dense.
            `Spectrum.engine` says which one was used.
        device: Where to compute; None means where the features are.
        seed: Seed for the drawn rows and random signs. The global random state is not touched.
        group: A `torch.distributed` process group whose ranks share the points: each rank calls with its own part,
            which may be empty, and all get the spectrum of the concatenated parts. None measures only this process's
            points.

    Returns:
        A `Spectrum`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Examples:
        >>> x = torch.linspace(0, 1, 500)[:, None]
        >>> slow, fast = spectrum(x, torch.sin(3 * x[:, 0])), spectrum(x, torch.sin(30 * x[:, 0]))
        >>> slow.median < fast.median
        True
    """
    options = {"scale": scale, "center": center, "rows": rows, "rtol": rtol, "engine": engine, "seed": seed}
    with Shards(group).together():
        options = check_options({**options, "device": device, "group": group})
    return measure(features, targets, inv_delta, **options)


@own_settings()
def measure(
    features: Any,
    targets: Any,
    inv_delta: Any = None,
    *,
    device: str | torch.device | None = None,
    group: Any = None,
    room: int | None = None,
    told: set[str] | None = None,
    layer: str | None = None,
    **options: Any,
) -> Spectrum:
    """Do the work of `spectrum` within a budget: copies of features get `room` bytes, if there is one process.

    `told` holds the kinds of warning that were given before, and gets those that are given now. `layer` is where the
    features come from, for warnings about it.
    """
    shards, options = Shards(group), {**DEFAULTS, **options}
    with shards.together():
        x = as_features(features, device, empty=not shards.alone)
        y = read_targets(targets, len(x))
        as_scale(options["scale"])
        pick_engine(options["engine"], x.device, len(y))
        grid = None if inv_delta is None else as_cutoffs(inv_delta)
    x, y = shards.meet(x, y, {**options, "inv_delta": None if grid is None else grid.tolist()})
    source = InMemory(x) if shards.alone else OverRanks(x, shards)
    return measure_source(source, y, grid, room=room, told=told, layer=layer, width=x.shape[1], **options)


@own_settings()
def measure_source(
    source: Source,
    targets: Any,
    inv_delta: Any = None,
    *,
    scale: Scale = "raw",
    center: bool | None = None,
    rows: int | None = None,
    rtol: float | None = None,
    engine: str = "auto",
    seed: int = 0,
    room: int | None = None,
    told: set[str] | None = None,
    layer: str | None = None,
    width: int = 0,
) -> Spectrum:
    """Measure features wherever they come from.

    Args:
        source: Source of the features.
        targets: As for `spectrum`, of this rank's points.
        inv_delta: As for `spectrum`, like all that is not named here.
        room: Bytes for copies of features.
        told: As for `measure`.
        layer: As for `measure`.
        width: Number of features, if it is known before they pass by.
    """
    shards, grid = source.shards, None if inv_delta is None else as_cutoffs(inv_delta)
    y = prepare_targets(read_targets(targets, shards.counts[shards.rank]), shards, center=center, seed=seed)
    name, make_engine = pick_engine(engine, source.device, shards.n, width, USUAL if grid is None else len(grid))
    chosen = draw(y, shards.n, rows, rtol, seed)
    with torch.no_grad(), enough_memory(shards.n, width):
        # How the points are held depends on the first centres and the number of cutoffs; the unit on the points; and
        # the default grid on the unit. Sums begin after all of these.
        first, cutoffs = next(chosen.batches()), None if grid is None else len(grid)
        known = None
        if rtol is None:  # with rtol, the centres are not known before
            known = Known.of(source, make_engine, y, as_scale(scale), first, room=room, own_grid=grid is None)
        meeting = known or Meeting(source, make_engine, y, as_scale(scale), room=room, first=first, cutoffs=cutoffs)
        unit, grid = _begun(meeting, scale, grid)
        tally = _met(meeting, chosen, y, len(grid), shards)
    found = within_bounds(tally.estimates(), y, tally.target, name)
    doubts = {**_doubts(found, tally, y, rows, rtol), **_rounding(meeting.points, layer)}
    _warn(doubts, told)
    return _spectrum(
        found, y, unit, meeting.points, inv_delta=grid, n=shards.n, rows=tally.rows, scale=scale, engine=name
    )


def _spectrum(found: dict[str, Any], y: Targets, unit: Unit, points: Points, **about: Any) -> Spectrum:
    """Return the curves of some targets as a spectrum."""
    return Spectrum(
        lfr=found["lfr"],
        rdf=np.clip(unit.per_cutoff(found["slope"]), -1e300, 1e300),
        chance=y.chance(found["self_weight"]),
        neighbours=found["neighbours"],
        stderr=found["stderr"],
        d=points.features.shape[1],
        floor=y.floor,
        spread=unit.spread,
        sketch=y.sketch,
        center=y.centered,
        coincident=float(len(y.energy)) if points.rounded else points.coincident,
        **about,
    )


@own_settings()
def measure_several(
    features: Any,
    each: Mapping[Any, Any],
    inv_delta: Any = None,
    *,
    scale: Scale = "raw",
    center: bool | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    room: int | None = None,
    told: set[str] | None = None,
    layer: str | None = None,
) -> dict[Any, Spectrum]:
    """Measure several targets over features that this process holds, every point a centre, in one run of an engine.

    The targets' columns are summed side by side, so that the pairs' weights, most of the work, are computed once.

    Args:
        features: (n, d).
        each: Name -> (n,) or (n, c) floats, of at most `EXACT` columns in all.
        inv_delta: As for `spectrum`, like all that is not named here.
        scale: As there.
        center: As there.
        engine: As there.
        device: As there.
        room: Bytes for copies of features.
        told: As for `measure`.
        layer: As for `measure`.

    Raises:
        InputError: If one of the targets cannot be measured, or the features cannot.
    """
    x = as_features(features, device)
    n, grid = len(x), None if inv_delta is None else as_cutoffs(inv_delta)
    source, prepare = InMemory(x), partial(prepare_targets, center=center, seed=0)
    ys = {name: prepare(read_targets(y, n), source.shards) for name, y in each.items()}
    joint, everyone = side_by_side(list(ys.values())), torch.arange(n)
    name, make_engine = pick_engine(engine, x.device, n, x.shape[1], USUAL if grid is None else len(grid))
    with torch.no_grad(), enough_memory(n, x.shape[1]):
        cutoffs = None if grid is None else len(grid)
        meeting = Meeting(source, make_engine, joint, as_scale(scale), room=room, first=everyone, cutoffs=cutoffs)
        unit, grid = _begun(meeting, scale, grid)
        columns = torch.zeros(2, len(grid), joint.width, dtype=torch.float64)
        windows = torch.zeros(2, len(grid), dtype=torch.float64)
        for part in meeting.curves(everyone):
            assert part.by_column is not None
            columns += part.by_column[:2].cpu()
            windows += torch.stack([part.self_weight.sum(dim=0), part.self_weight.reciprocal().sum(dim=0)]).cpu()
    weight, neighbours = (windows / n).numpy()
    found, widths = {}, [y.width for y in ys.values()]
    for (target, y), own in zip(ys.items(), columns.split(widths, dim=2), strict=True):
        lfr, slope = (own.sum(dim=2) / y.energy.sum()).numpy()
        curves = {"lfr": lfr, "slope": slope, "self_weight": weight, "neighbours": neighbours, "stderr": None}
        curves = within_bounds(curves, y, float(y.energy.mean()), name)
        about = {"inv_delta": grid, "n": n, "rows": n, "scale": scale, "engine": name}
        found[target] = _spectrum(curves, y, unit, meeting.points, **about)
    _warn(_rounding(meeting.points, layer), told)
    return found


def _begun(meeting: Meeting | Known, scale: Scale, grid: Curve | None) -> tuple[Unit, Curve]:
    """Let a meeting begin with cutoffs, its own by default; return their unit, and them."""
    unit = Unit.of(meeting.points, scale)
    grid = unit.own_grid(meeting) if grid is None else grid
    meeting.begin(torch.from_numpy(unit.scaled(grid)))
    return unit, grid


def _met(meeting: Meeting | Known, chosen: Draw, targets: Targets, cutoffs: int, shards: Shards) -> Tally:
    """Let filter centres meet all points, batch by batch, until there are enough."""
    tally = Tally(chosen, targets, cutoffs, shards)
    for batch in chosen.batches():
        for found in meeting.curves(batch):
            tally.add(found)
        tally.share()
        if tally.done():
            break
    return tally


def _warn(doubts: dict[str, str], told: set[str] | None) -> None:
    """Give the warnings that have not been given before, and add them to `told`."""
    told = set() if told is None else told
    for kind, message in doubts.items():
        if kind not in told:
            told.add(kind)
            warn_caller(message)


def _doubts(
    found: dict[str, Any], tally: Tally, targets: Targets, rows: int | None, rtol: float | None
) -> dict[str, str]:
    """Return kind -> warning, for intervals that are wider than was asked for, or not reliable."""
    doubts, n = {}, len(targets.energy)
    if rtol is not None and targets.sketch and np.any(found["stderr"] > rtol * np.maximum(found["lfr"], FAINT)):
        worst = float(np.max(found["stderr"] / np.maximum(found["lfr"], FAINT)))
        doubts["sketch"] = f"rtol={rtol}: sketched target columns leave LFR a relative error of {worst:.2g}"
    if rows is not None and (needed := tally.rows_needed()) is not None:
        remedy = f"rows={needed} or more" if needed < n else f"rows=None, for all {n} points"
        doubts["rows"] = f"rows={rows}: stderr is mostly of what so few cannot have met; pass {remedy}"
    return doubts


def _rounding(points: Points, layer: str | None) -> dict[str, str]:
    """Say where features differ by their rounding alone: kind -> what is to be known."""
    where = "features" if layer is None else f"layer {layer!r}: features"
    return {f"rounding {layer}": f"{where}: {rounding_alone(points.features.dtype)}"} if points.rounded else {}


@dataclass(frozen=True)
class Unit:
    """The factor from cutoffs of the scaled points to the axis that was asked for.

    Its two factors are applied one after the other, since the square of a gain may overflow.

    Attributes:
        factors: The two factors.
        spread: mean |x - mean x|^2 of the features as they came; 0.0 at scale "maxabs".
    """

    factors: tuple[float, float]
    spread: float

    @classmethod
    def of(cls, points: Points, scale: Scale) -> Unit:
        """Return the unit of a scale."""
        gain = float(points.gain[0])
        factors = {"raw": (gain, gain), "rms": (points.spread or 1.0, 1.0), "maxabs": (1.0, 1.0)}[scale]
        return cls(factors, points.spread / gain / gain if points.spread else 0.0)

    def scaled(self, grid: Curve) -> Curve:
        """Return cutoffs of the scaled points."""
        return np.clip(self.per_cutoff(grid), 1e-300, 1e300)

    def per_cutoff(self, curve: Curve) -> Curve:
        """Return a curve divided by the unit."""
        with np.errstate(over="ignore"):
            return curve / self.factors[0] / self.factors[1]

    def own_grid(self, meeting: Meeting | Known) -> Curve:
        """Return cutoffs that cover the data's distances.

        Raises:
            InputError: If they leave float64's range.
        """
        with np.errstate(over="ignore", under="ignore"):
            grid = meeting.own_grid() * self.factors[0] * self.factors[1]
        if grid[0] < 1e-300 or grid[-1] > 1e300:
            raise InputError(
                f"features: they differ by {1 / self.factors[0]:.1g}, out of float64's range; pass scale='rms'"
            )
        return grid
