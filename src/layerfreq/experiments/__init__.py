"""The paper's experiments, one module each, on one small runner. To add one: write its file, and name it here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerfreq.runs.run import Run

NAMES = ("depth", "sine", "mlp", "resnet", "cause", "controls")
# What a step is called there; elsewhere it is "step".
UNITS = {"mlp": "epoch", "resnet": "epoch", "cause": "job", "controls": "epoch"}


def unit_of(runs: Sequence[Run]) -> str:
    """Return what a step of runs is called, by the experiments they are or belong to; "step" where these differ."""
    units = set()
    for run in runs:
        about, parent = run.config, run.path.resolve().parent
        if "experiment" not in about and (parent / "config.yaml").is_file():
            about = type(run)(parent).config
        units.add(UNITS.get(str(about.get("experiment")), "step"))
    return units.pop() if len(units) == 1 else "step"
