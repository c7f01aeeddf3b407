"""The tables of the experiment `cause`: the league, contests paired by seed, and the first look repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.verdict.ranking import SETUP, bootstrap, league, ranked

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
HELD = ("depth", "probe_loss")  # what the second partial correlation holds fixed
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


def contests(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the rms median at rms scale with its rivals, paired by seed.

    The first rival of each table is the raw median with the steps of heads at raw scale ("raw_median at raw scale");
    the others are predictors of the same heads. Correlations count in the direction said beforehand.

    Returns:
        Columns study, optimizer, rule, head, pairs_of, rival, difference, low, high, answer: "better", "worse" (the
        rms median than the rival) or "undecided".
    """
    import pandas as pd

    single: Any = league(unpacked(table), by=[*BY, "seed"])
    single["signed"] = single["correlation"] * single["predictor"].map(DIRECTIONS)
    out = []
    where = ["study", "optimizer", "rule", "head", "pairs_of"]
    for names, part in single.dropna(subset="signed").groupby(where):
        value = part.set_index(["scale", "predictor", "seed"])["signed"]
        if not {"raw", "rms"} <= set(part["scale"]):
            continue
        own = value["rms"]["rms_median"]
        rivals = {"raw_median at raw scale": value["raw"]["raw_median"]}
        measured = set(part["predictor"])
        rivals |= {name: value["rms"][name] for name in DIRECTIONS if name != "rms_median" and name in measured}
        for rival, other in rivals.items():
            half = ((own - other) / 2).to_numpy()  # `bootstrap` keeps within -1 .. 1
            difference, low, high = (2 * x for x in bootstrap(half))
            answer = "better" if low > 0 else "worse" if high < 0 else "undecided"
            out.append([*names, rival, difference, low, high, answer])
    return pd.DataFrame(out, columns=pd.Index([*where, "rival", "difference", "low", "high", "answer"]))


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


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [[cell.replace("\n", ", ") for cell in head], ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
