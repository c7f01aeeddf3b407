"""The weights that a run kept, by layer."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.files import natural
from layerfreq.network.find import unwrap
from layerfreq.runs.run import Run
from layerfreq.runs.weights import kept_steps, read_weights

BUFFERS = ("running_mean", "running_var")  # what batch norms keep besides their parameters
WHOLE = "(model)"  # what the model's own parameters are called, which have no layer


class KeptWeights:
    """A run's checkpoints: the steps there are, and each layer's parameters at one of them.

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        model: A module of the run's kind, which says what is a parameter and in which order layers come; None goes by
            names: batch norm's statistics are left out, and layers are in the natural order of their names.

    Raises:
        InputError: If the run kept no weights.
    """

    def __init__(self, run: Run | str | Path, model: nn.Module | None = None) -> None:
        self.run = run if isinstance(run, Run) else Run(run)
        self.steps = kept_steps(self.run.path)
        if not self.steps:
            raise InputError(
                f"run: {str(self.run.path)!r} kept no weights; train with Monitor(..., run=..., checkpoints=True)"
            )
        self._names = None if model is None else [name for name, _ in unwrap(model).named_parameters()]

    def at(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Return layer -> name of a parameter in it -> float64 tensor, layers in order.

        Raises:
            InputError: If no weights were kept at the step, the file is damaged, or they are of another model.
        """
        state = read_weights(self.run.path, step)
        names = self._names
        if names is None:
            floats = (name for name, value in state.items() if value.is_floating_point())
            names = sorted((name for name in floats if name.rpartition(".")[2] not in BUFFERS), key=natural)
        missing = next((name for name in names if name not in state), None)
        if missing is not None:
            raise InputError(
                f"model: it has a parameter {missing!r} that the run's weights have not; pass the run's own kind"
            )
        found: dict[str, dict[str, Tensor]] = {}
        for name in names:
            layer, _, own = name.rpartition(".")
            found.setdefault(layer or WHOLE, {})[own] = state[name].double()
        return found
