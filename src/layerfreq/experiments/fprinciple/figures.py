"""Figures of the frequency principle's parts: errors over training, a line per frequency, and maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.experiments.fprinciple.summary import HALF, LEARNED
from layerfreq.plots import save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(frame: Any, folder: Path) -> list[Path]:
    """Draw the figure of each part that some rows hold.

    Args:
        frame: Columns part, case, seed, step, what, k, value.
        folder: Where the figures go.

    Returns:
        The files.
    """
    files = []
    for name in frame["part"].unique():
        part = frame[frame["part"] == name]
        make = {"heatmap": _maps, "cifar": _filters, "parity": _parity, "bias": _bias}.get(name, _lines)
        files += save(make(part), folder, f"fprinciple-{name}")
    return files


def _panels(count: int, columns: int = 3) -> tuple[Figure, list[Any]]:
    from matplotlib import pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.8 * columns, 3.1 * rows), layout="constrained", squeeze=False, sharey=True
    )
    axes = list(grid.flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _curves(ax: Any, part: Any, deepest: int, label: str) -> None:
    """Draw a thin line per seed and k, in the colour and dash of the k."""
    for i, k in enumerate(sorted(part["k"].unique()), start=1):
        look = style(i, deepest)
        look.pop("marker")
        _by_seed(ax, part[part["k"] == k], label.format(k), linewidth=1, **look)


def _by_seed(ax: Any, part: Any, label: str | None, **look: Any) -> None:
    """Draw a line per seed; the legend names only the first."""
    for j, (_, one) in enumerate(part.groupby("seed")):
        ax.plot(one["step"], one["value"], label=label if j == 0 else None, **look)


def _lines(part: Any) -> Figure:
    cases = list(part["case"].unique())
    figure, axes = _panels(len(cases))
    for ax, case in zip(axes, cases, strict=True):
        one = part[(part["case"] == case) & (part["what"] == "relative")]
        _curves(ax, one, one["k"].nunique(), "k = {:g}")
        ax.axhline(LEARNED, color="0.6", linestyle=":", linewidth=1)
        ax.set(title=case, xlabel="step", ylim=(0, 1.3))
        first = max(1.0, float(np.unique(one["step"])[1:2].sum()))
        ax.set_xscale("symlog", linthresh=10 ** np.ceil(np.log10(first)))  # a tick of its own
        ax.set_xlim(0, one["step"].max())
    axes[0].set_ylabel("relative error (amplitude)")
    axes[0].legend(fontsize="small", frameon=False)
    return figure


def _maps(part: Any) -> Figure:
    cases, seed = list(part["case"].unique()), part["seed"].min()
    figure, axes = _panels(len(cases), 2)
    shown: Any = None
    for ax, case in zip(axes, cases, strict=True):
        one = part[(part["case"] == case) & (part["what"] == "fraction") & (part["seed"] == seed)]
        grid = one.pivot_table(index="step", columns="k", values="value")
        shown = ax.pcolormesh(
            grid.columns, grid.index, grid.to_numpy(), vmin=0, vmax=1, cmap="viridis", shading="nearest"
        )
        ax.set(title=f"{case} amplitudes, seed {seed}", xlabel="k, cycles per unit")
    axes[0].set_ylabel("step")
    figure.colorbar(shown, ax=axes, label="|output$_k$| / |target$_k$|, 1 = learned")
    return figure


def _filters(part: Any) -> Figure:
    figure, axes = _panels(3)
    k = np.array(sorted(part.loc[part["what"] == "low", "k"].unique()))[::-1]
    for ax, at in zip(axes, k[[0, len(k) // 3, -1]], strict=True):
        for what, look in (("low", {"color": "#b2182b"}), ("high", {"color": "#2166ac", "linestyle": "--"})):
            _by_seed(ax, part[(part["what"] == what) & (part["k"] == at)], f"e_{what}", **look)
        ax.axhline(HALF, color="0.6", linestyle=":", linewidth=1)
        ax.set(title=f"δ = {at**-2:.3g} (k = {at:.3g})", xlabel="epoch", ylim=(0, 1.2))
    axes[0].set_ylabel("relative error")
    axes[0].legend(fontsize="small", frameon=False)
    return figure


def _parity(part: Any) -> Figure:
    figure, (ax,) = _panels(1)
    for what, label, look in (("accuracy", "points shown", "-"), ("rest", "the rest", "--")):
        _by_seed(ax, part[part["what"] == what], label, color="black", linestyle=look)
    ax.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    ax.set(xlabel="step", ylabel="share of signs right", ylim=(0, 1.02))
    ax.legend(fontsize="small", frameon=False)
    return figure


def _bias(part: Any) -> Figure:
    cases = list(part["case"].unique())
    figure, axes = _panels(len(cases), 2)
    for ax, case in zip(axes, cases, strict=True):
        _by_seed(ax, part[(part["case"] == case) & (part["what"] == "bias")], None, color="black", linewidth=1)
        ax.axhline(0, color="0.6", linestyle=":", linewidth=1)
        ax.set(title=f"{case} points", xlabel="step", ylim=(-1.05, 1.05))
    axes[0].set_ylabel("spectral bias of the error\n(1: all high, -1: all low)")
    return figure
