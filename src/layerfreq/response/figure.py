"""The figure of error by frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_errors(found: Any, ax: Axes | None = None) -> Axes:
    """Draw the relative error over k: chance dashed, two standard errors, bands that say nothing faint.

    Args:
        found: A `layerfreq.ErrorSpectrum`.
        ax: Axes to draw on; None makes a new figure.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")[1]
    k, told = found.k, found.told
    style: dict[str, Any] = {"color": "#2166ac", "marker": ".", "linewidth": 1}
    ax.plot(k, found.relative, **style, alpha=0.25)
    ax.plot(k, np.where(told, found.relative, np.nan), **style, label="relative error (amplitude)")
    if found.stderr is not None:
        low, high = found.relative - 2 * found.stderr, found.relative + 2 * found.stderr
        ax.fill_between(k, low, high, color=style["color"], alpha=0.2, lw=0, label="±2 s.e.")
    ax.plot(k, found.chance, color="0.45", linestyle="--", label="by chance (shuffled outputs)")
    seen = found.relative[told]
    ax.set(xlabel=f"k ({found.units})", ylabel="relative error", ylim=(0, max(1.2, 1.1 * seen.max(initial=0.0))))
    ax.set_xscale("symlog" if k[0] == 0 else "log", **({"linthresh": float(k[1])} if k[0] == 0 and len(k) > 1 else {}))
    ax.legend(fontsize="small", frameon=False)
    return ax
