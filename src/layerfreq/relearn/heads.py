"""Fresh learning components, many trained at once on the same features.

Heads differ in seed and learning rate; one `torch.func.vmap` runs them all, so that every layer is one batched matrix
product. A loss is recorded for each head, and the steps to several errors are read off its curve. Heads that have
arrived, diverged, or cannot be the best of the grid any more leave the batch.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import skip_init

Optimizer = Literal["sgd", "adam"]
WIDTH = 100  # of a fixed head's hidden layers
DEPTHS = {"linear": 0, "hidden-1": 1, "hidden-2": 2}  # kind of a fixed head -> its hidden layers
SEEN = 1000  # most points on which minibatch training evaluates the loss
BLOCK = 250  # of them in one pass
BETAS, TINY = (0.9, 0.999), 1e-8  # of Adam
# Gets a step, which heads (number of the seed, times the rates, plus the number of the rate) are still in the batch,
# and their outputs (heads, n, c) as a function of features (n, d).
Watch = Callable[[int, np.ndarray, Callable[[Tensor], Tensor]], Any]


@dataclass(frozen=True)
class Curves:
    """How heads learned.

    Attributes:
        steps: (e,) steps at which the loss was evaluated.
        losses: (e, seeds, rates) float64, NaN from where a head left the batch.
        reached: (seeds, rates, t) float64, steps to each error, inf where it was not reached. Between two evaluations
            the logarithm of the loss is taken as linear.
    """

    steps: np.ndarray
    losses: np.ndarray
    reached: np.ndarray


def fixed_head(kind: str, d: int, outputs: int, seed: int, std: float) -> nn.Module:
    """Return a tanh head with Gaussian weights (variance 1 / inputs after the first layer) and no bias at first.

    Gaussian weights make the head blind to a rotation of its inputs.

    Args:
        kind: One of `DEPTHS`.
        d: Number of inputs.
        outputs: Number of outputs.
        seed: Seed for the weights.
        std: Of the first layer's weights: d^-1/2 for features as they are; 1 for features with mean |f|^2 = 1, so
            that what enters the first activation is of order 1 whatever d is.
    """
    sizes = [d] + [WIDTH] * DEPTHS[kind]
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[str, nn.Module]] = []
    for i, (a, b) in enumerate(zip(sizes, [*sizes[1:], outputs], strict=True), start=1):
        linear: Any = skip_init(nn.Linear, a, b)  # draws nothing from the global random state
        with torch.no_grad():
            size = std if i == 1 else a**-0.5
            linear.weight.copy_(torch.randn(a, b, generator=generator).T * size)
            nn.init.zeros_(linear.bias)
        parts += [(f"linear{i}", linear), (f"tanh{i}", nn.Tanh())]
    return nn.Sequential(OrderedDict(parts[:-1]))


def train_heads(
    heads: Sequence[nn.Module],
    features: Tensor,
    targets: Tensor,
    rates: Sequence[float],
    errors: Sequence[float],
    *,
    optimizer: Optimizer = "sgd",
    steps: int = 1500,
    batch: int | None = 128,
    keep: int | None = None,
    watch: Watch | None = None,
) -> Curves:
    """Train every head at every learning rate, all at once.

    Cross-entropy for class ids, mean squared error for floats. The loss of a curve is over the points trained on: all
    of them at every step where a step takes all; else over the same `SEEN` of them, drawn once, at the first steps and
    four times an octave. Batches are drawn without replacement, the same for all heads.

    Args:
        heads: One for each seed, alike but for their weights; they are left as they are. Batch norm takes its batch's
            statistics.
        features: (n, ...) float tensor.
        targets: (n,) class ids or (n, c) floats.
        rates: Learning rates.
        errors: Losses, falling, whose steps are wanted.
        optimizer: "sgd" (plain) or "adam".
        steps: Steps after which heads are given up.
        batch: Points in a step; None takes all of them, and then the loss is known at every step.
        keep: Index of the rate that is always trained to the end. The others are given up once one rate has brought all
            its seeds to all errors, since they cannot be the best of the grid for an error that they still miss. With
            None, none is given up.
        watch: Called with the heads at the first steps and four times per octave, see `Watch`.
    """
    n = len(features)
    batch = n if batch is None else min(batch, n)
    batches, seen = _order(n, batch), next(_order(n, min(n, SEEN))).split(BLOCK)
    training = _Training(heads, rates, features, optimizer)
    arrived, stay = np.zeros(len(training.alive), dtype=bool), np.ones(len(training.alive), dtype=bool)
    curves: dict[int, np.ndarray] = {}  # evaluated step -> loss of each head
    for step in range(steps + 1):
        x, y = (features, targets) if batch == n else _pick(features, targets, next(batches))
        known = training.evaluate(features, targets, seen) if batch < n and _due(step, steps) else None
        loss = training.losses(x, y)
        if batch == n:  # then the loss that is descended on is the one that is wanted
            known = loss.detach().double()
        if known is not None:
            curves[step] = row = training.row(known)
            if watch is not None and _due(step, steps):
                watch(step, training.alive, training.outputs)
            arrived |= row <= min(errors)
            stay = _stay(row, arrived, len(rates), keep)[training.alive]
            if step == steps or not stay.any():
                break
        training.update(loss, step + 1)
        if known is not None and stay.mean() <= 0.9:  # to copy all weights pays only for some heads at once
            training.keep(np.flatnonzero(stay))
    evaluated, losses = np.array(list(curves)), np.array(list(curves.values()))
    losses = losses.reshape(len(losses), len(heads), len(rates))
    return Curves(evaluated, losses, reached(evaluated, losses, errors))


class _Training:
    """All heads that are still trained, each at every rate.

    Attributes:
        alive: (h,) which they are of all heads.
    """

    def __init__(self, heads: Sequence[nn.Module], rates: Sequence[float], like: Tensor, optimizer: Optimizer) -> None:
        self._template, self._params = _stack(heads, len(rates))
        self._rate = torch.tensor(list(rates), dtype=like.dtype, device=like.device).repeat(len(heads))
        self._adam, values = optimizer == "adam", self._params.values()
        self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in values] if self._adam else []
        self._count = len(self._rate)
        self.alive = np.arange(self._count)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return each head's mean loss, with what its gradients need."""
        for p in self._params.values():
            p.requires_grad_(True)
        return self._losses(x, y)

    def evaluate(self, features: Tensor, targets: Tensor, pieces: Sequence[Tensor]) -> Tensor:
        """Return each head's mean loss over points that are given in pieces, float64."""
        with torch.no_grad():
            parts = [self._losses(*_pick(features, targets, at)).double() * len(at) for at in pieces]
        return torch.stack(parts).sum(dim=0) / sum(len(at) for at in pieces)

    def outputs(self, x: Tensor) -> Tensor:
        """Return each head's outputs, (h, n, c)."""
        with torch.no_grad():
            return vmap(lambda own: functional_call(self._template, own, (x,)), randomness="different")(self._params)

    def row(self, known: Tensor) -> np.ndarray:
        """Return a number of each head in the place it has among all heads; NaN for those that have left."""
        row = np.full(self._count, math.nan)
        row[self.alive] = known.cpu().numpy()
        return row

    def update(self, loss: Tensor, step: int) -> None:
        """Take one step of the optimizer, the first being 1, down the gradients of each head's loss."""
        gradients = torch.autograd.grad(loss.sum(), list(self._params.values()))
        self._params = {name: p.detach() for name, p in self._params.items()}
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(self._params.values(), gradients, strict=True)):
                own = self._rate.view(-1, *[1] * (p.ndim - 1))
                if not self._adam:
                    p.addcmul_(g, own, value=-1)
                    continue
                first, second = self._moments[i]
                first.lerp_(g, 1 - BETAS[0])
                second.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
                root = (second / (1 - BETAS[1] ** step)).sqrt_().add_(TINY)
                p.sub_(first / root * (own / (1 - BETAS[0] ** step)))

    def keep(self, places: np.ndarray) -> None:
        """Drop the other heads."""
        kept = torch.from_numpy(places).to(self._rate.device)
        self._params = {name: p[kept] for name, p in self._params.items()}
        self._moments = [(a[kept], b[kept]) for a, b in self._moments]
        self._rate, self.alive = self._rate[kept], self.alive[places]

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        def loss(own: dict[str, Tensor]) -> Tensor:
            return point_losses(functional_call(self._template, own, (x,)), y).mean()

        return vmap(loss, randomness="different")(self._params)


