"""Figures: densities over frequency by layer and epoch, and what training did to them.

On a logarithmic axis the RDF is drawn per octave, RDF x (1/delta) x ln 2, so that areas stay shares of energy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.arraylike import as_frame
from layerfreq.data.curves import coincident_at, per_octave, resolution
from layerfreq.errors import is_not, none_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES: list[Any] = ["-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1))]
MARKERS = "os^Dv<>pP*"
LABELS = {  # in the order of rows and panels, the paper's first
    "maxabs": "1/δ (each dimension over its\nlargest value, the paper's)",
    "raw": "1/δ",
    "rms": "1/δ (unit RMS features)",
}
DENSITY = "energy per octave of 1/δ"
FAINT = 0.3
PANELS = 6
FEW = 12  # most layers that dashes and markers tell apart, and that all fit in a legend
NAMED = 8  # layers in the legend if there are more
INSIDE = 4  # layers in a legend that lies on the curves
LETTERS = 28  # of a name in a legend
LAYER = "layer"  # the mark of lines that a legend may name


def style(depth: int, deepest: int) -> dict[str, Any]:
    """Colour, dash and marker of a layer: dark to light with depth, apart in greyscale and without colour too.

    Of very many layers only the colour says which one it is.
    """
    from matplotlib import colormaps

    share = 0.0 if deepest <= 1 else (depth - 1) / (deepest - 1)
    if deepest > FEW:
        return {"color": colormaps["viridis"](0.88 * share), "linestyle": "-", "marker": "o"}
    return {
        "color": colormaps["viridis"](0.88 * share),
        "linestyle": DASHES[(depth - 1) % len(DASHES)],
        "marker": MARKERS[(depth - 1) % len(MARKERS)],
    }


def named(layers: int, most: int = NAMED) -> list[int]:
    """Return the depths, 1 for the first, of the layers that a legend names: all, or some from first to last."""
    return sorted({*np.linspace(1, layers, most if layers > FEW else layers).round().astype(int).tolist()})


def plot_spectrum(spectrum: Any, ax: Axes | None = None) -> Axes:
    """Draw one spectrum: LFR, density per octave, chance, floor and the unresolved range.

    Args:
        spectrum: A `layerfreq.Spectrum`.
        ax: Axes to draw on; None makes a new figure.
    """
    if not hasattr(spectrum, "inv_delta"):
        raise is_not("spectrum", spectrum, "one", "what layerfreq.spectrum returns")
    ax, u = axes_for(ax), spectrum.inv_delta
    ax.set_xscale("log")
    ax.plot(u, spectrum.lfr, color="black", label="LFR")
    if spectrum.stderr is not None:
        error = 2 * spectrum.stderr
        ax.fill_between(u, spectrum.lfr - error, spectrum.lfr + error, color="black", alpha=0.2, lw=0, label="±2 s.e.")
    ax.plot(u, spectrum.chance, color="0.45", linestyle="--", label="LFR by chance (shuffled labels)")
    ax.plot(u, spectrum.density, color="#2166ac", linestyle=DASHES[1], label=DENSITY)
    ax.axhline(spectrum.floor, color="0.6", linestyle=":", label="floor")
    if spectrum.median is not None:
        what, fill = ("median", "black") if spectrum.resolved else ("median (unresolved)", "white")
        half = (1 + spectrum.floor) / 2
        ax.plot(spectrum.median, half, "o", color="black", markerfacecolor=fill, markersize=6, label=what, linestyle="")
    _shade_unresolved(ax, spectrum.resolution, u[-1])
    ax.set(xlabel=LABELS[spectrum.scale], ylabel="share of the target's energy", xlim=(u[0], u[-1]))
    frequency_axis(ax)
    ax.legend(fontsize="small", frameon=False)
    return ax


def plot_layers(spectra: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draw the density per octave of every layer over 1/delta, chance dashed thin.

    Beyond its own resolution a layer's curve is faint; where no layer is resolved, the ground is shaded. Of more than
    `FEW` layers the legend names some, from first to last, and chance is drawn of these.

    Args:
        spectra: name -> `layerfreq.Spectrum`, input to output.
        ax: Axes to draw on; None makes a new figure.
    """
    if not isinstance(spectra, Mapping) or not all(hasattr(one, "inv_delta") for one in spectra.values()):
        raise is_not("spectra", spectra, "a mapping of spectra", "what layer_spectra returns")
    if not spectra:
        raise none_given("spectra", "some; of a LayerSpectra, `failed` has the reasons")
    ours = ax is None
    ax = axes_for(ax, width=8.0)
    ax.set_xscale("log")
    for depth, (name, one) in enumerate(spectra.items(), start=1):
        _layer_curve(ax, name, depth, len(spectra), one.inv_delta, one.rdf, one.chance, one.resolution)
    first = next(iter(spectra.values()))
    ax.set_xlim(min(s.inv_delta[0] for s in spectra.values()), max(s.inv_delta[-1] for s in spectra.values()))
    _shade_unresolved(ax, max(s.resolution for s in spectra.values()), ax.get_xlim()[1])
    ax.set(xlabel=LABELS[first.scale], ylabel=DENSITY)
    frequency_axis(ax)
    if ours:  # there is room next to it
        ax.legend(
            **_layer_keys(ax, len(spectra)), loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False
        )
    else:
        ax.legend(**_layer_keys(ax, len(spectra), INSIDE), loc="best", fontsize="small", framealpha=0.85)
    return ax


