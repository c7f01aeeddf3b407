"""Whether deeper means lower frequency, over seeds: an answer in words with an interval, or "undecided".

The value of a layer is log2 of its median frequency; that of a run at a step is the slope over the layers (octaves per
layer, least squares). Seeds are the clusters of the interval. `since` is the first measured step from which on the
answer is "yes" at every step. For `since` to be too early there must be a false "yes" at the step just before the true
one, so looking at many steps makes this no likelier than the error of one interval (2.5%); with few seeds it is likely
to be late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from layerfreq.data.scales import in_order, spoken
from layerfreq.errors import Code
from layerfreq.runs.run import Run
from layerfreq.runs.several import expand, unit_of
from layerfreq.verdict.alike import hardly_trained, unlike
from layerfreq.verdict.regression import LEVEL, Effect, Line, fit_line, mean_slope
from layerfreq.verdict.speedup import Finding, judge_speed

if TYPE_CHECKING:
    import pandas as pd

Answer = Literal["yes", "no", "undecided"]
PERCENT = f"{LEVEL:.0%}"
STEP_COLUMNS = ["step", "answer", "octaves", "low", "high", "seeds", "resolved", "left_out"]


@dataclass(frozen=True)
class ScaleVerdict:
    """Whether deeper means lower frequency at one scale of the features.

    Attributes:
        scale: "raw", "rms", or "maxabs", the paper's.
        answer: At the last measured step: "yes" if the whole interval is below 0, "no" if it is above (deeper is
            higher), else "undecided".
        since: The first step from which on the answer is "yes" to the end; None if the last answer is not "yes".
        octaves: Change of the median frequency per layer at the last step, in octaves, mean over seeds; negative if
            deeper is lower.
        interval: The interval of `octaves`.
        why: What the answer is based on, and what was left out.
        steps: One row per measured step: step, answer, octaves, low, high, seeds, resolved, left_out.
        unit: What a step is called: "epoch" in experiments that count them.

    Examples:
        >>> nothing = pd.DataFrame({"step": [0]})
        >>> print(ScaleVerdict("raw", "undecided", None, None, None, "one layer was measured", nothing).sentence)
        At raw scale: undecided, one layer was measured.
    """

    scale: str
    answer: Answer
    since: int | None
    octaves: float | None
    interval: tuple[float, float] | None
    why: str
    steps: pd.DataFrame
    unit: str = "step"

    @property
    def sentence(self) -> str:
        """The verdict as one sentence."""
        where = spoken([self.scale]).capitalize()
        if self.octaves is None or self.interval is None:
            return f"{where}: undecided, {self.why}."
        size = f"{abs(self.octaves):.2f} octaves per layer"
        low, high = self.interval
        last, first = int(self.steps["step"].iloc[-1]), int(self.steps["step"].iloc[0])
        if self.answer == "yes":
            when = f"from {self.unit} {self.since} on" if self.since != first else f"at every measured {self.unit}"
            low, high, what = -high, -low, f"yes, deeper means lower frequency {when}; at {self.unit} {last} by {size}"
        elif self.answer == "no":
            what = f"no, at {self.unit} {last} deeper means higher frequency, by {size}"
        else:
            what = f"undecided, at {self.unit} {last} the median changes by {self.octaves:+.2f} octaves per layer"
        return f"{where}: {what} ({PERCENT} interval {low:.2f} to {high:.2f}; {self.why})."


class Verdict:
    """What runs say about depth and frequency.

    Attributes:
        scales: scale -> `ScaleVerdict`, for every scale that a run was measured at, the paper's first.
        speed: Whether depth shortens training, a `Finding`.
        cause: Whether frequency explains how fast the layers above the cuts learn, a `Finding`.
        learning: Whether the whole network learns low frequencies first, a `Finding`; it needs runs with errors by
            frequency, `Monitor(..., error="auto")`.
        bands: What `learning` is based on, one row per frequency band: k, the step at which its relative error fell
            below a half (median over runs), the first and last such step, runs, and never, the number of runs in which
            it did not.
        runs: Number of runs.
        seeds: Number of seeds among them.

    Examples:
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> with Monitor(model, x, torch.sin(9 * x[:, 0]), run="run") as monitor:
        ...     found = monitor.measure(0)
        >>> said = verdict("run")
        >>> said.runs, said.seeds
        (1, 1)
        >>> list(said.to_frame()["scale"])
        ['raw', 'rms']
    """

    def __init__(
        self,
        scales: dict[str, ScaleVerdict],
        speed: Finding,
        cause: Finding,
        learning: Finding,
        bands: pd.DataFrame,
        *,
        runs: int,
        seeds: int,
        errors: bool,
    ) -> None:
        self.scales, self.speed, self.cause, self.learning = scales, speed, cause, learning
        self.bands, self.runs, self.seeds, self._errors = bands, runs, seeds, errors

    @property
    def sentences(self) -> list[str]:
        """The verdict in words: a sentence per scale, on speed, on cause, and on learning if runs have errors."""
        nothing = [] if self.scales else ["No layer was measured, so nothing is said of layers' frequencies."]
        findings = [self.speed, self.cause, *([self.learning] if self._errors else [])]
        return [*nothing, *(one.sentence for one in [*self.scales.values(), *findings])]

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each scale and step: answer, octaves, low, high, seeds, resolved, left_out.

        `resolved` and `left_out` count the layers of all runs whose median is within the resolution, and beyond it.
        """
        import pandas as pd

        frames = [one.steps.assign(scale=name) for name, one in self.scales.items()]
        if not frames:
            return pd.DataFrame(columns=pd.Index(["scale", *STEP_COLUMNS]))
        whole = pd.concat(frames, ignore_index=True)
        whole.insert(0, "scale", whole.pop("scale"))
        return whole

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        return f"Verdict of {self.runs} runs, {self.seeds} seeds\n{self}"


