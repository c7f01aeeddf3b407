"""Results at one cut: frequencies, and the scores of fresh heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from layerfreq.advice import heads
from layerfreq.advice.depth import drawn, medians_of_parts, resolved
from layerfreq.advice.heads import KINDS, coordinates, held_out
from layerfreq.advice.kept import Arrays, Kept
from layerfreq.advice.points import Points
from layerfreq.advice.result import Gap
from layerfreq.errors import blame
from layerfreq.measure.measure import spectrum

SCALES = ("raw", "rms", "maxabs")


def at_cut(points: Points, name: str, seed: int, kept: Kept) -> Arrays:
    """Return what is found at a cut.

    Args:
        points: The data set.
        name: Name of the cut.
        seed: Seed for folds and parts.
        kept: Where it is found, if it was found before.

    Returns:
        `medians` (3,) at `SCALES`; `parts`, the rms medians of parts of the points; and of each kind of head the scores
        of points (n,), `linear` and `hidden`, and `linear_steps` and `hidden_steps`.
    """

    def found() -> Arrays:
        x = coordinates(features)
        rows = drawn(len(y))
        some = spectrum(features, y, rows=rows, seed=seed)
        paper = spectrum(features, y, scale="maxabs", rows=rows, seed=seed)
        made: dict[str, Any] = {
            "medians": [resolved(some), resolved(some.to_scale("rms")), resolved(paper)],
            "parts": medians_of_parts(features, y, seed, points.groups),
        }
        for kind in KINDS:
            head, held = kind.partition("-")[0], held_out(x, y, kind, seed, points.groups)
            made |= {head: held.scores, f"{head}_steps": held.steps}
        return {key: np.asarray(value, dtype=float) for key, value in made.items()}

    features, y = points.features[name], points.targets
    with blame(name):
        return kept.get("cut", _key(kept, points, name, seed), found)


def row_of(cut: Arrays, network: Points) -> dict[str, float]:
    """Return the columns of a cut that say what was found there, beside the network's own scores."""
    row = {scale: float(value) for scale, value in zip(SCALES, cut["medians"], strict=True)}
    for head in ("linear", "hidden"):
        row |= {head: float(cut[head].mean()), **_gap(head, cut[head], network.scores, network)}
        row[f"{head}_steps"] = float(cut[f"{head}_steps"])
    return row


def transferred(
    other: Points, names: Sequence[str], seed: int, kept: Kept, tell: Callable[[int, str], Any]
) -> list[dict[str, float]]:
    """Return of each cut the columns that say what linear heads reach on another data set, beside the best cut's."""
    scores: list[np.ndarray] = []
    for at, name in enumerate(names):
        tell(at, name)
        with blame(name):
            found = kept.get("transfer", _key(kept, other, name, seed), partial(_linear, other, name, seed))
            scores.append(found["linear"])
    best = max(scores, key=lambda one: one.mean())
    return [{"transfer": float(one.mean()), **_gap("transfer", one, best, other)} for one in scores]


def _linear(points: Points, name: str, seed: int) -> Arrays:
    x = coordinates(points.features[name])
    return {"linear": held_out(x, points.targets, "linear", seed, points.groups).scores}


def _key(kept: Kept, points: Points, name: str, seed: int) -> str:
    how = [heads.FOLDS, heads.ASIDE, heads.SEEDS, heads.RATES, heads.STEPS, heads.BATCH, seed]
    return kept.key(how, points.features[name], points.targets, points.groups)


def _gap(name: str, scores: np.ndarray, others: np.ndarray, points: Points) -> dict[str, float]:
    gap = Gap.of(scores, others, points.groups.numpy())
    return {f"{name}_gap": gap.value, f"{name}_low": gap.low, f"{name}_high": gap.high}