def figure_epochs(frame: Any, unit: str = "step") -> Figure:
    """Draw the paper's arrangement: RDF by layer, one panel an epoch; a row for each measured scale, the paper's first.

    Beyond its own resolution a layer's curve is faint; where no layer is resolved, the ground is shaded.

    Args:
        frame: A data frame, rows as in a run's `spectra`. Of more than `PANELS` steps, as many are drawn.
        unit: What a step is called.
    """
    columns = ("step", "layer", "depth", "scale", "inv_delta", "rdf", "chance", "neighbours")
    frame = as_frame(frame, "frame", columns, "Run.spectra")
    steps, scales = np.unique(frame["step"]), [s for s in LABELS if s in set(frame["scale"])]
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, PANELS).round().astype(int))]
    figure, grid = _grid(len(scales), len(steps), sharey=True)
    deepest = int(frame["depth"].max())
    for row, scale in zip(grid, scales, strict=True):
        for ax, step in zip(row, steps, strict=True):
            panel = frame[(frame["scale"] == scale) & (frame["step"] == step)]
            ax.set_xscale("log")
            limits = []
            for (depth, name), part in panel.sort_values("inv_delta").groupby(["depth", "layer"]):
                u, rdf, chance, neighbours = part[["inv_delta", "rdf", "chance", "neighbours"]].to_numpy().T
                limits.append(resolution(u, neighbours, coincident_at(frame.attrs, step, scale, name)))
                _layer_curve(ax, name, depth, deepest, u, rdf, chance, limits[-1])
            whole = frame[frame["scale"] == scale]["inv_delta"]
            ax.set_xlim(whole.min(), whole.max())
            if limits:
                _shade_unresolved(ax, max(limits), whole.max())
            else:
                ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color="0.45")
            ax.set(title=f"{unit} {step}", xlabel=LABELS[scale])
            frequency_axis(ax)
        row[0].set_ylabel(DENSITY)
    fullest = max(grid.flat, key=lambda ax: len(ax.lines))  # a layer may be missing from some
    figure.legend(**_layer_keys(fullest, deepest), loc="outside right upper", frameon=False)
    return figure


