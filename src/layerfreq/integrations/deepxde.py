"""The callback for DeepXDE, on its PyTorch backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerfreq.errors import Code
from layerfreq.extras import needs
from layerfreq.integrations.shell import Shell, Start
from layerfreq.monitor.monitor import Monitor
from layerfreq.monitor.schedules import When
from layerfreq.runs.run import Run


def _base() -> Any:
    backend = needs("deepxde.backend", "deepxde", __name__).backend_name
    if backend != "pytorch":
        raise Code.UNSUPPORTED(f"deepxde: its backend is {backend!r}; set DDE_BACKEND=pytorch before it is imported")
    return needs("deepxde.callbacks", "deepxde", __name__).Callback


if TYPE_CHECKING:
    Callback = object
else:
    Callback = _base()


class LayerSpectraCallback(Callback):
    """Measures the layers of the network that a DeepXDE `Model` trains.

    It measures before the first step, and after each step (`train_state.step`) that is due; under L-BFGS, which takes
    several steps at a time, after those. Training stays the same, bit for bit. A second `train` of the same model (such
    as L-BFGS after Adam) with the same callback resumes the run. When DeepXDE displays a loss, the run gets the sum of
    its terms.

    Args:
        inputs: (n, d) tensor or array, what the network takes for n points.
        targets: (n,) or (n, c) floats: the solution there, or an approximation of it.
        layers: Names as from `hidden_layers`; None means all hidden layers.
        run: A directory for a new run, or a `Run` to resume; None writes nothing.
        when: As for `Monitor`.
        trackers: As for `Monitor`.
        **options: Options of `spectrum`, and `reading`, `memory`, `whole`, `scale`, `checkpoints`, `on_error`,
            `overwrite` of `Monitor`.

    Raises:
        InputError: For a bad argument. What shows only when training begins, such as a layer that the model does not
            have, is a warning, and the training is not measured; with on_error="raise" it is an error, too.

    Examples:
        >>> import deepxde as dde  # with DDE_BACKEND=pytorch
        >>> line = dde.geometry.Interval(-1, 1)
        >>> data = dde.data.Function(line, lambda x: np.sin(np.pi * x), num_train=50, num_test=20)
        >>> model = dde.Model(data, dde.nn.FNN([1, 8, 8, 1], "tanh", "Glorot uniform"))
        >>> x = np.linspace(-1, 1, 100)[:, None]
        >>> callback = LayerSpectraCallback(x, np.sin(np.pi * x), run="run", when=2)
        >>> model.compile("adam", lr=1e-3, verbose=0)
        >>> done = model.train(iterations=4, callbacks=[callback], verbose=0)
        >>> Run("run").steps()
        [0, 2, 4]
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        *,
        layers: Sequence[str] | str | None = None,
        run: str | Path | Run | None = None,
        when: When = "log",
        trackers: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        self.model: Any = None
        self._shell = Shell(inputs, targets, layers, run, when, trackers, options)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, while training runs."""
        return self._shell.monitor

    def on_train_begin(self) -> None:
        """Begin, with inputs in the precision and on the device of the network."""
        net = self.model.net

        def start() -> Start:
            one = next(net.parameters())
            return Start(net, self._shell.trackers or (), convert=lambda x: torch.as_tensor(x).to(one))

        self._shell.begin(self.model.train_state.step, None, start)

    def on_epoch_end(self) -> None:
        """Measure, if it is due."""
        self._shell.measure(self.model.train_state.step, self._loss)

    def on_train_end(self) -> None:
        """Write what is left."""
        self._shell.close()

    def _loss(self, measured: bool) -> dict[str, float]:
        history = self.model.losshistory
        shown = history.steps and history.steps[-1] == self.model.train_state.step
        return {"loss": float(sum(history.loss_train[-1]))} if shown else {}
