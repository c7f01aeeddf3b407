"""A data set as a network sees it: features at every cut, targets, and how well the network itself does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from layerfreq.data.inputs import count, is_loader, tensors_of
from layerfreq.data.source import InMemory
from layerfreq.data.targets import as_numbers
from layerfreq.data.validation import as_features
from layerfreq.engines import read_points
from layerfreq.errors import Code, InputError, blame, none_given, not_finite, under, unsupported
from layerfreq.isolation.memory import free_memory
from layerfreq.isolation.preserve import untouched
from layerfreq.network.cuts import Cut
from layerfreq.network.extract import collect, most_points
from layerfreq.network.find import reject_one_pass
from layerfreq.network.labelled import for_model
from layerfreq.network.outputs import tensor_of
from layerfreq.network.reading import Layout
from layerfreq.relearn.heads import point_losses
from layerfreq.relearn.predictors import constant_loss
from layerfreq.trace.trace import trace

INPUTS = "inputs"  # the name of cut 0
LEAST = 30  # inputs, below which a third held out says nothing


@dataclass(frozen=True)
class Points:
    """A data set as a network sees it; a point is an input, or with reading="positions" a position of one.

    Attributes:
        features: (n, d) at each cut, input to output.
        targets: (n,) class ids 0 .. c-1, of classes that occur, or (n,) or (n, c) floats.
        scores: (n,) of the network's own outputs, as for `point_scores`; zeros of a data set that is not its own.
        groups: (n,) number of the input that a point belongs to, rising from 0.
        batch: The inputs of the first batch.
    """

    features: dict[str, Tensor]
    targets: Tensor
    scores: Float64[np.ndarray, " n"]
    groups: Int64[Tensor, " n"]
    batch: Any

    @property
    def inputs(self) -> int:
        """How many inputs the points belong to."""
        return int(self.groups[-1]) + 1

    @property
    def measure(self) -> str:
        """What scores are."""
        return "R2" if self.targets.is_floating_point() else "accuracy"

    @property
    def constant(self) -> float:
        """Score of the best constant prediction: the share of the most frequent class, or an R2 of 0."""
        y = self.targets
        return 0.0 if y.is_floating_point() else int(y.bincount().max()) / len(y)


def see(model: nn.Module, inputs: Any, targets: Any, cuts: Sequence[Cut], *, own: bool = True) -> Points:
    """Run a model over a data set, once.

    Args:
        model: The model, unwrapped; left as it was.
        inputs: See `layer_features`.
        targets: In the shape of the inputs, or None.
        cuts: Where features are taken.
        own: Whether the model's outputs are for these targets, and are judged.

    Raises:
        InputError: If targets are missing, few, all equal or not finite, or do not fit the outputs or the features.
    """
    reject_one_pass(inputs)
    points, seen = most_points(model, inputs), _Seen(cuts, own)
    need, free = points * sum(cut.each for cut in cuts), free_memory()
    if need > free:
        raise Code.MEMORY(
            f"inputs: features of {points} at {len(cuts)} layers take {need / 1e9:.3g} GB, of {free / 1e9:.3g} that "
            "are free; pass fewer, or name layers"
        )
    features, labels = collect(model, inputs, targets, cuts, points, seen.see)
    if not labels:
        raise none_given("targets", "one for each input")
    groups = torch.unique(torch.cat(seen.groups), return_inverse=True)[1]  # but for inputs that lost all positions
    other = next((cut.name for cut in cuts if len(labels[cut.name]) != len(groups)), None)
    if other is not None:
        raise InputError(
            f"reading: {len(labels[other])} points at {other!r}, and {len(groups)} in what the model returns; heads "
            "need the same ones everywhere, so name other layers, or read all as 'mean'"
        )
    y = _checked(labels[cuts[0].name].cpu(), len(groups) and int(groups.max()) + 1)
    first = {INPUTS: torch.cat(seen.given)} if len({part.shape[1:] for part in seen.given}) == 1 else {}
    wrong = sum(int((~part.isfinite()).any(dim=1).sum()) for part in seen.given)
    if wrong:
        raise not_finite("inputs", wrong, len(y))
    scores = seen.scores(y) if own else np.zeros(len(y))
    found = {**first, **{cut.name: features[cut.name].cpu() for cut in cuts}}
    return Points({name: _told(name, one) for name, one in found.items()}, y, scores, groups, seen.batch)


def _told(name: str, features: Tensor) -> Tensor:
    """Return features as they are; all zero where they differ by their rounding alone, of which heads make much."""
    with blame(name):
        points = read_points(InMemory(as_features(features)))
    return torch.zeros_like(features) if points.rounded else features


def see_other(model: nn.Module, transfer: Any, cuts: Sequence[Cut]) -> Points:
    """Run a model over a data set that its outputs are not for, (inputs, targets) or an iterable of batches.

    Raises:
        InputError: As for `see`, blaming `transfer`.
    """
    pair = isinstance(transfer, (tuple, list)) and len(transfer) == 2 and not is_loader(transfer)
    inputs, targets = transfer if pair else (transfer, None)
    try:
        reject_one_pass(inputs)
        inputs = for_model(model, inputs)
        with untouched(model, inputs):
            trace(model, inputs)  # which says so where the model does not run on them
        return see(model, inputs, targets, cuts, own=False)
    except InputError as error:
        raise under(error, "transfer") from None


def _checked(y: Tensor, inputs: int) -> Tensor:
    """Return targets that heads can learn; class ids are numbered anew, without those that do not occur."""
    if inputs < LEAST:
        raise Code.EMPTY(f"inputs: {inputs} are too few to hold some out; pass {LEAST} or more")
    if y.is_floating_point():
        if not bool(y.isfinite().all()):
            raise Code.NOT_FINITE("targets: not all finite; pass numbers")
    elif int(y.min()) < 0:
        raise InputError(f"targets: class id {int(y.min())}; drop points without a class")
    else:
        y = torch.unique(y, return_inverse=True)[1]
    if constant_loss(y) <= 0:
        raise Code.CONSTANT("targets: all equal, so that there is nothing to learn; pass targets that vary")
    return y


class _Seen:
    """What a model got and returned, batch by batch.

    Args:
        cuts: As for `see`.
        own: As for `see`.

    Attributes:
        groups: For each batch, (k,) number of the input that a point belongs to.
        given: For each batch, (k, d) its inputs as features, if they are one floating-point tensor.
        batch: The inputs of the first batch.
    """

    def __init__(self, cuts: Sequence[Cut], own: bool) -> None:
        axes = [cut.reading.axis for cut in cuts if cut.reading.name == "positions"]
        known = [axis for axis in axes if axis is not None]
        self._axis = known[-1] if known else None  # of features, where positions are points
        self._own, self._judged, self._range = own, [], (math.inf, -math.inf)
        self._n, self._finite = 0, True
        self.groups: list[Tensor] = []
        self.given: list[Tensor] = []
        self.batch: Any = None

    def see(self, x: Any, y: Any, output: Any) -> None:
        """Take in a batch: inputs, targets or None, and what the model returned."""
        if y is None:
            return
        n, y = count(x), as_numbers(y)
        self.batch = x if self.batch is None else self.batch
        if y.is_complex():
            raise unsupported("targets", y.dtype, "real and imaginary part as two columns")
        value = tensor_of(output, "model", "return the predictions").detach().cpu()
        shape, positions = tuple(value.shape), ()
        if self._axis is not None:
            axis = self._classes_on(value, y)
            positions = tuple(value.movedim(axis, -1).shape[1:-1])
            label, kept = Layout(n, positions, "positions", channel_first=axis == 1).label(y)
            value = value.movedim(axis, -1).flatten(0, -2)
        else:
            label, kept = y, None
        kept = slice(None) if kept is None else kept
        self.groups.append(torch.arange(self._n, self._n + n).repeat_interleave(math.prod(positions))[kept])
        self._n += n
        tensors = tensors_of(x)
        if len(tensors) == 1 and tensors[0].is_floating_point():
            rows = self._rows(tensors[0].detach().cpu(), positions)
            self.given += [] if rows is None else [rows[kept]]
        if self._own and len(label):
            self._judge(value[kept], label, shape, tuple(y.shape))

    def scores(self, y: Tensor) -> Float64[np.ndarray, " n"]:
        """Return the score of each point, as for `point_scores`.

        Args:
            y: All targets.

        Raises:
            InputError: If outputs are not finite, or those of logits where scores are R^2.
        """
        if not self._finite:
            raise Code.NOT_FINITE("model: its outputs are not all finite; pass a trained network that works")
        judged = np.concatenate(self._judged)
        if not y.is_floating_point():
            return judged
        scores = 1 - judged / constant_loss(y)
        low, high = self._range
        if scores.mean() < 0 and (low < 0 or high > 1) and bool(((y == 0) | (y == 1)).all()):
            raise InputError(
                f"targets: 0 and 1, which the model's outputs, {low:.3g} to {high:.3g}, tell worse than their mean "
                "does; if they are logits, pass nn.Sequential(model, nn.Sigmoid())"
            )
        return scores

    def _classes_on(self, value: Tensor, y: Tensor) -> int:
        """Return the axis of an output that is not one of positions.

        Raises:
            InputError: If there are no positions, or others than of the targets.
        """
        shape, likely = tuple(value.shape), 1 if self._axis == 1 else -1
        if len(shape) < 3:
            raise InputError(
                f"reading: 'positions', and the model returns {shape}, nothing for each position; pass 'mean', "
                "'flatten', 'cls' or 'last'"
            )
        if y.is_floating_point() or y.ndim < 2:
            return likely
        fitting = [axis for axis in (1, -1) if tuple(value.movedim(axis, -1).shape[1:-1]) == tuple(y.shape[1:])]
        if not fitting:
            raise Code.SHAPE(f"targets: {tuple(y.shape)} class ids, but the model returns {shape}; pass one each")
        return likely if likely in fitting else fitting[0]

    def _rows(self, x: Tensor, positions: tuple[int, ...]) -> Tensor | None:
        """Return an input's own features (k, d) of each point; None if it has other positions than the output."""
        if self._axis is None:
            return x.flatten(1)
        if tuple(x.shape[1:]) == positions:
            return x.reshape(-1, 1)
        x = x.movedim(1 if self._axis == 1 else -1, -1) if x.ndim > 2 else x
        return x.flatten(0, -2) if tuple(x.shape[1:-1]) == positions else None

    def _judge(self, value: Tensor, y: Tensor, shape: tuple[int, ...], targets: tuple[int, ...]) -> None:
        self._finite &= bool(value.isfinite().all())
        if y.is_floating_point():
            if value.numel() != y.numel():
                raise Code.SHAPE(f"targets: {targets} floats, but the model returns {shape}; pass targets like these")
        elif value.ndim != 2 or value.shape[1] <= int(y.max()):
            alone = value.numel() == len(y) and int(y.max()) < 2
            remedy = (
                "pass them as floats, and a model that ends in a sigmoid" if alone else "it needs one output per class"
            )
            raise Code.SHAPE(f"targets: class ids up to {int(y.max())}, but the model returns {shape}; {remedy}")
        if y.is_floating_point():
            self._judged.append(point_losses(value.double(), y.double()).numpy())
            self._range = min(self._range[0], float(value.min())), max(self._range[1], float(value.max()))
        else:
            self._judged.append((value.argmax(dim=1) == y).double().numpy())
