"""Spectra read back from a run's frame; numbers of raw and rms are computed only once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.curves import coincident_at
from layerfreq.data.validation import SCALES, as_scale
from layerfreq.measure.result import Spectrum

if TYPE_CHECKING:
    import pandas as pd

MEDIANS: dict[str, Any] = {  # columns of `Run.medians` and their types
    "step": np.int64,
    "layer": object,
    "depth": np.int64,
    "scale": object,
    "median": np.float64,
    "error": np.float64,
    "peak": np.float64,
    "at_edge": np.bool_,
    "resolution": np.float64,
    "resolved": np.bool_,
}
_CURVES = ("inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr")


@dataclass(frozen=True)
class Measured:
    """One layer at one step in one scale.

    Attributes:
        step: The measured step.
        layer: Its name.
        depth: Its number, input to output.
        spectrum: The spectrum; runs do not keep `d`, `spread` and `engine`.
        again: Whether its curves are those of the previous scale with 1/delta multiplied by a factor.
    """

    step: int
    layer: str
    depth: int
    spectrum: Spectrum
    again: bool


def read_back(frame: Any) -> Iterator[Measured]:
    """Iterate over the spectra in a run's frame by step, depth, layer and scale; rows may be in any order.

    If the frame has no floor, because measurements drew different numbers of centres, it is estimated by chance at the
    widest window.

    Args:
        frame: As `Run.spectra`, with `attrs` that hold for all its spectra.

    Raises:
        InputError: If it has an unknown scale.
    """
    if len(frame) == 0:
        return
    about = frame.attrs
    for one in frame["scale"].unique():
        as_scale(one)
    (step, depth, layer, scale), columns, edges = _sorted(frame)
    place, before = None, None
    for first, end in pairwise(edges):
        curves = {name: values[first:end].copy() for name, values in columns.items()}
        stderr = curves.pop("stderr")
        one = Spectrum(
            **curves,
            stderr=stderr if stderr.any() else None,
            n=int(about.get("n", 0)),
            d=0,
            rows=int(about.get("rows", 0)),
            scale=SCALES[scale[first]],
            floor=float(about.get("floor", curves["chance"][0])),
            spread=0.0,
            engine="",
            coincident=coincident_at(about, step[first], SCALES[scale[first]], layer[first]),
        )
        here = step[first], layer[first]
        again = before is not None and here == place and _same(before, one)
        if again and before is not None:
            one = _rescaled(before, one)
        yield Measured(int(step[first]), str(layer[first]), int(depth[first]), one, again)
        place, before = here, one


def _sorted(frame: Any) -> tuple[tuple[Any, Any, Any, Any], dict[str, Any], list[Any]]:
    """Return a frame's rows spectrum by spectrum: step, depth, layer and number of the scale, curves, and its edges.

    An edge is the first row of a spectrum; the last one is the number of rows.
    """
    import pandas as pd

    layer, names = pd.factorize(frame["layer"])
    scale = pd.Categorical(frame["scale"], SCALES).codes
    step, depth = (frame[name].to_numpy(dtype=np.int64) for name in ("step", "depth"))
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in _CURVES}
    order = np.lexsort((columns["inv_delta"], scale, layer, depth, step))
    step, depth, layer, scale = step[order], depth[order], layer[order], scale[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (np.diff(step) != 0) | (np.diff(layer) != 0) | (np.diff(scale) != 0)
    columns = {name: values[order] for name, values in columns.items()}
    return (step, depth, np.asarray(names)[layer], scale), columns, [*np.flatnonzero(starts), len(order)]


def medians(frame: Any) -> pd.DataFrame:
    """Return one row per step, layer and scale in a run's frame, with numbers instead of curves.

    Args:
        frame: As `Run.spectra`.

    Returns:
        Columns step, layer, depth, scale; median (1/delta, NaN if the cutoffs do not reach it), error (standard
        error of log2 of the median, NaN if LFR has none), peak (NaN if the RDF is nowhere positive), at_edge
        (whether the peak is at the first or last cutoff, and so a bound), resolution, and resolved (whether the median
        is within the resolution). Ordered by step, depth, layer and scale.
    """
    import pandas as pd

    rows = [(m.step, m.layer, m.depth, m.spectrum.scale, *_numbers(m.spectrum)) for m in read_back(frame)]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(MEDIANS)}
    return pd.DataFrame({name: np.array(columns[name], dtype=kind) for name, kind in MEDIANS.items()})


def _numbers(one: Spectrum) -> tuple[Any, ...]:
    return one.median, one.median_error, one.peak, one.peak_at_edge, one.resolution, one.resolved


def _same(one: Spectrum, other: Spectrum) -> bool:
    """Whether two spectra differ only by a factor in 1/delta."""
    if len(one.lfr) != len(other.lfr):
        return False
    factors = other.inv_delta / one.inv_delta
    return bool(
        np.abs(factors / factors[0] - 1).max() <= 1e-9
        and np.abs(one.lfr - other.lfr).max() <= 1e-9
        and np.abs(one.chance - other.chance).max() <= 1e-9
    )


def _rescaled(known: Spectrum, to: Spectrum) -> Spectrum:
    """Return `to` with the numbers already computed for `known`, times the factor between them."""
    factor = float(to.inv_delta[0] / known.inv_delta[0])
    for name in ("peak", "median", "resolution"):
        if name in known.__dict__:  # where cached properties keep what they found
            value = known.__dict__[name]
            to.__dict__[name] = None if value is None else value * factor
    return to
