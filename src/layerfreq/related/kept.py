"""The weights that a run kept, by layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from layerfreq.errors import Code, no_such
from layerfreq.files import natural
from layerfreq.network.find import unwrap
from layerfreq.runs.run import Run
from layerfreq.runs.weights import kept_steps, load_weights, read_weights, weights_at

BUFFERS = ("running_mean", "running_var")  # what batch norms keep besides their parameters
WHOLE = "(model)"  # what the model's own parameters are called, which have no layer


class KeptWeights:
    """A run's checkpoints: the steps there are, and each layer's parameters at one of them.

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        model: A module with the architecture of the run, which says what is a parameter and gives the order of layers;
            None goes by names: batch-norm statistics are left out, and layers are in the natural order of their names.

    Raises:
        InputError: If the run kept no weights.
    """

    def __init__(self, run: Run | str | Path, model: nn.Module | None = None) -> None:
        self.run = run if isinstance(run, Run) else Run(run)
        self.steps = kept_steps(self.run.path)
        if not self.steps:
            raise no_such("run", "weights in", self.run.path, "train anew, a Monitor with checkpoints=True")
        parameters = [] if model is None else unwrap(model).named_parameters()
        self._shapes = {name: value.shape for name, value in parameters}  # none: those of the step that is read first

    def at(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Return layer -> name of a parameter in it -> float64 tensor, layers in order.

        Raises:
            InputError: If no weights were kept at the step, the file is damaged, they are of another model than those
                of other steps, or NaN.
        """
        state = read_weights(self.run.path, step)
        self._shapes = self._shapes or {name: state[name].shape for name in sorted(_learned(state), key=natural)}
        found: dict[str, dict[str, Tensor]] = {}
        for name, shape in self._shapes.items():
            value = state.get(name)
            if value is None or value.shape != shape:
                there = "is not there" if value is None else f"has shape {tuple(value.shape)}"
                path, why = str(weights_at(self.run.path, step)), f"{name!r} {there}, not {tuple(shape)}"
                raise Code.CONFLICT(f"run: {path!r} holds the weights of another model ({why}); pass that one")
            _refuse_nan(self.run, step, name, value)
            layer, _, own = name.rpartition(".")
            found.setdefault(layer or WHOLE, {})[own] = value.double()
        return found


def load_kept(run: Run, step: int, network: nn.Module) -> None:
    """Put the weights that a run kept at a step into a module.

    Raises:
        InputError: If there are none, the file is damaged, or they are of another model, or NaN.
    """
    load_weights(run.path, step, network)
    for name, value in network.named_parameters():
        _refuse_nan(run, step, name, value)


def _learned(state: dict[str, Tensor]) -> list[str]:
    """Return the names of what may be parameters: numbers, but not a norm's statistics, nor masks of -inf and 0."""
    return [
        name
        for name, value in state.items()
        if value.is_floating_point() and name.rpartition(".")[2] not in BUFFERS and not _is_mask(value)
    ]


def _is_mask(value: Tensor) -> bool:
    return bool(value.isinf().any()) and bool(((value == 0) | value.isinf()).all())


def _refuse_nan(run: Run, step: int, name: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        where = f"in the weights that {str(run.path)!r} kept at step {step}"
        raise Code.NOT_FINITE(f"run: {name!r} is NaN or infinite {where}; use steps from before the training diverged")
