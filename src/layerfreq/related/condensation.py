"""Condensation: neurons of a layer whose input weights come to point in few directions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerfreq.data.arraylike import as_frame
from layerfreq.data.validation import as_features
from layerfreq.errors import Code, naming, wrong_length
from layerfreq.plots import axes_for, style
from layerfreq.related.kept import KeptWeights
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("neurons", "silent", "inputs", "similarity", "chance", "directions", "chance_directions")


def neuron_similarity(weight: Any, bias: Any = None) -> Float64[np.ndarray, "m m"]:
    """Return the cosines between neurons' input weights, w_i.w_j / (|w_i| |w_j|).

    Args:
        weight: (m, ...) of m neurons or channels, each flattened.
        bias: (m,) or None; counts as one more input weight, of a constant input, as in the published definition.

    Returns:
        (m', m') float64 with ones on the diagonal, for the m' neurons whose weights are not all zero.

    Raises:
        InputError: If the weights are not finite numbers, or the bias has another length.

    Examples:
        >>> neuron_similarity([[1.0, 0.0], [2.0, 0.0], [0.0, -3.0]]).round(6)
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])
    """
    rows = _rows(weight, bias)
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    size = torch.linalg.vector_norm(rows, dim=1)
    some = rows[size > 0] / size[size > 0, None]
    return (some @ some.T).clamp_(-1, 1).fill_diagonal_(1.0).numpy()


def neuron_condensation(weight: Any, bias: Any = None) -> dict[str, float]:
    """Measure in how few directions the input weights of a layer's neurons point.

    Args:
        weight: (m, ...) of m neurons or channels, each flattened.
        bias: (m,) or None; see `neuron_similarity`.

    Returns:
        `neurons` m; `silent`, how many have zero weights and are left out; `inputs` d; `similarity`, the mean of
        |cosine| over pairs; `chance`, its expectation for random directions in d dimensions, Gamma(d/2) / (sqrt(pi)
        Gamma((d+1)/2)); `directions`, the effective number m^2 / sum of cosine^2 over all pairs, 1 if all are parallel
        or opposite; `chance_directions`, m / (1 + (m - 1) / d).

    Raises:
        InputError: See `neuron_similarity`; or if fewer than two neurons have weights.

    Examples:
        >>> neuron_condensation([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [0.0, 4.0]])["directions"]
        2.0
    """
    rows = _rows(weight, bias)
    cosine = neuron_similarity(weight, bias)
    m, d = len(cosine), rows.shape[1]
    if m < 2:
        raise Code.EMPTY(f"weight: {m} of {len(rows)} neurons have weights; pass two or more that are not all zero")
    pairs = np.abs(cosine[np.triu_indices(m, 1)])
    return {
        "neurons": float(len(rows)),
        "silent": float(len(rows) - m),
        "inputs": float(d),
        "similarity": float(pairs.mean()),
        "chance": math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi),
        "directions": m * m / float(np.square(cosine).sum()),
        "chance_directions": m / (1 + (m - 1) / d),
    }


def run_condensation(run: Run | str | Path, model: nn.Module | None = None) -> pd.DataFrame:
    """Measure the condensation of every layer at every kept step of a run.

    Trained from small initial weights, the neurons of a layer were found to align in a few directions: Luo, Xu, Ma &
    Zhang, "Phase Diagram for Two-layer ReLU Neural Networks at Infinite-width Limit" (JMLR 2021); Xu, Zhang & Zhou, "An
    overview of condensation phenomenon in deep learning" (arXiv 2504.09484).

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        model: A module with the architecture of the run, which gives the order of layers; None orders them by name.

    Returns:
        One row per layer and step: step, layer, depth, and the results of `neuron_condensation` for each layer's
        `weight` and `bias`. Layers whose weight has fewer than two axes are left out, as are steps at which fewer than
        two neurons of a layer have weights.

    Raises:
        InputError: If the run kept no weights, or no layer has such a weight.

    Examples:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> monitor = Monitor(model, x, torch.sin(4 * x), run="a run", checkpoints=True)
        >>> for step in range(3):
        ...     measured = monitor.measure(step)
        ...     for p in model.parameters():
        ...         p.data *= 0.5
        >>> run_condensation("a run")[["step", "layer", "neurons", "inputs"]]
           step layer  neurons  inputs
        0     0     0        8       2
        1     1     0        8       2
        2     2     0        8       2
    """
    import pandas as pd

    kept, rows = KeptWeights(run, model), []
    for step in kept.steps:
        for depth, (layer, weights) in enumerate(kept.at(step).items(), start=1):
            weight, bias = weights.get("weight"), weights.get("bias")
            if weight is None or weight.ndim < 2 or len(weight) < 2:
                continue
            if int((_rows(weight, bias) != 0).any(dim=1).sum()) > 1:
                rows.append({"step": step, "layer": layer, "depth": depth, **neuron_condensation(weight, bias)})
    if not rows:
        raise Code.MISSING(f"run: no layer of {str(kept.run.path)!r} has input weights of two neurons; check the run")
    return pd.DataFrame(rows).astype({"neurons": int, "silent": int, "inputs": int})


def plot_condensation(frame: pd.DataFrame, ax: Axes | None = None, unit: str = "step") -> Axes:
    """Draw the mean |cosine| of every layer over training; chance is dashed.

    Args:
        frame: As from `run_condensation`.
        ax: Axes to draw on; None makes a new figure.
        unit: What a step is called.

    Examples:
        >>> steps = {"step": [0, 100], "layer": "fc", "depth": 1, "similarity": [0.2, 0.9], "chance": 0.2}
        >>> ax = plot_condensation(pd.DataFrame(steps))
    """
    columns = ("step", "layer", "depth", "similarity", "chance")
    frame, ax = as_frame(frame, "frame", columns, "what run_condensation returns"), axes_for(ax, 5.5, 3.6)
    layers: list[Any] = list(frame.groupby(["depth", "layer"]))
    for i, ((_, layer), part) in enumerate(layers, start=1):
        look = style(i, len(layers))
        ax.plot(part["step"], part["similarity"], label=str(layer), markersize=4, **look)
        ax.axhline(part["chance"].iloc[0], color=look["color"], linestyle="--", linewidth=0.7)
    ax.plot([], [], color="0.45", linestyle="--", linewidth=0.7, label="by chance")
    ax.set(xlabel=unit, ylabel="mean |cosine| of input weights", ylim=(0, 1.03))
    ax.legend(fontsize="small", frameon=False)
    return ax


def _rows(weight: Any, bias: Any) -> Tensor:
    """Return (m, d) float64 input weights, the bias as the last of them."""
    with naming("weight"):
        rows = as_features(weight).cpu().double()
    if bias is None:
        return rows
    with naming("bias"):
        more = as_features(bias).cpu().double()
    if more.shape != (len(rows), 1):
        raise wrong_length("bias", len(more), len(rows), "neurons")
    return torch.cat([rows, more], dim=1)
