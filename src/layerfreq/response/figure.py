"""Figures of error by frequency: at one step, and over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.plots import axes_for, bent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEARNED = {0.5: "-", 0.1: "--"}  # thresholds of the relative error, and their lines


def plot_errors(found: Any, ax: Axes | None = None) -> Axes:
    """Draw the relative error over k: chance dashed, two standard errors, bands that say nothing faint.

    Args:
        found: A `layerfreq.ErrorSpectrum`.
        ax: Axes to draw on; None makes a new figure.
    """
    ax = axes_for(ax, 5.5, 3.6)
    k, told = found.k, found.told
    style: dict[str, Any] = {"color": "#2166ac", "marker": ".", "linewidth": 1}
    ax.plot(k, found.relative, **style, alpha=0.25)
    ax.plot(k, np.where(told, found.relative, np.nan), **style, label="relative error (amplitude)")
    if found.stderr is not None:  # bars and marks, not bands and lines: a band between undefined ones has no width
        bars: dict[str, Any] = {"fmt": "none", "ecolor": style["color"], "alpha": 0.4, "label": "±2 s.e."}
        ax.errorbar(k, found.relative, 2 * found.stderr, **bars)
    ax.plot(k, found.chance, color="0.45", linestyle="--", marker="_", ms=4, label="by chance (shuffled outputs)")
    seen = found.relative[told]
    ax.set(xlabel=f"k ({found.units})", ylabel="relative error", ylim=(0, max(1.2, 1.1 * seen.max(initial=0.0))))
    defined = k[np.isfinite(found.relative)]
    _show_frequencies(ax, "x", k, defined if len(defined) else k)
    ax.legend(fontsize="small", frameon=False)
    return ax


def figure_learning(measured: Sequence[tuple[int, Any]], unit: str = "step") -> Figure:
    """Draw the relative error over step and frequency as a map, and below it how far up the target is learned.

    The map has the bands that say something, from the first to the last; cells are hatched where the error is no
    smaller than that of outputs shuffled over the points. Where a line is missing, not even the lowest band is learned.

    Args:
        measured: Steps, each with its `layerfreq.ErrorSpectrum`; those on other frequencies than the last are left out.
        unit: What a step is called.
    """
    import matplotlib.pyplot as plt

    k = measured[-1][1].k
    kept = [(step, found) for step, found in measured if np.array_equal(found.k, k)]
    steps, spectra = np.array([step for step, _ in kept], dtype=np.float64), [found for _, found in kept]
    relative = np.stack([np.where(found.told, found.relative, np.nan) for found in spectra], axis=1)
    seen = np.flatnonzero(np.isfinite(relative).any(axis=1))
    figure, (ax, below) = plt.subplots(
        2, 1, figsize=(7.0, 6.0), layout="constrained", sharex=True, height_ratios=(2, 1)
    )
    x, y = _edges(steps), _edges(k, log=bool(k[0] > 0))
    _draw_map(figure, ax, x, y, relative, np.stack([found.chance for found in spectra], axis=1))
    _draw_learned(below, steps, spectra, k[seen[-1]] if len(seen) else np.inf)
    for each in (ax, below):
        _show_frequencies(each, "y", k, k[seen[0] : seen[-1] + 1] if len(seen) else k)
        if len(seen):
            each.set_ylim(y[seen[0]], y[seen[-1] + 1])
    ax.set(ylabel=f"k ({measured[-1][1].units})")
    below.set(xlabel=unit, ylabel="learned up to k", xlim=(x[0], x[-1]))
    if bent(steps):
        below.set_xscale("symlog", linthresh=1)
    return figure


def _draw_map(figure: Figure, ax: Axes, x: Any, y: Any, relative: Any, chance: Any) -> None:
    """Draw the relative error (bands, steps) in colour, hatched where it is no smaller than chance."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    ax.set_facecolor("0.9")
    drawn = ax.pcolormesh(x, y, np.ma.masked_invalid(relative), vmin=0, vmax=1, cmap="viridis_r", rasterized=True)
    blind = np.ma.masked_invalid(np.where(relative >= chance, 1.0, np.nan))
    ax.pcolor(x, y, blind, cmap=ListedColormap(["none"]), hatch="////", edgecolor="white", linewidth=0)
    figure.colorbar(drawn, ax=ax, extend="max", label="relative error (amplitude)")
    keys = [
        Patch(facecolor="0.9", label="undefined"),
        Patch(facecolor="0.2", edgecolor="white", hatch="////", label="chance, or worse"),
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=2, fontsize="small", frameon=False)


def _draw_learned(ax: Axes, steps: Any, spectra: Sequence[Any], top: float) -> None:
    """Draw up to which frequency each spectrum is learned, with two standard errors, nothing above the map's top."""
    for threshold, dash in LEARNED.items():
        found = [(one.learned(threshold), *one.learned_interval(threshold)) for one in spectra]
        up, low, high = np.minimum(np.array(found, dtype=np.float64), top).T  # None is NaN
        ax.plot(steps, up, color="black", linestyle=dash, marker=".", label=f"under {threshold}")
        ax.fill_between(steps, low, high, color="black", alpha=0.15, lw=0)
    ax.legend(title="relative error", fontsize="small", frameon=False)


def _show_frequencies(ax: Axes, along: str, k: Any, some: Any) -> None:
    """Scale the axis "x" or "y" for some of the frequencies k, with plain numbers at its ticks.

    It is logarithmic, but straight from 0 to the first frequency above it where 0 is one of them.
    """
    first, low, high = float(next((one for one in k if one > 0), 1.0)), float(some[0]), float(some[-1])
    scale: dict[str, Any] = {"value": "log"} if low > 0 else {"value": "symlog", "linthresh": first}
    getattr(ax, f"set_{along}scale")(**scale)
    getattr(ax, f"set_{along}lim")(low / 1.1 if low > 0 else -0.2 * first, 1.1 * max(high, first))
    axis = getattr(ax, f"{along}axis")
    axis.set_ticks([*([] if low > 0 else [0.0]), *round_numbers(max(low, first), max(high, first))])
    axis.set_ticks([], minor=True)
    axis.set_major_formatter("{x:g}")


def round_numbers(low: float, high: float) -> list[float]:
    """Return round numbers between two positive ones: powers of ten, with 2 and 5 times them where they are few.

    Where these are fewer than two, round numbers at equal distances.
    """
    from matplotlib.ticker import MaxNLocator

    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    found = np.outer(powers, (1, 2, 5) if high < 1000 * low else (1,)).ravel()
    if np.count_nonzero((found >= low) & (found <= high)) < 2:
        found = MaxNLocator(4).tick_values(low, high)
    return [float(one) for one in found if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]


def _edges(at: Any, *, log: bool = False) -> Any:
    """Return the edges of cells around increasing places, halfway to the next ones; the outer ones as far out."""
    at = np.log(at) if log else np.asarray(at, dtype=np.float64)
    inner = (at[1:] + at[:-1]) / 2
    ends = (inner[0] - at[0], at[-1] - inner[-1]) if len(inner) else (0.5, 0.5)
    edges = np.concatenate([[at[0] - ends[0]], inner, [at[-1] + ends[1]]])
    return np.exp(edges) if log else np.maximum(edges, 0.0)
