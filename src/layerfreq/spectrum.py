"""The measure: how much of a target function is left when its high frequencies over the features are cut."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

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
from layerfreq.measure.sampling import Tally, draw
from layerfreq.measure.sources import Held
from layerfreq.measure.strategies import CUTOFFS, Passing, Whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """Low-frequency ratio (LFR) and ratio density function (RDF) of a target function over its features.

    Attributes:
        inv_delta: (m,) float64, the cutoffs 1/delta, delta being the filter's variance.
        lfr: (m,) float64, the share of the target's energy that the filter keeps.
        rdf: (m,) float64, the derivative of `lfr` with respect to 1/delta, exact at each point.
        chance: (m,) float64, the LFR expected if the labels were shuffled over the points.
        neighbours: (m,) float64, the effective number of points in a filter window (Kish), 1 to n.
        stderr: (m,) float64, the standard error of `lfr`, or None where every point was a filter centre and no
            target was sketched.
        n: Number of points.
        d: Number of features.
        rows: Number of filter centres.
        scale: "raw"; "rms" where features were centred and divided by their root mean square; "maxabs" where every
            dimension was centred and divided by its largest absolute value.
        floor: LFR as 1/delta goes to 0, |mean y|^2 / mean |y|^2.
        spread: mean |f - mean f|^2 of the raw features, which turns "raw" and "rms" into one another; 0.0 at
            "maxabs", from which no factor leads to them.
        engine: The engine that computed it.
        sketch: Number of random-sign sums that stood for the columns of wide targets, or None.
        center: Whether the mean target was subtracted first.
        coincident: Mean number of points that a point's own place holds, itself included: 1.0 where all are distinct.
    """

    inv_delta: Curve
    lfr: Curve
    rdf: Curve
    chance: Curve
    neighbours: Curve
    stderr: Curve | None
    n: int
    d: int
    rows: int
    scale: Scale
    floor: float
    spread: float
    engine: str
    sketch: int | None = None
    center: bool = False
    coincident: float = 1.0

    def __post_init__(self) -> None:
        for name in ("inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr"):
            array = getattr(self, name)
            if array is not None:
                array.flags.writeable = False

    @cached_property
    def peak(self) -> float | None:
        """1/delta of the RDF's maximum, refined between cutoffs; None where the RDF is nowhere positive."""
        top = int(np.argmax(self.rdf))
        if not self._varies or self.rdf[top] <= 0:
            return None
        if self.peak_at_edge:
            return float(self.inv_delta[top])
        near = slice(top - 1, top + 2)
        a, b, _ = np.polyfit(np.log(self.inv_delta[near] / self.inv_delta[top]), self.rdf[near] / self.rdf[top], 2)
        return float(self.inv_delta[top] * math.exp(-b / (2 * a))) if a < 0 else float(self.inv_delta[top])

    @cached_property
    def peak_at_edge(self) -> bool:
        """Whether the RDF is largest at the first or last cutoff, so that `peak` is only a bound."""
        return int(np.argmax(self.rdf)) in (0, len(self.rdf) - 1)

    @cached_property
    def median(self) -> float | None:
        """1/delta at which LFR is half-way from its floor to 1; None where the cutoffs do not reach it."""
        half = (1 + self.floor) / 2
        reached = np.flatnonzero(self.lfr >= half)
        if not self._varies or len(reached) == 0 or (reached[0] == 0 and self.lfr[0] > half):
            return None
        if reached[0] == 0:
            return float(self.inv_delta[0])
        from scipy.optimize import brentq

        # The piece of `_hermite` that holds the root, over t = 0 .. 1: no other is needed.
        near = slice(int(reached[0]) - 1, int(reached[0]) + 1)
        u, (y0, y1) = self.inv_delta[near], self.lfr[near].tolist()
        start, width = math.log(u[0]), math.log(u[1]) - math.log(u[0])
        m0, m1 = (self.rdf[near] * u * width).tolist()
        c, d = 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1

        def above(t: float) -> float:
            return y0 - half + t * (m0 + t * (c + t * d))

        root: Any = brentq(above, 0.0, 1.0) if above(1.0) > 0 else 1.0  # rounding may leave it just below 0 there
        return math.exp(start + root * width)

    @cached_property
    def resolution(self) -> float:
        """Largest 1/delta, within the cutoffs, at which a window holds another point; 0.0 if none does.

        On average, and beside those that coincide with the window's centre, which no filter can tell from it: where
        all points are distinct, this is where `neighbours` falls to 2.
        """
        others = self.neighbours - self.coincident
        enough = np.flatnonzero(others >= 1)
        if len(enough) == 0:
            return 0.0
        last = int(enough[-1])
        if last == len(self.neighbours) - 1:
            return float(self.inv_delta[last])
        x, y = np.log(self.inv_delta[last : last + 2]), np.log1p(np.maximum(others[last : last + 2], 0))
        share = (y[0] - math.log(2)) / (y[0] - y[1])
        return float(math.exp(x[0] + share * (x[1] - x[0])))

    @property
    def _varies(self) -> bool:
        return self.floor < 1 - 1e-12 and self.coincident < self.n

    @cached_property
    def _hermite(self) -> Callable[[Any], Any]:
        from scipy.interpolate import CubicHermiteSpline

        return CubicHermiteSpline(np.log(self.inv_delta), self.lfr, self.rdf * self.inv_delta)

    def at(self, inv_delta: Any) -> Spectrum:
        """Return the spectrum at other cutoffs inside this one's range, without computing it anew.

        LFR and RDF come from the cubic through values and exact derivatives, over the logarithm of 1/delta;
        the other curves are interpolated monotonically.

        Args:
            inv_delta: (k,) increasing, > 0, within this spectrum's first and last cutoff.

        Raises:
            InputError: If a cutoff lies outside the range, or the cutoffs are not positive and increasing.
        """
        from scipy.interpolate import PchipInterpolator

        wanted = as_cutoffs(inv_delta)
        first, last = self.inv_delta[0], self.inv_delta[-1]
        slack = 1e-12
        if wanted[0] < first * (1 - slack) or wanted[-1] > last * (1 + slack):
            raise InputError(
                f"inv_delta: {wanted[0]:.4g} .. {wanted[-1]:.4g} leaves this spectrum's range "
                f"{first:.4g} .. {last:.4g}; measure on a wider grid"
            )
        if len(self.inv_delta) == 1:
            return self
        x, s = np.log(self.inv_delta), np.log(np.clip(wanted, first, last))

        def between(curve: Any) -> Any:
            return np.asarray(PchipInterpolator(x, curve)(s), dtype=np.float64)

        return replace(
            self,
            inv_delta=wanted,
            lfr=np.asarray(self._hermite(s)),
            rdf=np.asarray(self._hermite(s, 1)) / wanted,  # pyright: ignore[reportCallIssue]
            chance=between(self.chance),
            neighbours=np.exp(between(np.log(self.neighbours))),
            stderr=None if self.stderr is None else between(self.stderr),
        )

    def to_scale(self, scale: Scale) -> Spectrum:
        """Return the same measurement with 1/delta in the other scale, "raw" or "rms".

        Scaling features by c divides 1/delta by c^2 and changes nothing else, so this is exact.

        Raises:
            InputError: To or from "maxabs", which scales every dimension by itself: it is another measurement; or if
                the features' spread leaves float64's range.
        """
        if as_scale(scale) == self.scale:
            return self
        if "maxabs" in (scale, self.scale):
            raise InputError(
                f"scale: {self.scale!r} cannot be turned into {scale!r}, since 'maxabs' scales every dimension by "
                f"itself; measure again with scale={scale!r}"
            )
        if self.coincident == self.n:  # all points are one: nothing depends on the axis
            return replace(self, scale=scale)
        if not 1e-300 < self.spread < 1e300:
            raise InputError(
                f"scale: a spread of {self.spread:.3g} leads from {self.scale!r} to no {scale!r}; "
                f"measure again with scale={scale!r}"
            )
        factor = self.spread if scale == "rms" else 1 / self.spread
        return replace(self, scale=scale, inv_delta=self.inv_delta * factor, rdf=self.rdf / factor)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame, one row a cutoff: inv_delta, lfr, rdf, chance, neighbours, stderr."""
        import pandas as pd

        stderr = np.zeros(len(self.lfr)) if self.stderr is None else self.stderr
        columns = ("inv_delta", "lfr", "rdf", "chance", "neighbours")
        return pd.DataFrame({**{name: getattr(self, name).copy() for name in columns}, "stderr": stderr.copy()})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw LFR, its density per octave, chance, floor and the unresolved range over 1/delta.

        Args:
            ax: Axes to draw on; None makes a new figure.
        """
        from layerfreq.plots import plot_spectrum

        return plot_spectrum(self, ax)

    def __repr__(self) -> str:
        how = "exact"
        if self.stderr is not None:
            rows = f"{self.rows} rows" if self.rows < self.n else "all rows"
            sketch = "" if self.sketch is None else f", target columns sketched to {self.sketch}"
            how = f"{rows}{sketch}, LFR +- {self.stderr.max():.2g}"
        u, centred = self.inv_delta, ", targets centred" if self.center else ""
        return (
            f"Spectrum of {self.n} points in {self.d} dimensions ({self.scale} scale, {how})\n"
            f"  1/delta     {u[0]:.4g} .. {u[-1]:.4g}, {len(u)} cutoffs\n"
            f"  LFR         {self.lfr[0]:.3f} .. {self.lfr[-1]:.3f}, floor {self.floor:.3f}{centred}\n"
            f"  RDF peak    {describe_peak(self)}\n"
            f"  median      {_number(self.median, 'outside the cutoffs')}\n"
            f"  resolution  {_number(self.resolution or None, 'no other point in any window')}"
        )


def describe_peak(spectrum: Spectrum) -> str:
    """Return the RDF's peak as text that says when it is only a bound or lies where nothing is resolved."""
    if spectrum.peak is None:
        return "none (the target or the features do not vary)"
    bound = ""
    if spectrum.peak_at_edge:
        bound = "<= " if spectrum.peak == spectrum.inv_delta[0] else ">= "
    return f"{bound}{spectrum.peak:.4g}" + (" (unresolved)" if spectrum.peak > spectrum.resolution else "")


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.4g}"


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
        engine: "auto": "cpu" on the CPU for the work of some 512 points or more, "cuda" on an NVIDIA GPU (Ampere or
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
