"""The paper's experiments, one module each, on one small runner. To add one: write its file, and name it here."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from layerfreq.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from layerfreq.relearn.rebuilt import Source
    from layerfreq.runs.run import Run

NAMES = ("depth", "sine", "mlp", "resnet", "cause", "controls", "fprinciple")


def experiment(name: str) -> ModuleType:
    """Return an experiment's module, with UNIT, PRESETS, SEEDS, run and present; some have source and beside.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in NAMES:
        raise InputError(f"experiment: unknown {name!r}; {did_you_mean(name, NAMES)}")
    return importlib.import_module(f"layerfreq.experiments.{name}")


def source_of(run: Run) -> Source:
    """Build the source of an experiment's run from the experiment's config.

    Raises:
        InputError: If the run is no experiment's, or of one that keeps no weights.
    """
    parent = run.path.resolve().parent
    config = type(run)(parent).config if (parent / "config.yaml").is_file() else {}
    name = config.get("experiment")
    if name not in NAMES:
        raise InputError(
            f"model: {str(run.path)!r} is not a run of an experiment; name its --model and --data, or pass its "
            "model, inputs and targets"
        )
    module = experiment(str(name))
    if not hasattr(module, "source"):
        raise InputError(f"run: experiment {name!r} keeps no weights of measured layers; choose mlp or resnet")
    return module.source(run, config)
