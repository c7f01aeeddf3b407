"""The league table: which predictor orders the cuts as the steps of fresh heads do.

The measure is the share of agreeing pairs minus that of disagreeing ones, over the pairs of cuts whose order of steps
is known (Somers' D with the predictor's ties in the denominator; Kendall's tau where nothing is tied or censored). A
censored head took more steps than its bound: it is known to be slower than any that arrived before that, and of two
censored ones, nothing is known. Pairs are of one seed, one head seed and one error: "within step" those of one run and
measured step, "overall" those of all the seed's runs and steps. Where another predictor is held fixed, its signs are
regressed out of both, pair by pair (Kendall's partial tau, for any number of them).

Seeds are the clusters: the mean over seeds is bootstrapped by drawing seeds, with percentiles expanded for few of them
(Hesterberg 2015). Resampling cannot leave the range of what it has, which is too narrow below about 6 seeds: where
Student's interval of the seeds' values is wider, it is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.errors import no_such
from layerfreq.runs.files import read_frames
from layerfreq.runs.run import Run
from layerfreq.verdict.regression import LEVEL

if TYPE_CHECKING:
    import pandas as pd

PREDICTORS = (
    "depth",
    "feature_rms",
    "dimension",
    "effective_rank",
    "kernel_alignment",
    "probe_loss",
    "initial_loss",
    "raw_median",
    "rms_median",
    "maxabs_median",
    "rdf_peak",
    "energy_above_chance",
)
FIXED = ("feature_rms", "dimension")  # what the partial correlation holds fixed
SETUP = ["scale", "optimizer", "rule", "head"]
PLACE = ["run", "seed", "step", "head_seed", "share"]
DRAWS = 4000
CELLS = re.compile(r"step-\d{12}-cut-\d{3}-[a-z]+-[a-z]+-[a-z0-9-]+\.parquet")
COLUMNS = ["step", "cut", "layer", "scale", "steps", "error"]  # that every table of a cell has


def results(runs: Sequence[tuple[Run, str]]) -> pd.DataFrame:
    """Read what was trained above the cuts of runs.

    Args:
        runs: Runs and their clusters, as from `layerfreq.verdict.expand`.

    Raises:
        InputError: For a damaged file, or one that is none of the run's, with its name.

    Returns:
        A row for each run, step, cut, scale, optimizer, rule ("fixed" or "best"), head, head_seed and error (share of
        the constant loss): steps, censored, rate, at_edge (the best rate is the grid's first or last), and the
        predictors of the cut.
    """
    import pandas as pd

    frames = []
    for run, cluster in runs:
        parts = read_frames(run.path / "relearn" / "cells", CELLS, COLUMNS)
        if parts:
            frame = pd.concat(parts, ignore_index=True)
            frame.insert(0, "seed", cluster)
            frame.insert(0, "run", run.path.name)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def league(results: pd.DataFrame, *, by: Sequence[str] = SETUP, fixed: Sequence[str] = FIXED) -> pd.DataFrame:
    """Rank the predictors by their rank correlation with the steps.

    Args:
        results: As from `relearn`: one row per cut and head, with steps, censored, and one column per predictor.
            Results of earlier versions have fewer predictors, and only those are ranked.
        by: Columns whose values each get a table of their own; include "share" to separate the errors.
        fixed: Predictors that the partial correlation holds fixed.

    Returns:
        A row for each table, pairs ("within step" or "overall") and predictor, the strongest correlation first:
        correlation, low, high, partial, partial_low, partial_high, seeds, pairs (usable ones), censored (share of the
        heads). Positive: the larger the predictor, the more steps.

    Raises:
        InputError: If the table lacks a column.

    Examples:
        >>> cuts = pd.DataFrame({"cut": range(4), "depth": range(4), "steps": [40.0, 30.0, 20.0, 10.0]})
        >>> setup = {"run": "a", "seed": "0", "step": 0, "share": 0.5, "head_seed": 0, "censored": False}
        >>> setup |= {"scale": "raw", "optimizer": "sgd", "rule": "best", "head": "hidden-1"}
        >>> found = league(cuts.assign(**setup))
        >>> dict(found[found["pairs_of"] == "within step"].groupby("predictor")["correlation"].sum())  # deeper: fewer
        {'depth': ...-1.0...}
    """
    import pandas as pd

    needed = [*by, *(fixed if fixed is not FIXED else ()), *SETUP, *PLACE, "steps", "censored"]
    missing = [name for name in dict.fromkeys(needed) if name not in results]
    if missing:
        raise no_such("results", "column", missing[0], "pass the table of relearn, or name others")
    fixed = [name for name in fixed if name in results]
    rows = []
    for setup, part in results.groupby(list(by)):
        names = dict(zip(by, setup if isinstance(setup, tuple) else (setup,), strict=True))
        for pairs in ("within step", "overall"):
            found = _of_setup(part, pairs, fixed)
            order = sorted(found, key=lambda one: -abs(np.nan_to_num(one["correlation"])))
            rows += [{**names, "pairs_of": pairs, **one} for one in order]
    return pd.DataFrame(rows)


def ranked(results: Any) -> list[str]:
    """Return the predictors that a table of results has."""
    return [name for name in PREDICTORS if name in results]


def _of_setup(part: Any, pairs: str, fixed: Sequence[str]) -> list[dict[str, Any]]:
    seeds = list(part.groupby("seed"))
    signs = [_signs(own, pairs, fixed) for _, own in seeds]
    censored = float(part["censored"].mean())
    found = []
    for name in ranked(part):
        plain = np.array([correlation(y, s[name]) for y, s in signs])
        others = [other for other in fixed if other != name]
        partial = np.array([partial_correlation(y, s[name], [s[o] for o in others]) for y, s in signs])
        (value, low, high), (held, held_low, held_high) = bootstrap(plain), bootstrap(partial)
        found.append(
            {
                "predictor": name,
                "correlation": value,
                "low": low,
                "high": high,
                "partial": held,
                "partial_low": held_low,
                "partial_high": held_high,
                "seeds": int(np.isfinite(plain).sum()),
                "pairs": sum(len(y) for y, _ in signs),
                "censored": censored,
            }
        )
    return found


def _signs(own: Any, pairs: str, fixed: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return, over one seed's pairs of known order, the signs of the steps' and of each predictor's differences."""
    keys = ["head", "scale", "optimizer", "rule", "head_seed", "share"]
    keys += ["run", "step"] if pairs == "within step" else []
    names = {*ranked(own), *fixed}
    steps, censored = own["steps"].to_numpy(), own["censored"].to_numpy()
    outcomes, first, second = [], [], []
    for place in own.groupby(keys).indices.values():
        y, i, j = known_pairs(steps[place], censored[place])
        outcomes.append(y)
        first.append(place[i])
        second.append(place[j])
    if not outcomes:
        return np.zeros(0), {name: np.zeros(0) for name in names}
    i, j = np.concatenate(first), np.concatenate(second)
    columns = {name: own[name].to_numpy() for name in names}
    return np.concatenate(outcomes), {name: np.sign(x[i] - x[j]) for name, x in columns.items()}


def known_pairs(steps: np.ndarray, censored: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs whose order is known: sign of steps_i - steps_j, i, j, each pair once.

    Args:
        steps: (k,) steps, where censored a lower bound.
        censored: (k,) whether the error was not reached.
    """
    i, j = np.triu_indices(len(steps), 1)
    difference = np.sign(steps[i] - steps[j])
    later_i = censored[i] & ~censored[j] & (steps[i] >= steps[j])
    later_j = censored[j] & ~censored[i] & (steps[j] >= steps[i])
    order = np.where(later_i, 1.0, np.where(later_j, -1.0, np.where(censored[i] | censored[j], 0.0, difference)))
    known = order != 0
    return order[known], i[known], j[known]


def correlation(y: np.ndarray, x: np.ndarray) -> float:
    """Return agreeing minus disagreeing pairs, as a share of all; NaN if there are none or the predictor lacks."""
    good = np.isfinite(x)
    return float(np.mean(y[good] * x[good])) if good.any() else float("nan")


def partial_correlation(y: np.ndarray, x: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Return the correlation of pair signs with other signs regressed out of both; NaN if nothing is left."""
    good = np.isfinite(x) & np.isfinite(y)
    for other in others:
        good &= np.isfinite(other)
    if not good.any():
        return float("nan")
    z = np.stack([other[good] for other in others], axis=1) if others else np.zeros((int(good.sum()), 0))
    both = np.stack([y[good], x[good]], axis=1)
    rest = both - z @ np.linalg.lstsq(z, both, rcond=None)[0] if z.shape[1] else both
    sizes = np.sqrt((rest**2).mean(axis=0))
    if sizes.min() < 1e-6:
        return float("nan")
    return float((rest[:, 0] * rest[:, 1]).mean() / sizes.prod())


def bootstrap(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of the clusters' values and its interval within -1 .. 1; NaN for that of a single cluster.

    Args:
        values: (k,) a number from -1 to 1 for each cluster; NaN are left out.
    """
    from scipy.special import ndtr, stdtrit

    values = values[np.isfinite(values)]
    k = len(values)
    if k < 2:
        return float(values[0]) if k else float("nan"), float("nan"), float("nan")
    mean, quantile = float(values.mean()), float(stdtrit(k - 1, (1 + LEVEL) / 2))
    means = np.random.default_rng(0).choice(values, (DRAWS, k)).mean(axis=1)
    tail = float(ndtr(-((k / (k - 1)) ** 0.5) * quantile))
    half = quantile * float(values.std(ddof=1)) / k**0.5
    low, high = np.quantile(means, [tail, 1 - tail])
    return mean, max(-1.0, min(float(low), mean - half)), min(1.0, max(float(high), mean + half))
