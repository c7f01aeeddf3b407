"""Results of the parts of the frequency principle, next to the published ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layerfreq.experiments.fprinciple.optimizers import NAMES

COLUMNS = ["case", "step", "what", "k", "value"]
HEAD = ["part", "case", "found (middle of the seeds)", "low first", "published"]
LEARNED = 0.1  # relative error below which a frequency counts as learned, as published
HALF = 0.5  # in part heatmap: half of the amplitude
PUBLISHED = {
    ("one-d", "600 points"): "< 100, 750, 2000",
    ("one-d", "101 points"): "low first",
    ("heatmap", "equal"): "low first",
    ("heatmap", "increasing"): "low first",
    ("ricker", "a = 0.3"): "low first",
    ("ricker", "a = 0.1"): "no order",
    ("parity", "parity"): "rest 50%",
}
EPOCHS = (0, 20, 40, 60)
FILTER = 2.0  # the variance whose errors are published at these epochs
E_LOW, E_HIGH = (0.93, 0.72, 0.30, 0.05), (1.0, 0.97, 0.77, 0.24)


def measured_epochs(epochs: int) -> set[int]:
    """Return the epochs at which images are measured: some twenty, and the published shares of the training."""
    published = (round(epochs * epoch / EPOCHS[-1]) for epoch in EPOCHS)
    return {*range(0, epochs + 1, max(1, epochs // 20)), *published}


def first_below(part: Any, threshold: float) -> Any:
    """Return the first measured step at which the relative error is below a threshold, a row per seed, a column per k.

    Args:
        part: Rows of one case.
        threshold: Relative error.

    Returns:
        A data frame; inf where it never was.
    """
    shown = part[part["what"] == "relative"]
    below = shown[shown["value"] < threshold].groupby(["seed", "k"])["step"].min().unstack("k")
    seeds, k = sorted(shown["seed"].unique()), sorted(shown["k"].unique())
    return below.reindex(index=seeds, columns=k).astype(float).fillna(np.inf)


def in_order(steps: Any) -> bool:
    """Whether no frequency came before a lower one, and the lowest came before the highest; inf means never."""
    steps = np.asarray(steps, dtype=float)
    return bool((steps[1:] >= steps[:-1]).all() and steps[0] < steps[-1])


def rank_correlation(steps: Any) -> float:
    """Return Kendall's tau of the steps with frequency, 1 where low always comes first; 0 where all tie."""
    from scipy.stats import kendalltau

    found: Any = kendalltau(np.arange(len(steps)), np.asarray(steps, dtype=float))
    return float(found.statistic) if np.isfinite(found.statistic) else 0.0


def table(frame: Any) -> list[list[str]]:
    """Return the rows under `HEAD`, one per part and case; two per variance of a filter."""
    rows = []
    for name in frame["part"].unique():
        part = frame[frame["part"] == name]
        tell = _TELL.get(name, _orders)
        rows += [[name, *row, _published(name, row[0])] for row in tell(part)]
        if name == "optimizers" and NAMES[-1] not in set(part["case"]):
            rows.append([name, NAMES[-1], "not run: pip install pymoo", "", ""])
    return rows


def _published(part: str, case: str) -> str:
    for what, values in (("e_low", E_LOW), ("e_high", E_HIGH)):
        if part == "cifar" and case.startswith(what):
            return "/".join(f"{value:.2f}".lstrip("0") for value in values)
    return PUBLISHED.get((part, case), "low first" if part == "optimizers" else "")


def _orders(part: Any) -> list[list[str]]:
    threshold = HALF if part["part"].iloc[0] == "heatmap" else LEARNED
    rows = []
    for case in part["case"].unique():
        steps = first_below(part[part["case"] == case], threshold)
        middle = steps.median()
        shown = middle if len(middle) <= 3 else middle.iloc[[0, len(middle) // 2, -1]]
        told = steps[np.isfinite(steps).any(axis=1)].to_numpy()
        found = "none learned"
        if len(told):
            tau = np.median([rank_correlation(row) for row in told])
            found = f"k={'/'.join(f'{k:g}' for k in shown.index)} at {'/'.join(map(_step, shown))}, τ={tau:.2f}"
        rows.append([case, found, f"{sum(map(in_order, told))} of {len(told)}"])
    return rows


def _step(step: float) -> str:
    return f"{step:.0f}" if np.isfinite(step) else "-"


def _filters(part: Any) -> list[list[str]]:
    """e_low and e_high of the published variance at the published shares of the training, and of all variances."""
    k = np.array(sorted(part.loc[part["what"] == "low", "k"].unique()))
    at = k[np.argmin(np.abs(k - FILTER**-0.5))]
    steps = np.array(sorted(part["step"].unique()))
    shown = [int(steps[np.argmin(np.abs(steps - epoch))]) for epoch in np.array(EPOCHS) * steps[-1] / EPOCHS[-1]]
    errors = part[part["what"].isin(["low", "high"])].groupby(["what", "seed", "k", "step"])["value"].first()
    low, high = errors["low"].unstack("step"), errors["high"].unstack("step")
    known = high.notna().all(axis=1)  # of the least variances, engines may take what is high for rounding
    # A pair of curves is in order if e_low falls to half of where it began before e_high does.
    first = []
    for one in (low[known], high[known]):
        fell = one.lt(HALF * one.iloc[:, 0], axis=0)
        first.append(np.where(fell.any(axis=1), fell.to_numpy().argmax(axis=1), len(steps)))
    held, told = int((first[0] < first[1]).sum()), int((first[0] < len(steps)).sum())
    rows = []
    for name, errors_of in (("e_low", low), ("e_high", high)):
        middle = errors_of.xs(at, level="k").median()
        found = "/".join(f"{middle[step]:.2f}".lstrip("0") for step in shown)
        said = f"{found} at epochs {'/'.join(map(str, shown))}"
        rows.append([f"{name}, δ={at**-2:.3g}", said, f"{held} of {told}" if name == "e_low" else ""])
    return rows


def _parity(part: Any) -> list[list[str]]:
    last = part[part["step"] == part["step"].max()].groupby(["what", "seed"])["value"].first()
    shown, rest = last["accuracy"], last["rest"]
    return [["parity", f"{shown.median():.0%} of those shown, {rest.min():.0%} .. {rest.max():.0%} of the rest", ""]]


def _bias(part: Any) -> list[list[str]]:
    rows = []
    for case in part["case"].unique():
        one = part[(part["case"] == case) & (part["what"] == "bias")].pivot_table(
            index="seed", columns="step", values="value"
        )
        steps = one.columns[np.linspace(0, len(one.columns) - 1, 3).astype(int)]
        found = "/".join(f"{one[step].median():+.2f}" for step in steps)
        rose = int((one.max(axis=1) > one.iloc[:, 0] + 0.1).sum())
        said = f"{found} at {'/'.join(map(str, steps))}"
        rows.append([case, said, f"{rose} of {len(one)} rise"])
    return rows


_TELL: dict[str, Callable[[Any], list[list[str]]]] = {"cifar": _filters, "parity": _parity, "bias": _bias}
