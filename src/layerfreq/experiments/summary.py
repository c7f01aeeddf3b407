"""Runs in a few numbers: peak, median and resolution of every measured layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.readback import read_back
from layerfreq.runs import Run
from layerfreq.spectrum import Spectrum

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


def spectrum_of(part: Any, attrs: dict[str, Any]) -> Spectrum:
    """Read a spectrum back from its rows in a run, and what the run's frame says of all its spectra."""
    names = ["inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr"]
    column = {name: part[name].to_numpy(dtype=np.float64, copy=True) for name in names}
    stderr = column["stderr"]
    return Spectrum(
        inv_delta=column["inv_delta"],
        lfr=column["lfr"],
        rdf=column["rdf"],
        chance=column["chance"],
        neighbours=column["neighbours"],
        stderr=stderr if stderr.any() else None,
        n=attrs["n"],
        d=0,
        rows=attrs["rows"],
        scale="rms" if (part["scale"] == "rms").all() else "raw",
        floor=attrs["floor"],
        spread=0.0,
        engine="",
    )


def layer_table(summary: Any, unit: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table, a layer a row, of the first and the last measured step.

    Peaks beyond the cutoffs are given as bounds, and those beyond the resolution (head: limit) are marked with
    a star.
    """
    head = ["seed", unit, "layer"]
    head += [f"{what}\n{scale}" for scale in ("raw", "rms") for what in ("peak", "median", "limit")]
    ends = summary[summary["step"].isin([summary["step"].min(), summary["step"].max()])]
    rows = []
    for (seed, step, _, layer), part in ends.groupby(["seed", "step", "depth", "layer"]):
        cells = [str(seed), str(step), str(layer)]
        for scale in ("raw", "rms"):
            one = part[part["scale"] == scale].iloc[0]
            star = "*" if one["peak"] > one["resolution"] else ""
            bound = ">= " if one["at_edge"] else ""
            cells += [f"{bound}{_number(one['peak'])}{star}", _number(one["median"]), _number(one["resolution"])]
        rows.append(cells)
    return head, rows


def _number(value: float) -> str:
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")
