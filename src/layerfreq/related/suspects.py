"""Suspect labels: points whose targets have high frequency over a layer's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerfreq.data.curves import ReadOnly
from layerfreq.data.source import InMemory
from layerfreq.data.targets import read_targets
from layerfreq.data.validation import Scale, as_cutoffs, as_features, as_scale
from layerfreq.engines import Points, enough_memory, read_points
from layerfreq.engines.rounding import rounding_alone
from layerfreq.errors import Code
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.options import as_seed
from layerfreq.plots import axes_for

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TRIED = 24  # cutoffs, where none is given
ROWS = 1000  # points on which they are tried
AT_ONCE = 1 << 22  # distances held at a time
UNITS = {"raw": "1/delta", "rms": "1/delta at unit RMS", "maxabs": "1/delta at maxabs scale"}


@dataclass(frozen=True, eq=False, repr=False)
class Suspects(ReadOnly):
    """How badly each point's target fits those of its neighbours.

    Attributes:
        score: (n,) float64, |y_i - p_i|^2, where p_i is the filter's mean of the other points' targets. For class ids y
            is one-hot, and the score ranges from 0 to 2.
        chance: (n,) float64, the score that the point would have, on average, with another point's target.
        residual: (n,) float64, |y_i - y_i^low|^2 with the filter of `spectrum`, which includes the point itself.
        low: (n, c) float64, p_i; for class ids, shares of classes.
        classes: (c,) int64, the class ids of the columns of `low`; None if targets are floats.
        neighbours: (n,) float64, the effective number of other points in the window (Kish).
        inv_delta: The cutoff 1/delta.
        chosen: Whether it was chosen automatically, as the one with the lowest mean score.
        scale: Scale of the features, see `spectrum`.

    Examples:
        >>> found = suspects([[0.0], [0.1], [0.2], [5.0], [5.1]], [0, 1, 0, 1, 1])
        >>> int(found.order[0]), int(found.suggested[1])
        (1, 0)
        >>> list(found.to_frame())
        ['score', 'chance', 'residual', 'neighbours', 'rank', 'suggested']
        >>> ax = found.plot()
    """

    score: Float64[np.ndarray, " n"]
    chance: Float64[np.ndarray, " n"]
    residual: Float64[np.ndarray, " n"]
    low: Float64[np.ndarray, "n c"]
    classes: Int64[np.ndarray, " c"] | None
    neighbours: Float64[np.ndarray, " n"]
    inv_delta: float
    chosen: bool
    scale: Scale

    @property
    def order(self) -> Int64[np.ndarray, " n"]:
        """(n,) indices of the points, the most suspicious first; `order[::-1]` starts with the lowest frequencies."""
        return np.argsort(-self.score, kind="stable")

    @property
    def worse(self) -> int:
        """Number of points whose target fits worse than another point's would."""
        return int((self.score > self.chance).sum())

    @property
    def suggested(self) -> Any:
        """(n,) for class ids, the class that the other points suggest; for floats (n, c), their mean."""
        return self.low if self.classes is None else self.classes[self.low.argmax(axis=1)]

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame, one row per point in the order given: score, chance, residual, neighbours, rank."""
        import pandas as pd

        rank = np.empty(len(self.score), dtype=np.int64)
        rank[self.order] = np.arange(len(rank))
        names = ("score", "chance", "residual", "neighbours")
        frame = pd.DataFrame({**{name: getattr(self, name).copy() for name in names}, "rank": rank})
        return frame if self.classes is None else frame.assign(suggested=self.suggested)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the scores by rank, and chance for the same points.

        Args:
            ax: Axes to draw on; None makes a new figure.
        """
        ax = axes_for(ax, 5.5, 3.6)
        rank, order = np.arange(1, len(self.score) + 1), self.order
        ax.plot(rank, self.chance[order], ".", color="0.6", markersize=2, label="by chance (another point's target)")
        ax.plot(rank, self.score[order], color="#b2182b", label="score")
        ax.axvline(self.worse + 0.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xlabel="points, the most suspicious first", ylabel="squared residual", xscale="log", ylim=(0, None))
        ax.legend(fontsize="small", frameon=False)
        return ax

    def __repr__(self) -> str:
        how = "the best of those tried" if self.chosen else "as given"
        first = ", ".join(map(str, self.order[:8]))
        return (
            f"Suspects among {len(self.score)} points ({self.scale} scale)\n"
            f"  {UNITS[self.scale]}: {self.inv_delta:.4g}, {how}; {np.median(self.neighbours):.3g} others in a window\n"
            f"  score       {self.score.mean():.4g} on average, by chance {self.chance.mean():.4g}\n"
            f"  worse       {self.worse} points fit worse than another point's target would\n"
            f"  first       {first}"
        )


