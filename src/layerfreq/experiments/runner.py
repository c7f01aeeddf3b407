"""The small runner under all experiments: train one network full-batch, measure it, and survive a kill."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.monitor import Monitor
from layerfreq.provenance import environment
from layerfreq.runs import Run, sweep, write_whole


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
    """One network to train by full-batch gradient descent.

    Attributes:
        name: Of the folder it is kept in.
        seed: Of its initialisation.
        build: Makes the model and its optimizer, under the seed.
        inputs: (n, ...) tensor.
        targets: (n,) class ids or (n, c) floats.
        loss: Of outputs and targets.
        steps: Number of steps.
        stop_below: Training error at which it stops early; None for never.
        measure_at: Steps at which all hidden layers are measured.
        metrics: More numbers of outputs and targets.
        log_every: Steps between two logged metrics.
        options: Of `spectrum`.
    """

    name: str
    seed: int
    build: Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    steps: int
    stop_below: float | None = None
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
        monitor = Monitor(
            plain, inputs, targets, run=run, when=training.measure_at, checkpoints=True, **training.options
        )
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
        outputs = model(inputs)
        loss = training.loss(outputs, targets)
        error = float(loss.detach())
        if not error < float("inf"):
            raise Diverged(f"{training.name}: the loss is {error} at step {step}; choose a smaller learning rate")
        over = step >= training.steps or (training.stop_below is not None and error < training.stop_below)
        if step != resumed_at:
            if over or step % training.log_every == 0 or step in training.measure_at:
                more = training.metrics(outputs.detach(), targets) if training.metrics else {}
                run.log(step, loss=error, **more)
            if monitor is not None and step in training.measure_at:
                monitor.measure(step)
            state["finished"] = over
            if over or step in training.measure_at or (step and step % checkpoint_every == 0):
                keep()
        if over:
            break
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        state["step"] = step + 1
        progress.step(step + 1, error)
    progress.finish()
    return state["step"]


def open_experiment(out: Path, plan: Mapping[str, Any], *, resume: bool) -> Run:
    """Begin an experiment's folder, or go on with it.

    Raises:
        InputError: If the folder holds a run and `resume` is False, or a run of another plan.
    """
    if not resume or not (out / "config.yaml").exists():
        return Run.create(out, {**plan, "environment": environment()})
    sweep(out)
    run = Run(out)
    before = {key: value for key, value in run.config.items() if key != "environment"}
    for key in {**before, **plan}:
        if before.get(key) != plan.get(key):
            raise InputError(
                f"out: {str(out)!r} holds another run ({key} is {before.get(key)!r} there, {plan.get(key)!r} here); "
                "choose another --out"
            )
    return run
