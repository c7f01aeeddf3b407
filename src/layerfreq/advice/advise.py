"""Advice on a trained network, from fresh heads at its cuts, what the layers below cost, and frequencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.advice.costs import Cost, costs
from layerfreq.advice.depth import judge_depth, medians_of_parts, resolved
from layerfreq.advice.heads import KINDS, Held, coordinates, held_out, point_scores
from layerfreq.advice.result import Advice, Gap
from layerfreq.data.inputs import tensors_of
from layerfreq.errors import InputError, blame, shown
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.measure import spectrum
from layerfreq.measure.options import as_seed
from layerfreq.network.cuts import Cut
from layerfreq.network.extract import collect
from layerfreq.network.find import choose_layers, reject_one_pass, unwrap
from layerfreq.network.labelled import for_model
from layerfreq.network.naming import Layers
from layerfreq.network.outputs import tensor_of
from layerfreq.relearn.predictors import constant_loss
from layerfreq.trace.trace import trace

INPUTS = "inputs"  # the name of cut 0
LEAST = 30  # points, below which a third held out says nothing
ROWS = 1000  # filter centres of the frequencies


@dataclass(frozen=True)
class Points:
    """A data set as a network sees it.

    Attributes:
        features: (n, d) at each cut, input to output.
        targets: (n,) class ids, or (n,) or (n, c) floats.
        outputs: (n, ...) of the whole network.
        batch: The inputs of the first batch.
    """

    features: dict[str, Tensor]
    targets: Tensor
    outputs: Tensor
    batch: Any


def advise(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    *,
    transfer: Any = None,
    layers: Layers = None,
    reading: Any = "mean",
    tolerance: float = 0.02,
    seed: int = 0,
    tell: Callable[[int, int, str], Any] | None = None,
) -> Advice:
    """Say where a trained network can be cut, where to take features from, and whether another layer would help.

    At every cut, fresh heads (linear, and with one hidden layer) are trained on the frozen features of two thirds of
    the points, and scored on the last third; so for each third. Score is the accuracy, or R^2 where targets are floats.
    Pass points that the network was *not* trained on, of which it knows the answers by heart, and as many as there are:
    fresh heads have only these to learn from. The model is left bit for bit as it was.

    Args:
        model: A trained module, with one output per class, or outputs of the targets' shape.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with an iterable of batches.
        transfer: Another data set to take features for, (inputs, targets) or an iterable of batches.
        layers: As of `layer_spectra`; None means all hidden layers.
        reading: How outputs with positions become features, as of `layer_spectra`, but not "positions". The mean is
            what an exit of a convolutional network has.
        tolerance: How much lower the score of a head may be than the whole network's, 0 to 1.
        seed: Of the thirds.
        tell: Called before each piece of work with the number done, of all, and what comes.

    Returns:
        `Advice`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Example:
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> found = advise(model, x, y)
        >>> found.exit, list(found.table["layer"])  # an untrained network: a line through the inputs does better
        ('inputs', ['inputs', '1'])
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < 1:
        raise InputError(f"tolerance: {shown(tolerance)} is not at least 0 and below 1; pass such as 0.02")
    if tell is not None and not callable(tell):
        raise InputError(f"tell: {shown(tell)} is not a function; pass tell(done, total, what), or None")
    if "positions" in str(reading.values() if isinstance(reading, Mapping) else reading):
        raise InputError(
            "reading: 'positions' gives a head many rows per point; pass 'mean', 'flatten', 'cls' or 'last'"
        )
    seed, model = as_seed(seed), unwrap(model)
    tell = tell or (lambda done, total, what: None)
    tell(0, 0, "looking at the layers")
    inputs = for_model(model, inputs)
    with untouched(model, inputs):
        cuts = choose_layers(model, inputs, layers, reading).layers
    points = see(model, inputs, targets, cuts)
    _check_outputs(points)
    other = None if transfer is None else _transferred(model, transfer, cuts)
    if other is not None and INPUTS not in other.features:
        points.features.pop(INPUTS, None)
    names = list(points.features)
    total = len(names) * (1 if other is None else 2) + 1
    cost, parameters = costs(model, points.batch, [cut.name for cut in cuts])
    cost[INPUTS] = Cost(0.0, 0)
    y, constant = points.targets, constant_loss(points.targets)
    network = point_scores(points.outputs, y, constant)
    rows, parts = [], []
    for done, name in enumerate(names, start=1):
        tell(done, total, name)
        with blame(name):
            features = points.features[name]
            medians, ours = _frequencies(features, y, seed)
            x = coordinates(features)
            heads = {kind: held_out(x, y, kind, seed) for kind in KINDS}
        if name != INPUTS:  # whether a layer pays is asked of layers
            parts.append(ours)
        row: dict[str, Any] = {
            "cut": done - (INPUTS in names),
            "layer": name,
            "dimension": features.shape[1],
            **medians,
        }
        for kind, held in heads.items():
            row |= _head(kind.partition("-")[0], held, network)
        known = cost.get(name, Cost(float("nan"), 0))
        rows.append({**row, "time": known.time, "parameters": known.parameters})
    if other is not None:
        _add_transfer(rows, other, seed, lambda at, name: tell(len(names) + 1 + at, total, f"transfer: {name}"))
    import numpy as np
    import pandas as pd

    depth = judge_depth(
        [cut.name for cut in cuts], np.array(parts).T if len({len(one) for one in parts}) == 1 else np.empty((0, 0))
    )
    measure = "R2" if y.is_floating_point() else "accuracy"
    return Advice(pd.DataFrame(rows), measure, float(network.mean()), parameters, len(y), float(tolerance), depth)


