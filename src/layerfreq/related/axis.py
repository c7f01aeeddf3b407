"""Frequencies along an axis: what layers with a time or space axis do to the spectra of their channels."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.data.arraylike import as_frame
from layerfreq.errors import Code, is_not
from layerfreq.measure.options import as_seed
from layerfreq.network.extract import layer_features
from layerfreq.network.find import unwrap
from layerfreq.plots import style
from layerfreq.related.kept import KeptWeights, load_kept
from layerfreq.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHORTEST = 4  # positions along the axis
NUMBERS = ("peak", "centroid")


def axis_frequencies(
    model: nn.Module, inputs: Any, layers: Any = None, *, axis: int = -1, channels: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Measure the spectra of every layer's channels along one axis of its output, such as time.

    X is the discrete Fourier transform of one channel of one sample along the axis, with its mean subtracted, over the
    frequencies 1/L .. 1/2 in cycles per position. `peak` is p = max |X| / rms |X|, from 1 (flat) to the square root of
    the number of frequencies (one wave); `focus` is v_l, the variance of p over the channels of layer l; `change` is
    M_l = v_l - v_(l-1); `centroid` is sum f |X| / sum |X|. All are means over samples. After the Temporal Convolutional
    Explorer (Zhang, Feng, He, Wu & Dong, CIKM 2023).

    Args:
        model: The model; it is left as it was.
        inputs: What its forward takes, as for `layer_features`.
        layers: Names; None means the hidden layers.
        axis: Axis of the output (n, ...) along which frequencies are taken; |X| is averaged over all further axes.
        channels: Axis of the channels: 1 for convolutions, -1 for recurrent and attention layers.
        seed: Seed for shuffling positions.

    Returns:
        One row per layer: layer, depth, channels, silent (share of channels and samples that are constant along the
        axis, which have no spectrum), length, peak, focus, change (none for the first), centroid; and chance_peak,
        chance_focus, chance_centroid, the same with each sample's positions shuffled. `attrs["refused"]` lists layers
        without such an axis, with the reason.

    Raises:
        InputError: If an axis is not a number, no layer has it, or a layer cannot be measured.

    Examples:
        >>> layers = nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 5), nn.ReLU()
        >>> model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 2))
        >>> axis_frequencies(model, torch.randn(10, 1, 32))[["layer", "channels", "length"]]
          layer  channels  length
        0     1         4      28
        1     3         4      24
    """
    import pandas as pd

    spectra = _Spectra(_axis(axis, "axis"), _axis(channels, "channels"), as_seed(seed))
    found = layer_features(model, inputs, layers, reading=spectra)
    assert isinstance(found, dict)
    rows, refused, before = [], {}, None
    for depth, (layer, flat) in enumerate(found.items(), start=1):
        if flat.shape[1] == 1:
            refused[layer] = (
                f"its output has no axis {axis} of {SHORTEST} positions besides samples and channels {channels}"
            )
            continue
        numbers = flat.double().cpu().numpy()
        wrong = int((~np.isfinite(numbers).all(axis=1)).sum())
        if wrong:
            refused[layer] = f"its output is NaN or infinite in {wrong} of {len(numbers)} samples"
            continue
        length, parts = int(numbers[0, 0]), numbers[:, 1:].reshape(len(numbers), 2, len(NUMBERS), -1)
        loud = (parts[:, 0, 0] >= 0) & (parts[:, 1, 0] >= 0)
        if not loud.any():
            refused[layer] = "every channel is constant along the axis"
            continue
        row = {"layer": layer, "depth": depth, "channels": loud.shape[1], "silent": 1 - loud.mean(), "length": length}
        (peak, focus, centroid), chance = (_summed(parts[:, i], loud) for i in range(2))
        row |= {"peak": peak, "focus": focus, "change": math.nan if before is None else focus - before}
        row |= {"centroid": centroid, "chance_peak": chance[0], "chance_focus": chance[1], "chance_centroid": chance[2]}
        rows.append(row)
        before = focus
    if not rows:
        layer, why = next(iter(refused.items()))
        raise Code.UNSUPPORTED(f"axis: no layer can be measured ({layer!r}: {why}); pass another axis or other layers")
    frame = pd.DataFrame(rows)
    frame.attrs["refused"] = refused
    return frame


def run_axis_frequencies(
    run: Run | str | Path, model: nn.Module, inputs: Any, layers: Any = None, *, steps: Any = None, **options: Any
) -> Any:
    """Measure `axis_frequencies` at every step whose weights a run has kept.

    Args:
        run: A run with weights (`Monitor(checkpoints=True)`), or its path.
        model: A module with the architecture of the run; its own weights do not matter, and it is left unchanged.
        inputs: See `axis_frequencies`.
        layers: See `axis_frequencies`.
        steps: Some of the kept steps; None for all of them.
        **options: `axis`, `channels`, `seed`, see `axis_frequencies`.

    Returns:
        A data frame, the rows of `axis_frequencies` with their step.

    Raises:
        InputError: See `axis_frequencies`; or if the run kept no weights at a step, or those of another model.

    Examples:
        >>> x = torch.randn(10, 1, 32)
        >>> model = nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(112, 2))
        >>> monitor = Monitor(model, x, torch.arange(10) % 2, run="a run", checkpoints=True)
        >>> measured = monitor.measure(0)
        >>> run_axis_frequencies("a run", model, x)["step"].tolist()
        [0]
    """
    import pandas as pd

    kept, network, frames = KeptWeights(run), copy.deepcopy(unwrap(model)), []
    for step in kept.steps if steps is None else steps:
        load_kept(kept.run, step, network)
        frames.append(axis_frequencies(network, inputs, layers, **options).assign(step=step))
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = frames[-1].attrs
    return frame


