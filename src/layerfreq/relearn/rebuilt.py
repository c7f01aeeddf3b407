"""Where networks, inputs and targets of a run come from.

A run of an experiment is built anew from its config: the experiment's module has a function `rebuild(run, config)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.inputs import batches
from layerfreq.errors import Code, none_given, unsupported
from layerfreq.network.find import hidden_layers, unwrap
from layerfreq.runs.run import Run


@dataclass(frozen=True)
class Source:
    """What a run's checkpoints belong to.

    Attributes:
        inputs: (n, ...) tensor that was measured, in order.
        targets: (n,) class ids or (n, c) floats.
        fresh: seed -> the network, initialised anew.
    """

    inputs: Tensor
    targets: Tensor
    fresh: Callable[[int], nn.Module]


def rebuilt(run: Run, rebuild: Callable[[Run], Source] | None) -> Source:
    """Build the source of a run whose model was not passed.

    Raises:
        InputError: If no function to rebuild it is known.
    """
    if rebuild is None:
        remedy = "pass its model, inputs and targets, or rebuild=layerfreq.experiments.source_of"
        raise Code.EMPTY(f"model: none for {str(run.path)!r}; {remedy}")
    return rebuild(run)


def given(model: nn.Module, inputs: Any, targets: Any) -> Source:
    """Make a source of a user's model and data.

    Args:
        model: Of the run's weights; it is left as it was. To initialise it anew, every module's own
            `reset_parameters` is called.
        inputs: One tensor or array, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids or floats; None with an iterable of batches.

    Raises:
        InputError: If inputs are no tensors, or there are no targets.
    """
    model = copy.deepcopy(unwrap(model))
    parts = list(batches(inputs, targets))
    if any(not hasattr(x, "shape") for x, _ in parts):
        raise unsupported("inputs", "a dict or tuple", "one tensor per point")
    if any(y is None for _, y in parts):
        raise none_given("targets", "one for each input, or an iterable of (inputs, targets) batches")

    def fresh(seed: int) -> nn.Module:
        one = copy.deepcopy(model)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in one.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return one

    x, y = (torch.cat([torch.as_tensor(part[k]) for part in parts]) for k in (0, 1))
    return Source(x, y.float() if y.is_floating_point() else y.long(), fresh)


def layers_of(run: Run, source: Source) -> list[str]:
    """Return the layers that a run measured, input to output; of one without spectra, the hidden layers."""
    spectra: Any = run.spectra
    if len(spectra) == 0:
        return hidden_layers(source.fresh(0), source.inputs[:4])
    return list(dict.fromkeys(spectra.sort_values("depth", kind="stable")["layer"]))
