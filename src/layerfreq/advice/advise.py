"""Advice on a trained network, from fresh heads at its cuts, what the layers below cost, and frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from layerfreq.advice.cells import at_cut, row_of, transferred
from layerfreq.advice.costs import Cost, costs
from layerfreq.advice.depth import judge_depth
from layerfreq.advice.kept import Arrays, Kept
from layerfreq.advice.points import INPUTS, Points, see, see_other
from layerfreq.advice.result import Advice
from layerfreq.errors import is_not
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.options import as_seed
from layerfreq.network.cuts import Cut
from layerfreq.network.find import choose_layers, unwrap
from layerfreq.network.labelled import for_model
from layerfreq.network.naming import Layers


@torch.inference_mode(False)  # whatever the caller has: heads are trained, and `split` follows gradients
@torch.enable_grad()
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
    out: Any = None,
    tell: Callable[[int, int, str], Any] | None = None,
) -> Advice:
    """Find where a trained network can be cut, where to take features from, and whether another layer would help.

    At every cut, fresh heads (linear, and with one hidden layer) are trained on the frozen features of two thirds of
    the points and scored on the rest, in three-fold cross-validation. The score is the accuracy, or R^2 for float
    targets. Pass points that the network was *not* trained on, since it has memorised those, and as many as you can:
    fresh heads have only these to learn from. The model is left unchanged, bit for bit.

    Args:
        model: A trained module, with one output per class, or outputs of the targets' shape.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with an iterable of batches.
        transfer: Another data set to find features for, (inputs, targets) or an iterable of batches.
        layers: As for `layer_spectra`; None means all hidden layers.
        reading: How outputs with positions become features, as for `layer_spectra`. The mean is usual for exits of
            convolutional networks. "positions" scores a head at each position, for models that predict something for
            each pixel or token: targets (n, t) or (n, h, w), -100 where there is none. All positions of an input are
            held out together, and intervals are over inputs.
        tolerance: How much lower the score of a head may be than the whole network's, 0 to 1.
        seed: Seed for the folds.
        out: A folder for results per cut, where a killed call resumes when repeated; None keeps none.
        tell: Called before each piece of work with the number done, the total, and what comes next.

    Returns:
        `Advice`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Examples:
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> found = advise(model, x, y)
        >>> found.exit, list(found.table["layer"])  # an untrained network: a line through the inputs does better
        ('inputs', ['inputs', '1'])
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < 1:
        raise is_not("tolerance", tolerance, "at least 0 and below 1", "such as 0.02")
    if tell is not None and not callable(tell):
        raise is_not("tell", tell, "a function", "tell(done, total, what), or None")
    seed, model, kept = as_seed(seed), unwrap(model), Kept(out)
    tell = tell or (lambda done, total, what: None)
    tell(0, 0, "looking at the layers")
    inputs = for_model(model, inputs)
    with untouched(model, inputs):
        cuts = choose_layers(model, inputs, layers, reading).layers
    points = see(model, inputs, targets, cuts)
    other = None if transfer is None else see_other(model, transfer, cuts)
    if other is not None and INPUTS not in other.features:
        points.features.pop(INPUTS, None)
    names, inner = list(points.features), [cut.name for cut in cuts]
    total = len(names) * (1 if other is None else 2) + 1
    cost, parameters = _costs(model, points, cuts, kept)
    rows: list[dict[str, Any]] = []
    parts: dict[str, np.ndarray] = {}
    for done, name in enumerate(names, start=1):
        tell(done, total, name)
        found = at_cut(points, name, seed, kept)
        parts[name] = found["parts"]
        where = {"cut": done - (INPUTS in names), "layer": name, "dimension": points.features[name].shape[1]}
        rows.append({**where, **row_of(found, points), "time": cost[name].time, "parameters": cost[name].parameters})
    if other is not None:
        more = transferred(
            other, names, seed, kept, lambda at, name: tell(len(names) + 1 + at, total, f"transfer: {name}")
        )
        rows = [{**row, **its} for row, its in zip(rows, more, strict=True)]
    import pandas as pd

    return Advice(
        table=pd.DataFrame(rows),
        measure=points.measure,
        network=float(points.scores.mean()),
        constant=points.constant,
        parameters=parameters,
        points=len(points.targets),
        inputs=points.inputs,
        tolerance=float(tolerance),
        depth=judge_depth(inner, np.array([parts[name] for name in inner]).T),  # of layers: whether one pays is asked
        transfer_measure=None if other is None else other.measure,
    )


def _costs(model: nn.Module, points: Points, cuts: Sequence[Cut], kept: Kept) -> tuple[dict[str, Cost], int]:
    """Return what lies below each cut and the network's number of parameters; timed once for all calls that resume."""

    def timed() -> Arrays:
        found, whole = costs(model, points.batch, layers, gradients=any(cut.gradients for cut in cuts))
        return {
            "time": np.array([found[layer].time for layer in layers]),
            "parameters": np.array([*(found[layer].parameters for layer in layers), whole]),
        }

    layers = [cut.name for cut in cuts]
    key = kept.key(layers, sum(p.numel() for p in model.parameters()), *points.features.values())
    found = kept.get("time", key, timed)
    *sizes, whole = found["parameters"].tolist()
    known = map(Cost, found["time"].tolist(), sizes)
    return {INPUTS: Cost(0.0, 0), **dict(zip(layers, known, strict=True))}, whole
