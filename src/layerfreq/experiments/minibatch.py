"""Minibatch training of one image classifier, on any number of devices: measured every few epochs, safe from kills.

What is random in an epoch (order, crops, flips) comes from a generator seeded by the run's seed and the epoch, and a
checkpoint holds the step inside the epoch, so that a killed training goes on as if nothing had been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from layerfreq.errors import InputError
from layerfreq.experiments.runner import Progress
from layerfreq.features import layer_features
from layerfreq.layers import LayerSpectra
from layerfreq.runs import Run, write_whole
from layerfreq.spectrum import spectrum
from layerfreq.weights import keep_weights

EVALUATION_BATCH = 1000
MARGIN = 4  # pixels by which a crop may move


@dataclass
class Task:
    """One classifier to train by SGD with momentum 0.9, its rate falling to a tenth once.

    Attributes:
        name: Of the training, as shown.
        seed: Of the initialisation, the order of the images and their augmentation.
        network: The model, initialised under the seed.
        layers: Modules whose outputs are measured, input to output.
        output: The module that puts out what is trained.
        images: (n, 3, h, w) training images, normalised.
        labels: (n,) their class ids.
        validation: Images and labels that are not trained on.
        batch: Images in a step, over all devices; the incomplete last batch of an epoch is left out.
        rate: Learning rate.
        drop: Epochs after which it falls to a tenth.
        decay: Weight decay.
        epochs: Number of epochs.
        measure_at: Epochs at which the layers are measured.
        probe: The first so many training images are what is measured, in eval mode.
        augment: Whether images are cropped and flipped at random.
        checkpoint_every: Steps between checkpoints.
        options: Of `spectrum`.
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
    drop: int
    decay: float
    epochs: int
    measure_at: Sequence[int]
    probe: int
    augment: bool = False
    checkpoint_every: int = 100
    options: dict[str, Any] = field(default_factory=dict)


def launch(device: str) -> Any:
    """Return Fabric, started: on one device, or on those that `fabric run --devices N` started us on."""
    from lightning_fabric import Fabric

    many = os.environ.get("LT_CLI_USED") == "1"
    accelerator = "auto" if many else device
    cuda = torch.cuda.is_available() and accelerator in ("auto", "cuda")
    fabric = Fabric(
        accelerator=accelerator, devices="auto" if many else 1, precision="bf16-mixed" if cuda else "32-true"
    )
    if not many:
        fabric.launch()
    return fabric


