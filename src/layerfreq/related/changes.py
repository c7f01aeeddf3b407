"""At which frequencies a step, a loss spike or fine-tuning changed the function."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerfreq.data.curves import ReadOnly
from layerfreq.data.validation import Curve, as_features
from layerfreq.errors import Code, is_not, naming, none_given
from layerfreq.measure.options import as_seed
from layerfreq.network.find import unwrap
from layerfreq.plots import axes_for
from layerfreq.related.kept import load_kept
from layerfreq.related.outputs import network_outputs
from layerfreq.response import error_spectrum
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST = 1000  # of shuffles and of random steps


@dataclass(frozen=True, eq=False, repr=False)
class Change(ReadOnly):
    """The energy of after - before by angular frequency, with chance and controls.

    Energies are variances over the points, averaged over columns: the mean over points is subtracted from every column;
    its share of the change is `shift`.

    Attributes:
        k: (m,) float64, increasing angular frequencies, in radians per unit of the inputs.
        before: (m,) float64, energy of the outputs before, by band.
        change: (m,) float64, energy of after - before, by band.
        shuffled: (s, m) float64, energy of the change with its points shuffled, one row per shuffle: chance.
        random: (r, m) float64, energy of the changes made by random parameter steps of the same size; None without any.
        shift: Share of the mean squared change that is the same for all points.
        cutoff: The k at or below which frequencies count as low.
        method: "grid", "scattered", "filter" or "projection".
        n: Number of points.

    Examples:
        >>> t = torch.arange(64.0) / 64
        >>> found = output_change(t, torch.sin(2 * torch.pi * t), 2 * torch.sin(2 * torch.pi * t))
        >>> found  # doctest: +ELLIPSIS
        Change at 64 points (grid), low: k <= 6.283 radians per unit of the inputs
          size        1 of the outputs' own, without a constant shift (0%)
          low share   1.000 of the change, 1.000 of the function before
          by chance   ...
        >>> ax = found.plot()
        >>> list(found.to_frame())
        ['k', 'before', 'change', 'shuffled']
    """

    k: Curve
    before: Curve
    change: Curve
    shuffled: Float64[np.ndarray, "s m"]
    random: Float64[np.ndarray, "r m"] | None
    shift: float
    cutoff: float
    method: str
    n: int

    @property
    def share(self) -> float:
        """Share of the change's energy at or below the cutoff; NaN if all of it counts as noise ("scattered")."""
        return float(self._shares(self.change)[0])

    @property
    def share_before(self) -> float:
        """Share of the energy of the outputs before at or below the cutoff."""
        return float(self._shares(self.before)[0])

    @property
    def chance(self) -> tuple[float, float, float]:
        """Mean, minimum and maximum share of the shuffled change."""
        return _spread(self._shares(self.shuffled))

    @property
    def control(self) -> tuple[float, float, float] | None:
        """Mean, minimum and maximum share for random parameter steps of the same size; None without any."""
        return None if self.random is None else _spread(self._shares(self.random))

    @property
    def size(self) -> float:
        """Size of the change: sqrt(energy of after - before / energy of before), without the means."""
        return float(np.sqrt(self.change.sum() / self.before.sum()))

    def _shares(self, energy: np.ndarray) -> np.ndarray:
        """Return the share of each row's energy at or below the cutoff; what noise left below zero counts as zero."""
        rows = np.maximum(np.atleast_2d(energy), 0)
        low, whole = rows[:, self.k <= self.cutoff * (1 + 1e-12)].sum(axis=1), rows.sum(axis=1)
        return np.divide(low, whole, out=np.full(len(rows), np.nan), where=whole > 0)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame, one row per band: k, before, change, shuffled and random (means)."""
        import pandas as pd

        table = {"k": self.k, "before": self.before, "change": self.change, "shuffled": self.shuffled.mean(axis=0)}
        if self.random is not None:
            table["random"] = self.random.mean(axis=0)
        return pd.DataFrame({name: value.copy() for name, value in table.items()})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the share of energy at or below each k: of the change, the function before, chance and control.

        Args:
            ax: Axes to draw on; None makes a new figure.
        """
        ax = axes_for(ax, 5.5, 3.6)
        on = self.k > 0  # where the means were, nothing is
        k = self.k[on]
        for energy, label, color, dash in (
            (self.change, "the change", "#b2182b", "-"),
            (self.before, "the function before", "#2166ac", (0, (6, 1.5))),
            (self.random, "random step of the same size", "#1b7837", (0, (4, 1, 1, 1))),
            (self.shuffled, "by chance (shuffled points)", "0.45", "--"),
        ):
            if energy is None:
                continue
            rows = np.maximum(np.atleast_2d(energy), 0)
            below = (rows.cumsum(axis=1) / rows.sum(axis=1, keepdims=True))[:, on]
            ax.plot(k, below.mean(axis=0), label=label, color=color, linestyle=dash, drawstyle="steps-post")
            if len(below) > 1:
                ax.fill_between(k, below.min(axis=0), below.max(axis=0), color=color, alpha=0.2, lw=0, step="post")
        ax.axvline(self.cutoff, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xlabel="k (radians per unit of the inputs)", ylabel="share of energy at or below k", ylim=(0, 1.03))
        ax.set(xscale="log", xlim=(k[0] / 1.5, k[-1]))
        ax.legend(fontsize="small", frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        return ax

    def __repr__(self) -> str:
        lines = [
            f"Change at {self.n} points ({self.method}), low: k <= {self.cutoff:.4g} radians per unit of the inputs",
            f"  size        {self.size:.3g} of the outputs' own, without a constant shift ({self.shift:.0%})",
            f"  low share   {self.share:.3f} of the change, {self.share_before:.3f} of the function before",
            "  by chance   {:.3f} ({:.3f} .. {:.3f}), points shuffled".format(*self.chance),
        ]
        if self.control is not None:
            lines.append("  control     {:.3f} ({:.3f} .. {:.3f}), random steps of the same size".format(*self.control))
        return "\n".join(lines)


def output_change(
    inputs: Any,
    before: Any,
    after: Any,
    cutoff: float | None = None,
    *,
    others: Sequence[Any] = (),
    frequencies: Any = None,
    method: str = "auto",
    shuffles: int = 10,
    seed: int = 0,
) -> Change:
    """Split the change between two states of a network by frequency over its inputs.

    The change after - before is split as `error_spectrum` splits an error, with `before` as the target. Loss spikes
    were found to change low frequencies, which are quickly learned again (Li, Xu & Zhang, "Loss Spike in Training
    Neural Networks", arXiv 2305.12133).

    Args:
        inputs: (n, ...) tensor or array: where the points are, as for `error_spectrum`.
        before: (n,) or (n, c) floats, outputs of one state.
        after: Outputs of the other state, in the same shape.
        cutoff: The k (radians per unit of the inputs) at or below which frequencies count as low; None takes the
            lowest band at or below which half of the variance of `before` lies.
        others: Further outputs of the same shape, such as those after random parameter steps, as a control.
        frequencies: (m,) increasing, as for `error_spectrum`; None chooses them from the data.
        method: As for `error_spectrum`.
        shuffles: How often the points of the change are shuffled, for chance.
        seed: Seed for the shuffles.

    Returns:
        A `Change`.

    Raises:
        InputError: One line naming the argument, the value and the remedy; also if nothing changed.

    Examples:
        >>> t = torch.arange(64.0) / 64
        >>> low, high = torch.sin(2 * torch.pi * t), torch.sin(2 * torch.pi * 20 * t)
        >>> found = output_change(t, low + high, 1.3 * low + 1.1 * high, cutoff=60.0)  # changes of 0.3 and 0.1
        >>> round(found.share, 4)
        0.9
    """
    shuffles, seed = _count(shuffles, "shuffles"), as_seed(seed)
    states = [_outputs(before, "before"), _outputs(after, "after"), *(_outputs(one, "others") for one in others)]
    for name, one in zip(("after", *["others"] * len(others)), states[1:], strict=True):
        if one.shape != states[0].shape:
            raise Code.SHAPE(f"{name}: shape {tuple(one.shape)}, before has {tuple(states[0].shape)}; pass the same")
    base, change = states[0], states[1] - states[0]
    n, c = base.shape
    whole = float(np.mean(change**2))
    if whole == 0:
        raise Code.CONSTANT("after: the same as before at every point; pass two states that differ")
    mean = change.mean(axis=0)
    shift = float(np.mean(mean**2)) / whole
    if 1 - shift < 1e-20 or float(np.ptp(change, axis=0).max()) <= _rounding(states[:2]):
        raise Code.CONSTANT("after: before plus one constant; pass two states that differ in more than that")
    rng = np.random.default_rng(seed)
    rows = [base, change, *(one - base for one in states[2:])]
    rows += [change[rng.permutation(n)] for _ in range(shuffles)]
    columns = np.concatenate(rows, axis=1)
    columns = columns - columns.mean(axis=0)
    found = error_spectrum(inputs, columns, np.zeros_like(columns), frequencies, method=method)
    energy = found.columns[0].reshape(len(found.k), -1, c).mean(axis=2).T
    if energy[0].max() <= 0 and cutoff is None:
        raise Code.CONSTANT("before: the same at every point, so that half of its variance is nowhere; pass cutoff")
    extra = len(others)
    return Change(
        k=found.k.copy(),
        before=energy[0].copy(),
        change=energy[1].copy(),
        random=energy[2 : 2 + extra].copy() if extra else None,
        shuffled=energy[2 + extra :].copy(),
        shift=shift,
        cutoff=_half(found.k, energy[0]) if cutoff is None else _cutoff(cutoff),
        method=found.method,
        n=n,
    )


def run_change(
    run: Run | str | Path,
    step_a: int,
    step_b: int,
    model: nn.Module,
    inputs: Any,
    cutoff: float | None = None,
    *,
    at: Any = None,
    softmax: bool = False,
    controls: int = 5,
    seed: int = 0,
    **options: Any,
) -> Change:
    """Split the change between two kept checkpoints by frequency, and compare it with random parameter steps.

    A control starts from the parameters at `step_a` and moves each parameter tensor in a random direction, as far as
    training moved it; buffers stay as at `step_a`. What is specific to training shows in how its change differs from
    the controls.

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        step_a: The step before.
        step_b: The step after.
        model: A module with the architecture of the run; its own weights do not matter, and it is left unchanged.
        inputs: (n, ...) what its forward takes, as for `layer_features`.
        cutoff: See `output_change`.
        at: (n, ...) positions of the points, if not `inputs` themselves.
        softmax: Whether to compare class probabilities instead of the outputs.
        controls: Number of random steps; 0 for none.
        seed: Seed for the random steps and the shuffles.
        **options: `frequencies`, `method` and `shuffles` of `output_change`.

    Returns:
        A `Change`.

    Raises:
        InputError: One line; also if the run kept no weights at a step, or they are damaged.

    Examples:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> monitor = Monitor(model, x, torch.sin(4 * x), run="a run", checkpoints=True)
        >>> for step in range(3):
        ...     measured = monitor.measure(step)
        ...     for p in model.parameters():
        ...         p.data *= 0.5
        >>> found = run_change("a run", 0, 2, model, x)
        >>> found.size > 0 and found.control is not None
        True
    """
    run = run if isinstance(run, Run) else Run(run)
    controls, seed = _count(controls, "controls", least=0), as_seed(seed)
    network = copy.deepcopy(unwrap(model))
    if at is None and not isinstance(inputs, (Tensor, np.ndarray)):
        raise none_given("at", "at=(n, d), since inputs that are no tensor or array do not say where the points are")
    before, (a, buffers) = _state(run, step_a, network, inputs, softmax)
    after, (b, _) = _state(run, step_b, network, inputs, softmax)
    load_kept(run, step_a, network)
    random = torch.Generator().manual_seed(seed)
    others = []
    for _ in range(controls):
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(_stepped(a[name], b[name], random).to(value))
            for name, value in network.named_buffers():
                value.copy_(buffers[name].to(value))
        others.append(network_outputs(network, inputs, softmax))
    where = inputs if at is None else at
    return output_change(where, before, after, cutoff, others=others, seed=seed, **options)


def _state(run: Run, step: int, network: nn.Module, inputs: Any, softmax: bool) -> tuple[np.ndarray, Any]:
    load_kept(run, step, network)
    parameters = {name: value.detach().clone() for name, value in network.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in network.named_buffers()}
    return network_outputs(network, inputs, softmax), (parameters, buffers)


def _stepped(a: Tensor, b: Tensor, random: torch.Generator) -> Tensor:
    """Return a tensor moved as far as from a to b, in a random direction."""
    a, far = a.double().cpu(), float((b.double() - a.double()).norm())
    step = torch.randn(a.shape, generator=random, dtype=torch.float64)
    return a + step * (far / max(float(step.norm()), 1e-300))


def _outputs(value: Any, name: str) -> Float64[np.ndarray, "n c"]:
    with naming(name):
        return as_features(value).cpu().double().numpy()


def _rounding(states: list[np.ndarray]) -> float:
    """Return by how much a difference of states may be off; numbers of float32, in whatever type, are rounded so."""
    with np.errstate(over="ignore"):
        single = all((one == one.astype(np.float32)).all() for one in states)
    return (
        2 * float(np.finfo(np.float32 if single else np.float64).eps) * max(float(np.abs(one).max()) for one in states)
    )


def _half(k: Curve, energy: Curve) -> float:
    below = np.maximum(energy, 0).cumsum()
    return float(k[int(np.searchsorted(below, 0.5 * below[-1] * (1 - 1e-12)))])


def _cutoff(cutoff: Any) -> float:
    if isinstance(cutoff, bool) or not isinstance(cutoff, (int, float, np.number)) or not 0 < cutoff < np.inf:
        raise is_not("cutoff", cutoff, "positive", "a k in radians per unit of the inputs")
    return float(cutoff)


def _count(value: Any, name: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= MOST:
        raise is_not(name, value, f"a whole number from {least} to {MOST}", "one, such as 10")
    return int(value)


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, least and greatest, of those that are defined."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    return float(values.mean()), float(values.min()), float(values.max())
