"""How the weights that a run kept changed, by layer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerfreq.errors import InputError
from layerfreq.related.condensation import neuron_condensation
from layerfreq.related.convergence import distance_between
from layerfreq.related.kept import KeptWeights
from layerfreq.report.sections.section import some
from layerfreq.runs.run import Run
from layerfreq.runs.weights import kept_steps

STEPS = 40  # most kept steps that are read
NUMBERS = 200_000_000  # most numbers that are read, unless there are only three steps: some seconds
PRODUCTS = 20_000_000_000  # most products of neurons' weights
WIDEST = 2048  # most neurons of a layer whose pairs are compared


@dataclass
class WeightMap:
    """The weights of l layers at s kept steps.

    Attributes:
        layers: Names of the layers, in order.
        steps: (s,) kept steps, the last of which is where distances end.
        distance: (l, s) distance to the weights of the last step, as a share of the first step's; NaN of those that
            never moved.
        walk: (s,) what it is for a random walk.
        similarity: (l, s) mean |cosine| of neurons' input weights; NaN if a layer has none, or a step was left out.
        chance: (l,) what it is for random directions.
    """

    layers: list[str]
    steps: Any
    distance: Any
    walk: Any
    similarity: Any
    chance: Any


def weight_map(run: Run) -> WeightMap | None:
    """Return what the page shows of a run's weights; None if it kept fewer than three steps or cannot be read."""
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
    steps = some(kept.steps, int(np.clip(NUMBERS // max(1, count), 3, STEPS)))
    sizes = {layer: weights["weight"].shape for layer, weights in end.items() if "weight" in weights}
    wide = [layer for layer, size in sizes.items() if len(size) > 1 and 2 <= size[0] <= WIDEST]
    products = sum(sizes[layer].numel() * sizes[layer][0] for layer in wide)
    compared = some(steps, min(PRODUCTS // max(1, products), len(steps)))
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


def _moving(weight: Any) -> int:
    return int((weight.reshape(len(weight), -1) != 0).any(dim=1).sum())