@own_settings()
def suspects(features: Any, targets: Any, inv_delta: Any = None, *, scale: Scale = "raw", seed: int = 0) -> Suspects:
    """Rank points by how much their target disagrees with those of their neighbours: wrong labels stand out.

    The filter of `spectrum` averages each target over its neighbourhood, y_i^low; the residual y_i - y_i^low is large
    if a label disagrees with those around it. Points are ranked by the residual against only the *other* points' mean
    p_i: y_i - y_i^low = (1 - w_ii) (y_i - p_i), where the weight w_ii of a point in its own window would hide isolated
    points.

    Args:
        features: (n, ...) tensor or array, of a layer or of the inputs.
        targets: (n,) integer class ids, or (n,) or (n, c) floats.
        inv_delta: The cutoff 1/delta, where delta is the filter's variance. None chooses, of 24 cutoffs, the one at
            which other points predict the given targets best.
        scale: Scale of the features, see `spectrum`.
        seed: Seed for the points on which cutoffs are tried, if there are more than a thousand.

    Returns:
        `Suspects`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Examples:
        >>> x = torch.cat([torch.zeros(50, 1), torch.ones(50, 1)]) + torch.linspace(0, 0.1, 100)[:, None]
        >>> labels = torch.arange(100) // 50
        >>> labels[7] = 1  # wrong
        >>> int(suspects(x, labels).order[0])
        7
    """
    x, seed = as_features(features), as_seed(seed)
    read = read_targets(targets, len(x))
    as_scale(scale)
    if len(x) < 3:
        raise Code.EMPTY(f"features: {len(x)} points have no surroundings; pass three or more")
    classes = torch.unique(read) if read.ndim == 1 else None
    y = read.double() if classes is None else (read[:, None] == classes).double()
    if bool((y == y[0]).all()):
        raise Code.CONSTANT("targets: all equal, so that none stands out; pass targets that vary")
    with torch.no_grad(), enough_memory(len(x), x.shape[1]):
        points = read_points(InMemory(x.cpu()), scale)
        gain = float(points.gain[0])
        unit = {"raw": gain * gain, "rms": points.spread or 1.0, "maxabs": 1.0}[scale]
        if points.radius == 0 or points.coincident == len(x):
            raise Code.CONSTANT(f"features: all {len(x)} points are in one place; pass features that vary")
        if points.rounded:
            raise Code.CONSTANT(f"features: {rounding_alone(x.dtype)}")
        cutoff = _chosen(points, y, seed) if inv_delta is None else _given(inv_delta) / unit
        low, own, others = torch.empty_like(y), torch.empty(len(x)).double(), torch.empty(len(x)).double()
        for rows, squared in _distances(points, torch.arange(len(x))):
            low[rows], own[rows], others[rows] = _means(squared, y, cutoff)
    score = (y - low).square().sum(dim=1)
    chance = y.square().sum(dim=1).mean() - 2 * low @ y.mean(dim=0) + low.square().sum(dim=1)
    return Suspects(
        score=score.numpy(),
        chance=chance.numpy(),
        residual=(score * (1 - own).square()).numpy(),
        low=low.numpy(),
        classes=None if classes is None else classes.numpy(),
        neighbours=others.numpy(),
        inv_delta=cutoff * unit,
        chosen=inv_delta is None,
        scale=scale,
    )


def _given(inv_delta: Any) -> float:
    found = as_cutoffs([inv_delta] if isinstance(inv_delta, (int, float)) else inv_delta)
    if len(found) != 1:
        raise Code.SHAPE(f"inv_delta: {len(found)} cutoffs; pass one, or None for the best of some")
    return float(found[0])


def _distances(points: Points, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over rows and their squared distances to all points, infinite to themselves."""
    every = points.block(slice(None))
    size = every.square().sum(dim=1)
    for rows in index.split(max(1, AT_ONCE // len(every))):
        squared = torch.addmm(size + size[rows, None], every[rows], every.T, alpha=-2).clamp_(min=0)
        squared[torch.arange(len(rows)), rows] = torch.inf
        yield rows, squared


def _means(squared: Tensor, y: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the others' mean target (r, c), the point's weight in its own window, and how many others there are.

    Weights are taken relative to the nearest point's, so that narrow windows have one.
    """
    nearest = squared.amin(dim=1, keepdim=True)
    weight = torch.exp((squared - nearest) * (-cutoff / 2))
    total = weight.sum(dim=1)
    own = 1 / (1 + total * torch.exp(nearest[:, 0] * (-cutoff / 2)))
    return weight @ y / total[:, None], own, total.square() / weight.square().sum(dim=1)


def _chosen(points: Points, y: Tensor, seed: int) -> float:
    """Return the cutoff at which the others' mean is nearest to the points' own targets, on average."""
    n = len(points)
    some = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:ROWS]
    cutoffs, total = None, torch.zeros(TRIED, dtype=torch.float64)
    for rows, squared in _distances(points, some):
        if cutoffs is None:
            far = float(squared[squared.isfinite()].median())
            near = squared.amin(dim=1)
            near = float(near[near > 1e-12 * far].median()) if bool((near > 1e-12 * far).any()) else far
            cutoffs = np.geomspace(0.5 / far, 8 / min(near, far), TRIED)
        for at, cutoff in enumerate(cutoffs):
            total[at] += (y[rows] - _means(squared, y, float(cutoff))[0]).square().sum()
    assert cutoffs is not None
    return float(cutoffs[int(total.argmin())])
