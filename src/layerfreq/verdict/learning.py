"""Whether low frequencies are learned first: when each band of the error fell to half, against its frequency.

A band's time is the first measured step at which its relative error is below `HALF`; later spikes of the loss do not
count. If two bands get there between the same two measurements, or neither does, their order is unknown. Over the pairs
of known order, the correlation is the share in which the higher band is later minus the share in which it is earlier
(Kendall's tau if all are known).

Seeds are the clusters of the interval, which is never narrower than that of bands in random order: few bands can agree
by luck in all seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from layerfreq.response.result import MUTE
from layerfreq.runs.errors import read_errors
from layerfreq.runs.run import Run
from layerfreq.verdict.cause import WEAK
from layerfreq.verdict.ranking import bootstrap, correlation, known_pairs
from layerfreq.verdict.regression import LEVEL, NORMAL
from layerfreq.verdict.speedup import Finding

if TYPE_CHECKING:
    import pandas as pd

QUESTION = "Are low frequencies learned first"
HALF = 0.5  # of the target's amplitude in a band
BANDS = 3  # at least, of which two fix no order
BAND_COLUMNS = ["k", "step", "first", "last", "runs", "never"]


def judge_learning(runs: Sequence[tuple[Run, str]]) -> Finding:
    """Judge runs with errors by frequency: does a higher band get to half of the target's amplitude later.

    "yes" if the whole interval of the mean rank correlation over seeds lies above 0, "no" if it lies below `WEAK`, else
    "undecided", as for a single seed.

    Args:
        runs: Runs and their clusters, as from `layerfreq.verdict.expand`.
    """
    errors = [(cluster, frame) for run, cluster in runs if len(frame := run.errors)]
    if not errors:
        why = 'no run has errors by frequency; measure them with Monitor(..., error="auto")'
        return Finding("undecided", f"{QUESTION}: undecided, {why}.")
    found = [(cluster, *arrivals(frame)) for cluster, frame in errors]
    counts = sorted({len(k) for _, k, _, _ in found})
    bands = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    bands += " band" if counts[-1] == 1 else " bands"
    if counts[0] < BANDS:
        why = f"{bands} of the target have a relative error, and an order needs {BANDS}"
        return Finding("undecided", f"{QUESTION}: undecided, {why}.")
    seeds: dict[str, list[tuple[float, float]]] = {}
    for cluster, k, steps, late in found:
        value, variance = _order(k, steps, late)
        if np.isfinite(value):
            seeds.setdefault(cluster, []).append((value, variance))
    never = sum(int(late.sum()) for *_, late in found)
    basis = bands
    if never:
        basis += f"; {never} of {sum(len(k) for _, k, _, _ in found)} never came below it and count as last"
    if len(errors) < len(runs):
        basis += f"; {len(runs) - len(errors)} of {len(runs)} runs have no errors by frequency"
    if not seeds:
        why = f"no two bands fell below a relative error of {HALF} at different measured steps ({basis})"
        return Finding("undecided", f"{QUESTION}: undecided, {why}.")
    return _finding(list(seeds.values()), basis)


def arrivals(errors: Any) -> tuple[Float64[np.ndarray, " m"], Int64[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Return when each band fell below `HALF`: k, steps, and whether it never did; then the step is the last one.

    Only bands in `ErrorSpectrum.told` with at least a thousandth of the strongest band's energy are used.

    Args:
        errors: As `Run.errors`, with one row or more.
    """
    last = errors[errors["step"] == errors["step"].max()]
    ((_, found),) = read_errors(last)
    k = found.k[found.told & (found.target_energy > MUTE * found.target_energy.max())]
    relative = errors.pivot_table("relative", index="step", columns="k", aggfunc="first")[k]
    below, steps = relative.to_numpy() < HALF, relative.index.to_numpy(dtype=np.int64)
    late = ~below.any(axis=0)
    return k, np.where(late, steps[-1], steps[below.argmax(axis=0)]), late


def bands_of(runs: Sequence[tuple[Run, str]]) -> pd.DataFrame:
    """Return when each band fell below `HALF`, over runs with errors by frequency: one row per k, from low to high.

    Args:
        runs: As for `judge_learning`.

    Returns:
        Columns k; step, the median over runs, counting a band that never fell below as last (NaN if that is the
        median); first and last, the minimum and maximum step of those that did; runs, the number of runs with the band;
        never, the number in which it did not.
    """
    import pandas as pd

    rows = []
    for run, _ in runs:
        if len(errors := run.errors):
            k, steps, late = arrivals(errors)
            rows += [(float(f"{one:.9g}"), at) for one, at in zip(k, np.where(late, np.inf, steps), strict=True)]
    found = []
    for k, part in pd.DataFrame(rows, columns=pd.Index(["k", "step"])).groupby("k"):
        steps = part["step"].to_numpy(dtype=np.float64)
        some = steps[np.isfinite(steps)]
        median = float(np.sort(steps)[[(len(steps) - 1) // 2, len(steps) // 2]].mean())
        ends = (some.min(), some.max()) if len(some) else (np.nan, np.nan)
        found.append((k, median if np.isfinite(median) else np.nan, *ends, len(steps), len(steps) - len(some)))
    return pd.DataFrame(found, columns=pd.Index(BAND_COLUMNS))


def _order(k: Any, steps: Any, late: Any) -> tuple[float, float]:
    """Return the rank correlation of steps with k in one run, and its variance for bands in random order.

    Of the signs s_ij of k_i - k_j in random order, E s_ij s_ij = 1 and E s_ij s_il = 1/3, others are independent. The
    variance of sum y_ij s_ij over p pairs of known order is thus (p + sum_i (sum_j y_ij)^2) / 3: Kendall's
    m (m - 1) (2 m + 5) / 18 where all are known.
    """
    y, i, j = known_pairs(steps, late)
    if not len(y):
        return float("nan"), float("nan")
    rows = np.bincount(i, y, len(k)) - np.bincount(j, y, len(k))
    return correlation(y, np.sign(k[i] - k[j])), float(len(y) + rows @ rows) / (3 * len(y) ** 2)


def _finding(seeds: Sequence[Sequence[tuple[float, float]]], basis: str) -> Finding:
    """Judge the rank correlations of seeds, each with its variance by chance."""
    values = np.array([np.mean([value for value, _ in runs]) for runs in seeds])
    mean, low, high = bootstrap(values)
    what = f"the step at which a band's relative error falls below {HALF} has rank correlation {mean:+.2f} with k"
    if len(values) < 2:
        why = f"one seed has no interval: {what} ({basis})"
        return Finding("undecided", f"{QUESTION}: undecided, {why}.", mean)
    luck = NORMAL * sum(sum(v for _, v in runs) / len(runs) ** 2 for runs in seeds) ** 0.5 / len(seeds)
    low, high = max(-1.0, min(low, mean - luck)), min(1.0, max(high, mean + luck))
    answer: Literal["yes", "no", "undecided"] = "yes" if low > 0 else "no" if high < WEAK else "undecided"
    said = f"{answer}, high ones are" if high < 0 else answer
    sure = f"{LEVEL:.0%} interval {low:.2f} to {high:.2f}, {len(values)} seeds; {basis}"
    return Finding(answer, f"{QUESTION}: {said}; {what} ({sure}).", mean, (low, high))
