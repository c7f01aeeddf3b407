"""Figures and table of the ResNet variants: accuracies, densities by epoch, and the median frequency over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from layerfreq import plots
from layerfreq.experiments import Table
from layerfreq.experiments.figures import save_titled
from layerfreq.experiments.residual import CUTS, VARIANTS
from layerfreq.files import write_whole
from layerfreq.runs.run import Run
from layerfreq.runs.summary import summarise

Runs = Mapping[tuple[int, int], Run]  # (variant, seed) -> run
FITTED = 0.99  # training accuracy at which a variant counts as fitted
CUT = next(iter(CUTS))  # the one of the published figure
PAPER = "maxabs"  # the published scale


def present(runs: Runs, panels: Sequence[int], what: str, folder: Path) -> Table:
    """Draw everything, with the numbers behind it in two Parquet files."""
    medians, metrics = frames(runs)
    seeds = sorted({seed for _, seed in runs})
    every = f"{what}, seeds {' '.join(map(str, seeds))}"
    figures = {
        "accuracy": (accuracy(metrics), f"{every}\n(line: mean, band: range)"),
        "rdf-by-variant": (densities(runs, panels, seeds[0]), f"{what}, seed {seeds[0]}: {CUTS[CUT]}"),
        "median-frequency": (median_frequency(medians, metrics), f"{every}\n(line: mean, band: range)"),
    }
    files = save_titled(figures, folder)
    for name, frame in (("summary", medians), ("metrics", metrics)):
        files.append(folder / f"{name}.parquet")
        write_whole(files[-1], partial(frame.to_parquet, index=False))
    return Table(*table(medians, metrics), files)


def frames(runs: Runs) -> tuple[Any, Any]:
    """Return the summary of all spectra and all metrics as data frames with columns variant and seed."""
    import pandas as pd

    medians = [summarise({seed: run}).assign(variant=variant) for (variant, seed), run in runs.items()]
    metrics = [run.metrics.assign(variant=variant, seed=seed) for (variant, seed), run in runs.items()]
    return pd.concat(medians, ignore_index=True), pd.concat(metrics, ignore_index=True)


def fitted_at(metrics: Any) -> float | None:
    """Return the first epoch trained at 99 % accuracy, the mean over seeds; None if one never gets there."""
    firsts = []
    for _, part in metrics.groupby("seed"):
        there = part.loc[part["running_accuracy"] >= FITTED, "step"]
        if there.empty:
            return None
        firsts.append(there.min())
    return sum(firsts) / len(firsts)


def accuracy(metrics: Any) -> Any:
    """Draw accuracy over epochs, of the epoch's steps (as Keras has it) and in validation, one line a variant."""
    figure, grid = _row(2)
    columns = {"running_accuracy": "training", "validation_accuracy": "validation"}
    for ax, (column, name) in zip(grid, columns.items(), strict=True):
        for variant, part in metrics.groupby("variant"):
            _band(ax, part.groupby("step")[column], variant)
        ax.set(xlabel="epoch", ylabel=f"{name} accuracy", ylim=(0, 1.02))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, title="variant")
    return figure


def densities(runs: Runs, panels: Sequence[int], seed: int) -> Any:
    """Draw the density of S^[-3], one panel an epoch with all variants, a row for each scale."""
    import pandas as pd

    parts = []
    for (variant, one), run in runs.items():
        if one == seed:
            frame = run.spectra
            frame = frame[(frame["layer"] == CUT) & frame["step"].isin(panels)]
            parts.append(frame.assign(depth=variant, layer=f"-{variant}"))
    figure = plots.figure_epochs(pd.concat(parts, ignore_index=True), "epoch")
    figure.legends[0].set_title("variant")
    return figure


