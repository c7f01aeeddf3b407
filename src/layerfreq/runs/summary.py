"""Runs in a few numbers: peak, median and resolution of every measured layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.scales import in_order
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd


def summarise(runs: dict[int, Run]) -> pd.DataFrame:
    """Return one row for each seed, step, layer and scale.

    Args:
        runs: seed -> run.

    Returns:
        The column seed, and those of `Run.medians`.
    """
    import pandas as pd

    frames = [run.medians for run in runs.values()]
    for seed, frame in zip(runs, frames, strict=True):
        frame.insert(0, "seed", seed)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def layer_table(summary: Any, unit: str, *, every: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table, one row per layer, of the first and the last measured step.

    Peaks beyond the cutoffs are given as bounds; peaks and medians beyond the resolution are marked with a star. With
    one or two scales there is room for the resolution itself (head: limit).

    Args:
        summary: As from `summarise`; the paper's scale is first.
        unit: What a step is called.
        every: Whether to show all measured steps instead of the first and the last.
    """
    scales = in_order(summary["scale"])
    numbers = ("peak", "median", "limit") if len(scales) < 3 else ("peak", "median")
    head = ["seed", unit, "layer", *(f"{number}\n{scale}" for scale in scales for number in numbers)]
    steps = summary["step"].unique() if every else [summary["step"].min(), summary["step"].max()]
    shown = summary[summary["step"].isin(steps)]
    rows = []
    for (seed, step, _, layer), part in shown.groupby(["seed", "step", "depth", "layer"]):
        found = {one["scale"]: _cells(one) for one in part.to_dict("records")}
        cells = [found[scale][number] if scale in found else "-" for scale in scales for number in numbers]
        rows.append([str(seed), str(step), str(layer), *cells])
    return head, rows


def _cells(one: dict[str, Any]) -> dict[str, str]:
    """Return the table's cells for one spectrum."""
    bound = ">= " if one["at_edge"] else ""
    return {
        "peak": f"{bound}{_number(one['peak'])}{_star(one, 'peak')}",
        "median": f"{_number(one['median'])}{_star(one, 'median')}",
        "limit": _number(one["resolution"]),
    }


def _star(one: dict[str, Any], number: str) -> str:
    return "*" if one[number] is not None and one[number] > one["resolution"] else ""


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
