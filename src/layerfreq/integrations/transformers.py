"""The callback for Hugging Face's Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import default_collate

from layerfreq.data.inputs import LABELS
from layerfreq.data.notes import as_metrics
from layerfreq.extras import needs
from layerfreq.integrations.shell import Shell, Start
from layerfreq.monitor.monitor import Monitor
from layerfreq.monitor.schedules import When
from layerfreq.network.find import unwrap
from layerfreq.network.naming import Layers
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    from transformers import TrainerCallback
else:
    TrainerCallback = needs("transformers", "layerfreq[transformers]", __name__).TrainerCallback

STATE = "layerfreq"  # of the checkpoint's trainer_state.json, under stateful_callbacks: run's name -> state
TIMINGS = ("_runtime", "_per_second", "_preparation_time")


class LayerSpectraCallback(TrainerCallback):
    """Measures the layers of the model that a Hugging Face `Trainer` trains.

    It measures before the first training step, and after each step (`state.global_step`) that is due. Training stays
    the same, bit for bit.

    The run also gets the numbers that the trainer logs (loss, learning rate, evaluation), but not its timings, nor its
    summary at the end of training.

    A `Trainer` that resumes from a checkpoint also resumes its run, and drops measurements of later steps; a new
    training needs a new directory. In distributed training each rank measures its part of the probe set, and the first
    rank writes the run.

    The labels of a causal language model are its own input, compared with its output at the token before. Each token's
    target is therefore the next token's label, measured with `reading="positions"`. The labels of a masked language
    model are not shifted, and `targets` are used as they are.

    Args:
        inputs: What the model's forward takes for n points; or a loader or data set, of pairs or of dicts with
            "labels". A data set's batches are made by the trainer's own collator. All ranks are given the same.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with a loader or data set. Or a function
            `(x, y, output) -> target`, or several targets by name; see `layer_spectra`.
        layers: Names as from `hidden_layers`, patterns, indices or modules, see `layer_spectra`; None means all hidden
            layers.
        run: A directory for a new run, or a `Run` to resume; None writes nothing.
        when: As for `Monitor`.
        trackers: As for `Monitor`. `WandB()` and `MLflow()` join the runs that `report_to` starts.
        **options: Options of `spectrum`, and `probes`, `error`, `reading`, `memory`, `whole`, `scale`, `checkpoints`,
            `budget`, `on_error`, `overwrite` of `Monitor`.

    Raises:
        InputError: For a bad argument. What shows only when training begins, such as a layer that the model does not
            have, is a warning, and the training is not measured; with on_error="raise" it is an error, too.

    Examples:
        >>> class Fit(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        ...
        ...     def forward(self, x, labels=None):
        ...         y = self.net(x)
        ...         return y if labels is None else {"loss": nn.functional.mse_loss(y, labels), "logits": y}
        >>> x = torch.randn(64, 2)
        >>> data = [{"x": one, "labels": one[:1]} for one in x]
        >>> callback = LayerSpectraCallback({"x": x}, x[:, :1], run="run", when=2)
        >>> settings = TrainingArguments("out", max_steps=4, report_to="none", use_cpu=True, disable_tqdm=True)
        >>> done = Trainer(Fit(), settings, train_dataset=data, callbacks=[callback]).train()
        {...
        >>> Run("run").steps()
        [0, 2, 4]
    """

    def __init__(
        self,
        inputs: Any = None,
        targets: Any = None,
        *,
        layers: Layers = None,
        run: str | Path | Run | None = None,
        when: When = "log",
        trackers: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        self._shell = Shell(inputs, targets, layers, run, when, trackers, options)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor, while training runs."""
        return self._shell.monitor

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        states = state.stateful_callbacks.setdefault(STATE, {})
        model, collate = kwargs["model"], getattr(kwargs.get("train_dataloader"), "collate_fn", None)

        def start() -> Start:
            return Start(model, self._shell.trackers or (), _Collate(model, collate))

        self._shell.begin(state.global_step, states.get(self._shell.name), start)
        states[self._shell.name] = self._shell.state

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, if it is due."""
        self._shell.measure(state.global_step)
        if control.should_save:  # what is older than a checkpoint is on disk before it
            self._shell.keep()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep what the trainer logs."""
        logs = logs or {}
        if "train_runtime" in logs:
            return
        numbers, _ = as_metrics({name: value for name, value in logs.items() if name != "step"})
        self._shell.note(state.global_step, {n: v for n, v in numbers.items() if not n.endswith(TIMINGS)})
        if control.should_save:
            self._shell.keep()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the run's metrics, as the checkpoint is there."""
        self._shell.keep()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is left."""
        self._shell.close()


class _Collate:
    """Makes batches as the trainer does, of those columns that the model takes.

    Args:
        model: The model.
        collate: The trainer's own collator; None means PyTorch's.
    """

    def __init__(self, model: Any, collate: Callable[[Any], Any] | None) -> None:
        self._collate = collate or default_collate
        known = inspect.signature(unwrap(model).forward).parameters
        self._any = any(one.kind is one.VAR_KEYWORD for one in known.values())
        self._names = {*known, *LABELS}

    def __call__(self, items: Any) -> Any:
        if isinstance(items[0], Mapping):
            items = [{name: one for name, one in item.items() if self._takes(name, one)} for item in items]
        return self._collate(items)

    def _takes(self, name: str, value: Any) -> bool:
        return name in self._names or (self._any and not isinstance(value, (str, bytes)))
