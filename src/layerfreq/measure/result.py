"""The result of a measurement: a spectrum, and the numbers derived from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.curves import ReadOnly, per_octave, resolution
from layerfreq.data.validation import Curve, Scale, as_cutoffs, as_scale
from layerfreq.errors import Code, InputError, damaged, first_line, no_such
from layerfreq.files import as_path, write_whole

CURVES = ("inv_delta", "lfr", "rdf", "chance", "neighbours")
# What is not a curve, and in the `attrs` of a frame.
ABOUT = ("n", "d", "rows", "scale", "floor", "spread", "engine", "sketch", "center", "coincident")

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(ReadOnly):
    """Low-frequency ratio (LFR) and ratio density function (RDF) of a target function over its features.

    Attributes:
        inv_delta: (m,) float64, the cutoffs 1/delta, where delta is the filter's variance.
        lfr: (m,) float64, the share of the target's energy that the filter keeps.
        rdf: (m,) float64, the derivative of `lfr` with respect to 1/delta, exact at each point.
        chance: (m,) float64, the LFR expected if the labels were shuffled over the points.
        neighbours: (m,) float64, the effective number of points in a filter window (Kish), 1 to n.
        stderr: (m,) float64, the standard error of `lfr`; None if every point was a filter centre and no target was
            sketched.
        n: Number of points.
        d: Number of features.
        rows: Number of filter centres.
        scale: "raw"; "rms" if features were centred and divided by their root mean square; "maxabs" if every dimension
            was centred and divided by its largest absolute value.
        floor: LFR as 1/delta goes to 0, |mean y|^2 / mean |y|^2.
        spread: mean |f - mean f|^2 of the raw features, which converts between "raw" and "rms"; 0.0 at "maxabs", which
            no factor converts.
        engine: The engine that computed it.
        sketch: Number of random-sign sums that replaced the columns of wide targets, or None.
        center: Whether the mean target was subtracted first.
        coincident: Mean number of points at a point's place, itself included; 1.0 if all are distinct, n if only
            the rounding of the features' dtype tells them apart.

    Examples:
        >>> x = torch.linspace(0, 1, 500)[:, None]
        >>> one = spectrum(x, torch.sin(30 * x[:, 0]), [1.0, 10.0, 100.0, 1000.0])
        >>> bool((np.diff(one.lfr) > 0).all())  # wider filters keep less
        True
        >>> one.at([20.0, 200.0]).lfr.shape
        (2,)
        >>> one.to_scale("rms").scale
        'rms'
        >>> list(one.to_frame().columns)[:3]
        ['inv_delta', 'lfr', 'rdf']
        >>> Spectrum.load(one.save("one.parquet")).median == Spectrum.from_frame(one.to_frame()).median == one.median
        True
        >>> axes = one.plot()
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

    @cached_property
    def density(self) -> Curve:
        """(m,) RDF per octave, dLFR / dlog2(1/delta), as drawn over a logarithmic axis."""
        return per_octave(self.inv_delta, self.rdf)

    @cached_property
    def peak(self) -> float | None:
        """1/delta of the RDF's maximum, refined between cutoffs; None if the RDF is nowhere positive."""
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
        """1/delta at which LFR is halfway from its floor to 1; None if the cutoffs do not reach it."""
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
        """Largest cutoff 1/delta at which a window holds another point on average; 0.0 if none does.

        Points that coincide with the window's centre do not count, since no filter can separate them. If all points are
        distinct, this is where `neighbours` falls to 2.
        """
        return resolution(self.inv_delta, self.neighbours, self.coincident)

    @property
    def resolved(self) -> bool:
        """Whether the median lies within the resolution, beyond which LFR says nothing; False without a median."""
        return self.median is not None and self.median <= self.resolution

    @property
    def median_error(self) -> float | None:
        """Standard error of log2 of the median, in octaves of 1/delta: that of LFR there over LFR's slope.

        None if there is no median, or LFR has no error (`stderr` is None).
        """
        if self.median is None or self.stderr is None:
            return None
        slope = float(np.interp(self.median, self.inv_delta, self.rdf)) * self.median * math.log(2)
        return float(np.interp(self.median, self.inv_delta, self.stderr)) / slope if slope > 0 else None

    @property
    def _varies(self) -> bool:
        return self.floor < 1 - 1e-12 and (self.coincident < self.n or not self.n)  # 0 where a run does not say

    @cached_property
    def _hermite(self) -> Callable[[Any], Any]:
        from scipy.interpolate import CubicHermiteSpline

        return CubicHermiteSpline(np.log(self.inv_delta), self.lfr, self.rdf * self.inv_delta)

    def at(self, inv_delta: Any) -> Spectrum:
        """Return the spectrum at other cutoffs within its range, by interpolation.

        LFR and RDF come from the cubic through values and exact derivatives, over the logarithm of 1/delta; the other
        curves are interpolated monotonically.

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
            range_ = f"this spectrum's range {first:.4g} .. {last:.4g}"
            raise InputError(f"inv_delta: {wanted[0]:.4g} .. {wanted[-1]:.4g} leaves {range_}; measure on a wider grid")
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
            InputError: To or from "maxabs", which scales every dimension separately and is another measurement; or if
                the features' spread is outside float64's range.
        """
        if as_scale(scale) == self.scale:
            return self
        if "maxabs" in (scale, self.scale):
            why = f"{self.scale!r} cannot become {scale!r}, since 'maxabs' scales every dimension by itself"
            raise Code.UNSUPPORTED(f"scale: {why}; measure again with scale={scale!r}")
        if not 1e-300 < self.spread < 1e300:
            if self.coincident == self.n:  # all points are one: nothing depends on the axis
                return replace(self, scale=scale)
            why = f"a spread of {self.spread:.3g} leads from {self.scale!r} to no {scale!r}"
            raise InputError(f"scale: {why}; measure again with scale={scale!r}")
        factor = self.spread if scale == "rms" else 1 / self.spread
        return replace(self, scale=scale, inv_delta=self.inv_delta * factor, rdf=self.rdf / factor)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame, one row per cutoff: inv_delta, lfr, rdf, chance, neighbours, stderr.

        Its `attrs` hold the rest (n, d, rows, scale, floor and so on) for `from_frame`. `stderr` is 0 if the spectrum
        has none.
        """
        import pandas as pd

        stderr = np.zeros(len(self.lfr)) if self.stderr is None else self.stderr
        frame = pd.DataFrame({**{name: getattr(self, name).copy() for name in CURVES}, "stderr": stderr.copy()})
        frame.attrs = {name: getattr(self, name) for name in ABOUT}
        return frame

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Spectrum:
        """Return the spectrum that a frame of `to_frame` holds.

        Args:
            frame: A data frame with the columns and `attrs` of `to_frame`.

        Raises:
            InputError: If a column or an entry of `attrs` is missing; Parquet files keep `attrs`, CSV files do not.
        """
        columns, about = getattr(frame, "columns", ()), getattr(frame, "attrs", {})
        missing = [name for name in (*CURVES, "stderr") if name not in columns]
        if missing:
            raise no_such("frame", "column", missing[0], "pass what Spectrum.to_frame() returned")
        unsaid = [name for name in ABOUT if name not in about]
        if unsaid:
            raise Code.MISSING(f"frame: its attrs do not say {unsaid[0]!r} (CSV keeps none); keep it as Parquet")
        try:
            curves = {name: frame[name].to_numpy(dtype=np.float64).copy() for name in (*CURVES, "stderr")}
        except (TypeError, ValueError) as error:
            raise InputError(f"frame: {first_line(error)}; pass what Spectrum.to_frame() returned") from None
        as_cutoffs(curves["inv_delta"])
        stderr = curves.pop("stderr")
        return cls(**curves, stderr=stderr if stderr.any() else None, **{name: about[name] for name in ABOUT})

    def save(self, path: str | Path) -> Path:
        """Write the spectrum to a Parquet file, whole or not at all; `pandas.read_parquet` reads its curves.

        Args:
            path: The file, such as "layer3.parquet"; an existing one is replaced.

        Returns:
            The path.

        Raises:
            InputError: If the folder does not exist, or the file cannot be written.
        """
        path = as_path(path, "path")
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"path: {str(path)!r} is not a place for a file; name one in a folder that is there")
        try:
            write_whole(path, lambda at: self.to_frame().to_parquet(at, index=False))
        except OSError as error:
            raise Code.FAILED(f"path: cannot write {str(path)!r} ({error.strerror}); choose another place") from None
        return path

    @classmethod
    def load(cls, path: str | Path) -> Spectrum:
        """Return a spectrum that `save` wrote, bit for bit.

        Raises:
            InputError: If there is no such file, or it does not hold a spectrum.
        """
        import pandas as pd

        path = as_path(path, "path")
        try:
            frame = pd.read_parquet(path)
        except FileNotFoundError:
            raise no_such("path", "file", path) from None
        except Exception as error:  # damaged files raise dozens of types
            raise damaged("path", path, error, "name another", "not a Parquet file of a spectrum") from None
        try:
            return cls.from_frame(frame)
        except InputError as error:
            raise Code.DAMAGED(f"path: {str(path)!r} holds no spectrum ({error})") from None

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
        no_median = "outside the cutoffs" if self._varies else "none"
        dimensions = f" in {self.d} dimensions" if self.d else ""  # which a run does not keep
        return (
            f"Spectrum of {self.n} points{dimensions} ({self.scale} scale, {how})\n"
            f"  1/delta     {u[0]:.4g} .. {u[-1]:.4g}, {len(u)} cutoffs\n"
            f"  LFR         {self.lfr[0]:.3f} .. {self.lfr[-1]:.3f}, floor {self.floor:.3f}{centred}\n"
            f"  RDF peak    {describe_peak(self)}\n"
            f"  median      {describe_median(self, no_median)}\n"
            f"  resolution  {_number(self.resolution or None, 'no other point in any window')}"
        )

    def _repr_html_(self) -> str:
        """Return the `repr` for notebooks: a heading and a table of two columns."""
        import pandas as pd

        head, *rows = repr(self).splitlines()
        cells = [row.strip().split("  ", 1) for row in rows]
        table = pd.DataFrame([[name, value.strip()] for name, value in cells])
        return f"<p>{escape(head)}</p>" + table.to_html(header=False, index=False, border=0)


def describe_peak(spectrum: Spectrum) -> str:
    """Return the RDF's peak as text, marked if it is only a bound or beyond the resolution."""
    if spectrum.peak is None:
        return "none (target or features do not vary)"
    bound = ""
    if spectrum.peak_at_edge:
        bound = "<= " if spectrum.peak == spectrum.inv_delta[0] else ">= "
    return f"{bound}{spectrum.peak:.4g}" + (" (unresolved)" if spectrum.peak > spectrum.resolution else "")


def describe_median(spectrum: Spectrum, otherwise: str = "-") -> str:
    """Return the median as text, marked if it is beyond the resolution; `otherwise` if there is none."""
    mark = "" if spectrum.resolved or spectrum.median is None else " (unresolved)"
    return _number(spectrum.median, otherwise) + mark


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.4g}"