def plot_axis_frequencies(frame: Any, unit: str = "step") -> Figure:
    """Draw focus and centroid by layer, over training if the frame has steps; chance is dashed.

    Args:
        frame: As from `axis_frequencies` or `run_axis_frequencies`.
        unit: What a step is called.

    Examples:
        >>> model = nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(112, 2))
        >>> figure = plot_axis_frequencies(axis_frequencies(model, torch.randn(10, 1, 32)))
    """
    import matplotlib.pyplot as plt

    columns = ("layer", "depth", "focus", "centroid", "chance_focus", "chance_centroid")
    frame = as_frame(frame, "frame", columns, "what axis_frequencies returns")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    names = {"focus": "focus: variance of p over channels", "centroid": "centroid (cycles per position)"}
    for ax, (name, text) in zip(axes, names.items(), strict=True):
        if "step" not in frame:
            ax.plot(frame["layer"], frame[name], "o-", color="#2166ac", markersize=4, label="measured")
            ax.plot(frame["layer"], frame[f"chance_{name}"], "--", color="0.45", label="positions shuffled")
        else:
            for (depth, layer), part in frame.groupby(["depth", "layer"]):
                look = style(int(depth), int(frame["depth"].max()))
                ax.plot(part["step"], part[name], label=str(layer), markersize=4, **look)
                ax.plot(part["step"], part[f"chance_{name}"], color=look["color"], linestyle="--", linewidth=0.7)
        ax.set(xlabel="layer" if "step" not in frame else unit, ylabel=text)
    axes[0].set_ylim(0, None)
    axes[1].set_ylim(0, 0.5)
    axes[1].legend(fontsize="x-small", frameon=False, title=None if "step" not in frame else "layer (dashed: shuffled)")
    return figure


class _Spectra:
    """A reading: (n, ...) to (n, 1 + 4 x channels), the length, then peak and centroid of data and shuffled data."""

    def __init__(self, axis: int, channels: int, seed: int) -> None:
        self.axis, self.channels, self.seed = axis, channels, seed

    def __call__(self, value: Tensor) -> Tensor:
        n, at = len(value), [one + value.ndim if one < 0 else one for one in (self.axis, self.channels)]
        if value.ndim < 3 or at[0] == at[1] or not all(0 < one < value.ndim for one in at):
            return value.new_zeros(n, 1)
        rest = [one for one in range(1, value.ndim) if one not in at]
        x = value.detach().double().permute(0, at[1], *rest, at[0]).flatten(2, -2) if rest else None
        x = value.detach().double().permute(0, at[1], at[0])[:, :, None] if x is None else x
        if x.shape[-1] < SHORTEST:
            return value.new_zeros(n, 1)
        random = torch.Generator().manual_seed(self.seed)
        order = torch.rand(n, x.shape[-1], generator=random).argsort(dim=1).to(x.device)
        shuffled = torch.gather(x, 3, order[:, None, None, :].expand_as(x))
        length = x.new_full((n, 1), x.shape[-1])
        return torch.cat([length, *_numbers(x), *_numbers(shuffled)], dim=1)


def _numbers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return peak and centroid (n, channels) of (n, channels, positions, length), -1 where a channel is constant."""
    size = torch.fft.rfft(x - x.mean(dim=-1, keepdim=True), dim=-1).abs()[..., 1:].mean(dim=2)
    f = torch.arange(1, size.shape[-1] + 1, device=x.device, dtype=x.dtype) / x.shape[-1]
    total, rms = size.sum(dim=-1), size.square().mean(dim=-1).sqrt()
    silent = rms <= 1e-10 * x.abs().amax(dim=(2, 3)).clamp(min=1e-300)
    peak = size.amax(dim=-1) / rms.clamp(min=1e-300)
    return peak.masked_fill(silent, -1.0), ((size * f).sum(dim=-1) / total.clamp(min=1e-300)).masked_fill(silent, -1.0)


def _summed(parts: np.ndarray, loud: np.ndarray) -> tuple[float, float, float]:
    """Return mean peak, its variance over channels and the mean centroid, means over samples, of loud channels."""
    some = loud.any(axis=1)
    peak, centroid, loud = parts[some, 0], parts[some, 1], loud[some]
    mean = np.average(peak, axis=1, weights=loud)
    focus = np.average((peak - mean[:, None]) ** 2, axis=1, weights=loud)
    return float(mean.mean()), float(focus.mean()), float(np.average(centroid, axis=1, weights=loud).mean())


def _axis(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value == 0:
        raise is_not(name, value, "an axis of an output (n, ...)", "a whole number other than 0")
    return int(value)
