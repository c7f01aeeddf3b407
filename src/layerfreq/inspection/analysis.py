"""Measuring checkpoints of a model after its training: one run, a step for each of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfreq.data.inputs import count
from layerfreq.data.validation import Scale
from layerfreq.errors import InputError, LayerWarning, Refused, no_such
from layerfreq.files import as_path
from layerfreq.isolation.memory import read_memory
from layerfreq.loading.datasets import in_batches, load_data
from layerfreq.loading.models import Source, load_checkpoint
from layerfreq.loading.state_dicts import fingerprint, steps_of
from layerfreq.monitor.monitor import Monitor
from layerfreq.network.reading import read_reading
from layerfreq.runs.environment import environment
from layerfreq.runs.run import Run
from layerfreq.runs.summary import layer_table, summarise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Analysis:
    """What was measured.

    Attributes:
        run: The run that holds it.
        refused: name -> reason, for activations and blocks that are not cuts.
        told: Where the steps come from; empty if there were no checkpoints.
    """

    run: Run
    refused: dict[str, Refused]
    told: str


def analyze(
    source: Source,
    checkpoints: Sequence[Path],
    data: str,
    out: Path,
    *,
    name: str,
    layers: Sequence[str] | None = None,
    points: int = 2000,
    rows: int | None = None,
    scales: Sequence[Scale] = ("raw",),
    reading: str = "flatten",
    memory: int | str | None = None,
    batch: int = 256,
    seed: int = 0,
    device: str = "cpu",
    tell: Callable[[int, int, str], Any] = lambda done, total, what: None,
) -> Analysis:
    """Measure a model at each of its checkpoints, and write a run.

    Nothing is written before every checkpoint was found to fit the model.

    Args:
        source: The model; without checkpoints it is measured as it is, as step 0.
        checkpoints: As for `read_checkpoint`.
        data: As for `load_data`.
        out: The directory of the new run.
        name: What the user called the model.
        layers: Names of layers; None means all hidden layers.
        points: Points to measure on, at most.
        rows: Filter centres to draw; None means all points.
        scales: To measure at, as for `Monitor`.
        reading: One name, as for `layer_spectra`.
        memory: As for `layer_spectra`.
        batch: Points in one forward pass.
        seed: Seed for the draw of rows.
        device: Where to compute.
        tell: Called with the number of layers measured so far, the number in all (0 if not known yet), and what is
            being done.

    Raises:
        InputError: For a checkpoint, data or layers that cannot be used.
    """
    if points < 1 or batch < 1:
        raise InputError(f"points: {points} in batches of {batch}; pass numbers >= 1")
    read_reading(reading)  # raises for bad input, before any work
    read_memory(memory)
    tell(0, 0, "loading")
    # Every checkpoint is loaded once before anything is written: one that does not fit ends all.
    by_step, told = _by_step(source, [as_path(path, "checkpoint") for path in checkpoints])
    batches = in_batches(*load_data(data, source, points, reading), batch)
    source.model.to(device)
    options = {"reading": reading, "memory": memory, "scale": scales, "rows": rows, "seed": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerWarning)  # what cannot be measured is listed, with the reason
        monitor = Monitor(source.model, batches, layers=layers, on_error="raise", **options)
    asked = {
        "model": name,
        "data": data,
        "points": sum(count(x) for x, _ in batches),
        "rows": rows,
        "scales": list(scales),
        "reading": reading,
        "seed": seed,
    }
    run = Run.create(out, {**asked, "steps": told or "the model as it is", **_found(by_step, monitor)})
    monitor.write_to(run)
    try:
        _measure(monitor, source, by_step, tell)
        if not run.steps():
            raise no_such("model", "layer can be measured in", name, "see layerfreq doctor")
    finally:
        if not run.steps():  # the corrected command wants the same place
            run.remove()
    return Analysis(run, monitor.plan.refused, told)


def _by_step(source: Source, checkpoints: Sequence[Path]) -> tuple[dict[int, Path | None], str]:
    """Return the checkpoint of each step, in the order given, and where the steps come from."""
    if not checkpoints:
        return {0: None}, ""
    steps, told = steps_of([load_checkpoint(source, path) for path in checkpoints])
    return dict(zip(steps, checkpoints, strict=True)), told


def _found(by_step: Mapping[int, Path | None], monitor: Monitor) -> dict[str, Any]:
    """Return what a run says about its checkpoints and the layers that were found."""
    return {
        "checkpoints": [
            {"path": str(path), "step": step, "sha256": fingerprint(path)}
            for step, path in by_step.items()
            if path is not None
        ],
        "layers": monitor.layers,
        "hidden_layers": monitor.plan.hidden,
        "not a cut": {layer: str(reason) for layer, reason in monitor.plan.refused.items()},
        "environment": environment(),
    }


def _measure(
    monitor: Monitor, source: Source, checkpoints: Mapping[int, Path | None], tell: Callable[[int, int, str], Any]
) -> None:
    """Measure step by step; a step without a checkpoint is the model as it is."""
    names = monitor.layers
    for done, (step, checkpoint) in enumerate(sorted(checkpoints.items())):
        if checkpoint is not None:
            load_checkpoint(source, checkpoint)

        def on_layer(layer: str, before: int = done * len(names), step: int = step) -> None:
            tell(before + names.index(layer), len(checkpoints) * len(names), f"step {step}: {layer}")

        monitor.on_layer = on_layer
        monitor.measure(step)


def medians(run: Run, scales: Sequence[Scale]) -> pd.DataFrame:
    """Return a row for each step, layer and scale: peak, median, resolution, and whether the median is resolved."""
    found = summarise({0: run}).drop(columns="seed")
    found = found[found["scale"].isin(scales)]
    return found.assign(resolved=found["median"] <= found["resolution"])  # False where there is no median


def present(run: Run, scales: Sequence[Scale]) -> tuple[list[str], list[list[str]], list[Path]]:
    """Draw the densities and medians of a run.

    Args:
        run: A run of one model.
        scales: Of the table; the figures show all that the run has.

    Returns:
        Table head, table rows (one per step and layer), files.
    """
    from layerfreq import plots

    summary = summarise({0: run}).astype({"peak": float, "median": float})
    head, rows = layer_table(summary[summary["scale"].isin(scales)], "step", every=True)
    files = plots.save(run.plot(), run.path / "figures", "densities")
    if len(run.steps()) > 1:
        files += plots.save(plots.figure_medians(summary), run.path / "figures", "medians")
    return head[1:], [row[1:] for row in rows], files  # without the seed