def train(task: Task, folder: Path, fabric: Any, progress: Progress) -> None:
    """Train, or go on with, one classifier; its run is in `folder`.

    The run's metrics, a row an epoch: loss and running_accuracy (over the epoch's steps), train_accuracy (probe, eval
    mode), validation_accuracy, epoch_seconds (training), measuring_seconds (spectra), measuring_share (of both).

    Raises:
        InputError: If a batch cannot be split over the devices, or the loss diverges.
    """
    if task.batch % fabric.world_size or task.batch > len(task.images):
        raise InputError(
            f"batch: {task.batch} of {len(task.images)} images on {fabric.world_size} devices; choose other devices"
        )
    run = None
    if fabric.is_global_zero:
        run = Run(folder) if (folder / "config.yaml").exists() else Run.create(folder, {"name": task.name})
    fabric.barrier()
    network = task.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(network.parameters(), lr=task.rate, momentum=0.9, weight_decay=task.decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [task.drop], 0.1)
    model, optimizer = fabric.setup(compiled(network, fabric.device), optimizer)
    images, labels = (fabric.to_device(t) for t in (task.images, task.labels))
    validation = [fabric.to_device(t) for t in task.validation]
    totals = torch.zeros(3, device=fabric.device)  # loss, right answers and images of the epoch so far
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"epoch": 0, "step": 0, "seconds": 0.0, "totals": totals, "rng": torch.get_rng_state()}
    checkpoint = folder / "checkpoints" / "last.ckpt"
    resumed = checkpoint.exists()
    if resumed:
        fabric.load(checkpoint, state)
        torch.set_rng_state(state["rng"])
        if fabric.is_global_zero:
            totals.copy_(state["totals"])
    if run is not None:
        run.rewind(state["epoch"] if resumed else -1)

    def keep() -> None:
        state["totals"] = fabric.all_reduce(totals.clone(), reduce_op="sum")
        state["rng"] = torch.get_rng_state()
        if run is None:
            fabric.save(checkpoint, state)  # writes nothing here, but is awaited
        else:
            run.flush()
            checkpoint.parent.mkdir(exist_ok=True)
            write_whole(checkpoint, lambda at: fabric.save(at, state))

    def measure(epoch: int, loss: float, running: float) -> None:
        """Note the epoch's metrics, and the spectra if it is their turn; on the first device alone."""
        if run is None:
            return
        network.eval()
        probe = images[: task.probe], labels[: task.probe]
        begun = time.perf_counter()
        if epoch in task.measure_at:
            progress.measuring(", ".join(task.layers))
            keep_weights(folder, epoch, network)
            seen, seen_loss = _measure(network, *probe, task, run, epoch)
            measuring = time.perf_counter() - begun
        else:
            (seen, seen_loss), measuring = evaluate(network, fabric, *probe), 0.0
        run.log(
            epoch,
            loss=loss if epoch else seen_loss,
            running_accuracy=running if epoch else seen,
            train_accuracy=seen,
            validation_accuracy=evaluate(network, fabric, *validation)[0],
            epoch_seconds=state["seconds"],
            measuring_seconds=measuring,
            measuring_share=measuring / (measuring + state["seconds"]),
        )
        run.flush()
        network.train()

    progress.start(task.name, task.epochs, state["epoch"])
    if not resumed:
        measure(0, 0.0, 0.0)
    share = slice(fabric.global_rank, None, fabric.world_size)
    while state["epoch"] < task.epochs:
        epoch, begun = state["epoch"] + 1, time.perf_counter()
        order, moves, flips = (fabric.to_device(drawn) for drawn in draw(task, epoch))
        batches = order.split(task.batch)[: len(order) // task.batch]
        for batch in batches[state["step"] :]:
            at = batch[share]
            x, y = images[at], labels[at]
            if task.augment:
                x = crop_and_flip(x, moves[at], flips[at])
            outputs = model(x.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(outputs, y)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            right = (outputs.detach().argmax(dim=1) == y).sum()
            totals += torch.stack([loss.detach() * len(y), right, torch.full_like(right, len(y))])
            state["step"] += 1
            if state["step"] % task.checkpoint_every == 0:
                state["seconds"] += time.perf_counter() - begun
                keep()
                begun = time.perf_counter()
        summed, right, count = fabric.all_reduce(totals.clone(), reduce_op="sum").tolist()
        state["seconds"] += time.perf_counter() - begun
        if not summed < float("inf"):
            raise InputError(f"{task.name}: the loss is {summed / count} in epoch {epoch}; choose a smaller rate")
        scheduler.step()
        measure(epoch, summed / count, right / count)
        totals.zero_()
        state |= {"epoch": epoch, "step": 0, "seconds": 0.0}
        fabric.barrier()
        if epoch == task.epochs:
            keep()
        progress.step(epoch, summed / count)
    progress.finish()


def compiled(network: nn.Module, device: torch.device) -> Any:
    """Return a network to train, compiled on a GPU: compiling takes a minute, and an epoch has hundreds of steps."""
    return torch.compile(network) if device.type == "cuda" else network


def draw(task: Task, epoch: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, "n 2"], Tensor]:
    """Return an epoch's order of the images, and for each image its crop's position and whether it is flipped."""
    generator = torch.Generator().manual_seed(task.seed * 1_000_003 + epoch)
    n = len(task.images)
    order = torch.randperm(n, generator=generator)
    moves = torch.randint(0, 2 * MARGIN + 1, (n, 2), generator=generator)
    return order, moves, torch.rand(n, generator=generator) < 0.5


def crop_and_flip(
    x: Float32[Tensor, "n c h w"], moves: Int64[Tensor, "n 2"], flips: Tensor
) -> Float32[Tensor, "n c h w"]:
    """Pad the images by `MARGIN` zeros, cut each at its own position, and mirror some, as one gather."""
    n, _, h, w = x.shape
    padded = nn.functional.pad(x, (MARGIN,) * 4)
    rows = moves[:, :1] + torch.arange(h, device=x.device)
    columns = moves[:, 1:] + torch.arange(w, device=x.device)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def evaluate(network: nn.Module, fabric: Any, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return accuracy and mean loss of a network in eval mode."""
    outputs = []
    for x in images.split(EVALUATION_BATCH):
        with fabric.autocast():
            outputs.append(network(x.contiguous(memory_format=torch.channels_last)).float())
    return _score(torch.cat(outputs), labels)


def _measure(
    network: nn.Module, images: Tensor, labels: Tensor, task: Task, run: Run, epoch: int
) -> tuple[float, float]:
    """Write the spectra of the layers, and return accuracy and loss; one forward pass serves all."""
    import pandas as pd

    features = layer_features(network, images, [*task.layers, task.output])
    assert isinstance(features, dict)
    outputs = features.pop(task.output)
    spectra = LayerSpectra({name: spectrum(features.pop(name), labels, **task.options) for name in task.layers})
    both = [spectra.to_scale(scale).to_frame() for scale in ("raw", "rms")]
    run.write_spectra(epoch, pd.concat(both, ignore_index=True))
    return _score(outputs, labels)


def _score(outputs: Tensor, labels: Tensor) -> tuple[float, float]:
    right = (outputs.argmax(dim=1) == labels).double().mean()
    return float(right), float(nn.functional.cross_entropy(outputs, labels))
