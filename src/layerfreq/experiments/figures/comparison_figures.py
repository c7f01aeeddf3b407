"""Figures of published curves, dashed, under one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from layerfreq import plots
from layerfreq.data.curves import per_octave
from layerfreq.experiments.figures.comparison import Comparison
from layerfreq.experiments.figures.published import Line

THEIRS = (0, (4, 2))
BEHIND = 0.35  # opacity of what lies behind other curves in their figure


def densities(groups: Sequence[Sequence[Comparison]], names: Mapping[str, str], title: str) -> Any:
    """Draw panels of RDF: above as published, below per octave over a logarithmic axis.

    Args:
        groups: For each panel the comparisons of all seeds, of which mean and range are drawn.
        names: Published curve -> what the legend calls it.
        title: Title of the figure.
    """
    top = {name: place for place, name in enumerate(names, start=1)}
    figure, grid = _grid(2, len(groups))
    for column, group in zip(grid.T, groups, strict=True):
        panel = group[0].panel
        for ax, shown in ((column[0], lambda x, y: y), (column[1], per_octave)):
            for name in (name for name in names if any(name in one.ours for one in group)):
                curves = np.array([shown(panel.x, one.ours[name]) for one in group if name in one.ours])
                look = _look(top[name], len(names))
                _theirs(ax, panel.x, panel.lines[name], look, lambda y, shown=shown, x=panel.x: shown(x, y))
                _ours(ax, panel.x, curves, look, names[name])
        column[0].set(
            title=panel.name.replace("epoch", "epoch "),
            xlabel="1/δ",
            ylabel="RDF / its maximum" if panel.relative else "RDF",
        )
        octave = "RDF / its maximum, x (1/δ) ln 2" if panel.relative else plots.DENSITY
        column[1].set(xlabel="1/δ", ylabel=octave, xscale="log")
        column[0].set_xlim(left=0)
    _finish(figure, grid[0][0], title)
    return figure


def courses(
    panels: Sequence[tuple[str, Mapping[str, Line], Mapping[str, tuple[Any, Any]]]],
    names: Mapping[str, str],
    labels: tuple[str, str],
    title: str,
) -> Any:
    """Draw panels of curves that are no densities, such as accuracies over epochs.

    Args:
        panels: Title, published curves, and ours: curve -> x (m,) and values (seeds, m).
        names: Published curve -> what the legend calls it.
        labels: Labels of both axes.
        title: Title of the figure.
    """
    figure, grid = _grid(1, len(panels))
    for ax, (name, theirs, ours) in zip(grid[0], panels, strict=True):
        for depth, curve in enumerate(names, start=1):
            if curve in ours:
                look = _look(depth, len(names))
                _theirs(ax, theirs[curve].x, theirs[curve], look, lambda y: y)
                _ours(ax, ours[curve][0], np.asarray(ours[curve][1]), look, names[curve])
        ax.set(title=name, xlabel=labels[0], ylabel=labels[1])
    _finish(figure, grid[0][0], title)
    return figure


def _look(depth: int, deepest: int) -> dict[str, Any]:
    """Colour and marker alone: dashes say whose a curve is."""
    look = plots.style(depth, deepest)
    return {"color": look["color"], "marker": look["marker"]}


def _theirs(ax: Any, x: Any, line: Line, look: dict[str, Any], shown: Callable[[Any], Any]) -> None:
    """Draw a published curve, faint where it lies behind others; a hollow marker is its highest point.

    It is wide enough to show around ours where the two agree.
    """
    y = shown(line.y)
    ax.plot(x, y, color=look["color"], linestyle=THEIRS, linewidth=1.2, alpha=BEHIND, zorder=1)
    ax.plot(x, np.where(line.hidden, np.nan, y), color=look["color"], linestyle=THEIRS, linewidth=1.2, zorder=1.5)
    top = int(np.argmax(y))
    ax.plot(x[top], y[top], **look, markerfacecolor="white", markersize=9, zorder=1.8)


def _ours(ax: Any, x: Any, curves: Any, look: dict[str, Any], name: str) -> None:
    """Draw the mean of our curves, and their range where they are several; a filled marker is its highest point."""
    mean = curves.mean(axis=0)
    ax.plot(x, mean, color=look["color"], linewidth=1.6, zorder=2.2)
    if len(curves) > 1:
        ax.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.2, lw=0, zorder=2)
    top = int(np.nanargmax(mean))
    ax.plot(x[top], mean[top], **look, markersize=5, zorder=2.4)
    ax.plot([], [], **look, markersize=5, linewidth=1.6, label=name)


def _finish(figure: Any, ax: Any, title: str) -> None:
    from matplotlib.lines import Line2D

    handles = ax.get_legend_handles_labels()[0]
    hollow = {"marker": "o", "markerfacecolor": "white", "markersize": 9}
    handles += [
        Line2D([], [], color="0.3", marker="o", markersize=5, linewidth=1.6, label="ours, highest"),
        Line2D([], [], color="0.3", linestyle=THEIRS, linewidth=1.2, **hollow, label="published, highest"),
        Line2D([], [], color="0.3", linestyle=THEIRS, linewidth=1.2, alpha=BEHIND, label="hidden in theirs"),
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")  # in the middle it would meet the legend


def _grid(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=(3.4 * columns + 2, 3.2 * rows), layout="constrained", squeeze=False)
