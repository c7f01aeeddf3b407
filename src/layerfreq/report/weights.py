"""What became of the weights that a run kept, by layer, and of the outputs that they make, by frequency."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from layerfreq.errors import InputError
from layerfreq.related.changes import Change, run_change
from layerfreq.related.condensation import neuron_condensation
from layerfreq.related.convergence import distance_between
from layerfreq.related.kept import KeptWeights
from layerfreq.report.escaping import text
from layerfreq.runs.run import Run
from layerfreq.runs.weights import kept_steps

STEPS = 40  # that are read of more kept ones
NUMBERS = 200_000_000  # that are read at most, but for three steps: some seconds
INTERVALS = 8  # between kept steps whose change of the outputs is shown
PRODUCTS = 20_000_000_000  # of neurons' weights that are formed at most
WIDEST = 2048  # neurons of a layer whose pairs are compared


@dataclass
class WeightMap:
    """The weights of l layers at s kept steps.

    Attributes:
        layers: Names of the layers, in order.
        steps: (s,) kept steps, the last of which is where distances end.
        distance: (l, s) distance to the weights of the last step, as a share of the first step's; NaN of those that
            never moved.
        walk: (s,) what it is for a random walk.
        similarity: (l, s) mean |cosine| of neurons' input weights; NaN where a layer has none, or a step was left out.
        chance: (l,) what it is for random directions.
    """

    layers: list[str]
    steps: Any
    distance: Any
    walk: Any
    similarity: Any
    chance: Any


def weight_map(run: Run) -> WeightMap | None:
    """Return what the page shows of a run's weights; None where it kept fewer than three steps or cannot be read."""
    if len(kept_steps(run.path)) < 3:
        return None
    try:
        return _read(KeptWeights(run))
    except InputError as error:
        warnings.warn(f"the report leaves out the weights in {str(run.path)!r}: {error}", stacklevel=2)
        return None


def _read(kept: KeptWeights) -> WeightMap:
    end = kept.at(kept.steps[-1])
    count = sum(value.numel() for weights in end.values() for value in weights.values())
    steps = _some(kept.steps, int(np.clip(NUMBERS // max(1, count), 3, STEPS)))
    sizes = {layer: weights["weight"].shape for layer, weights in end.items() if "weight" in weights}
    wide = [layer for layer, size in sizes.items() if len(size) > 1 and 2 <= size[0] <= WIDEST]
    products = sum(sizes[layer].numel() * sizes[layer][0] for layer in wide)
    compared = _some(steps, min(PRODUCTS // max(1, products), len(steps)))
    distance, similarity = np.full((2, len(end), len(steps)), np.nan)
    chance = np.full(len(end), np.nan)
    for at, step in enumerate(steps):
        for i, (layer, weights) in enumerate(kept.at(step).items()):
            distance[i, at] = distance_between(weights, end[layer])
            if layer in wide and step in compared and _moving(weights["weight"]) > 1:
                found = neuron_condensation(weights["weight"], weights.get("bias"))
                similarity[i, at], chance[i] = found["similarity"], found["chance"]
    first = distance[:, :1]
    with np.errstate(invalid="ignore"):
        distance = np.where(first > 0, distance / first, np.nan)
    when = np.array(steps, dtype=np.float64)
    walk = np.sqrt((when[-1] - when) / (when[-1] - when[0]))
    return WeightMap(list(end), when, distance, walk, similarity, chance)


def changes(runs: Sequence[tuple[str, Run]], model: nn.Module, inputs: Any, unit: str) -> str:
    """Return what changed in the outputs from one kept step to the next, by frequency, as HTML.

    Args:
        runs: Names and runs, those without two kept steps among them left out.
        model: A module of the runs' kind.
        inputs: (n, ...) what its forward takes.
        unit: What a step is called.

    Raises:
        InputError: If the weights are of another model, or it does not take the inputs.
    """
    parts = []
    for name, run in runs:
        steps = _some(kept_steps(run.path), INTERVALS + 1)
        if len(steps) < 2:
            continue
        # Low is what holds half of the variance of the outputs at the last step.
        cutoff = run_change(run, steps[-1], steps[0], model, inputs, controls=0, shuffles=1).cutoff
        rows = "".join(
            _row(before, after, run_change(run, before, after, model, inputs, cutoff))
            for before, after in pairwise(steps)
        )
        title = f"Between kept {text(unit)}s, low being k ≤ {cutoff:.3g}"
        title += f", <bdi>{text(name)}</bdi>" if len(runs) > 1 else ""
        heads = (f"{text(unit)}s", "size", "low share", "of random steps", "of the function before", "by chance")
        head = "".join(f"<th>{one}</th>" for one in heads)
        parts.append(
            f'<details open><summary>{title}</summary><div class="scroll" tabindex="0" role="region" '
            f'aria-label="changes of the outputs"><table class="changes"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></details>"
        )
    if not parts:
        return ""
    note = (
        "Size: of the change, as a share of the outputs' own, without a constant shift. Low share: of its energy, next "
        "to that of parameter steps as long in random directions (least to greatest), and of the change with its "
        "points shuffled. Only what lies outside of the random steps' range is a mark of this training."
    )
    return "<h2>What changed in the outputs</h2>" + "".join(parts) + f'<p class="quiet">{note}</p>'


def _row(before: int, after: int, found: Change) -> str:
    assert found.control is not None
    random, *ends = map(_share, found.control)
    shares = (_share(found.share), f"{random} ({' to '.join(ends)})", _share(found.share_before))
    cells = (f"{found.size:.3g}", *shares, _share(found.chance[0]))
    return f'<tr><th scope="row">{before} to {after}</th>{"".join(f"<td>{one}</td>" for one in cells)}</tr>'


def _share(value: float) -> str:
    """Return a share as text; one of an energy that is no more than noise is none."""
    return "–" if np.isnan(value) else f"{value:.2f}"


def _some(steps: list[int], most: int) -> list[int]:
    """Return so many of some steps, the first and the last among them; none where it cannot be two."""
    if most < 2:
        return []
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]


def _moving(weight: Any) -> int:
    return int((weight.reshape(len(weight), -1) != 0).any(dim=1).sum())
