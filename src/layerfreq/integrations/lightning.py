"""The callback for Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerfreq.data.notes import as_metrics
from layerfreq.errors import InputError, is_not, unknown
from layerfreq.extras import needs
from layerfreq.integrations.shell import Shell, Start
from layerfreq.layers import LayerSpectra
from layerfreq.monitor.monitor import Monitor
from layerfreq.monitor.schedules import When
from layerfreq.network.naming import Layers
from layerfreq.runs.run import Run

OURS = "layerfreq/"  # what names of ours begin with


def _callbacks() -> tuple[Any, ...]:
    """Return the classes of callbacks of `lightning` and `pytorch_lightning`: a trainer takes only those of its own."""
    found = []
    for name in ("lightning.pytorch", "pytorch_lightning"):
        with suppress(ImportError):
            found.append(import_module(name).Callback)
    return tuple(found) or (needs("lightning.pytorch", "layerfreq[lightning]", __name__).Callback,)


if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    Callback = type("Callback", _callbacks(), {})


class LayerSpectraCallback(Callback):
    """Measures the layers of the model that a Lightning `Trainer` trains.

    It measures before the first training step and after each step that is due, counted by `trainer.global_step`, which
    counts optimizer steps. Training stays the same, bit for bit.

    The run also gets `loss` and the other numbers that `training_step` returns for the batch before the step, every
    `log_every_n_steps` and at measured steps; and what validation and epochs log, at their end.

    `trainer.callback_metrics` has the medians of the last measurement as `layerfreq/<scale>/median/<layer>`, such as
    "layerfreq/rms/median/net.2", for `EarlyStopping` and `ModelCheckpoint` to monitor. A median beyond the cutoffs
    leaves the previous one in place. Those of a part are `layerfreq/<part>/<scale>/median/<layer>`.

    A `Trainer` that resumes from a checkpoint also resumes its run, and drops measurements of later steps; a new
    training needs a new directory. The resumed run equals an uninterrupted one only as far as the training does:
    Lightning's checkpoints store neither random state nor the position within an epoch's data.

    On several devices each rank measures its part of the probe set, and the first rank writes the run. The parts belong
    to one model only if all ranks hold the same parameters, as under DDP.

    Args:
        inputs: What the model's forward takes for n points; or a loader or data set of (input, target) pairs. All ranks
            are given the same.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with a loader or data set. Or a function
            `(x, y, output) -> target`, or several targets by name; see `layer_spectra`.
        module: Name of the submodule to measure, such as "net"; None means the LightningModule itself.
        layers: Names as from `hidden_layers`, patterns, indices or modules, see `layer_spectra`; None means all hidden
            layers.
        run: A directory for a new run, or a `Run` to resume; None writes nothing.
        when: As for `Monitor`.
        trackers: As for `Monitor`; None sends the scalars to the trainer's own loggers.
        **options: Options of `spectrum`, and `probes`, `error`, `reading`, `memory`, `whole`, `scale`, `checkpoints`,
            `budget`, `on_error`, `overwrite` of `Monitor`.

    Raises:
        InputError: For a bad argument. What shows only when training begins, such as a layer that the model does not
            have, is a warning, and the training is not measured; with on_error="raise" it is an error, too.

    Examples:
        >>> class Fit(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        ...
        ...     def training_step(self, batch):
        ...         return nn.functional.mse_loss(self.net(batch[0]), batch[1])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters())
        >>> x = torch.randn(64, 2)
        >>> data = TensorDataset(x, x[:, :1])
        >>> callback = LayerSpectraCallback(x, x[:, :1], module="net", run="run", when=2)
        >>> trainer = Trainer(max_steps=4, callbacks=[callback], logger=False, enable_checkpointing=False, **QUIET)
        >>> trainer.fit(Fit(), DataLoader(data, batch_size=16))
        >>> Run("run").steps()
        [0, 2, 4]
    """

    def __init__(
        self,
        inputs: Any = None,
        targets: Any = None,
        *,
        module: str | None = None,
        layers: Layers = None,
        run: str | Path | Run | None = None,
        when: When = "log",
        trackers: Iterable[Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if module is not None and not isinstance(module, str):
            raise is_not("module", module, "a name", "one such as 'net', or None for all")
        self._shell = Shell(inputs, targets, layers, run, when, trackers, options)
        self._module = module
        self._resumed: dict[str, Any] | None = None
        self._evaluated: set[str] = set()  # names that validation logs
        self._before: set[str] = set()
        self._shared: LayerSpectra | None = None  # what other callbacks have been shown

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, while training runs."""
        return self._shell.monitor

    @property
    def state_key(self) -> str:
        """What the checkpoint knows this callback by: one trainer may have several, for several modules or runs."""
        return self._generate_state_key(module=self._module, run=self._shell.name)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, but not in a `fast_dev_run`, which writes nothing."""
        if trainer.fast_dev_run:
            return
        self._shell.begin(trainer.global_step, self._resumed, lambda: self._start(trainer, pl_module))
        self._resumed = None
        self._share(trainer)

    def _start(self, trainer: Any, pl_module: Any) -> Start:
        model = pl_module
        if self._module is not None:
            known = dict(pl_module.named_modules())
            if self._module not in known:
                raise unknown("module", self._module, filter(None, known))
            model = known[self._module]
        trackers = [TrainerLoggers(trainer)] if self._shell.trackers is None else self._shell.trackers
        convert = trainer.precision_plugin.convert_input  # as a training in "bf16-true" does with its batches
        return Start(model, trackers, convert=convert)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure, if the batch has ended a step and it is due."""
        self._shell.measure(trainer.global_step, lambda due: self._numbers(trainer, outputs, due))
        self._share(trainer)

    def _share(self, trainer: Any) -> None:
        """Let the trainer's other callbacks have the medians, on all ranks."""
        last = None if self.monitor is None else self.monitor.last
        if last is None or last is self._shared:
            return
        self._shared = last
        for part, measured in self.monitor.parts.items() if self.monitor else ():
            for name, median in medians_by_name(measured, part).items():
                trainer.callback_metrics[name] = torch.tensor(median)

    def _numbers(self, trainer: Any, outputs: Any, due: bool) -> dict[str, float]:
        every = trainer.log_every_n_steps
        if not due and not (every and trainer.global_step % every == 0):
            return {}
        return _numbers(outputs if isinstance(outputs, Mapping) else {"loss": outputs})

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember what had been logged before."""
        self._before = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep what validation has logged."""
        if trainer.sanity_checking:
            return
        self._evaluated |= set(trainer.callback_metrics) - self._before
        self._note(trainer, evaluated=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep what the epoch has logged."""
        self._note(trainer, evaluated=False)

    def _note(self, trainer: Any, *, evaluated: bool) -> None:
        logged = {name: one for name, one in trainer.callback_metrics.items() if not name.startswith(OURS)}
        kept = {name: one for name, one in logged.items() if (name in self._evaluated) == evaluated}
        self._shell.note(trainer.global_step, _numbers(kept))

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint holds: to which run it belongs; the run's metrics are now written."""
        self._shell.keep()
        return self._shell.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the run when training begins."""
        self._resumed = state_dict

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what is left."""
        self._shell.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what is left."""
        self._shell.close(whole=False)


class TrainerLoggers:
    """The loggers of a Lightning trainer, as a tracker of scalars."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Log the scalars; the figure is not drawn."""
        for logger in self._trainer.loggers:
            logger.log_metrics(scalars, step=step)

    def close(self) -> None:
        """Do nothing; the loggers are the trainer's."""


def medians_by_name(measured: LayerSpectra, part: str = "") -> dict[str, float]:
    """Return the medians that there are, at all scales that follow from the measured one, named as trackers do."""
    ours = f"{OURS}{part}/" if part else OURS
    parts = [measured]
    with suppress(InputError):  # features of no spread have one scale alone
        parts = measured.in_its_scales()
    found = {f"{ours}{one.scale}/median/{name}": one.median for part in parts for name, one in part.items()}
    return {name: median for name, median in found.items() if median is not None}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return as_metrics({name: value for name, value in values.items() if name != "step"})[0]
