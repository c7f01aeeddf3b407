"""Figures and table of the ResNet variants: accuracies, densities by epoch, and the median frequency over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from layerfreq import plots
from layerfreq.experiments.residual import CUTS, VARIANTS
from layerfreq.experiments.summary import summarise
from layerfreq.runs import Run, write_whole

Runs = Mapping[tuple[int, int], Run]  # (variant, seed) -> run
FITTED = 0.99  # training accuracy at which a variant counts as fitted
HEAD_INPUT = next(iter(CUTS))


def present(
    runs: Runs, panels: Sequence[int], what: str, folder: Path
) -> tuple[list[str], list[list[str]], list[Path]]:
    """Draw everything, with the numbers behind it in two Parquet files; return table head, table rows and files."""
    medians, metrics = frames(runs)
    seeds = sorted({seed for _, seed in runs})
    every = f"{what}, seeds {' '.join(map(str, seeds))}"
    figures = {
        "accuracy": (accuracy(metrics), f"{every}\n(line: mean, band: range)"),
        "rdf-by-variant": (densities(runs, panels, seeds[0]), f"{what}, seed {seeds[0]}: {CUTS[HEAD_INPUT]}"),
        "median-frequency": (median_frequency(medians, metrics), f"{every}\n(line: mean, band: range)"),
    }
    files: list[Path] = []
    for name, (figure, title) in figures.items():
        figure.suptitle(title, fontsize="medium")
        files += plots.save(figure, folder, name)
    for name, frame in (("summary", medians), ("metrics", metrics)):
        files.append(folder / f"{name}.parquet")
        write_whole(files[-1], partial(frame.to_parquet, index=False))
    return *table(medians, metrics), files


def frames(runs: Runs) -> tuple[Any, Any]:
    """Return the summary of all spectra and all metrics as data frames with columns variant and seed."""
    import pandas as pd

    medians = [summarise({seed: run}).assign(variant=variant) for (variant, seed), run in runs.items()]
    metrics = [run.metrics.assign(variant=variant, seed=seed) for (variant, seed), run in runs.items()]
    return pd.concat(medians, ignore_index=True), pd.concat(metrics, ignore_index=True)


def fitted_at(metrics: Any) -> float | None:
    """Return the first epoch with a training accuracy of 99 %, the mean over seeds; None where one never gets there."""
    firsts = []
    for _, part in metrics.groupby("seed"):
        there = part.loc[part["train_accuracy"] >= FITTED, "step"]
        if there.empty:
            return None
        firsts.append(there.min())
    return sum(firsts) / len(firsts)


def accuracy(metrics: Any) -> Any:
    """Draw training and validation accuracy over epochs, one line a variant."""
    figure, grid = _row(2)
    for ax, column, name in zip(
        grid, ("train_accuracy", "validation_accuracy"), ("training", "validation"), strict=True
    ):
        for variant, part in metrics.groupby("variant"):
            _band(ax, part.groupby("step")[column], variant)
        ax.set(xlabel="epoch", ylabel=f"{name} accuracy", ylim=(0, 1.02))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, title="variant")
    return figure


def densities(runs: Runs, panels: Sequence[int], seed: int) -> Any:
    """Draw the density of S^[-3], one panel an epoch with all variants; raw scale above rms scale."""
    import pandas as pd

    parts = []
    for (variant, one), run in runs.items():
        if one == seed:
            frame = run.spectra
            frame = frame[(frame["layer"] == HEAD_INPUT) & frame["step"].isin(panels)]
            parts.append(frame.assign(depth=variant, layer=f"-{variant}"))
    figure = plots.figure_epochs(pd.concat(parts, ignore_index=True), "epoch")
    figure.legends[0].set_title("variant")
    return figure


def median_frequency(medians: Any, metrics: Any) -> Any:
    """Draw the median frequency of S^[-3] over training; a filled marker is where the training set is fitted."""
    import numpy as np

    scales = [scale for scale in plots.LABELS if scale in set(medians["scale"])]
    figure, grid = _row(len(scales))
    medians = medians[medians["layer"] == HEAD_INPUT]
    for ax, scale in zip(grid, scales, strict=True):
        for variant, part in medians[medians["scale"] == scale].groupby("variant"):
            look = _band(ax, part.groupby("step")["median"], variant)
            at = fitted_at(metrics[metrics["variant"] == variant])
            mean = part.groupby("step")["median"].mean()
            if at is not None:
                ax.plot(at, np.interp(at, mean.index, mean), look["marker"], color=look["color"], markersize=9)
        ax.set(yscale="log", xlabel="epoch", ylabel=plots.LABELS[scale], title=f"median of {CUTS[HEAD_INPUT]}, {scale}")
    handles, labels = grid[0].get_legend_handles_labels()
    handles.append(grid[0].plot([], [], "ok", markersize=9)[0])
    labels.append("99 % of the training\nset right")
    figure.legend(handles, labels, loc="outside right upper", frameon=False, title="variant")
    return figure


def table(medians: Any, metrics: Any) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: one row a variant and seed, after its last epoch."""
    head = ["variant", "seed", "epoch", "train", "validation", "99 % at"]
    head += [f"{number}\n{scale}" for scale in ("raw", "rms") for number in ("peak", "median")]
    rows = []
    for (variant, seed), part in metrics.groupby(["variant", "seed"]):
        last, at = part.iloc[-1], fitted_at(part)
        cells = [f"-{variant}", str(seed), str(int(last["step"]))]
        cells += [f"{last['train_accuracy']:.3f}", f"{last['validation_accuracy']:.3f}"]
        cells.append("-" if at is None else f"{at:.0f}")
        own = medians[(medians["variant"] == variant) & (medians["seed"] == seed) & (medians["layer"] == HEAD_INPUT)]
        own = own[own["step"] == own["step"].max()]
        for scale in ("raw", "rms"):
            one = own[own["scale"] == scale].iloc[0]
            star = "*" if one["peak"] > one["resolution"] else ""
            cells += [f"{one['peak']:.3g}{star}", f"{one['median']:.3g}"]
        rows.append(cells)
    return head, rows


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
