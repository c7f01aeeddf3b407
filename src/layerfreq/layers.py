"""One spectrum for each layer of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from layerfreq.errors import InputError
from layerfreq.features import collect
from layerfreq.inputs import is_loader
from layerfreq.network import Cuts, Layer, choose_layers, find_cuts, probe_of, unwrap
from layerfreq.sharding import Shards
from layerfreq.spectrum import Spectrum, describe_peak, spectrum
from layerfreq.untouched import untouched

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class LayerSpectra(Mapping[str, Spectrum]):
    """A mapping from layer names, input to output, to their spectra.

    Attributes:
        depths: name -> 1 for the first of these layers, 2 for the next, and so on.
        refused: name -> reason, for activations and blocks of the model that are no cut.
    """

    def __init__(self, spectra: Mapping[str, Spectrum], refused: Mapping[str, str] | None = None) -> None:
        self._spectra = dict(spectra)
        self.refused = dict(refused or {})
        self.depths = {name: depth for depth, name in enumerate(self._spectra, start=1)}

    def __getitem__(self, name: str) -> Spectrum:
        return self._spectra[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spectra)

    def __len__(self) -> int:
        return len(self._spectra)

    def to_scale(self, scale: Any) -> LayerSpectra:
        """Return the same measurements with 1/delta in the other scale, "raw" or "rms"; exact."""
        return LayerSpectra({name: s.to_scale(scale) for name, s in self.items()}, self.refused)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame: layer, depth, scale, inv_delta, lfr, rdf, chance, neighbours, stderr.

        Its `attrs` say what all layers share: n, rows (of the first layer) and floor; and which were refused, why.
        """
        import pandas as pd

        frames = []
        for name, one in self.items():
            frame = one.to_frame()
            frame.insert(0, "scale", one.scale)
            frame.insert(0, "depth", self.depths[name])
            frame.insert(0, "layer", name)
            frames.append(frame)
        whole = pd.concat(frames, ignore_index=True)
        first = next(iter(self.values()))
        whole.attrs = {"n": first.n, "rows": first.rows, "floor": first.floor, "refused": self.refused}
        return whole

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the density per octave of every layer over 1/delta."""
        from layerfreq.plots import plot_layers

        return plot_layers(self, ax)

    def __repr__(self) -> str:
        width = max(len(name) for name in self) if self else 5
        lines = [f"{'layer':{width}}  {'peak':>18}  {'median':>10}  {'resolution':>10}"]
        for name, s in self.items():
            median = "-" if s.median is None else f"{s.median:.4g}"
            lines.append(f"{name:{width}}  {describe_peak(s):>18}  {median:>10}  {s.resolution:10.4g}")
        lines += [f"not a cut: {name!r}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


def layer_spectra(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    layers: Sequence[str] | str | None = None,
    **options: Any,
) -> LayerSpectra:
    """Measure the effective target function {(features at a layer, targets)} of every layer.

    The model runs in eval mode without gradients and is left bit for bit as it was. One layer's features are
    in memory at a time.

    Args:
        model: Any module.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats; None with an iterable of batches.
        layers: Names as from `hidden_layers`; None means all hidden layers.
        **options: Of `spectrum`: inv_delta, scale, center, rows, rtol, engine, device, seed, group. With `group`,
            every rank calls with its own part of the inputs, and all get the spectra of the whole.

    Raises:
        InputError: For bad input; where a layer is to blame, the message names it.
    """
    model = unwrap(model)
    if targets is None and not is_loader(inputs):
        raise InputError("targets: None; pass one target for each input, or an iterable of (inputs, targets) batches")
    cuts = plan(model, inputs, layers, options.get("group"))
    return measure_layers(model, inputs, targets, cuts, **options)


def plan(model: nn.Module, inputs: Any, layers: Sequence[str] | str | None, group: Any = None) -> Cuts:
    """Find out which layers to measure, once for many measurements.

    Raises:
        InputError: If there are none, or the ranks of the group find different ones.
    """
    shards = Shards(group)
    with shards.together(), untouched(model, inputs):
        probe = probe_of(model, inputs)
        cuts = find_cuts(model, probe) if layers is None else Cuts(choose_layers(model, probe, layers), {}, {})
    found = shards.gather([layer.name for layer in cuts.layers])
    other = next((rank for rank, names in enumerate(found) if names != found[0]), None)
    if other is not None:
        raise InputError(
            f"layers: {', '.join(found[0])} on rank 0, but {', '.join(found[other])} on rank {other}; "
            "name the layers yourself"
        )
    return cuts


def measure_layers(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    cuts: Cuts,
    on_layer: Callable[[str], Any] | None = None,
    **options: Any,
) -> LayerSpectra:
    """Measure planned layers, one after the other, telling the name of each before."""
    spectra = {}
    for one in cuts.layers:
        if on_layer is not None:
            on_layer(one.name)
        spectra[one.name] = _measure(model, inputs, targets, one, **options)
    return LayerSpectra(spectra, cuts.refused)


def _measure(model: nn.Module, inputs: Any, targets: Any, layer: Layer, **options: Any) -> Spectrum:
    with Shards(options.get("group")).together():
        features, labels = collect(model, inputs, targets, [layer])
    try:
        return spectrum(features.pop(layer.name), labels, **options)
    except InputError as error:
        raise InputError(f"layer {layer.name!r}: {error}") from None
