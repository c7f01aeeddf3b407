"""What watching a model costs: unmeasured steps, one layer's features, and a ResNet whole, beside the bare passes.

    python benchmarks/monitor.py [--images 5000] [--data FOLDER] [--rows 500] [--repeats 15] [--width 64] [--only PART]
                                  [--device cpu] [--probe 600]

Prints Markdown tables. Times are medians of runs in turns; memory is by how much the process, or the GPU's part of it,
grew at most, each in a process of its own. `--images 300 --width 16 --repeats 3` takes a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq import Monitor, layer_spectra
from layerfreq.data.inputs import BATCH
from layerfreq.experiments.residual import network
from layerfreq.inspection.benchmark import added_memory, machine
from layerfreq.loading.images import load_images
from layerfreq.network.extract import collect
from layerfreq.probe import plan

CALLS = 2000
DEVICE = torch.device("cpu")


class Transformer(nn.Module):
    """Four small encoder blocks over 32 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 128)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(128, 4, 512, 0.1, batch_first=True, activation=nn.functional.gelu)
            for _ in range(4)
        )
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean(dim=1))


def mlp() -> nn.Module:
    """Five layers of 500, as in the paper."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, 500), nn.Tanh()]
    for _ in range(4):
        layers += [nn.Linear(500, 500), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(500, 10))


def models() -> dict[str, tuple[nn.Module, Tensor, list[str | None]]]:
    """Models, inputs, and layers to collect; None for all hidden layers."""
    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, Tensor, list[str | None]]] = {
        "MLP, 5 x 500": (mlp(), torch.randn(2048, 784), ["6", "10", None]),
        "ResNet -1, width 64": (network(1, 64, 1024, 10), torch.randn(64, 3, 32, 32), ["stem.2", "stages.1.1", None]),
        "transformer, 4 x 128": (Transformer(), torch.randint(1000, (128, 32)), ["blocks.1", "blocks.3", None]),
    }
    return {name: (model.to(DEVICE), x.to(DEVICE), layers) for name, (model, x, layers) in found.items()}


def in_turns(repeats: int, *calls: Callable[[], Any]) -> list[list[float]]:
    """Time calls in turns, after one of each to warm up."""
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            seconds, _ = timed(call)
            if turn:
                times.append(seconds)
    return taken


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and what comes back, the GPU's work included."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    start = time.perf_counter()
    found = call()
    wait()
    return time.perf_counter() - start, found


def grown(call: Callable[[], Any], device: torch.device) -> tuple[int | None, Any]:
    """Return the bytes by which the process, or its part of the GPU, grew at most, and what comes back."""
    if device.type != "cuda":
        return added_memory(call)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    found = call()
    return torch.cuda.max_memory_allocated() - held, found


def head(text: str) -> None:
    """Begin a Markdown table."""
    columns = text.split(" | ")
    print("| " + text + " |\n|---" + "|---:" * (len(columns) - 1) + "|", flush=True)


def row(*values: Any) -> None:
    """Print one line of it as soon as it is known."""
    print("| " + " | ".join(map(str, values)) + " |", flush=True)


def unmeasured_steps(repeats: int) -> None:
    """Time `measure` where `when` says no, beside a small training step."""
    print("## A step that is not measured\n")
    model, x, y = (a.to(DEVICE) for a in (mlp(), torch.randn(64, 784), torch.randint(10, (64,))))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses: list[Tensor] = []

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses[:] = [loss]

    with tempfile.TemporaryDirectory() as folder:
        head("`measure` on such a step | a training step (MLP 5 x 500, batch 64) | the call | share")
        for name, run, metrics in (("nothing else", None, {}), ("with a run and one metric", folder, {"loss": 0.5})):
            monitor = Monitor(model, x, y, run=None if run is None else Path(run) / "run", when=[0])

            def skip(monitor: Monitor = monitor, metrics: dict[str, float] = metrics) -> None:
                for number in range(1, 1 + CALLS):
                    monitor.measure(number, **metrics)

            steps, skips = in_turns(repeats, step, skip)
            one, call = median(steps), median(skips) / CALLS
            monitor.close()
            row(name, f"{one * 1e3:.2f} ms", f"{call * 1e6:.2f} us", f"{call / one:.3%}")
    print()


def one_layer(repeats: int) -> None:
    """Time collecting features beside the bare forward pass to the same layer, and to the end."""
    print("## Collecting features\n")
    head("model | collected | whole forward pass | collecting : whole pass | collecting : pass to that layer")
    for name, (model, x, layers) in models().items():
        model.eval()
        for layer in layers:
            places = plan(model, x[:8], layer).layers

            def bare(model: nn.Module = model, x: Tensor = x) -> None:
                with torch.no_grad():
                    for start in range(0, len(x), BATCH):
                        model(x[start : start + BATCH])

            def features(model: nn.Module = model, x: Tensor = x, places: Any = places) -> None:
                collect(model, x, None, places)

            def to_layer(model: nn.Module = model, x: Tensor = x, layer: Any = layer) -> None:
                stop = model.get_submodule(layer).register_forward_hook(_stop)
                try:
                    with torch.no_grad():
                        for start in range(0, len(x), BATCH):
                            try:
                                model(x[start : start + BATCH])
                            except StopIteration:
                                pass
                finally:
                    stop.remove()

            taken = in_turns(repeats, bare, features)
            ratio = median(b / a for a, b in zip(*taken, strict=True))
            upto = "-"
            if layer is not None:  # apart, because what ran before leaves the caches and the allocator to the next
                upto = f"{median(b / a for a, b in zip(*in_turns(repeats, to_layer, features), strict=True)):.3f}"
            what = f"all {len(places)} hidden layers" if layer is None else f"`{layer}`"
            row(name, what, f"{median(taken[0]) * 1e3:.1f} ms", f"{ratio:.3f}", upto)
    print()


def _stop(*_: Any) -> None:
    raise StopIteration


def images(data: str | None, n: int) -> tuple[Tensor, Tensor]:
    """Return CIFAR-10, or random images."""
    if data is not None:
        loaded, labels = load_images(data, n)
        return loaded.movedim(-1, 1).contiguous(), labels
    source = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 32, 32, generator=source), torch.randint(10, (n,), generator=source)


def whole(job: dict[str, Any], pipe: Any) -> None:
    """Do one measurement of the paper's ResNet -1, or one bare forward pass; send seconds and bytes added."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    x, y = images(job["data"], job["n"])
    if job["layer"] is None:
        model, layers = network(1, job["width"], 1024, 10).eval(), None
    else:
        model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(65536, 10))
        layers = job["layer"]
    model, x, y = (a.to(job["device"]) for a in (model, x, y))
    with torch.no_grad():
        model(x[:32])

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, len(x), BATCH):
                model(x[start : start + BATCH])

    layer_spectra(model, x[:300], y[:300], layers, rows=job["rows"] and 32)  # loads and compiles what is needed

    def measure() -> Any:
        return layer_spectra(model, x, y, layers, rows=job["rows"], memory=job["memory"])

    seconds, memory, found = [], [], None
    for call in (bare, measure):
        took, (added, found) = timed(partial(grown, call, job["device"]))
        seconds.append(took)
        memory.append(added)
    pipe.send((seconds, memory, {name: one.lfr for name, one in (found or {}).items()}))


