"""Numbers that are read off measured curves, in memory or on disk."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np


def resolution(inv_delta: Any, neighbours: Any, coincident: float = 1.0) -> float:
    """Return the largest 1/delta, within the cutoffs, at which a window holds another point; 0.0 if none does.

    Args:
        inv_delta: (m,) the cutoffs.
        neighbours: (m,) effective number of points in a window, on average.
        coincident: Mean number of points at a point's place, itself included.
    """
    others = np.asarray(neighbours) - coincident
    enough = np.flatnonzero(others >= 1)
    if len(enough) == 0:
        return 0.0
    last = int(enough[-1])
    if last == len(others) - 1:
        return float(inv_delta[last])
    x, y = np.log(inv_delta[last : last + 2]), np.log1p(np.maximum(others[last : last + 2], 0))
    share = (y[0] - math.log(2)) / (y[0] - y[1])
    return float(math.exp(x[0] + share * (x[1] - x[0])))


def coincident_at(about: Any, step: Any, scale: str, layer: Any) -> float:
    """Return the mean number of points at a point's place at a layer, from the `attrs` of a run's frame, or 1."""
    found: Any = about.get("coincident", {})
    for name in (int(step), scale, str(layer)):
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) else 1.0


def per_octave(inv_delta: Any, rdf: Any) -> Any:
    """Return RDF as a density over log2(1/delta): rdf x inv_delta x ln 2."""
    return np.asarray(rdf) * np.asarray(inv_delta) * np.log(2)


class ReadOnly:
    """A dataclass of results: its arrays cannot be written to, and a notebook shows its `repr`."""

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"
