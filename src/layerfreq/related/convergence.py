"""Layer convergence: how fast each layer's weights approach their final values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layerfreq.errors import Code, InputError, shown
from layerfreq.plots import LABELS, style
from layerfreq.related.kept import KeptWeights
from layerfreq.runs.run import Run
from layerfreq.runs.summary import summarise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def layer_convergence(run: Run | str | Path, model: nn.Module | None = None, steps: Any = None) -> pd.DataFrame:
    """Measure how fast each layer's weights approach those of the last checkpoint, between kept steps.

    C_l(t0, t1) = [ln |w_l(t0) - w_l(T)| - ln |w_l(t1) - w_l(T)|] / (t1 - t0) per step, where w_l are all parameters of
    layer l and T is the last kept step: the slope of the log distance, after Chen, Yuille & Zhou, "Which Layer is
    Learning Faster?" (ICLR 2023), who found it larger for shallow layers.

    `chance` is the rate of a random walk, whose squared distance to its own end falls as T - t: it approaches its end
    ever faster without learning anything, ln[(T - t0) / (T - t1)] / (2 (t1 - t0)).

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        model: A module with the architecture of the run, which tells parameters from buffers and gives the order of
            layers; None goes by names.
        steps: Two or more kept steps before the last one; None means all of them.

    Returns:
        One row per layer and interval: layer, depth, parameters (how many), start, end, distance (at the start),
        remaining (distance at the end over that at the start), rate (per step), chance. Layers that never moved, and
        intervals after a layer has stopped for good, have no row; `attrs["still"]` lists the former.

    Raises:
        InputError: If fewer than three steps were kept, or nothing moved.

    Examples:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> monitor = Monitor(model, x, torch.sin(4 * x), run="a run", checkpoints=True)
        >>> for step in range(3):
        ...     measured = monitor.measure(step)
        ...     for p in model.parameters():
        ...         p.data *= 0.5
        >>> layer_convergence("a run")[["layer", "rate", "chance"]].round(4)  # to a quarter, from 0.75 to 0.25
          layer    rate  chance
        0     0  1.0986  0.3466
        1     2  1.0986  0.3466
    """
    import pandas as pd

    kept = KeptWeights(run, model)
    last = kept.steps[-1]
    if len(kept.steps) < 3:
        raise Code.MISSING(f"run: weights at {len(kept.steps)} steps only, {kept.steps}; a rate takes three or more")
    wanted = kept.steps[:-1] if steps is None else _steps(steps, kept.steps)
    end = kept.at(last)
    distances: dict[str, list[float]] = {layer: [] for layer in end}
    for step in wanted:
        for layer, weights in kept.at(step).items():
            distances[layer].append(distance_between(weights, end[layer]))
    rows, still = [], [layer for layer, found in distances.items() if not any(found)]
    for depth, (layer, found) in enumerate(distances.items(), start=1):
        for i, (t0, t1) in enumerate(zip(wanted[:-1], wanted[1:], strict=True)):
            if not found[i] or not found[i + 1]:
                continue
            remaining = found[i + 1] / found[i]
            rows.append(
                {
                    "layer": layer,
                    "depth": depth,
                    "parameters": sum(value.numel() for value in end[layer].values()),
                    "start": t0,
                    "end": t1,
                    "distance": found[i],
                    "remaining": remaining,
                    "rate": -math.log(remaining) / (t1 - t0),
                    "chance": math.log((last - t0) / (last - t1)) / (2 * (t1 - t0)),
                }
            )
    if not rows:
        raise Code.CONSTANT(f"run: no weight differs between step {wanted[0]} and the last one, {last}; check the run")
    frame = pd.DataFrame(rows)
    frame.attrs["still"] = still
    return frame


def plot_convergence(run: Run | str | Path, model: nn.Module | None = None) -> Figure:
    """Draw each layer's distance to its final weights, next to its median frequency.

    Args:
        run: A run with weights, or its path.
        model: See `layer_convergence`.

    Raises:
        InputError: See `layer_convergence`.

    Examples:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> monitor = Monitor(model, x, torch.sin(4 * x), run="a run", checkpoints=True)
        >>> for step in range(3):
        ...     measured = monitor.measure(step)
        ...     for p in model.parameters():
        ...         p.data *= 0.5
        >>> figure = plot_convergence("a run")
    """
    import matplotlib.pyplot as plt
    import numpy as np

    run = run if isinstance(run, Run) else Run(run)
    frame: Any = layer_convergence(run, model)
    last = KeptWeights(run).steps[-1]
    summary: Any = summarise({0: run}) if run.steps() else None
    panels = 1 if summary is None else 2
    figure, axes = plt.subplots(1, panels, figsize=(4.2 * panels, 3.6), layout="constrained", squeeze=False)
    left, deepest = axes[0, 0], int(frame["depth"].max())
    for (depth, layer), part in frame.groupby(["depth", "layer"]):
        steps = [*part["start"], part["end"].iloc[-1]]
        share = [1.0, *part["remaining"].cumprod()]
        left.plot(steps, share, label=str(layer), markersize=4, **style(int(depth), deepest))
    t = np.linspace(frame["start"].min(), frame["end"].max(), 200)
    walk = np.sqrt((last - t) / (last - t[0]))
    left.plot(t, walk, color="0.45", linestyle="--", label="a random walk")
    unit = run.unit
    left.set(yscale="log", xlabel=unit, ylabel=f"distance to the weights of {unit} {last}\n(first one: 1)")
    left.legend(fontsize="x-small", frameon=False)
    if summary is not None:
        right, scale = axes[0, 1], next(one for one in LABELS if one in set(summary["scale"]))
        some = summary[summary["scale"] == scale].dropna(subset=["median"])
        for (depth, layer), part in some.groupby(["depth", "layer"]):
            look: dict[str, Any] = style(int(depth), int(some["depth"].max()))
            right.plot(part["step"], part["median"], label=str(layer), markersize=4, **look)
        right.set(yscale="log", xlabel=unit, ylabel=f"median frequency of what is left,\n{LABELS[scale]}")
        right.legend(fontsize="x-small", frameon=False)
    return figure


def distance_between(weights: dict[str, Tensor], end: dict[str, Tensor]) -> float:
    """Return the distance between two states of a layer's parameters, all of them one vector."""
    parts = [torch.linalg.vector_norm(value - end[name]) for name, value in weights.items()]
    return float(torch.linalg.vector_norm(torch.stack(parts)))


def _steps(steps: Any, kept: list[int]) -> list[int]:
    try:
        found = [int(step) for step in steps]
    except (TypeError, ValueError):
        raise InputError(f"steps: {shown(steps)} are not steps; pass some of {shown(kept[:-1])}") from None
    wrong = next((step for step in found if step not in kept[:-1]), None)
    if wrong is not None or len(found) < 2 or found != sorted(set(found)):
        raise InputError(f"steps: {shown(steps)} are not two or more of {shown(kept[:-1])}, in order; pass such")
    return found
