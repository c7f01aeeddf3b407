"""The bounds of curves, which every measurement is checked against."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerfreq.data.targets import Targets
from layerfreq.errors import Code

ROUNDING = 1e-4  # relative error by which an engine's rounding may leave a bound


def within_bounds(found: dict[str, Any], targets: Targets, target: float, engine: str) -> dict[str, Any]:
    """Clip curves that rounding moved beyond a bound; refuse those that are not finite or further off.

    An average of targets is no longer than the longest of them, and an average of one-hot vectors no shorter than that
    of all classes in equal shares. A window holds at least its centre, and at most all points.

    Args:
        found: Arrays (m,): `lfr`, `slope`, `self_weight`, `neighbours`, and `stderr` or None.
        targets: The targets of all points.
        target: Mean target energy of the filter centres, the denominator of LFR.
        engine: Name of the engine, for messages.

    Raises:
        InputError: If a curve is not possible.
    """
    n, (low, high) = len(targets.energy), targets.bounds
    limits = {"lfr": (low / target, high / target), "self_weight": (1 / n, 1.0), "neighbours": (1.0, float(n))}
    for name, curve in found.items():
        least, most = limits.get(name, (-np.inf, np.inf))
        off = ROUNDING * max(1.0, most if np.isfinite(most) else 1.0)
        if curve is None:
            continue
        if not np.isfinite(curve).all() or curve.min() < least - off or curve.max() > most + off:
            raise Code.UNSUPPORTED(
                f"engine: {engine!r} found {name} {curve.min():.4g} .. {curve.max():.4g}, of which "
                f"{least:.4g} .. {most:.4g} is possible: it cannot take these features; pass engine='reference'"
            )
        found[name] = np.clip(curve, least, most)
    return found
