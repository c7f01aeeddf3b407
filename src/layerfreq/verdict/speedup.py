"""Whether depth shortens training: steps to one error, over runs of different depth."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np

from layerfreq.errors import is_not
from layerfreq.runs.run import Run
from layerfreq.runs.several import unit_of
from layerfreq.verdict.alike import unlike
from layerfreq.verdict.regression import LEVEL, Effect, Line, fit_line, mean_slope

DEPTH_IN_NAME = re.compile(r"(?:^|-)(?:layers|hidden|depth)-(\d+)(?:-|$)")
VARIANT_IN_NAME = re.compile(r"(?:^|-)variant-(\d+)(?:-|$)")


@dataclass(frozen=True)
class Finding:
    """An answer to one question.

    Attributes:
        answer: "yes", "no" or "undecided".
        sentence: The answer in words, with what it is based on or what is missing.
        effect: Its size, if any.
        interval: The interval of the size.
    """

    answer: Literal["yes", "no", "undecided"]
    sentence: str
    effect: float | None = None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        return self.sentence


def judge_speed(runs: Sequence[tuple[Run, str]], error: float | None = None, *, together: bool = False) -> Finding:
    """Compare the steps that runs of different depth take to one training loss.

    The effect is the change of log2(steps) per layer: per seed if each seed has several depths, else one line through
    all runs. A run that does not reach the error counts with its last step, which is a bound; with such runs the answer
    is "undecided" unless the deeper ones reach it and the shallower ones do not.

    Args:
        runs: Runs and their clusters, as from `layerfreq.verdict.expand`.
        error: Training loss; None uses the experiment's own, or the lowest that all runs reached.
        together: Also compare runs of different kinds.

    Raises:
        InputError: If the error is not a number above 0.
    """
    if error is not None and not (isinstance(error, Real) and 0 < error < math.inf):
        raise is_not("error", error, "a loss above 0", "the loss whose steps are compared")
    question = "Does depth shorten training"
    why = "" if together else unlike([run for run, _ in runs])
    if why:
        return Finding("undecided", f"{question}: undecided, the runs are of different kinds ({why}).")
    known: list[tuple[Run, str, int | None, Any]]
    known = [(run, cluster, depth_of(run), run.metrics) for run, cluster in runs]
    known = [one for one in known if one[2] is not None and "loss" in one[3] and not one[3]["loss"].isna().all()]
    depths = sorted({depth for _, _, depth, _ in known if depth is not None})
    if len(depths) < 2:
        have = f"all have {depths[0]} layers" if depths else "none has both a known depth and a logged loss"
        if any(depth_of(run) is None for run, _ in runs):
            have += "; a run knows its depth where its config says `depth` or `hidden_layers`, as a Monitor's does"
        return Finding("undecided", f"{question}: undecided, this needs runs of different depth, and {have}.")
    error = error or _own_error([run for run, _, _, _ in known])
    if error is None:
        error = max(float(metrics["loss"].min()) for _, _, _, metrics in known)
    steps = [steps_to(metrics, error) for _, _, _, metrics in known]
    late = [censored for _, censored in steps]
    data = [(c, d, math.log2(max(s, 1))) for (_, c, d, _), (s, _) in zip(known, steps, strict=True)]
    effect = _effect(data)
    to = f"{unit_of([run for run, _, _, _ in known])}s to a loss of {error:.3g}"
    if effect is None or effect.interval is None:
        return Finding("undecided", f"{question}: undecided, too few runs of different depth for an interval of {to}.")
    low, high = effect.interval
    size = f"{to} change by {2**effect.slope - 1:+.0%} per layer"
    basis = f"{LEVEL:.0%} interval {2**low - 1:+.0%} to {2**high - 1:+.0%}, {len(known)} runs, {effect.how}"
    answer: Literal["yes", "no", "undecided"] = "yes" if effect.sign < 0 else "no" if effect.sign > 0 else "undecided"
    if any(late):
        basis += f"; {sum(late)} runs did not reach it and count with their last step"
        slow = {depth for (_, _, depth, _), censored in zip(known, late, strict=True) if censored}
        # Bounds at the end that is slower anyway only weaken the effect; any others may have made it.
        if slow != {depths[0] if answer == "yes" else depths[-1]}:
            answer = "undecided"
    return Finding(answer, f"{question}: {answer}, {size} ({basis}).", effect.slope, effect.interval)


def depth_of(run: Run) -> int | None:
    """Return the depth of a run's network from its config or name; None if neither says it.

    The number of measured layers does not count: they may be some of many.
    """
    config = run.config
    for said in (config.get("depth"), config.get("hidden_layers")):
        if isinstance(said, int) and not isinstance(said, bool):
            return said
    if found := DEPTH_IN_NAME.search(run.path.name):
        return int(found[1])
    if found := VARIANT_IN_NAME.search(run.path.name):
        return 2 * (4 - int(found[1]))  # residual blocks
    return None


def steps_to(metrics: Any, error: float) -> tuple[int, bool]:
    """Return the first logged step with a loss of at most `error`; without one, the last step, and True."""
    step, loss = metrics["step"].to_numpy(), metrics["loss"].to_numpy()
    reached = step[loss <= error]
    return (int(reached.min()), False) if len(reached) else (int(step[~np.isnan(loss)].max()), True)


def _own_error(runs: Sequence[Run]) -> float | None:
    """The error at which an experiment ends its trainings, if all runs belong to one that has it."""
    errors = set()
    for run in runs:
        parent = run.path.parent / "config.yaml"
        errors.add(Run(run.path.parent).config.get("error") if parent.is_file() else None)
    own = errors.pop() if len(errors) == 1 else None
    return float(own) if isinstance(own, (int, float)) else None


def _effect(data: Sequence[tuple[str, Any, float]]) -> Effect | None:
    clusters: dict[str, list[tuple[Any, float]]] = {}
    for cluster, depth, value in data:
        clusters.setdefault(cluster, []).append((depth, value))
    fits = [fit_line(*np.array(points).T) for points in clusters.values()]
    lines: list[list[Line]] = [[line] for line in fits if line is not None]
    if len(lines) == len(clusters) and len(lines) > 1:
        return mean_slope(lines)
    line = fit_line([depth for _, depth, _ in data], [value for _, _, value in data])
    effect = None if line is None else mean_slope([[line]])
    return None if effect is None else Effect(effect.slope, effect.interval, len(data), "from the runs' scatter")