def reached(steps: np.ndarray, losses: np.ndarray, errors: Sequence[float]) -> np.ndarray:
    """Return the steps at which curves first come down to each error, (..., t) float64, inf where they do not.

    Args:
        steps: (e,) evaluated steps.
        losses: (e, ...) losses; NaN is not reached.
        errors: (t,) losses.
    """
    below = losses[..., None] <= np.asarray(errors)
    first = below.argmax(axis=0)
    with np.errstate(all="ignore"):  # a head that diverges, or has left
        curve = np.log(np.maximum(losses, 1e-30))[..., None]
        at, before = (np.take_along_axis(curve, np.maximum(i, 0)[None], axis=0)[0] for i in (first, first - 1))
        # Between two evaluations a loss falls as an exponential; from infinity, at the second.
        share = np.where(np.isfinite(before), (before - np.log(errors)) / (before - at), 1.0)
    found = np.where(first > 0, steps[first - 1] + share * (steps[first] - steps[first - 1]), steps[0])
    return np.where(below.any(axis=0), found, math.inf)


def point_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each point: cross-entropy, or squared error averaged over the columns."""
    if targets.is_floating_point():
        return (outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)).square().mean(dim=1)
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _stack(heads: Sequence[nn.Module], rates: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return one head as a template, and all heads' parameters with each head repeated for every rate."""
    copies = [copy.deepcopy(head).train() for head in heads]
    for one in copies:
        for part in one.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
    named = [dict(one.named_parameters()) for one in copies]
    stacked = {name: torch.stack([own[name].detach() for own in named]) for name in named[0]}
    return copies[0], {name: p.repeat_interleave(rates, dim=0) for name, p in stacked.items()}


def _stay(last: np.ndarray, arrived: np.ndarray, rates: int, keep: int | None) -> np.ndarray:
    """Which of all heads continue, after their last losses (NaN if they have left) and whether they have arrived."""
    going = np.isfinite(last) & ~arrived
    if keep is not None and arrived.reshape(-1, rates).all(axis=0).any():
        going &= np.arange(len(last)) % rates == keep
    return going


def _order(n: int, batch: int) -> Any:
    """Yield batches of indices forever, epoch after epoch."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(n, generator=generator).split(batch)[: n // batch]


def _pick(features: Tensor, targets: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.to(features.device)
    return features[at], targets[at]


def _due(step: int, steps: int) -> bool:
    """Whether minibatch training evaluates the whole loss: the first steps, four times an octave, and the last."""
    return step <= 4 or step == steps or math.floor(4 * math.log2(step)) > math.floor(4 * math.log2(step - 1))