def figure_medians(summary: Any, unit: str = "step") -> Figure:
    """Draw the median frequency of every layer over training, mean and range over seeds.

    A marker is hollow where some seed's median lies beyond its resolution, and so tells nothing.

    Args:
        summary: A data frame with columns seed, step, layer, depth, scale, median, and resolution.
        unit: What a step is called.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatter

    columns = ("step", "layer", "depth", "scale", "median", "resolution")
    summary = as_frame(summary, "summary", columns, "Run.medians")

    class Plain(LogFormatter):
        """Its choice of ticks, and 8 or 0.8 where it would write 8 x 10^0 or 8e-01."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    scales = [s for s in LABELS if s in set(summary["scale"])]
    figure, grid = _grid(1, len(scales))
    deepest = int(summary["depth"].max())
    for ax, scale in zip(grid[0], scales, strict=True):
        for (depth, name), part in summary[summary["scale"] == scale].groupby(["depth", "layer"]):
            by_step = part.groupby("step")["median"]
            look = style(int(depth), deepest)
            mean = by_step.mean()
            ax.plot(mean.index, mean, label=str(name), gid=LAYER, markersize=4, **look)
            ax.fill_between(mean.index, by_step.min(), by_step.max(), color=look["color"], alpha=0.2, lw=0)
            beyond = part.loc[part["median"] > part["resolution"], "step"].unique()
            ax.plot(beyond, mean[beyond], markerfacecolor="white", markersize=4, **{**look, "linestyle": ""})
        ax.set(xlabel=unit, ylabel=f"median {LABELS[scale]}")
        if not summary.loc[summary["scale"] == scale, "median"].notna().any():
            ax.text(0.5, 0.5, "no median within the cutoffs", transform=ax.transAxes, ha="center", color="0.45")
            continue
        ax.set(yscale="log")
        if bent(summary["step"]):
            ax.set_xscale("symlog", linthresh=1)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))
    keys = _legend(max(grid.flat, key=lambda ax: len(ax.lines)), deepest)
    keys["handles"].append(Line2D([], [], color="0.4", marker="o", markersize=4, markerfacecolor="white", linestyle=""))
    keys["labels"].append("unresolved")
    figure.legend(**keys, loc="outside right upper", frameon=False)
    return figure