def verdict(
    runs: Sequence[Run] | Sequence[str | Path] | Run | str | Path, *, error: float | None = None, together: bool = False
) -> Verdict:
    """Judge whether deeper means lower frequency, depth shortens training and why, and low frequencies come first.

    Args:
        runs: Runs, or their folders; an experiment's folder stands for the runs in it. Each run is one seed; runs in
            one experiment folder whose names end in the same `seed-N` share a seed.
        error: Training loss at which steps are compared for `speed`; None uses the experiment's own, or the lowest that
            all runs reached.
        together: Judge runs of different kinds (model, data or reading) together.

    If the loss of at least half of the runs had hardly fallen by the last measured step (to no less than three quarters
    of the first logged one), the answer on depth and frequency is "undecided", since it is about trained networks.

    Raises:
        InputError: If there is no run, or the runs are of different kinds.

    Examples:
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> with Monitor(model, x, torch.sin(9 * x[:, 0]), run="run") as monitor:
        ...     found = monitor.measure(0, loss=1.0)
        >>> verdict("run").scales["raw"].answer  # nothing was trained
        'undecided'
    """
    several = isinstance(runs, Iterable) and not isinstance(runs, (str, torch.Tensor))
    given: list[Any] = list(runs) if several else [runs]  # pyright: ignore[reportArgumentType]
    found = expand(given)
    why = "" if together else unlike([run for run, _ in found])
    if why:
        raise Code.CONFLICT(f"runs: of different kinds ({why}); pass one kind, or together=True (--together)")
    medians = medians_of(found)
    unit = unit_of([run for run, _ in found])
    scales = {name: _of_training(one, found) for name, one in judge(medians, unit).items()}
    seeds = len({cluster for _, cluster in found})
    from layerfreq.verdict.learning import bands_of, judge_learning

    findings = judge_speed(found, error, together=together), _cause(found), judge_learning(found)
    errors = any((run.path / "errors").is_dir() for run, _ in found)
    return Verdict(scales, *findings, bands_of(found), runs=len(found), seeds=seeds, errors=errors)


def medians_of(runs: Sequence[tuple[Run, str]]) -> pd.DataFrame:
    """Return a row for each run, step, layer and scale.

    Columns run, seed (the cluster), step, layer, depth, scale, median (1/delta, NaN if the cutoffs do not reach it),
    error (standard error of log2 median, NaN if unknown), resolution.
    """
    import pandas as pd

    columns = ["run", "seed", "step", "layer", "depth", "scale", "median", "error", "resolution"]
    frames = [run.medians.assign(run=str(run.path), seed=cluster) for run, cluster in runs]
    return pd.concat(frames, ignore_index=True).loc[:, columns] if frames else pd.DataFrame(columns=pd.Index(columns))


def judge(medians: pd.DataFrame, unit: str = "step") -> dict[str, ScaleVerdict]:
    """Judge a table of medians, as from `medians_of`; `run`, `error` and `layer` may be missing.

    Args:
        medians: Columns seed, step, depth, scale, median, resolution, and maybe run and error.
        unit: What a step is called.

    Returns:
        A verdict for every scale in the table, the paper's first.
    """
    table = medians.assign(run=medians["run"] if "run" in medians else medians["seed"])
    if "error" not in table:
        table = table.assign(error=math.nan)
    every = len(set(table["run"]))
    return {scale: _judge(table[table["scale"] == scale], scale, unit, every) for scale in in_order(table["scale"])}


