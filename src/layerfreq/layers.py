"""One spectrum for each layer of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from layerfreq.cuts import Cut as Place
from layerfreq.errors import InputError, blame, did_you_mean
from layerfreq.features import FeatureStream, collect, collect_labels, most_points
from layerfreq.inputs import batches, device_of, is_loader
from layerfreq.memory import group_by_memory, read_memory
from layerfreq.network import choose_layers, reject_one_pass, unwrap
from layerfreq.passes import SHARE
from layerfreq.sharding import Shards
from layerfreq.spectrum import Spectrum, describe_peak, measure, spectrum
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
    *,
    reading: Any = "flatten",
    memory: int | str | None = None,
    whole: bool = False,
    **options: Any,
) -> LayerSpectra:
    """Measure the effective target function {(features at a layer, targets)} of every layer.

    The model runs in eval mode without gradients and is left bit for bit as it was. In memory are the features of as
    many layers at a time as fit into a budget, each such lot from one forward pass (up to the last of them). Where
    not even one layer's fit, some filter centres are held and the model is run again and again, so that all points
    pass by them in batches: just as exact, and slower the smaller the budget.

    Args:
        model: Any module.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        targets: (n,) class ids, or (n,) or (n, c) floats, or those of positions, see `reading`; None with an iterable
            of batches.
        layers: Names as from `hidden_layers`; None means all hidden layers.
        reading: How outputs with positions (pixels, tokens) become feature vectors: "flatten", "mean", "max" or
            "positions", one name or a mapping from layers to names (see `layer_features`). With "positions", a target
            of each sample is shared by its positions; class ids (n, *positions), such as tokens (n, t) or pixels
            (n, h, w), or floats with one axis more, laid out as the layer's output is, go with theirs. A class id of
            -100 drops its position, so give it to padding.
        memory: Bytes that features, and copies of them, may take beside what the forward pass takes, or text such as
            "500MB" or "2GiB". None means a quarter of the memory that is free, and no more than 4 GiB. Some 50 MiB
            for tiles of the work, and 16 filter centres, are taken whatever the budget. With `group`, a layer's
            features are always held.
        whole: Run the model on all inputs at once, as a graph network wants it, whose points depend on one another;
            so does a list of one batch, `[(inputs, targets)]`, here and for a `Monitor`.
        **options: Of `spectrum`: inv_delta, scale, center, rows, rtol, engine, device, seed, group. With `group`,
            every rank calls with its own part of the inputs, and all get the spectra of the whole.

    Next-token targets of a language model that takes ids (n, t), in three lines; the classes are the vocabulary's
    tokens, and no one-hot matrix is formed:

        following = ids.roll(-1, dims=1)
        following[:, -1] = -100  # the last token has none; give -100 to padding, too
        layer_spectra(model, ids, following, reading="positions", rows=2000)

    Raises:
        InputError: For bad input; where a layer is to blame, the message names it.
    """
    model = unwrap(model)
    if targets is None and not is_loader(inputs):
        raise InputError("targets: None; pass one target for each input, or an iterable of (inputs, targets) batches")
    read_memory(memory)
    check_options(options)
    if whole and not is_loader(inputs):
        inputs, targets = list(batches(inputs, targets, whole=True)), None
    found = plan(model, inputs, layers, options.get("group"), reading)
    return measure_layers(model, inputs, targets, found, memory=memory, **options)


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        places: The layers, input to output, and where they are.
        refused: name -> reason, for activations and blocks of the model that are no cut.
    """

    places: list[Place]
    refused: dict[str, str]

    @property
    def layers(self) -> list[Place]:
        """The layers, input to output."""
        return self.places


def plan(
    model: nn.Module,
    inputs: Any,
    layers: Sequence[str] | str | None,
    group: Any = None,
    reading: Any = "flatten",
) -> Plan:
    """Find out which layers to measure, once for many measurements.

    Raises:
        InputError: If there are none, or the ranks of the group find different ones.
    """
    shards = Shards(group)
    with shards.together(), untouched(model, inputs):
        cuts = choose_layers(model, inputs, layers, reading)
    found = shards.gather([layer.name for layer in cuts.layers])
    other = next((rank for rank, names in enumerate(found) if names != found[0]), None)
    if other is not None:
        raise InputError(
            f"layers: {', '.join(found[0])} on rank 0, but {', '.join(found[other])} on rank {other}; "
            "name the layers yourself"
        )
    return Plan(cuts.layers, cuts.refused)