def bent(steps: Any) -> bool:
    """Whether steps are rarer and rarer, as those of `when="log"` are, so that a linear axis would crowd them."""
    steps = np.unique(steps)
    return len(steps) > 3 and bool(steps[-1] > 20 * max(1, steps[len(steps) // 2]))


def figure_metrics(metrics: Any, unit: str = "step") -> Figure:
    """Draw every metric over training, a line for each seed.

    Args:
        metrics: A data frame with columns seed, step and one for each metric.
        unit: What a step is called.
    """
    metrics = as_frame(metrics, "metrics", ("seed", "step"), "Run.metrics with a column seed")
    names = [name for name in metrics.columns if name not in ("seed", "step", "case")]
    figure, grid = _grid(1, max(1, len(names)))
    for ax, name in zip(grid[0], names, strict=False):
        for i, (seed, part) in enumerate(metrics.dropna(subset=[name]).groupby("seed")):
            ax.plot(part["step"], part[name], color=str(0.2 * (i % 4)), linestyle=DASHES[i % 5], label=f"seed {seed}")
        ax.set(xlabel=unit, ylabel=name, yscale="log" if "loss" in name else "linear")
        ax.legend(fontsize="small", frameon=False)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF, each whole or not at all, and close it."""
    from matplotlib import pyplot as plt

    from layerfreq.files import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        write_whole(path, lambda at: figure.savefig(at, dpi=150))
        figure.set_layout_engine("none")  # keep the layout found for the first, which takes longer than drawing
    plt.close(figure)
    return paths


def _layer_curve(ax: Axes, name: Any, depth: Any, deepest: int, u: Any, rdf: Any, chance: Any, limit: float) -> None:
    look, density = style(int(depth), deepest), per_octave(u, rdf)
    marker, top = look.pop("marker"), np.argmax(density)
    look["linewidth"] = 1.5 if deepest <= FEW else 1.0
    resolved = np.searchsorted(u, limit, side="right")
    ax.plot(u[:resolved], density[:resolved], label=str(name), gid=LAYER, **look)
    ax.plot(u[max(0, resolved - 1) :], density[max(0, resolved - 1) :], alpha=FAINT, **look)
    fill, size = look["color"] if top < resolved else "white", 5 if deepest <= FEW else 3
    ax.plot(u[top], density[top], marker=marker, color=look["color"], markerfacecolor=fill, markersize=size)
    if int(depth) in named(deepest):
        by_chance = np.gradient(chance, np.log2(u))
        ax.plot(u, by_chance, color=look["color"], linewidth=0.6, linestyle="--", alpha=0.7)


def _legend(ax: Axes, layers: int, most: int = NAMED) -> dict[str, Any]:
    """Return handles, labels and title of the layers in a legend, not more than it has room for."""
    lines = dict(enumerate([line for line in ax.lines if line.get_gid() == LAYER], start=1))
    if layers > FEW:
        lines = {depth: lines[depth] for depth in named(len(lines), most)}
    title = "layer" if layers <= FEW else f"{len(lines)} of {layers} layers"
    labels = _shortened({depth: str(line.get_label()) for depth, line in lines.items()})
    return {"handles": list(lines.values()), "labels": labels, "title": title}


def _layer_keys(ax: Axes, layers: int, most: int = NAMED) -> dict[str, Any]:
    """Return what the legend of densities says: some layers, and what chance and unresolved ranges look like."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    keys = _legend(ax, layers, most)
    signs = {
        "by chance": Line2D([], [], color="0.4", linewidth=0.6, linestyle="--"),
        "layer unresolved": Line2D([], [], color="0.4", alpha=FAINT),
        "all unresolved": Patch(color="0.85", alpha=0.5, lw=0),
    }
    return {**keys, "handles": [*keys["handles"], *signs.values()], "labels": [*keys["labels"], *signs]}


def _shortened(names: Mapping[int, str]) -> list[str]:
    """Return names by depth as a legend has room for: cut in the middle, and then with their numbers before them.

    Legends leave out what begins with an underscore, so such a name gets a space before it; between dollars they read
    formulas.
    """
    half = LETTERS // 2
    short = [one if len(one) <= LETTERS else f"{one[: half - 1]}…{one[-half:]}" for one in names.values()]
    if any(len(one) > LETTERS for one in names.values()):
        short = [f"{depth}: {one}" for depth, one in zip(names, short, strict=True)]
    return [(f" {one}" if one.startswith("_") else one).replace("$", r"\$") for one in short]


def _shade_unresolved(ax: Axes, start: float, end: float) -> None:
    start = max(start, ax.get_xlim()[0])
    if start < end:
        ax.axvspan(start, end, color="0.85", alpha=0.5, lw=0, zorder=0, label="unresolved")


def frequency_axis(ax: Axes) -> None:
    """A second axis on top in k = delta^(-1/2)."""
    to_k: Callable[[Any], Any] = lambda u: np.sqrt(np.maximum(u, 0))  # noqa: E731
    ax.secondary_xaxis("top", functions=(to_k, np.square)).set_xlabel("k = δ$^{-1/2}$")


def axes_for(ax: Any, width: float = 6.5, height: float = 4.2) -> Axes:
    """Return the axes to draw on: those given, or those of a new figure of some inches.

    Raises:
        InputError: If something else was given.
    """
    from matplotlib.axes import Axes

    if ax is None:
        from matplotlib import pyplot as plt  # not where axes are given: trackers draw without pyplot

        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise is_not("ax", ax, "Matplotlib's Axes", "one, as of plt.subplots(), or None")
    return ax


def _grid(rows: int, columns: int, *, sharey: bool = False) -> tuple[Figure, Any]:
    from matplotlib import pyplot as plt

    size = (3.6 * columns + 2.6, 3.4 * rows)  # the legend stands on the right
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=sharey)