def see(model: nn.Module, inputs: Any, targets: Any, cuts: Sequence[Cut]) -> Points:
    """Run a model over a data set, once.

    Raises:
        InputError: If targets are missing, few, all equal or not finite.
    """
    reject_one_pass(inputs)
    given: list[Tensor] = []
    outputs: list[Tensor] = []
    batch: list[Any] = []

    def keep(x: Any, y: Any, output: Any) -> None:
        if not batch:
            batch.append(x)
        tensors = tensors_of(x)
        if len(tensors) == 1 and tensors[0].is_floating_point():
            given.append(tensors[0].detach().cpu().flatten(1))
        outputs.append(tensor_of(output).detach().cpu().clone())

    features, labels = collect(model, inputs, targets, cuts, None, keep)
    if not labels:
        raise InputError("targets: none, and heads need them; pass one for each input")
    y = next(iter(labels.values())).cpu()
    if y.is_complex():
        raise InputError(f"targets: {y.dtype} is not supported; pass real and imaginary part as two columns")
    y = y if y.is_floating_point() else y.long()
    if len(y) < LEAST:
        raise InputError(f"inputs: {len(y)} points are too few to hold some out; pass {LEAST} or more")
    if y.is_floating_point() and not bool(y.isfinite().all()):
        raise InputError("targets: not all finite; pass numbers")
    if not y.is_floating_point() and int(y.min()) < 0:
        raise InputError(f"targets: class id {int(y.min())}; drop points without a class")
    if constant_loss(y) <= 0:
        raise InputError("targets: all equal, so that there is nothing to learn; pass targets that vary")
    widths = {part.shape[1:] for part in given}
    wrong = sum(int((~part.isfinite()).any(dim=1).sum()) for part in given)
    if wrong:
        raise InputError(f"inputs: NaN or infinite in {wrong} of {len(y)} points; clean or drop them")
    first = {INPUTS: torch.cat(given)} if len(widths) == 1 else {}
    return Points({**first, **{cut.name: features[cut.name].cpu() for cut in cuts}}, y, torch.cat(outputs), batch[0])


def _check_outputs(points: Points) -> None:
    y, shape = points.targets, tuple(points.outputs.shape)
    if not bool(points.outputs.isfinite().all()):
        raise InputError("model: its outputs are not all finite; pass a trained network that works")
    if y.is_floating_point():
        if points.outputs.numel() != y.numel():
            raise InputError(
                f"targets: {tuple(y.shape)} floats, but the model returns {shape}; pass targets like these"
            )
    elif len(shape) != 2 or shape[1] <= int(y.max()):
        raise InputError(
            f"targets: class ids up to {int(y.max())}, but the model returns {shape}; it must have one output per class"
        )


def _transferred(model: nn.Module, transfer: Any, cuts: Sequence[Cut]) -> Points:
    """Return another data set as the network sees it; class ids are numbered anew."""
    pair = isinstance(transfer, tuple) and len(transfer) == 2
    inputs, targets = transfer if pair else (transfer, None)
    try:
        reject_one_pass(inputs)
        inputs = for_model(model, inputs)
        with untouched(model, inputs):
            trace(model, inputs)  # which says so where the model does not run on them
        found = see(model, inputs, targets, cuts)
    except InputError as error:
        raise InputError(f"transfer: {error}") from None
    if found.targets.is_floating_point():
        return found
    return Points(found.features, torch.unique(found.targets, return_inverse=True)[1], found.outputs, found.batch)


def _frequencies(features: Tensor, y: Tensor, seed: int) -> tuple[dict[str, float], Any]:
    """Return the medians at three scales, and those of parts of the points at rms scale."""
    rows = ROWS if len(y) > ROWS else None
    found = spectrum(features, y, rows=rows, seed=seed)
    paper = spectrum(features, y, scale="maxabs", rows=rows, seed=seed)
    medians = {"raw": resolved(found), "rms": resolved(found.to_scale("rms")), "maxabs": resolved(paper)}
    return medians, medians_of_parts(features, y, seed)


def _head(name: str, held: Held, network: Any) -> dict[str, float]:
    gap = Gap.of(held.scores, network)
    columns = {name: held.scores.mean(), f"{name}_gap": gap.value, f"{name}_low": gap.low, f"{name}_high": gap.high}
    return {**columns, f"{name}_steps": held.steps}


def _add_transfer(rows: list[dict[str, Any]], other: Points, seed: int, tell: Callable[[int, str], Any]) -> None:
    """Score linear heads on another data set, and compare each cut's with the best one's."""
    held = []
    for at, row in enumerate(rows):
        tell(at, row["layer"])
        with blame(row["layer"]):
            held.append(held_out(coordinates(other.features[row["layer"]]), other.targets, "linear", seed).scores)
    best = max(held, key=lambda scores: scores.mean())
    for row, scores in zip(rows, held, strict=True):
        gap = Gap.of(scores, best)
        row |= {"transfer": scores.mean(), "transfer_gap": gap.value}
        row |= {"transfer_low": gap.low, "transfer_high": gap.high}
