"""What fresh heads reach on points that they were not trained on; every point is held out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerfreq.isolation.torch_settings import own_settings
from layerfreq.relearn.heads import fixed_head, point_losses, train_heads
from layerfreq.relearn.predictors import constant_loss, outputs_of, standardise
from layerfreq.relearn.study import principal

KINDS = ("linear", "hidden-1")
FOLDS = 3
ASIDE = 0.15  # share of the points of a training that its step and rate are chosen by
SEEDS = 2
RATES = (0.003, 0.01, 0.03)  # of Adam
STEPS, BATCH = 200, 128
NUMBERS = 1 << 22  # outputs of one head that are held at a time
LEARNED, DONE = 0.1, 0.01  # shares of the constant prediction's loss: whose steps are told, and where heads stop


@dataclass(frozen=True)
class Held:
    """What heads of one kind reach on one cut.

    Attributes:
        scores: (n,) the score of each point, by heads that were trained without it; mean over `SEEDS` of them.
        steps: Steps until the training loss is `LEARNED` of the constant prediction's, at the best rate; mean over the
            folds, inf where one does not get there.
    """

    scores: Float64[np.ndarray, " n"]
    steps: float


def point_scores(outputs: Tensor, targets: Tensor, constant: float) -> Float64[np.ndarray, " n"]:
    """Return the score of each point: 1 or 0 for a class told right or wrong; 1 - squared error / variance for floats.

    Its mean is the accuracy, or R^2.

    Args:
        outputs: (n, c), or for floats of the targets' size.
        targets: (n,) class ids, or (n,) or (n, c) floats.
        constant: Loss of the best constant prediction over all points.
    """
    if targets.is_floating_point():
        return 1 - point_losses(outputs.double(), targets.double()).numpy(force=True) / constant
    return (outputs.argmax(dim=1) == targets).double().numpy(force=True)


@own_settings()
def coordinates(features: Tensor) -> Tensor:
    """Turn features (n, d) to as few coordinates (n, r) of order 1 as hold them; no target is looked at."""
    turned = principal(standardise(features.detach().cpu().flatten(1).double()))
    return (turned * turned.shape[1] ** 0.5).float()


def shuffled(groups: Int64[Tensor, " n"], seed: int) -> list[Int64[Tensor, " k"]]:
    """Return the points of each group, (k,) indices, in random order of the groups.

    Args:
        groups: (n,) numbers 0 .. g-1, rising.
        seed: Seed for the order.
    """
    members = torch.arange(len(groups)).split(groups.bincount().tolist())
    return [members[at] for at in torch.randperm(len(members), generator=torch.Generator().manual_seed(seed)).tolist()]


@own_settings()
def held_out(x: Tensor, targets: Tensor, kind: str, seed: int = 0, groups: Int64[Tensor, " n"] | None = None) -> Held:
    """Train heads on all points but those of one fold, for each fold, and score them on that fold.

    Rate and step are those with the least loss on points that are neither trained on nor scored.

    Args:
        x: (n, r) as from `coordinates`.
        targets: (n,) class ids, or (n,) or (n, c) floats.
        kind: One of `KINDS`.
        seed: Seed for the folds, which all cuts share, so that differences are paired.
        groups: (n,) numbers 0 .. g-1, rising: of points that are not told apart by heads that have seen some of them,
            such as the tokens of one text, and are held out together. None means that each point is one.
    """
    wanted = _unit(targets)
    constant = constant_loss(wanted)
    order = shuffled(torch.arange(len(x)) if groups is None else groups, seed)
    scores, steps = np.zeros(len(x)), []
    heads = [fixed_head(kind, x.shape[1], outputs_of(targets), own, x.shape[1] ** -0.5) for own in range(SEEDS)]
    for held_groups in torch.arange(len(order)).tensor_split(FOLDS):
        first, last = int(held_groups[0]), int(held_groups[-1]) + 1
        held, others = torch.cat(order[first:last]), order[:first] + order[last:]
        chosen_by = round(ASIDE * len(others))
        aside, fit = torch.cat(others[:chosen_by]), torch.cat(others[chosen_by:])
        best = _Best((x[aside], wanted[aside]), (x[held], wanted[held]), constant)
        curves = train_heads(
            heads,
            x[fit],
            wanted[fit],
            RATES,
            [LEARNED * constant, DONE * constant],
            optimizer="adam",
            steps=STEPS,
            batch=BATCH,
            watch=best.look,
        )
        scores[held.numpy()] = best.scores.mean(axis=0)
        steps.append(curves.reached[:, :, 0].max(axis=0).min())
    return Held(scores, float(np.mean(steps)))


def _unit(targets: Tensor) -> Tensor:
    """Return class ids as they are, and floats as (n, c) of mean 0 and variance 1, for which R^2 is the same."""
    if not targets.is_floating_point():
        return targets
    y = targets.double().reshape(len(targets), -1)
    return ((y - y.mean(dim=0)) / constant_loss(y) ** 0.5).float()


class _Best:
    """Of each seed's heads, the scores on held-out points of the one with the least loss on those set aside so far.

    Args:
        aside: (a, r) points to choose by, and their targets.
        held: (h, r) points to score, and their targets.
        constant: As for `point_scores`.

    Attributes:
        scores: (seeds, h) float64.
    """

    def __init__(self, aside: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], constant: float) -> None:
        self._aside, self._held, self._constant = aside, held, constant
        self._losses = np.full(SEEDS, np.inf)
        self.scores = np.zeros((SEEDS, len(held[0])))

    def look(self, step: int, alive: np.ndarray, outputs: Callable[[Tensor], Tensor]) -> None:
        """Look at the heads that are still trained."""
        losses = _in_parts(outputs, *self._aside, lambda one, y: point_losses(one, y).numpy(force=True)).mean(axis=1)
        better: dict[int, int] = {}
        for at, (head, loss) in enumerate(zip(alive, losses, strict=True)):
            own = int(head) // len(RATES)
            if loss < self._losses[own]:
                self._losses[own], better[own] = loss, at
        if better:
            held = _in_parts(outputs, *self._held, lambda one, y: point_scores(one, y, self._constant))
            for own, at in better.items():
                self.scores[own] = held[at]


def _in_parts(
    outputs: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, judge: Callable[[Tensor, Tensor], np.ndarray]
) -> np.ndarray:
    """Return a number for each head and point, (h, n); outputs, of which there may be many, are not held."""
    size = max(1, NUMBERS // (1 if y.is_floating_point() else int(y.max()) + 1))
    parts = [
        np.stack([judge(one, wanted) for one in outputs(some)])
        for some, wanted in zip(x.split(size), y.split(size), strict=True)
    ]
    return np.concatenate(parts, axis=1)
