"""Minibatch training of one image classifier, on any number of devices: measured every few epochs, safe from kills.

What is random in an epoch (the order of the images, and the seeds of each step's dropout) comes from a generator seeded
by the run's seed and the epoch, and a checkpoint holds the step inside the epoch, so that a killed training resumes as
if nothing had happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from layerfreq.errors import Code, InputError
from layerfreq.experiments import Progress
from layerfreq.extras import needs
from layerfreq.files import write_whole
from layerfreq.layers import LayerSpectra, joined
from layerfreq.measure.measure import spectrum
from layerfreq.network.extract import layer_features
from layerfreq.runs.run import Run
from layerfreq.runs.weights import keep_weights

PIECE = 100  # images per forward pass in eval mode, so that their activations stay in the caches


@dataclass
class Task:
    """One classifier to train by Adam (0.9, 0.999, 1e-7) on cross-entropy.

    Attributes:
        name: Name of the training, as shown.
        seed: Seed for the order of the images and of dropout.
        network: The model, initialised.
        layers: Modules whose outputs are measured, input to output.
        output: The module whose output is trained.
        images: (n, 3, h, w) training images; all of them are measured, in eval mode.
        labels: (n,) their class ids.
        validation: Images and labels not used for training.
        batch: Images per step, over all devices; an epoch's last batch may be smaller.
        rate: Learning rate of the first epoch.
        restarts: Epochs after which it falls to a tenth, and Adam's state is reset.
        epochs: Number of epochs.
        measure_at: Epochs at which the layers are measured.
        checkpoint_every: Steps between checkpoints.
        options: Options of `spectrum`, for each scale that is measured.
    """

    name: str
    seed: int
    network: nn.Module
    layers: Sequence[str]
    output: str
    images: Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    validation: tuple[Tensor, Tensor]
    batch: int
    rate: float
    restarts: Sequence[int]
    epochs: int
    measure_at: Sequence[int]
    checkpoint_every: int = 100
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"raw": {}})


def launch(device: str) -> Any:
    """Return Fabric, launched on one device, or on the devices of `fabric run --devices N`."""
    fabric_of = needs("lightning_fabric", "layerfreq[experiments]", "experiments").Fabric
    many = os.environ.get("LT_CLI_USED") == "1"
    accelerator = "auto" if many else device
    cuda = torch.cuda.is_available() and accelerator in ("auto", "cuda")
    fabric = fabric_of(
        accelerator=accelerator, devices="auto" if many else 1, precision="bf16-mixed" if cuda else "32-true"
    )
    if not many:
        fabric.launch()
    return fabric


def train(task: Task, folder: Path, fabric: Any, progress: Progress) -> None:
    """Train one classifier, or resume its training; its run is in `folder`.

    The run's metrics, one row per epoch: loss and running_accuracy (over the epoch's steps, with dropout, as Keras has
    them; of epoch 0 in eval mode), validation_accuracy (eval mode), epoch_seconds (training), measuring_share (of the
    time of both); and where the layers are measured, train_accuracy (eval mode) and measuring_seconds.

    Raises:
        InputError: If a batch cannot be split evenly over devices, or the loss diverges.
    """
    n, devices = len(task.images), fabric.world_size
    if task.batch > n or task.batch % devices or n % task.batch % devices:
        raise InputError(f"batch: {task.batch} of {n} images on {devices} devices; choose other devices")
    cuda = fabric.device.type == "cuda"
    with torch.random.fork_rng([fabric.device] if cuda else []):  # dropout draws from the global state
        _Trainer(task, folder, fabric, progress).fit()


class _Trainer:
    """One task in progress; `state` is what a checkpoint holds."""

    def __init__(self, task: Task, folder: Path, fabric: Any, progress: Progress) -> None:
        self.task, self.folder, self.fabric, self.progress = task, folder, fabric, progress
        self.run: Run | None = None  # the first device's
        if fabric.is_global_zero:
            self.run = Run(folder) if (folder / "config.yaml").exists() else Run.create(folder, {"name": task.name})
        fabric.barrier()
        self.network: Any = task.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.adam = torch.optim.Adam(self.network.parameters(), lr=task.rate, eps=1e-7)
        self.model, self.optimizer = fabric.setup(compiled(self.network, fabric.device), self.adam)
        self.images, self.labels = fabric.to_device(task.images), fabric.to_device(task.labels)
        self.validation = [fabric.to_device(t) for t in task.validation]
        self.totals = torch.zeros(3, device=fabric.device)  # loss, right answers and images of the epoch so far
        self.state: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        self.state |= {"epoch": 0, "step": 0, "seconds": 0.0, "totals": self.totals}
        self.checkpoint = folder / "checkpoints" / "last.ckpt"

    def fit(self) -> None:
        """Run all remaining epochs."""
        task, state, resumed = self.task, self.state, self.checkpoint.exists()
        if resumed:
            self.fabric.load(self.checkpoint, state)
            if self.run is not None:  # what all devices had summed up counts once
                self.totals.copy_(state["totals"])
        if self.run is not None:
            self.run.rewind(state["epoch"] if resumed else -1)
        self.progress.start(task.name, task.epochs, state["epoch"])
        if not resumed:
            self.note(0, *evaluate(self.network, self.fabric, self.images, self.labels))
        while state["epoch"] < task.epochs:
            epoch = state["epoch"] + 1
            accuracy, loss = self.epoch(epoch)
            self.note(epoch, accuracy, loss)
            self.totals.zero_()
            state |= {"epoch": epoch, "step": 0, "seconds": 0.0}
            self.fabric.barrier()
            if epoch == task.epochs:
                self.keep()
            self.progress.step(epoch, loss)
        self.progress.finish()

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Run the rest of an epoch; return accuracy and mean loss during training."""
        task, state, begun = self.task, self.state, time.perf_counter()
        if state["step"] == 0:
            restart(self.adam, task, epoch)
        order, seeds = draw(task, epoch, self.fabric.world_size)
        batches = list(zip(self.fabric.to_device(order).split(task.batch), seeds.tolist(), strict=True))
        for batch, each in batches[state["step"] :]:
            torch.manual_seed(each[self.fabric.global_rank])
            self.step(batch[self.fabric.global_rank :: self.fabric.world_size])
            state["step"] += 1
            if state["step"] % task.checkpoint_every == 0:
                state["seconds"] += time.perf_counter() - begun
                self.keep()
                begun = time.perf_counter()
        loss, right, count = self.fabric.all_reduce(self.totals.clone(), reduce_op="sum").tolist()
        state["seconds"] += time.perf_counter() - begun
        if not loss < float("inf"):
            raise Code.FAILED(f"rate: the loss of {task.name} is {loss / count} in epoch {epoch}; choose a smaller one")
        return right / count, loss / count

    def step(self, at: Int64[Tensor, " b"]) -> None:
        """Take a step on this device's images of a batch."""
        x, y = self.images[at], self.labels[at]
        outputs = self.model(x.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(outputs, y)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        right = (outputs.detach().argmax(dim=1) == y).sum()
        self.totals += torch.stack([loss.detach() * len(y), right, torch.full_like(right, len(y))])

    def keep(self) -> None:
        """Write a checkpoint, whole or not at all."""
        self.state["totals"] = self.fabric.all_reduce(self.totals.clone(), reduce_op="sum")
        if self.run is None:
            self.fabric.save(self.checkpoint, self.state)  # writes nothing here, but is awaited
            return
        self.run.flush()
        self.checkpoint.parent.mkdir(exist_ok=True)
        write_whole(self.checkpoint, lambda at: self.fabric.save(at, self.state))

    def note(self, epoch: int, accuracy: float, loss: float) -> None:
        """Record an epoch's metrics, and the spectra if they are due."""
        if self.run is None:
            return
        noted, begun = {}, time.perf_counter()
        if epoch in self.task.measure_at:
            self.progress.measuring(", ".join(self.task.layers))
            noted["train_accuracy"] = self.measure(self.run, epoch)
            noted["measuring_seconds"] = time.perf_counter() - begun
        taken = noted.get("measuring_seconds", 0.0)
        self.run.log(
            epoch,
            loss=loss,
            running_accuracy=accuracy,
            validation_accuracy=evaluate(self.network, self.fabric, *self.validation)[0],
            epoch_seconds=self.state["seconds"],
            measuring_share=taken / max(taken + self.state["seconds"], 1e-9),
            **noted,
        )
        self.run.flush()

    def measure(self, run: Run, epoch: int) -> float:
        """Write weights and spectra of the layers; return the accuracy. One forward pass in eval mode serves all."""
        keep_weights(self.folder, epoch, self.network)
        pieces = list(zip(self.images.split(PIECE), self.labels.split(PIECE), strict=True))
        features = layer_features(self.network, pieces, [*self.task.layers, self.task.output])
        assert isinstance(features, dict)
        outputs = features.pop(self.task.output)
        frames = []
        for scale, options in self.task.options.items():
            made: Any = {"scale": scale, **options}
            found = LayerSpectra({name: spectrum(f, self.labels, **made) for name, f in features.items()})
            frames += [one.to_frame() for one in found.in_its_scales()]
        run.write_spectra(epoch, joined(frames))
        return _score(outputs, self.labels)[0]


def compiled(network: nn.Module, device: torch.device) -> Any:
    """Return a network to train, compiled on a GPU: compiling takes a minute, and an epoch has hundreds of steps.

    An epoch's last batch is compiled separately, so that its smaller size does not slow down the others.
    """
    return torch.compile(network, dynamic=False) if device.type == "cuda" else network


def restart(adam: torch.optim.Adam, task: Task, epoch: int) -> None:
    """Set the rate of an epoch (the first is 1); where the rate falls, Adam starts with a new state."""
    adam.param_groups[0]["lr"] = task.rate * 0.1 ** sum(epoch > end for end in task.restarts)
    if epoch - 1 in task.restarts:
        adam.state.clear()


def draw(task: Task, epoch: int, devices: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, "steps devices"]]:
    """Return an epoch's order of the images, and the seeds of its steps on each device."""
    generator = torch.Generator().manual_seed(task.seed * 1_000_003 + epoch)
    n = len(task.images)
    order = torch.randperm(n, generator=generator)
    return order, torch.randint(2**62, (-(-n // task.batch), devices), generator=generator)


@torch.no_grad()
def evaluate(network: nn.Module, fabric: Any, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return accuracy and mean loss of a network in eval mode; it is put back into training mode."""
    network.eval()
    outputs = []
    for x in images.split(PIECE):
        with fabric.autocast():
            outputs.append(network(x.contiguous(memory_format=torch.channels_last)).float())
    network.train()
    return _score(torch.cat(outputs), labels)


def _score(outputs: Tensor, labels: Tensor) -> tuple[float, float]:
    right = (outputs.argmax(dim=1) == labels).double().mean()
    return float(right), float(nn.functional.cross_entropy(outputs, labels))
