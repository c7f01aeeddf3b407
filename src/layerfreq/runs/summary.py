"""Runs in a few numbers: peak, median and resolution of every measured layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.scales import in_order
from layerfreq.runs.reader import read_back
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd


def summarise(runs: dict[int, Run]) -> pd.DataFrame:
    """Return one row for each seed, step, layer and scale.

    Args:
        runs: seed -> run.

    Returns:
        Columns seed, step, layer, depth, scale, peak, at_edge, median, resolution.
    """
    import pandas as pd

    rows = []
    for seed, run in runs.items():
        for measured in read_back(run.spectra):
            one = measured.spectrum
            rows.append(
                {
                    "seed": seed,
                    "step": measured.step,
                    "layer": measured.layer,
                    "depth": measured.depth,
                    "scale": one.scale,
                    "peak": one.peak,
                    "at_edge": one.peak_at_edge,
                    "median": one.median,
                    "resolution": one.resolution,
                }
            )
    return pd.DataFrame(rows)


def layer_table(summary: Any, unit: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table, a layer a row, of the first and the last measured step.

    Peaks beyond the cutoffs are given as bounds, and those beyond the resolution are marked with a star; of one scale
    or two there is room for the resolution itself (head: limit).

    Args:
        summary: As from `summarise`; of the scales that are in it, the paper's is first.
        unit: What a step is called.
    """
    scales = in_order(summary["scale"])
    numbers = ("peak", "median", "limit") if len(scales) < 3 else ("peak", "median")
    head = ["seed", unit, "layer", *(f"{number}\n{scale}" for scale in scales for number in numbers)]
    ends = summary[summary["step"].isin([summary["step"].min(), summary["step"].max()])]
    rows = []
    for (seed, step, _, layer), part in ends.groupby(["seed", "step", "depth", "layer"]):
        found = {one["scale"]: _cells(one) for one in part.to_dict("records")}
        cells = [found[scale][number] if scale in found else "-" for scale in scales for number in numbers]
        rows.append([str(seed), str(step), str(layer), *cells])
    return head, rows


def _cells(one: dict[str, Any]) -> dict[str, str]:
    """Return what the table says of one spectrum."""
    star = "*" if one["peak"] is not None and one["peak"] > one["resolution"] else ""
    bound = ">= " if one["at_edge"] else ""
    return {
        "peak": f"{bound}{_number(one['peak'])}{star}",
        "median": _number(one["median"]),
        "limit": _number(one["resolution"]),
    }


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