def measure_layers(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    planned: Plan,
    on_layer: Callable[[str], Any] | None = None,
    memory: int | str | None = None,
    **options: Any,
) -> LayerSpectra:
    """Measure planned layers, one after the other, telling the name of each before.

    Raises:
        InputError: For bad input, or where passes over the inputs see different numbers of points.
    """
    shards = Shards(options.get("group"))
    with shards.together():
        points, budget = most_points(model, inputs), read_memory(memory)
    # All ranks plan alike: for the largest part, and the least memory.
    points, budget = round(shards.largest(float(points))), -round(shards.largest(-float(budget)))
    sizes = [(place, points * place.each, _work(points * place.each, points, options)) for place in planned.places]
    spectra: dict[str, Spectrum] = {}
    for places, held in group_by_memory(sizes, budget):
        if held or not shards.alone:
            spectra.update(_held(model, inputs, targets, places, points, budget, on_layer, options))
        else:
            spectra.update(_streamed(model, inputs, targets, places[0], budget, on_layer, options))
    counted = {p.layer.name: spectra[p.layer.name].n for p in planned.places if p.layer.reading.name != "positions"}
    if len(set(counted.values())) > 1:
        counts = ", ".join(f"{n} at {name!r}" for name, n in counted.items())
        raise InputError(f"inputs: the number of points changed between passes ({counts}); pass a fixed set")
    return LayerSpectra(spectra, planned.refused)


def _work(size: int, points: int, options: dict[str, Any]) -> int:
    """Bytes that a layer's features take once more while they are measured: all of them, or those of drawn centres."""
    rows = options.get("rows")
    if isinstance(rows, int):
        return min(size, int(2 / SHARE * size * rows / max(1, points)))
    return size if options.get("rtol") is None else size // 2


def _held(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    places: Sequence[Place],
    points: int,
    budget: int,
    on_layer: Callable[[str], Any] | None,
    options: dict[str, Any],
) -> Iterator[tuple[str, Spectrum]]:
    """Measure some layers whose features are held together."""
    with Shards(options.get("group")).together():
        features, labels = collect(model, inputs, targets, places, points)
    for place in places:
        name = place.layer.name
        if on_layer is not None:
            on_layer(name)
        room = budget - sum(one.nbytes for one in features.values())
        one = features.pop(name)
        with blame(name):
            if options.get("group") is None and len(one) == 0:
                raise InputError("targets: -100 at every position, so that none is left; label some")
            ours = _for_layer(place, len(one), _at_home(model, one, options))
            yield name, measure(one, labels.get(name), room=max(0, room), **ours)
        del one


def _streamed(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    place: Place,
    budget: int,
    on_layer: Callable[[str], Any] | None,
    options: dict[str, Any],
) -> Iterator[tuple[str, Spectrum]]:
    """Measure a layer whose features are too large to be held."""
    name = place.layer.name
    if on_layer is not None:
        on_layer(name)
    reject_one_pass(inputs)
    with blame(name):
        labels = collect_labels(model, inputs, targets, place)
        source = FeatureStream(model, inputs, targets, place, options.get("device"))
        yield name, measure(source, labels, room=budget, **_for_layer(place, len(labels), options))


def _for_layer(place: Place, n: int, options: dict[str, Any]) -> dict[str, Any]:
    """Let every point be a centre at a layer without positions that has fewer than are drawn at those with them."""
    reading, rows = place.layer.reading, options.get("rows")
    fewer = isinstance(rows, int) and rows > n and options.get("group") is None
    return {**options, "rows": None} if fewer and reading.name == "positions" and reading.axis is None else options


def check_options(options: Mapping[str, Any]) -> None:
    """Raise an InputError for an option that `spectrum` has not, before a model has been run for nothing."""
    known = [*signature(spectrum).parameters][2:]
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise InputError(f"options: no {unknown!r}; {did_you_mean(unknown, known)}")


def _at_home(model: nn.Module, features: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """Compute where the model does, also if its device had no room for the features of all layers at a time."""
    if options.get("device") is None and features.device != device_of(model):
        return {**options, "device": device_of(model)}
    return options