def median_frequency(medians: Any, metrics: Any) -> Any:
    """Draw the median frequency of S^[-3] over training; a filled marker is where the training set is fitted."""
    import numpy as np

    scales = [scale for scale in plots.LABELS if scale in set(medians["scale"])]
    figure, grid = _row(len(scales))
    medians = medians[medians["layer"] == CUT]
    for ax, scale in zip(grid, scales, strict=True):
        for variant, part in medians[medians["scale"] == scale].groupby("variant"):
            look = _band(ax, part.groupby("step")["median"], variant)
            at = fitted_at(metrics[metrics["variant"] == variant])
            mean = part.groupby("step")["median"].mean()
            if at is not None:
                ax.plot(at, np.interp(at, mean.index, mean), look["marker"], color=look["color"], markersize=9)
        ax.set(yscale="log", xlabel="epoch", ylabel=plots.LABELS[scale], title=f"median of {CUTS[CUT]}, {scale}")
    handles, labels = grid[0].get_legend_handles_labels()
    handles.append(grid[0].plot([], [], "ok", markersize=9)[0])
    labels.append("99 % of the training\nset right")
    figure.legend(handles, labels, loc="outside right upper", frameon=False, title="variant")
    return figure


def table(medians: Any, metrics: Any) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: one per variant and seed, and one per seed on their order compared with the published.

    Peaks that are bounds are given as such; those where no window holds two points are marked with a star.
    """
    own = medians[medians["layer"] == CUT]
    steps = own["step"].min(), own["step"].max()
    first, last = (own[own["step"] == step].set_index(["scale", "variant", "seed"]) for step in steps)
    ends = "start", "end"
    head = ["variant", "seed", "validation", *(f"{CUTS[CUT]} peak\n{PAPER}, {end}" for end in ends)]
    head += [f"median\n{scale}, {ends[1]}" for scale in (PAPER, "rms", "raw")]
    rows = []
    for seed, part in metrics.groupby("seed"):
        variants = sorted(part["variant"].unique().tolist())
        accuracy = {v: float(part[part["variant"] == v]["validation_accuracy"].iloc[-1]) for v in variants}
        for v in variants:
            peaks = [_peak(frame.loc[(PAPER, v, seed)]) for frame in (first, last)]
            found = [f"{last.loc[(scale, v, seed), 'median']:.3g}" for scale in (PAPER, "rms", "raw")]
            rows.append([f"-{v}", str(seed), f"{accuracy[v]:.3f}", *peaks, *found])
        # As published: the deeper network validates better; its peak lies higher before training, and lower after it.
        places = [{v: float(frame.loc[(PAPER, v, seed), "peak"]) for v in variants} for frame in (first, last)]
        orders = [_ordered(accuracy, -1), _ordered(places[0], -1), _ordered(places[1], 1)]
        rows.append(["pairs as\npublished", str(seed), *orders, "", "", ""])
    return head, rows


def _peak(one: Any) -> str:
    return f"{'>= ' if one['at_edge'] else ''}{one['peak']:.3g}{'*' if one['peak'] > one['resolution'] else ''}"


def _ordered(values: Mapping[int, float], sign: int) -> str:
    """Return of how many pairs of variants the numbers rise (sign 1) or fall (-1) from -1 to -4."""
    pairs = list(combinations(sorted(values), 2))
    right = sum(sign * (values[b] - values[a]) > 0 for a, b in pairs)
    return f"{right} of {len(pairs)}"


def _row(panels: int) -> tuple[Any, Any]:
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, panels, figsize=(4 * panels + 2, 3.8), layout="constrained", squeeze=False)
    return figure, grid[0]


def _band(ax: Any, by_step: Any, variant: Any) -> dict[str, Any]:
    """Draw mean and range over seeds of one variant; return its look."""
    look = plots.style(int(variant), len(VARIANTS))
    mean = by_step.mean()
    line = {key: value for key, value in look.items() if key != "marker"}
    ax.plot(mean.index, mean, label=f"-{variant}", **line)
    ax.fill_between(mean.index, by_step.min(), by_step.max(), color=look["color"], alpha=0.2, lw=0)
    return look