def apart(**job: Any) -> Any:
    """Run `whole` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=whole, args=({**job, "threads": torch.get_num_threads(), "device": DEVICE}, theirs)
    )
    process.start()
    found = ours.recv()
    process.join()
    return found


def resnet(n: int, data: str | None, rows: int, width: int) -> None:
    """Measure all hidden layers within several budgets."""
    kind = "random images" if data is None else data
    print(f"## All hidden layers of the paper's ResNet -1 (width {width}) on {n} images ({kind})\n")
    largest = n * width * 32 * 32 * 4
    print(f"One layer's features: {largest / 2**20:.0f} MiB at most.\n")
    text = "filter centres | `memory` | bare forward | measuring | ratio | memory over the bare forward"
    head(text + " | : one layer's features")
    for centres in (min(rows, n), None):
        for memory in (None, 2 * largest, largest, largest // 4):
            (bare, taken), (bare_memory, added), _ = apart(
                n=n, data=data, width=width, layer=None, rows=centres, memory=memory
            )
            budget = "default" if memory is None else f"{memory >> 20} MiB"
            over = (added or 0) - (bare_memory or 0)
            parts = (f"{bare:.1f} s", f"{taken:.1f} s", f"{taken / bare:.2f}", f"{over >> 20} MiB")
            row(centres or "all", budget, *parts, f"{over / largest:.2f}")
    print()


def wide(n: int) -> None:
    """Measure one convolution of 64 x 32 x 32 within a budget far below its features."""
    size = n * 65536 * 4
    print(f"## Features of 64 x 32 x 32 on {n} random images: {size >> 20} MiB\n")
    exact: dict[Any, Any] = {}
    head("filter centres | `memory` | bare forward | measuring | memory over it | LFR off the held one")
    for centres in (min(500, n), None):
        for memory in (4 * size, size // 5):
            (bare, taken), (bare_memory, added), found = apart(
                n=n, data=None, width=0, layer=["1"], rows=centres, memory=memory
            )
            off = abs(found["1"] - exact.setdefault(centres, found["1"])).max()
            over = (added or 0) - (bare_memory or 0)
            times = (f"{bare:.1f} s", f"{taken:.1f} s", f"{over >> 20} MiB")
            row(centres or "all", f"{memory >> 20} MiB", *times, f"{off:.1e}")
    print()


def training(n: int, data: str | None, rows: int, width: int, probe: int) -> None:
    """Train the paper's ResNet -1 for two epochs, measured before each and at the end, with and without a budget."""
    kind = "random images" if data is None else "CIFAR-10"
    print(f"## A training: ResNet -1 (width {width}), {n} images ({kind}) an epoch, {probe} measured every epoch\n")
    x, y = images(data, n + probe)
    head("filter centres | `budget` | two epochs without measuring | measuring three times | share | measured")
    for centres, budget in ((None, None), (min(rows, probe), None), (None, 0.03)):
        torch.manual_seed(0)
        model = network(1, width, 1024, 10).to(DEVICE)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        options = {} if centres is None else {"rows": centres}
        monitor = Monitor(model, x[n:].to(DEVICE), y[n:], budget=budget, **options)
        trained, measured, made = 0.0, 0.0, 0
        for epoch in range(3):
            took, found = timed(partial(monitor.measure, epoch))
            measured += took
            made += found is not None
            if epoch < 2:
                trained += timed(partial(one_epoch, model, optimizer, x[:n], y[:n]))[0]
        monitor.drop()
        share = measured / (measured + trained)
        row(centres or "all", budget, f"{trained:.1f} s", f"{measured:.1f} s", f"{share:.1%}", f"{made} of 3")
    print()


def one_epoch(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    """Train on all images once, 64 at a time."""
    model.train()
    for some, labels in zip(x.split(64), y.split(64), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(some.to(DEVICE)), labels.to(DEVICE)).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--data", help="CIFAR-10 in the hub's layout; random images without it")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--wide-images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", choices=["steps", "features", "resnet", "wide", "training"])
    parser.add_argument("--probe", type=int, default=600, help="images that a training's monitor measures")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    global DEVICE
    DEVICE = torch.device(options.device)
    print(f"{torch.cuda.get_device_name() + '; ' if DEVICE.type == 'cuda' else ''}{machine()}\n")
    parts: dict[str, Callable[[], None]] = {
        "steps": lambda: unmeasured_steps(options.repeats),
        "features": lambda: one_layer(options.repeats),
        "resnet": lambda: resnet(options.images, options.data, options.rows, options.width),
        "wide": lambda: wide(options.wide_images),
        "training": lambda: training(options.images, options.data, options.rows, options.width, options.probe),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()


if __name__ == "__main__":
    main()
