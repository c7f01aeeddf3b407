"""What fresh heads reach on points that they were not trained on; every point is held out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
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


@own_settings()
def held_out(x: Tensor, targets: Tensor, kind: str, seed: int = 0) -> Held:
    """Train heads on all points but those of one fold, for each fold, and score them on that fold.

    Rate and step are those with the least loss on points that are neither trained on nor scored.

    Args:
        x: (n, r) as from `coordinates`.
        targets: (n,) class ids, or (n,) or (n, c) floats.
        kind: One of `KINDS`.
        seed: Of the folds, which all cuts share, so that differences are paired.
    """
    n, wanted = len(x), _unit(targets)
    constant = constant_loss(wanted)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    scores, steps = np.zeros(n), []
    heads = [fixed_head(kind, x.shape[1], outputs_of(targets), own, x.shape[1] ** -0.5) for own in range(SEEDS)]
    for held in order.tensor_split(FOLDS):
        others = order[~torch.isin(order, held)]
        aside, fit = others.split([round(ASIDE * len(others)), len(others) - round(ASIDE * len(others))])
        best = _Best(x[aside], wanted[aside], x[held])
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
        scores[held.numpy()] = np.mean([point_scores(one, wanted[held], constant) for one in best.outputs], axis=0)
        steps.append(curves.reached[:, :, 0].max(axis=0).min())
    return Held(scores, float(np.mean(steps)))


def _unit(targets: Tensor) -> Tensor:
    """Return class ids as they are, and floats as (n, c) of mean 0 and variance 1, for which R^2 is the same."""
    if not targets.is_floating_point():
        return targets
    y = targets.double().reshape(len(targets), -1)
    return ((y - y.mean(dim=0)) / constant_loss(y) ** 0.5).float()


class _Best:
    """Of each seed's heads, the outputs on held-out points of the one with the least loss on those set aside so far.

    Args:
        aside: (a, r) points to choose by.
        targets: Their targets.
        held: (h, r) points that outputs are wanted for.
    """

    def __init__(self, aside: Tensor, targets: Tensor, held: Tensor) -> None:
        self._aside, self._targets, self._held = aside, targets, held
        self._losses = [np.inf] * SEEDS
        self.outputs = [torch.empty(0)] * SEEDS

    def look(self, step: int, alive: np.ndarray, outputs: Callable[[Tensor], Tensor]) -> None:
        """Look at the heads that are still trained."""
        losses = [float(point_losses(one, self._targets).mean()) for one in outputs(self._aside)]
        better: dict[int, int] = {}
        for at, (head, loss) in enumerate(zip(alive, losses, strict=True)):
            own = int(head) // len(RATES)
            if loss < self._losses[own]:
                self._losses[own], better[own] = loss, at
        if better:
            held = outputs(self._held)
            for own, at in better.items():
                self.outputs[own] = held[at]
