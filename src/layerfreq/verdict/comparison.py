"""Two runs compared: how far apart the medians of each layer are, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.data.notes import as_step
from layerfreq.data.scales import in_order
from layerfreq.errors import Code, InputError, shown, warn_caller
from layerfreq.runs.run import Run
from layerfreq.runs.several import expand
from layerfreq.verdict.alike import unlike
from layerfreq.verdict.depth import medians_of
from layerfreq.verdict.regression import LEVEL, NORMAL

if TYPE_CHECKING:
    import pandas as pd

ALIKE = ("points", "reading", "center")  # what medians hang on besides network and data
COLUMNS = (
    "layer", "depth", "scale", "median_a", "median_b", "octaves", "low", "high", "answer", "resolved_a", "resolved_b",
)  # fmt: skip


def compare(
    a: Sequence[Run] | Sequence[str | Path] | Run | str | Path,
    b: Sequence[Run] | Sequence[str | Path] | Run | str | Path,
    step: int | tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Compare the medians of two runs, layer by layer; several runs on one side count as its seeds.

    The interval of a difference comes from the seeds if both sides have at least two (Welch's t), otherwise from the
    standard errors of the medians if filter centres were drawn (`rows=`, `rtol=`). Single runs measured exactly have no
    interval, since nothing says how far another seed would be.

    Args:
        a: A run, its folder, several of them, or an experiment's folder.
        b: What to compare it with.
        step: The measured step, or one for each side; None means the last one that all runs have.

    Returns:
        One row per layer and scale: layer, depth, scale, median_a and median_b (1/delta, geometric means over seeds;
        NaN if a side has none), octaves (log2 of b over a), low and high (its 95% interval, NaN if there is none),
        answer ("higher" or "lower" if the whole interval is and both sides are resolved, else "undecided"), resolved_a
        and resolved_b (whether the medians of all seeds are within their resolution). Its `attrs` name the runs and
        steps of both sides.

    Raises:
        InputError: If the runs share no step, layer or scale.

    Examples:
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> for name, k in (("slow", 5), ("fast", 25)):
        ...     model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        ...     with Monitor(model, x, torch.sin(k * x[:, 0]), run=name) as monitor:
        ...         found = monitor.measure(0)
        >>> compare("slow", "fast")["scale"].tolist()
        ['raw', 'rms']
    """
    import pandas as pd

    sides = [expand(list(side) if isinstance(side, (list, tuple)) else [side]) for side in (a, b)]  # pyright: ignore[reportArgumentType]
    why = unlike([run for side in sides for run, _ in side], ALIKE)
    if why and not why.startswith("no layer"):
        warn_caller(f"runs: {why}; medians can be compared only where these are the same")
    tables: list[Any] = [medians_of(side) for side in sides]
    steps = _steps(tables, step)
    tables = [table[table["step"] == at] for table, at in zip(tables, steps, strict=True)]
    shared = [set(map(tuple, table[["layer", "scale"]].to_numpy())) for table in tables]
    if not shared[0] & shared[1]:
        layers = [", ".join(map(str, table["layer"].unique()[:3])) for table in tables]
        raise Code.CONFLICT(f"runs: no layer is in both at one scale ({layers[0]}; {layers[1]}); compare others")
    whole: Any = pd.concat(tables)
    rows = []
    for scale in in_order(whole["scale"]):
        part = whole[whole["scale"] == scale]
        for layer, depth in part.groupby("layer")["depth"].min().sort_values(kind="stable").items():
            ours = [table[(table["layer"] == layer) & (table["scale"] == scale)] for table in tables]
            rows.append((layer, int(depth), scale, *_difference(*ours)))
    found = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    for side, runs, at in zip("ab", sides, steps, strict=True):
        found.attrs[side] = {"runs": [str(run.path) for run, _ in runs], "step": at}
    return found


def _steps(tables: Sequence[Any], step: Any) -> list[int]:
    """Return the step of each side."""
    known = [_common(table) for table in tables]
    if step is None:
        both = sorted(known[0] & known[1])
        if not both:
            ends = [f"{min(one, default='none')} to {max(one, default='none')}" for one in known]
            raise Code.CONFLICT(f"runs: no step was measured in all ({ends[0]}; {ends[1]}); pass step=(of a, of b)")
        return [both[-1], both[-1]]
    pair = list(step) if isinstance(step, (tuple, list)) else [step, step]
    if len(pair) != 2:
        raise InputError(f"step: {shown(step)} is neither a step nor one for each side")
    for side, at, steps in zip("ab", pair, known, strict=True):
        if as_step(at) not in steps:
            some = ", ".join(map(str, sorted(steps)[-3:]))
            raise Code.MISSING(f"step: {shown(at)} was not measured in all runs of {side}; pass such as {some}")
    return [as_step(at) for at in pair]


def _common(table: Any) -> set[int]:
    """Return the steps that all runs of a table have."""
    each = [set(part["step"]) for _, part in table.groupby("run")]
    return {int(step) for step in set.intersection(*each)} if each else set()


def _difference(a: Any, b: Any) -> tuple[Any, ...]:
    """Return the last columns of a row, of the medians of one layer and scale over the seeds of either side."""
    logs = [np.log2(part["median"].dropna().to_numpy(dtype=np.float64)) for part in (a, b)]
    medians = [float(2 ** one.mean()) if len(one) else math.nan for one in logs]
    resolved = [len(part) > 0 and bool((part["median"] <= part["resolution"]).all()) for part in (a, b)]
    octaves, low, high = math.nan, math.nan, math.nan
    if all(map(len, logs)):
        octaves = float(logs[1].mean() - logs[0].mean())
        half = _half(logs, [part["error"].to_numpy(dtype=np.float64) for part in (a, b)])
        low, high = octaves - half, octaves + half
    answer = "undecided"
    if all(resolved) and (low > 0 or high < 0):
        answer = "higher" if low > 0 else "lower"
    return *medians, octaves, low, high, answer, *resolved


def _half(logs: Sequence[Any], errors: Sequence[Any]) -> float:
    """Return half the interval of the difference of two means, NaN if nothing says how sure they are."""
    if all(len(one) > 1 for one in logs):
        from scipy.special import stdtrit

        squares = [one.var(ddof=1) / len(one) for one in logs]
        total = sum(squares)
        if total == 0:
            return 0.0
        freedom = total**2 / sum(s**2 / (len(one) - 1) for s, one in zip(squares, logs, strict=True))
        return float(stdtrit(freedom, (1 + LEVEL) / 2) * math.sqrt(total))
    if all(len(one) == 1 for one in logs) and all(len(one) == 1 for one in errors):
        return NORMAL * math.hypot(errors[0][0], errors[1][0])
    return math.nan
