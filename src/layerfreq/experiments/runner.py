"""The small runner of the fully connected networks: train one, measure it, and survive a kill."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.files import sweep, write_whole
from layerfreq.monitor.monitor import Monitor
from layerfreq.runs.environment import environment
from layerfreq.runs.run import Run

PIECE = 1000  # points that go through the network at a time, so that what they leave behind stays in the caches


class Diverged(InputError):
    """A training whose loss is no longer finite."""


class Progress:
    """What the runner tells while it works; this one says nothing."""

    def start(self, name: str, total: int, done: int) -> None:
        """A training of `total` steps begins, `done` of them behind it."""

    def step(self, step: int, loss: float | None = None) -> None:
        """A step is done."""

    def measuring(self, what: str) -> None:
        """The measurement of a layer begins."""

    def finish(self) -> None:
        """The training is over."""


@dataclass
class Training:
    """One network to train by gradient descent; a step is one pass over all points.

    Attributes:
        name: Of the folder it is kept in.
        seed: Of its initialisation.
        build: Makes the model and its optimizer, under the seed.
        inputs: (n, ...) tensor.
        targets: (n,) class ids or (n, c) floats.
        loss: Of outputs and targets, a mean over points.
        steps: Number of steps.
        stop_below: Training error at which it stops early; None for never.
        batch: Points in an update of the parameters, drawn anew in every step; None for one update with all points.
        rate: Learning rate of a step; None leaves the optimizer's.
        measure_at: Steps at which all hidden layers are measured; if there are any, so is the last step.
        metrics: More numbers of outputs and targets.
        log_every: Steps between two logged metrics.
        options: Of `Monitor`.
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
    """Train, or go on with, one network; return the number of steps it took.

    A checkpoint follows every measurement, and the weights that were measured stay. What was written after the last
    checkpoint is done again after a kill, with the same outcome.
    """
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=device, devices=1)
    run = Run(folder) if (folder / "config.yaml").exists() else Run.create(folder, {"name": training.name})
    checkpoint = folder / "checkpoints" / "last.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        model, optimizer = training.build()
    model, optimizer = fabric.setup(model, optimizer)
    inputs, targets = fabric.to_device(training.inputs), fabric.to_device(training.targets)
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "step": 0, "finished": False}
    if checkpoint.exists():
        fabric.load(checkpoint, state)
    run.rewind(state["step"] if checkpoint.exists() else -1)
    if state["finished"]:
        return state["step"]
    monitor = None
    if training.measure_at:
        plain = model.module if hasattr(model, "module") else model
        always = {"when": lambda step: True, "checkpoints": True, "on_error": "raise"}
        monitor = Monitor(plain, inputs, targets, run=run, **always, **training.options)
        monitor.on_layer = progress.measuring

    def keep() -> None:
        run.flush()
        checkpoint.parent.mkdir(exist_ok=True)
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        packed = io.BytesIO()  # a full disk then fails as any other write does
        torch.save({**state, **parts}, packed)
        write_whole(checkpoint, lambda at: at.write_bytes(packed.getbuffer()))

    progress.start(training.name, training.steps, state["step"])
    resumed_at = state["step"] if checkpoint.exists() else -1
    while True:
        step = state["step"]
        optimizer.zero_grad()
        error, outputs = _look(training, model, inputs, targets, fabric)
        if not error < float("inf"):
            raise Diverged(f"{training.name}: the loss is {error} at step {step}; choose a smaller learning rate")
        over = step >= training.steps or (training.stop_below is not None and error < training.stop_below)
        if step != resumed_at:
            due = over or step in training.measure_at
            if due or step % training.log_every == 0:
                more = training.metrics(outputs, targets) if training.metrics else {}
                run.log(step, loss=error, **more)
            if monitor is not None and due:
                monitor.measure(step)
            state["finished"] = over
            if due or (step and step % checkpoint_every == 0):
                keep()
        if over:
            break
        if training.rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
        if training.batch is None:
            optimizer.step()
        else:
            _update_in_batches(training, step, model, optimizer, inputs, targets, fabric)
        state["step"] = step + 1
        progress.step(step + 1, error)
    progress.finish()
    return state["step"]


def _look(training: Training, model: nn.Module, inputs: Tensor, targets: Tensor, fabric: Any) -> tuple[float, Tensor]:
    """Return the error over all points and their outputs; gradients are left behind where one update takes them all."""
    error, outputs, whole = 0.0, [], training.batch is None
    with torch.set_grad_enabled(whole):
        for x, y in zip(inputs.split(PIECE), targets.split(PIECE), strict=True):
            outputs.append(model(x))
            loss = training.loss(outputs[-1], y) * (len(x) / len(inputs))
            if whole:
                fabric.backward(loss)
            error += float(loss.detach())
            outputs[-1] = outputs[-1].detach()
    return error, torch.cat(outputs)


def _update_in_batches(
    training: Training, step: int, model: nn.Module, optimizer: Any, inputs: Tensor, targets: Tensor, fabric: Any
) -> None:
    """Update the parameters once for each whole batch, in an order that hangs on seed and step alone."""
    assert training.batch is not None
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
    order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    for at in order.split(training.batch)[: max(1, len(inputs) // training.batch)]:
        optimizer.zero_grad()
        fabric.backward(training.loss(model(inputs[at]), targets[at]))
        optimizer.step()


def open_experiment(out: Path, plan: Mapping[str, Any], unit: str, *, resume: bool) -> Run:
    """Begin an experiment's folder, or go on with it.

    Raises:
        InputError: If the folder holds a run and `resume` is False, or a run of another plan.
    """
    if not resume or not (out / "config.yaml").exists():
        return Run.create(out, {**plan, "unit": unit, "environment": environment()})
    sweep(out)
    run = Run(out)
    before = {key: value for key, value in run.config.items() if key not in ("unit", "environment")}
    for key in {**before, **plan}:
        if before.get(key) != plan.get(key):
            raise InputError(
                f"out: {str(out)!r} holds another run ({key} is {before.get(key)!r} there, {plan.get(key)!r} here); "
                "choose another --out"
            )
    return run
