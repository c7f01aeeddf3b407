"""One spectrum for each layer of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar, overload

from torch import nn

from layerfreq.errors import Named
from layerfreq.measure.result import Spectrum, describe_median, describe_peak
from layerfreq.network.find import unwrap
from layerfreq.network.naming import Layers
from layerfreq.network.outputs import ONE
from layerfreq.probe import Probe

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


Name = TypeVar("Name")


class LayerSpectra(Mapping[str, Spectrum]):
    """A mapping from layer names, input to output, to their spectra.

    Attributes:
        depths: name -> 1 for the first of these layers, 2 for the next, and so on.
        refused: name -> reason, for activations and blocks of the model that are not cuts.
        failed: name -> reason, for layers that could not be measured this time, for example because of NaN.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> found = layer_spectra(model, x, x[:, 0])
        >>> list(found.to_scale("rms"))
        ['1', '3']
        >>> [part["1"].scale for part in found.in_its_scales()]
        ['raw', 'rms']
        >>> sorted(found.to_frame()["layer"].unique())
        ['1', '3']
        >>> axes = found.plot()
    """

    def __init__(
        self,
        spectra: Mapping[str, Spectrum],
        refused: Mapping[str, str] | None = None,
        failed: Mapping[str, object] | None = None,
    ) -> None:
        self._spectra = Named("layer", spectra)
        self.refused, self.failed = dict(refused or {}), {name: str(why) for name, why in (failed or {}).items()}
        self.depths = {name: depth for depth, name in enumerate(self._spectra, start=1)}

    def __getitem__(self, name: str) -> Spectrum:
        return self._spectra[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spectra)

    def __len__(self) -> int:
        return len(self._spectra)

    def to_scale(self, scale: Any) -> LayerSpectra:
        """Return the same measurements with 1/delta in the other scale, "raw" or "rms"; exact.

        Raises:
            InputError: To or from "maxabs", which is another measurement.
        """
        return LayerSpectra({name: s.to_scale(scale) for name, s in self.items()}, self.refused, self.failed)

    def in_its_scales(self) -> list[LayerSpectra]:
        """Return the measurement at every scale that it determines: raw and rms give each other, maxabs only itself."""
        if any(one.scale == "maxabs" for one in self.values()):
            return [self]
        return [self.to_scale("raw"), self.to_scale("rms")]

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame: layer, depth, scale, inv_delta, lfr, rdf, chance, neighbours, stderr.

        Its `attrs` hold what all layers share: n, rows (of the first layer) and floor; the refused layers with reasons;
        and scale -> layer -> `Spectrum.coincident` if points coincide.
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
        whole.attrs |= {"failed": self.failed} if self.failed else {}
        together = {name: one.coincident for name, one in self.items() if one.coincident != 1}
        whole.attrs |= {"coincident": {first.scale: together}} if together else {}
        return whole

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the density per octave of every layer over 1/delta."""
        from layerfreq.plots import plot_layers

        return plot_layers(self, ax)

    def __repr__(self) -> str:
        width = max(len(name) for name in self) if self else 5
        rows = [("peak", "median", "resolution"), *self._rows()]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            "  ".join([f"{name:{width}}", *(f"{cell:>{w}}" for cell, w in zip(row, wide, strict=True))])
            for name, row in zip(["layer", *self], rows, strict=True)
        ]
        return "\n".join([*lines, *self._left_out()])

    def _repr_html_(self) -> str:
        """Return the `repr` for notebooks: a table, one row per layer, and below it what could not be measured."""
        import pandas as pd

        table = pd.DataFrame(list(self._rows()), index=list(self), columns=pd.Index(["peak", "median", "resolution"]))
        return table.to_html(border=0, max_rows=None) + "".join(f"<p>{escape(line)}</p>" for line in self._left_out())

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for one in self.values():
            yield describe_peak(one), describe_median(one), f"{one.resolution:.4g}"

    def _left_out(self) -> list[str]:
        return [
            f"{what}: {', '.join(repr(name) for name, why in left_out.items() if why == reason)}: {reason}"
            for what, left_out in (("not a cut", self.refused), ("not measured", self.failed))
            for reason in dict.fromkeys(left_out.values())
        ]


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the frames of one measurement at several scales as one, `attrs` included."""
    import pandas as pd

    whole = pd.concat(frames, ignore_index=True)
    about = [frame.attrs for frame in frames]
    together = {scale: of for one in about for scale, of in one.get("coincident", {}).items()}
    whole.attrs = {name: value for one in reversed(about) for name, value in one.items()}
    whole.attrs |= {"coincident": together} if together else {}
    return whole


@overload
def layer_spectra(  # pyright: ignore[reportOverlappingOverload]
    model: nn.Module, inputs: Any, targets: Mapping[Name, Any], layers: Layers = None, **options: Any
) -> dict[Name, LayerSpectra]: ...


@overload
def layer_spectra(
    model: nn.Module, inputs: Any, targets: Any = None, layers: Layers = None, **options: Any
) -> LayerSpectra: ...


def layer_spectra(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    layers: Layers = None,
    *,
    reading: Any = "flatten",
    memory: int | str | None = None,
    whole: bool = False,
    **options: Any,
) -> LayerSpectra | dict[Any, LayerSpectra]:
    """Measure the effective target function {(features at a layer, targets)} of every layer.

    The model runs in eval mode without gradients and is left unchanged, bit for bit. As many layers are held in memory
    together as fit into `memory`; each group takes one forward pass, up to its last layer. If not even one layer fits,
    some filter centres are held and the model is run several times to bring all points past them in batches: just as
    exact, but slower the less memory there is. Of wide layers (2,048 numbers or more, on the CPU) none is held if one
    batch has all points, and only drawn filter centres (`rows`) if there are several batches: these are run first.

    Args:
        model: Any module.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats, or targets per position (see `reading`); None with an
            iterable of batches. In batches that are dicts they are the entry "labels"; for causal language models of
            Hugging Face, which compare a token's output with the next token's label, they are shifted likewise. Or a
            function `(x, y, output) -> target`, which gets copies of each batch, its labels y (None if there are none)
            and the model's output (its logits, or first floating-point tensor). Or several by name, measured in one
            forward pass: `{"labels": y, "residual": function}`, where functions get the first target that is not a
            function as y; with an iterable of batches, None stands for its labels.
        layers: Names as from `hidden_layers`, patterns such as "blocks.*", indices into the hidden layers (-1 is the
            last), or modules of the model, one or several; None means all hidden layers. A pattern that matches no
            hidden layer selects all other layers that it matches.
        reading: How outputs with positions (pixels, tokens) become feature vectors: "flatten", "mean", "max" or
            "positions", one name or a mapping from layers to names (see `layer_features`). With "positions", all
            positions of a sample share its target, unless each has its own: class ids (n, *positions), such as tokens
            (n, t) or pixels (n, h, w), or floats with one more axis, in the layout of the layer's output. A class id of
            -100 drops its position; use it for padding.
        memory: Bytes that features and their copies may take in addition to the forward pass, or text such as "500MB"
            or "2GiB". None means a quarter of the free memory, and at most 4 GiB. About 50 MiB for working tiles, and
            16 filter centres, are always used. With `group`, a layer's features are always held.
        whole: Run the model on all inputs at once, as needed for graph networks, whose points depend on one another; a
            list of one batch, `[(inputs, targets)]`, does the same.
        **options: Options of `spectrum`: inv_delta, scale, center, rows, rtol, engine, device, seed, group. With
            `group`, every rank calls with its own part of the inputs, and all get the spectra of the whole set.

    Next-token targets of a language model that takes ids (n, t), in three lines; the classes are the tokens of the
    vocabulary, and no one-hot matrix is formed:

        following = ids.roll(-1, dims=1)
        following[:, -1] = -100  # the last token has none; give -100 to padding, too
        layer_spectra(model, ids, following, reading="positions", rows=2000)

    Returns:
        The spectra, or name -> spectra if several targets were named.

    Raises:
        InputError: For bad input; if a layer is the cause, the message names it.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> found = layer_spectra(model, x, (x[:, 0] > 0).long())
        >>> list(found), found["3"].n
        (['1', '3'], 200)
        >>> found = layer_spectra(model, x, {"labels": x, "residual": lambda x, y, output: y - output})
        >>> list(found), list(found["residual"])
        (['labels', 'residual'], ['1', '3'])
    """
    scales = [options.pop("scale", "raw")]
    probe = Probe.of(
        model, inputs, targets, layers, options, scales=scales, reading=reading, memory=memory, whole=whole
    )
    found = {name: LayerSpectra(one.spectra[0], probe.refused) for name, one in probe.measure(unwrap(model)).items()}
    return found if isinstance(targets, Mapping) else found[ONE]
