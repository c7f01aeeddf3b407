"""The tables of the experiment `cause`: the league, step by step too, and each scale's own median."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.verdict.ranking import SETUP, league, ranked

if TYPE_CHECKING:
    import pandas as pd

BY = ["study", *SETUP]
OWN = {"raw": "raw_median", "rms": "rms_median"}  # scale of the heads -> the frequency in that scale
# Predictors whose direction is said beforehand: +1 where more of it should mean more steps.
DIRECTIONS = {
    "rms_median": 1,
    "raw_median": 1,
    "maxabs_median": 1,
    "rdf_peak": 1,
    "energy_above_chance": -1,
    "depth": -1,
    "kernel_alignment": -1,
    "probe_loss": 1,
    "initial_loss": 1,
}
HELD = ("depth", "probe_loss")  # held fixed by the second partial correlation
LABELS = ["study", "run", "seed", "layer", "scale", "optimizer", "rule", "head"]


def packed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `gather` as they are published: single precision, sorted, names as categories."""
    keys = ["study", "run", "seed", "step", "cut", "scale", "optimizer", "head", "rule", "head_seed", "share"]
    numbers = ranked(frame)
    kept = [*keys, "layer", "steps", "censored", "rate", "at_edge", *numbers]
    part: Any = frame[kept]
    table = part.sort_values(keys, ignore_index=True)
    single = {name: "float32" for name in ("steps", "rate", *numbers)}
    small = {"step": "int32", "cut": "int8", "head_seed": "int8"}
    return table.astype({**single, **small, **dict.fromkeys(LABELS, "category")})


def unpacked(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `packed` with plain names, as `league` groups them."""
    return table.astype(dict.fromkeys(LABELS, "str"))  # pyright: ignore[reportArgumentType]


def league_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the league of every study, scale, optimizer, rule and head.

    Args:
        table: As from `packed`.

    Returns:
        The columns of `league`, and given, given_low, given_high: the partial correlation with depth and probe loss
        held fixed.
    """
    rows = unpacked(table)
    first, second = league(rows, by=BY), league(rows, by=BY, fixed=HELD)
    keys = [*BY, "pairs_of", "predictor"]
    new = {"partial": "given", "partial_low": "given_low", "partial_high": "given_high"}
    more: Any = second[[*keys, *new]]
    return first.merge(more.rename(columns=new), on=keys)


def by_step(table: pd.DataFrame) -> pd.DataFrame:
    """Return the correlations within each measured step: the league with `step` among what makes a table."""
    found: Any = league(unpacked(table), by=[*BY, "step"])
    return found[found["pairs_of"] == "within step"]


def primary(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the short table: each scale's own median, by study, pairs and rule.

    Args:
        table: As from `league_of`.
    """
    head = ["study", "pairs", "rate", *(f"{name}\nheads at {scale} scale" for scale, name in OWN.items()), "censored"]
    rows = []
    for names, part in table.groupby(["study", "pairs_of", "optimizer", "head", "rule"], sort=False):
        study, pairs, optimizer, _, rule = names if isinstance(names, tuple) else (names,) * 5
        cells = [str(study), str(pairs), f"{optimizer}, {rule}"]
        late = []
        for scale, name in OWN.items():
            found: Any = part[(part["scale"] == scale) & (part["predictor"] == name)]
            cells.append(with_interval(found.iloc[0], "correlation", "low", "high") if len(found) else "-")
            late += [f"{found['censored'].iloc[0]:.0%}"] if len(found) else []
        rows.append([*cells, " / ".join(late)])
    return head, rows


def with_interval(row: Any, value: str, low: str, high: str) -> str:
    """Return a number with its interval, as "+0.52 (0.31 to 0.70)"."""
    if not np.isfinite(row[value]):
        return "-"
    inside = "" if not np.isfinite(row[low]) else f" ({row[low]:.2f} to {row[high]:.2f})"
    return f"{row[value]:+.2f}{inside}"
