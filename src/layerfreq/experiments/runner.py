"""The small runner of the fully connected networks: train one, measure it, and survive a kill."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.experiments import Progress
from layerfreq.extras import needs
from layerfreq.files import write_whole
from layerfreq.monitor.monitor import Monitor
from layerfreq.runs.run import Run

PIECE = 1000  # points that go through the network at a time, so that what they leave behind stays in the caches


class Diverged(InputError):
    """A training whose loss is no longer finite."""


@dataclass
class Training:
    """One network to train by gradient descent; a step is one pass over all points.

    Attributes:
        name: Name of the folder it is kept in.
        seed: Seed for its initialisation.
        build: Returns the model and its optimizer, initialised from the seed.
        inputs: (n, ...) tensor.
        targets: (n,) class ids or (n, c) floats.
        loss: Function of outputs and targets, a mean over points.
        steps: Number of steps.
        stop_below: Training error at which it stops early; None for never.
        batch: Points per parameter update, drawn in every step; None for one update with all points.
        rate: Learning rate of a step; None leaves the optimizer's.
        measure_at: Steps at which all hidden layers are measured; if there are any, the last step is measured too.
        metrics: Further metrics of outputs and targets.
        log_every: Steps between two logged metrics.
        options: Options of `Monitor`.
    """

    name: str
    seed: int
    build: Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    steps: int
    stop_below: float | None = None
    batch: int | None = None
    rate: Callable[[int], float] | None = None
    measure_at: tuple[int, ...] = ()
    metrics: Callable[[Tensor, Tensor], dict[str, float]] | None = None
    log_every: int = 10
    options: dict[str, Any] = field(default_factory=dict)


def train(training: Training, folder: Path, *, device: str, progress: Progress, checkpoint_every: int = 500) -> int:
    """Train one network, or resume its training; return the number of steps it took.

    A checkpoint follows every measurement, and the measured weights are kept. After a kill, everything since the last
    checkpoint is repeated, with the same outcome.
    """
    fabric = needs("lightning_fabric", "layerfreq[experiments]", "experiments").Fabric(accelerator=device, devices=1)
    return _Descent(training, folder, fabric, progress).fit(checkpoint_every)


class _Descent:
    """One training in progress; `state` is what a checkpoint holds."""

    def __init__(self, training: Training, folder: Path, fabric: Any, progress: Progress) -> None:
        self.training, self.fabric, self.progress = training, fabric, progress
        self.run = Run(folder) if (folder / "config.yaml").exists() else Run.create(folder, {"name": training.name})
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            model, optimizer = training.build()
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.inputs, self.targets = fabric.to_device(training.inputs), fabric.to_device(training.targets)
        self.state: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "step": 0, "finished": False}
        self.checkpoint = folder / "checkpoints" / "last.ckpt"
        self.resumed_at = -1
        if self.checkpoint.exists():
            fabric.load(self.checkpoint, self.state)
            self.resumed_at = self.state["step"]
        self.run.rewind(self.resumed_at)

    def fit(self, checkpoint_every: int) -> int:
        """Run all remaining steps; return the total number of steps."""
        training, state = self.training, self.state
        if state["finished"]:
            return state["step"]
        monitor = self.monitor()
        self.progress.start(training.name, training.steps, state["step"])
        while not state["finished"]:
            step = state["step"]
            error, outputs = self.look()
            if not error < float("inf"):
                raise Diverged(f"{training.name}: the loss is {error} at step {step}; choose a smaller learning rate")
            state["finished"] = self.over(step, error)
            if step != self.resumed_at:  # where it was, the checkpoint followed the measurement
                due = state["finished"] or step in training.measure_at
                if due or step % training.log_every == 0:
                    more = training.metrics(outputs, self.targets) if training.metrics else {}
                    self.run.log(step, loss=error, **more)
                if monitor is not None and due:
                    monitor.measure(step)
                if due or (step and step % checkpoint_every == 0):
                    self.keep()
            if not state["finished"]:
                self.update(step)
                state["step"] = step + 1
                self.progress.step(step + 1, error)
        self.progress.finish()
        return state["step"]

    def monitor(self) -> Monitor | None:
        """Return the monitor of the network, if anything is to be measured."""
        if not self.training.measure_at:
            return None
        plain = self.model.module if hasattr(self.model, "module") else self.model
        always = {"when": lambda step: True, "checkpoints": True, "on_error": "raise"}
        monitor = Monitor(plain, self.inputs, self.targets, run=self.run, **always, **self.training.options)
        monitor.on_layer = self.progress.measuring
        return monitor

    def over(self, step: int, error: float) -> bool:
        """Return whether this step is the last."""
        stop = self.training.stop_below
        return step >= self.training.steps or (stop is not None and error < stop)

    def keep(self) -> None:
        """Write a checkpoint, whole or not at all."""
        self.run.flush()
        self.checkpoint.parent.mkdir(exist_ok=True)
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        packed = io.BytesIO()  # a full disk then fails as any other write does
        torch.save({**self.state, **parts}, packed)
        write_whole(self.checkpoint, lambda at: at.write_bytes(packed.getbuffer()))

    def look(self) -> tuple[float, Tensor]:
        """Return the error over all points and their outputs; gradients are kept if one update takes all points."""
        training, whole = self.training, self.training.batch is None
        error, outputs = 0.0, []
        self.optimizer.zero_grad()
        with torch.set_grad_enabled(whole):
            for x, y in zip(self.inputs.split(PIECE), self.targets.split(PIECE), strict=True):
                outputs.append(self.model(x))
                loss = training.loss(outputs[-1], y) * (len(x) / len(self.inputs))
                if whole:
                    self.fabric.backward(loss)
                error += float(loss.detach())
                outputs[-1] = outputs[-1].detach()
        return error, torch.cat(outputs)

    def update(self, step: int) -> None:
        """Update the parameters: once with the gradients that `look` left, or once for each whole batch.

        The order of the batches depends only on seed and step, so that a resumed training has the same.
        """
        training, n = self.training, len(self.inputs)
        if training.rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = training.rate(step)
        if training.batch is None:
            self.optimizer.step()
            return
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        order = torch.randperm(n, generator=generator).to(self.inputs.device)
        for at in order.split(training.batch)[: max(1, n // training.batch)]:
            self.optimizer.zero_grad()
            self.fabric.backward(training.loss(self.model(self.inputs[at]), self.targets[at]))
            self.optimizer.step()
