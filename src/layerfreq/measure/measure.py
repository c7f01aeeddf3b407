"""The measure: how much of a target function is left when its high frequencies over the features are cut."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.source import Source
from layerfreq.data.targets import prepare_targets, read_targets
from layerfreq.data.validation import Curve, Scale, as_cutoffs, as_features, as_scale
from layerfreq.engines import USUAL, Engine, enough_memory, pick_engine
from layerfreq.errors import InputError
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.bounds import within_bounds
from layerfreq.measure.intervals import FAINT
from layerfreq.measure.options import check_options
from layerfreq.measure.result import Spectrum
from layerfreq.measure.sampling import Tally, draw
from layerfreq.measure.sources import Held
from layerfreq.measure.strategies import CUTOFFS, Passing, Whole


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
        targets: (n,) integer class ids (taken as one-hot), or (n,) or (n, c) floats. Of more than 128 float
            columns or 1024 distinct ids, random-sign sums are filtered instead; `stderr` then has what this leaves
            uncertain.
        inv_delta: (m,) increasing, > 0; None picks a logarithmic grid that covers the data's own distances.
        scale: "raw" takes features as they are; "rms" takes (f - mean f) / sqrt(mean |f - mean f|^2), so that 1/delta
            is dimensionless; "maxabs", the paper's, takes every dimension centred and divided by its largest absolute
            value (constant ones stay 0). The authors' code adds 1e-9 to that value; here nothing is added.
        center: Subtract the mean target first, so that LFR starts at 0. None does so for floats, whose mean is a matter
            of their unit, and leaves class ids as published; `Spectrum.center` says what was done. Floats that are
            one-hot vectors of classes give what the ids would with center=False.
        rows: None: every point is a filter centre (exact). Else: that many, drawn without replacement; a warning says
            how many it takes where these are too few for `stderr` to rest on what they show.
        rtol: Instead of `rows`: as many as it takes for this relative standard error of LFR at every cutoff; where LFR
            is below 0.01, relative to 0.01.
        engine: "auto": "cpu" on the CPU for the work of some 300 points or more, "cuda" on an NVIDIA GPU (Ampere or
            later, with Triton) above 1,024, else "blocked" (measured in docs/benchmarks.md). "cpu": all cutoffs from
            one pass, LFR to 1e-5. "cuda": the same on one NVIDIA GPU. "blocked": any device; float64 features keep
            float64's accuracy. "reference": float64, dense. `Spectrum.engine` says which it was.
        device: Where to compute; None means where the features are.
        seed: Of the draw of rows, and of the random signs. The global random state is not touched.
        group: A `torch.distributed` process group over whose ranks the points are spread: each rank calls with its
            own part of them, which may be empty, and all get the spectrum of the whole, as one process would find
            it with the parts one under the other. None measures what this process has, whatever groups there are.

    Returns:
        A `Spectrum`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Example:
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
    scale: Scale = "raw",
    center: bool | None = None,
    rows: int | None = None,
    rtol: float | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    seed: int = 0,
    group: Any = None,
    room: int | None = None,
) -> Spectrum:
    """Do the work of `spectrum`, within a budget: features may be a `Source`, and work on them gets `room` bytes."""
    shards = Shards(group)
    with shards.together():
        x = features if isinstance(features, Source) else as_features(features, device, empty=not shards.alone)
        y = read_targets(targets, len(targets if isinstance(x, Source) else x))
        as_scale(scale)
        pick_engine(engine, x.device, len(y))
        grid = None if inv_delta is None else as_cutoffs(inv_delta)
    options = {"scale": scale, "center": center, "rows": rows, "rtol": rtol, "engine": engine, "seed": seed}
    if isinstance(x, Source):
        shards.counts = [len(y)]
    else:
        x, y = shards.meet(x, y, {**options, "inv_delta": None if grid is None else grid.tolist()})
    y = prepare_targets(y, shards, center=center, seed=seed)
    d, cutoffs = 0 if isinstance(x, Source) else x.shape[1], USUAL if grid is None else len(grid)
    name, make_engine = pick_engine(engine, x.device, shards.n, d, cutoffs)
    chosen = draw(y, shards.n, rows, rtol, seed)
    with torch.no_grad(), enough_memory(shards.n, d):
        if isinstance(x, Source):
            way = Passing(x, chosen, room or 0, make_engine, y, CUTOFFS if grid is None else len(grid), scale)
        elif room is not None and shards.alone and _copies(x, make_engine) > room:
            way = Passing(Held(x), chosen, room, make_engine, y, scale=scale)
        else:
            way = Whole(x, shards, make_engine, y, scale)
        points = way.points
        gain = float(points.gain[0])
        # Cutoffs are those of the scaled points times these; one after the other, since gain^2 may overflow.
        units = {"raw": (gain, gain), "rms": (points.spread or 1.0, 1.0), "maxabs": (1.0, 1.0)}[scale]
        grid = _own_grid(way, units) if grid is None else grid
        with np.errstate(over="ignore"):
            way.begin(torch.from_numpy(np.clip(grid / units[0] / units[1], 1e-300, 1e300)))
        tally = Tally(chosen, y, len(grid), shards)
        for batch in chosen.batches():
            for found in way.curves(batch):
                tally.add(found)
            tally.share()
            if tally.done():
                break
    found = within_bounds(tally.estimates(), y, tally.target, name)
    if rtol is not None and y.sketch and np.any(found["stderr"] > rtol * np.maximum(found["lfr"], FAINT)):
        worst = float(np.max(found["stderr"] / np.maximum(found["lfr"], FAINT)))
        warnings.warn(f"rtol={rtol}: sketched target columns leave LFR a relative error of {worst:.2g}", stacklevel=3)
    if rows is not None and (needed := tally.rows_needed()) is not None:
        remedy = f"rows={needed} or more" if needed < shards.n else f"rows=None, for all {shards.n} points"
        warnings.warn(f"rows={rows}: stderr is mostly of what so few cannot have met; pass {remedy}", stacklevel=3)
    with np.errstate(over="ignore"):
        rdf = np.clip(found["slope"] / units[0] / units[1], -1e300, 1e300)
    return Spectrum(
        inv_delta=grid,
        lfr=found["lfr"],
        rdf=rdf,
        chance=y.chance(found["self_weight"]),
        neighbours=found["neighbours"],
        stderr=found["stderr"],
        n=shards.n,
        d=points.features.shape[1],
        rows=tally.rows,
        scale=scale,
        floor=y.floor,
        spread=points.spread / gain / gain if points.spread else 0.0,
        engine=name,
        sketch=y.sketch,
        center=y.centered,
        coincident=points.coincident,
    )


def _own_grid(way: Whole | Passing, units: tuple[float, float]) -> Curve:
    """Return cutoffs that cover the data's distances, in the units asked for."""
    with np.errstate(over="ignore", under="ignore"):
        grid = way.own_grid() * units[0] * units[1]
    if grid[0] < 1e-300 or grid[-1] > 1e300:
        raise InputError(
            f"features: they differ by about {1 / units[0]:.1g}, for which 1/delta leaves float64's range; "
            "scale them, or pass scale='rms'"
        )
    return grid


def _copies(features: Tensor, make_engine: type[Engine]) -> int:
    """Bytes that an engine takes beside the features, where it prepares them all."""
    return make_engine.bytes_each(features.element_size()) * features.numel() - features.nbytes
