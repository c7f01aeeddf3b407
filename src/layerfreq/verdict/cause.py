"""Whether frequency explains the steps of fresh heads, said in words from the league table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layerfreq.verdict.regression import LEVEL
from layerfreq.verdict.speedup import Finding

if TYPE_CHECKING:
    import pandas as pd

QUESTION = "Does frequency explain how fast the layers above learn"
FREQUENCY = "rms_median"  # the scale-free frequency, which the question is put to

WEAK = 0.3  # a rank correlation below this explains little


def judge_cause(table: pd.DataFrame) -> Finding:
    """Judge the league table of heads at rms scale: within measured steps, does a higher frequency mean more steps.

    "yes" if, in every table (optimizer, rule, head), the intervals of the correlation and of the partial correlation,
    if any, lie above 0; "no" if in every table the whole interval lies below `WEAK`; else "undecided". There is no
    partial correlation if feature scale and dimension order the cuts just as frequency does: nothing is then left to
    hold fixed (at rms scale the heads do not see the features' scale). Better predictors are named.

    Args:
        table: As from `league`, with its standard columns.
    """
    if len(table) == 0:
        return Finding("undecided", f"{QUESTION}: undecided, no fresh heads were trained above the cuts.")
    here: Any = table[(table["pairs_of"] == "within step") & (table["scale"] == "rms")]
    if len(here) == 0:
        return Finding("undecided", f"{QUESTION}: undecided, this needs heads at rms scale.")
    own = here[here["predictor"] == FREQUENCY]
    seeds = int(own["seeds"].min())
    value = float(own["correlation"].mean())
    if seeds < 2 or own["low"].isna().any():
        why = f"an interval needs 2 seeds or more whose heads arrive, here {seeds}"
        return Finding("undecided", f"{QUESTION}: undecided, rank correlation {value:+.2f} within steps; {why}.", value)
    low, high = own["low"].to_numpy(), own["high"].to_numpy()
    partly = own["partial_low"].to_numpy()
    answer: Literal["yes", "no", "undecided"] = "undecided"
    if (low > 0).all() and (partly[np.isfinite(partly)] > 0).all():
        answer = "yes"
    elif (high < WEAK).all():
        answer = "no"
    weakest = own.loc[own["correlation"].idxmin()]
    interval = float(weakest["low"]), float(weakest["high"])
    held = _held(weakest)
    text = (
        f"{QUESTION}: {answer}. At rms scale, within measured steps, median frequency and steps have rank correlation "
        f"{weakest['correlation']:+.2f} ({LEVEL:.0%} interval {interval[0]:.2f} to {interval[1]:.2f}, {seeds} "
        f"seeds){held} in the weakest of {len(own)} tables ({weakest['optimizer']}, {weakest['rule']} rate, "
        f"{weakest['head']}); {_rivals(here)}."
    )
    return Finding(answer, text, value, interval)


def _held(one: Any) -> str:
    if not math.isfinite(one["partial_low"]):
        return ", which feature scale and dimension cannot be told from,"
    inside = f"{one['partial_low']:.2f} to {one['partial_high']:.2f}"
    return f", {one['partial']:+.2f} ({inside}) with feature scale and dimension held fixed,"


def _rivals(here: Any) -> str:
    """Name the predictors that order the cuts more strongly, on average over the tables."""
    mean = here.assign(size=here["correlation"].abs()).groupby("predictor")["size"].mean().sort_values(ascending=False)
    better = [f"{name} {mean[name]:.2f}" for name in mean.index if mean[name] > mean[FREQUENCY] + 0.005]
    if not better:
        return f"no rival does better (frequency {mean[FREQUENCY]:.2f} on average)"
    return f"stronger on average than frequency ({mean[FREQUENCY]:.2f}): {', '.join(better[:4])}"
