"""Which runs may be judged together: trainings of one kind that have made progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerfreq.runs.run import Run

# What runs say of themselves that trainings of one kind share; where one does not say it, it is not asked.
SAME = ("experiment", "preset", "model", "data", "points", "reading", "center", "target", "probe")
FALLEN = 0.75  # of its first loss; a training that is above has hardly begun


def unlike(runs: Sequence[Run], same: Sequence[str] = SAME) -> str:
    """Return in words why runs are of different kinds; empty if they are not.

    Runs in one experiment's folder belong together. Others do if they name the same experiment, model, data, number of
    points, reading and centring, and share a layer. Their networks may differ in depth; those of one depth are seeds of
    one network, with the same number of parameters.
    """
    if len({run.path.resolve().parent for run in runs if _experiment(run)}) == 1 and all(map(_experiment, runs)):
        return ""
    said = [(run, _said(run)) for run in runs]
    for name in same:
        known = [(run, about[name]) for run, about in said if about.get(name) is not None]
        other = next(((run, value) for run, value in known if value != known[0][1]), None)
        if other is not None:
            first = known[0]
            return f"{name} {first[1]!r} in {str(first[0].path)!r}, {other[1]!r} in {str(other[0].path)!r}"
    sizes: dict[Any, tuple[Run, int]] = {}
    for run, about in said:
        if isinstance(about.get("parameters"), int):
            first, size = sizes.setdefault(about.get("hidden_layers"), (run, about["parameters"]))
            if about["parameters"] != size:
                return f"{size} parameters in {str(first.path)!r}, {about['parameters']} in {str(run.path)!r}"
    layers = [(run, set(about["layers"])) for run, about in said if isinstance(about.get("layers"), list)]
    layers = [(run, names) for run, names in layers if names]  # some measure the network's error alone
    other = next((run for run, names in layers if not names & layers[0][1]), None)
    if other is not None:
        return f"no layer of {str(layers[0][0].path)!r} is one of {str(other.path)!r}"
    return ""


def hardly_trained(run: Run, step: int) -> str:
    """Return in words that a run's loss had hardly fallen by a step; empty if it had, or is unknown.

    This compares the first logged loss with the median of the last tenth of those up to the step, since the loss of a
    single minibatch is noisy; a loss that starts at or below 0 is ignored.
    """
    metrics: Any = run.metrics
    if "loss" not in metrics:
        return ""
    kept = metrics[["step", "loss"]].dropna().sort_values("step", kind="stable")
    losses = kept.loc[kept["step"] <= step, "loss"].to_numpy()
    first = float(kept["loss"].iloc[0]) if len(kept) else 0.0
    last = float(np.median(losses[-max(1, len(losses) // 10) :])) if len(losses) else first
    if not first > 0 or last <= FALLEN * first:
        return ""
    return f"its loss was {first:.3g} at first and {last:.3g} by then"


def _experiment(run: Run) -> dict[str, Any]:
    """Return the config of the experiment that a run belongs to; empty if there is none."""
    parent = run.path.resolve().parent
    about = Run(parent).config if (parent / "config.yaml").is_file() else {}
    return about if "experiment" in about else {}


def _said(run: Run) -> dict[str, Any]:
    about = {**_experiment(run), **run.config}
    options = about.get("options")
    return {**(options if isinstance(options, dict) else {}), **about}