def _of_training(one: ScaleVerdict, runs: Sequence[tuple[Run, str]]) -> ScaleVerdict:
    """Return the verdict, undecided where most of the runs had hardly been trained."""
    if not len(one.steps):
        return one
    step = int(one.steps["step"].iloc[-1])
    early = [why for why in (hardly_trained(run, step) for run, _ in runs) if why]
    if not early:
        return one
    counted = early[0] if len(runs) == 1 else f"{len(early)} of {len(runs)} runs; in one of them {early[0]}"
    if 2 * len(early) < len(runs):
        return replace(one, why=f"{one.why}; hardly trained at {one.unit} {step}: {counted}")
    why = f"training had hardly begun at {one.unit} {step}: {counted}; {one.why}"
    return replace(one, answer="undecided", since=None, why=why)


def _judge(table: Any, scale: str, unit: str, every: int) -> ScaleVerdict:
    """Judge the medians of one scale; `every` counts the runs of all scales."""
    import pandas as pd

    runs = table["run"].nunique()
    shared = table.groupby("step")["run"].nunique()
    steps = [int(step) for step in shared.index[shared == runs]]
    if not steps:
        why = f"no {unit} was measured in all {runs} runs"
        return ScaleVerdict(
            scale, "undecided", None, None, None, why, pd.DataFrame(columns=pd.Index(STEP_COLUMNS)), unit
        )
    frame, last, why = _by_step(table, steps, unit)
    answers = frame["answer"].tolist()
    held = 0
    while held < len(answers) and answers[-1 - held] == "yes":
        held += 1
    if runs < every:
        why += f"; {every - runs} of {every} runs were not measured at this scale"
    if steps[-1] < table["step"].max():
        why += f"; {unit}s after {steps[-1]} were not measured in all runs"
    return ScaleVerdict(
        scale=scale,
        answer=answers[-1],
        since=steps[-held] if held else None,
        octaves=None if last is None else last.slope,
        interval=None if last is None else last.interval,
        why=why,
        steps=frame,
        unit=unit,
    )


def _by_step(table: Any, steps: Sequence[int], unit: str) -> tuple[pd.DataFrame, Effect | None, str]:
    """Judge every step; return the rows, and the effect at the last step with what it rests on."""
    import pandas as pd

    rows, last, why = [], None, ""
    resolved = (table["median"] > 0) & (table["median"] <= table["resolution"])
    for step in steps:
        here = table["step"] == step
        part, good = table[here], table[here & resolved]
        last, why = _at(good, table["seed"].nunique())
        left_out = len(part) - len(good)
        if left_out:
            why += f"; {left_out} of {len(part)} medians at {unit} {step} left out as beyond the resolution"
        interval = (math.nan, math.nan) if last is None or last.interval is None else last.interval
        slope, clusters = (math.nan, 0) if last is None else (last.slope, last.clusters)
        rows.append([step, _answer(last), slope, *interval, clusters, len(good), left_out])
    return pd.DataFrame(rows, columns=pd.Index(STEP_COLUMNS)), last, why


def _at(good: Any, seeds: int) -> tuple[Effect | None, str]:
    """Return the mean slope of one step, and what it rests on."""
    clusters: dict[Any, list[Line]] = {}
    run, seed = good["run"].to_numpy(), good["seed"].to_numpy()
    x, y, errors = good["depth"].to_numpy(), np.log2(good["median"].to_numpy()), good["error"].to_numpy()
    for one in dict.fromkeys(run):
        at = run == one
        line = fit_line(x[at], y[at], errors[at])
        if line is not None:
            clusters.setdefault(seed[at][0], []).append(line)
    if not clusters:
        return None, "no run has two layers whose median is within the resolution"
    if 2 * len(clusters) < seeds:
        return None, f"only {len(clusters)} of {seeds} seeds have two layers whose median is within the resolution"
    effect = mean_slope(list(clusters.values()))
    assert effect is not None
    return effect, effect.how + (f" of {seeds}" if 1 < len(clusters) < seeds else "")


def _answer(effect: Effect | None) -> Answer:
    sign = 0 if effect is None else effect.sign
    return "yes" if sign < 0 else "no" if sign > 0 else "undecided"


def _cause(runs: Sequence[tuple[Run, str]]) -> Finding:
    if not any((run.path / "relearn" / "cells").is_dir() for run, _ in runs):
        why = "nothing was trained anew above the cuts; run `layerfreq relearn` on the runs"
        return Finding("undecided", f"Does frequency explain how fast the layers above learn: undecided, {why}.")
    from layerfreq.verdict.cause import judge_cause
    from layerfreq.verdict.ranking import league, results

    return judge_cause(league(results(runs)))
