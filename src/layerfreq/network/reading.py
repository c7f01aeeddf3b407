"""Readings: how a layer's output with positions (pixels, tokens) becomes feature vectors.

An output has one axis of samples and one of features (channels); the others are positions. "flatten" makes one vector
of everything; "mean" and "max" combine the positions, without padding if the inputs hold a mask; "cls" takes the first
token and "last" the last one that is not padding; "positions" makes every position a sample of its own, with the label
of its token or pixel. Anything else is a function of the output.

The axis of the features is found from the modules that made the output: convolutions, batch norms and poolings have it
at 1; linear, embedding, attention and recurrent modules and layer norms have it last; its length must be their number
of features. If nothing is known, an output with four or more axes has it at 1. Anything else is refused, as are outputs
with as many positions as features after modules of both kinds; the user then names the axis: "mean:1" or
"positions:-1". A concatenation has it where its parts have.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from layerfreq.data.targets import as_numbers
from layerfreq.errors import Code, InputError, Refusal, failed, unknown, wrong_length
from layerfreq.isolation.torch_settings import settings_kept
from layerfreq.trace.trace import Trace, Value

NAMES = ("flatten", "mean", "max", "positions")
TOKENS = ("cls", "last")  # readings of one token of a text
IGNORED = -100  # the class id of ignored positions, as in torch.nn.functional.cross_entropy

_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
    nn.PixelShuffle,
)
_LAST = (
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.RNNBase,
)
_COUNTS = ("out_channels", "num_features", "num_channels", "out_features", "embedding_dim", "embed_dim")


@dataclass(frozen=True)
class Reading:
    """How a layer's output is read.

    Attributes:
        name: One of `NAMES` or `TOKENS`, or that of a function.
        axis: The axis of the features, or None to find it.
        own: Whether it was given for this layer by name, so that an output without positions is an error.
        function: Makes (n, ...) features of the output; None for readings by name.
    """

    name: str = "flatten"
    axis: int | None = None
    own: bool = False
    function: Callable[[Tensor], Tensor] | None = None

    def settle(self, shape: Sequence[int], axis: int | None) -> Reading:
        """Return the same reading with the axis of the features, for outputs of some shape.

        Args:
            shape: Shape of the layer's output.
            axis: The axis of the features as it was found; None if it was not.

        Raises:
            InputError: If there are no positions, or their axes are unclear.
        """
        shape = tuple(shape)
        if self.name == "flatten" or self.function is not None:
            return self
        if self.name in TOKENS and len(shape) > 3:
            raise InputError(Refusal.NO_TOKENS.of(name=self.name, shape=shape))
        if len(shape) < 3:
            if self.own:
                raise InputError(Refusal.NO_POSITIONS.of(name=self.name, shape=shape))
            return replace(self, axis=None)  # one reading for all layers leaves vectors as they are
        if self.axis is not None and not -len(shape) < self.axis < len(shape):
            raise InputError(Refusal.NO_SUCH_AXIS.of(axis=self.axis, shape=shape))
        axis = axis if self.axis is None else self.axis % len(shape)
        if axis is None:
            raise InputError(Refusal.AXIS_UNCLEAR.of(name=self.name, shape=shape))
        return replace(self, axis=axis)

    def on(self, value: Value, found: Trace) -> tuple[Reading, Tensor]:
        """Settle the reading for a layer, and return with it the features that it makes of an output of zeros.

        Args:
            value: What the layer returned.
            found: The trace that it is of.

        Returns:
            The reading, and (k, d) features, on the device "meta" unless the reading is a function.

        Raises:
            InputError: See `settle`; or if a user's function fails.
        """
        settled = self.settle(value.shape, axis_in(value, found))
        # A user's function gets real numbers: it may not work on "meta".
        device = "meta" if settled.function is None else "cpu"
        return settled, settled.read(torch.zeros(value.shape, dtype=value.dtype, device=device))[0]

    def read(self, value: Tensor, there: Sequence[Tensor] = ()) -> tuple[Tensor, Layout]:
        """Return the samples' feature vectors, once the reading is settled.

        Args:
            value: (n, ...) what the layer returned.
            there: Masks (n, t) of the tokens that are not padding; the one of the output's length is used.

        Returns:
            (n, d) features, or (n x positions, d) with "positions", those of the first sample first; and where they
            came from. Features may be a view of `value`.
        """
        n = value.shape[0]
        if self.function is not None:
            return self._by_function(value), Layout(n, (), self.name)
        if self.name == "flatten" or value.ndim < 3 or self.axis is None:
            return value.reshape(n, -1), Layout(n, (), self.name)
        value = value.movedim(self.axis, -1)
        layout = Layout(n, tuple(value.shape[1:-1]), self.name, channel_first=self.axis == 1)
        if self.name == "positions":
            return value.reshape(-1, value.shape[-1]), layout
        value = value.flatten(1, -2)
        kept = next((mask.to(value.device) for mask in there if tuple(mask.shape) == tuple(value.shape[:2])), None)
        return self._together(value, kept), layout

    def _together(self, value: Tensor, kept: Tensor | None) -> Tensor:
        """Combine all positions (n, t, d) to one vector (n, d); of the mask (n, t), only true ones count."""
        if kept is not None and not bool(kept.any(dim=1).all()):
            raise Code.EMPTY(f"reading: {self.name!r} of a text that is padding from end to end; drop it")
        if self.name == "cls":
            return value[:, 0]
        if self.name == "last":
            if kept is None:
                return value[:, -1]
            at = (torch.arange(kept.shape[1], device=kept.device) * kept).argmax(dim=1)
            return value[torch.arange(len(value), device=value.device), at]
        if self.name == "mean":
            if kept is None:
                return value.mean(dim=1)
            some = kept.sum(dim=1, keepdim=True).to(value.dtype)
            return value.masked_fill(~kept[..., None], 0).sum(dim=1) / some
        return (value if kept is None else value.masked_fill(~kept[..., None], -math.inf)).amax(dim=1)

    def _by_function(self, value: Tensor) -> Tensor:
        assert self.function is not None
        try:
            with settings_kept():
                rows = self.function(value)
        except (Exception, SystemExit) as error:  # a user's function may raise anything
            raise failed("reading", f"{self.name} fails on an output {tuple(value.shape)}", error) from error
        if not isinstance(rows, Tensor) or not rows.is_floating_point() or rows.shape[:1] != value.shape[:1]:
            wanted = f"a floating tensor ({value.shape[0]}, ...) of an output {tuple(value.shape)}"
            raise Code.SHAPE(f"reading: {self.name} must make {wanted}, one row for each point")
        return rows.reshape(len(rows), -1)


FLATTEN = Reading()


@dataclass(frozen=True)
class Layout:
    """Where the rows of a reading came from.

    Attributes:
        n: Number of samples; 0 if unknown.
        positions: Extents of the axes of positions, such as (h, w).
        reading: Name of the reading.
        channel_first: Whether features stand before positions in the layer's output.
    """

    n: int
    positions: tuple[int, ...] = ()
    reading: str = "flatten"
    channel_first: bool = False

    def label(self, targets: Any) -> tuple[Any, Tensor | None]:
        """Give every row its target.

        Args:
            targets: (n,) class ids or (n,) or (n, c) floats, shared by all positions of a sample; with "positions" also
                (n, *positions) class ids, or floats with one more axis, in the layout of the layer's output.

        Returns:
            One target for each row that is kept, and a mask (rows,) of these, or None for all. With "positions", rows
            of class id -100 are dropped.

        Raises:
            InputError: If targets and positions do not fit together.
        """
        y = as_numbers(targets)
        ids = not y.is_floating_point() and not y.is_complex()
        if self.n and y.shape[:1] != (self.n,):  # batch by batch: two wrong lengths may add up to the right one
            raise wrong_length("targets", f"shape {tuple(y.shape)}", self.n)
        if self.reading != "positions":
            if ids and y.ndim > 1:
                remedy = "y[:, 0]" if y.shape[1:] == (1,) else "reading='positions', or floats for vectors"
                raise Code.SHAPE(f"targets: integers {tuple(y.shape)}; pass {remedy}")
            return y, None
        if y.ndim > (1 if ids else 2):
            y = self._by_position(y, ids)
        elif self.positions:
            y = y.repeat_interleave(math.prod(self.positions), dim=0)
        kept = y != IGNORED if ids and y.ndim == 1 else None
        return (y, None) if kept is None or bool(kept.all()) else (y[kept], kept)

    def _by_position(self, y: Tensor, ids: bool) -> Tensor:
        if not ids and self.channel_first:
            y = y.movedim(1, -1)
        found = tuple(y.shape[1:] if ids else y.shape[1:-1])
        if found != self.positions:
            have = " x ".join(map(str, self.positions)) or "no"
            said = f"targets: labels of {' x '.join(map(str, found))} positions, but the layer has {have}"
            raise Code.SHAPE(f"{said}; bring them to the layer's positions, or choose another layer")
        return y.flatten() if ids else y.flatten(0, -2)


def read_reading(reading: Any) -> Reading | dict[str, Reading]:
    """Check what was passed as `reading`.

    Raises:
        InputError: If it is neither a known name, perhaps with an axis, nor a mapping to such.
    """
    if isinstance(reading, Mapping):
        return {str(layer): _named(one, own=True) for layer, one in reading.items()}
    return _named(reading, own=False)


def assign(reading: Any, layers: Iterable[str]) -> dict[str, Reading]:
    """Return the reading of every layer; layers that a mapping does not name are flattened.

    Raises:
        InputError: For an unknown reading, or a mapping that names a layer which is not measured.
    """
    found, layers = read_reading(reading), list(layers)
    if isinstance(found, Reading):
        return dict.fromkeys(layers, found)
    other = next((name for name in found if name not in layers), None)
    if other is not None:
        raise unknown("reading", other, layers)
    return {name: found.get(name, FLATTEN) for name in layers}


def _named(reading: Any, own: bool) -> Reading:
    if callable(reading):
        return Reading(getattr(reading, "__name__", type(reading).__name__), None, own, cast(Any, reading))
    name, colon, axis = reading.partition(":") if isinstance(reading, str) else ("", "", "")
    if name not in NAMES + TOKENS:
        raise unknown("reading", reading, NAMES + TOKENS)
    if not colon:
        return Reading(name, None, own)
    try:
        number = int(axis)
    except ValueError:
        number = 0
    if number == 0 or name == "flatten":
        raise InputError(f"reading: {reading!r}; after the colon stands the axis of the features, as in 'positions:-1'")
    return Reading(name, number, own)


def axis_in(value: Value, found: Trace) -> int | None:
    """Find the axis of a layer's output that holds features; None if it is unclear.

    Where a module of a known kind made it, that decides. A concatenation may have more features than any module before
    it: its axis is that of its parts.
    """
    made = [m for m in found.modules_of(value) if type(m).__module__.startswith("torch.nn.")]  # none of the user's kind
    kind = next(filter(None, (_kind(module, len(value.shape)) for module in made)), None)
    if kind is not None:
        return kind
    axes = {axis_in(part, found) for part in found.parts_of(value)} - {None}
    return axes.pop() if len(axes) == 1 else features_axis(value.shape, found.made_by(value))


def features_axis(shape: Sequence[int], made_by: Sequence[nn.Module]) -> int | None:
    """Find the axis of an output that holds features, from the modules that ran before it; None if it is unclear.

    The last module of a known kind and the last one that says how many features there are decide: the number has to
    be there. If both ends have it, the kind decides, unless there were modules of both kinds.
    """
    ndim = len(shape)
    kinds = [kind for kind in (_kind(module, ndim) for module in reversed(made_by)) if kind is not None]
    last = kinds[0] if kinds else None
    for number, known in filter(None, map(_features_of, reversed(made_by))):
        fits = [axis for axis in (1, ndim - 1) if shape[axis] == number]
        if len(fits) == 2:
            # As many positions as features: the axis was not moved if all modules are of one kind.
            return last if last in fits and len({*kinds} - {0}) == 1 else None
        # The number of features of a known module decides even against its kind, as after a convolution whose patches
        # became tokens. The length of another module's bias may be chance, so the kind has to agree.
        if fits and (known or last in fits):
            return fits[0]
        if known:
            return None
    if last is None and ndim >= 4:
        return 1  # images in PyTorch's layout
    return last or None


def _kind(module: nn.Module, ndim: int) -> int | None:
    """Return the axis on which a module of a known kind leaves features; 0 if its output has another number of axes."""
    if isinstance(module, _FIRST):
        digit = next((int(c) for c in type(module).__name__ if c.isdigit()), None)
        return 1 if digit is None or digit + 2 == ndim else 0
    several = isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) > 1
    return ndim - 1 if isinstance(module, _LAST) and not several else None


def _features_of(module: nn.Module) -> tuple[int, bool] | None:
    """Return how many features a module's output has, if it says so, and whether it is of a known kind."""
    if isinstance(module, nn.RNNBase):
        return (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1), True
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return (module.normalized_shape[0], True) if len(module.normalized_shape) == 1 else None
    if isinstance(module, _FIRST + _LAST):
        found = next((c for c in (getattr(module, name, None) for name in _COUNTS) if isinstance(c, int)), None)
        return None if found is None else (found, True)
    # Other modules: the length of their bias or scale.
    lengths = {len(p) for p in module._parameters.values() if p is not None and p.ndim == 1} - {1}
    return (lengths.pop(), False) if len(lengths) == 1 else None


def tokens_there(model: nn.Module, inputs: Any, n: int) -> list[Tensor]:
    """Return masks (n, t) that are true for tokens and false for padding, one for each mask among the inputs.

    A mask is an input whose name in the model's forward ends in "mask" and which holds one truth value or 0 or 1 for
    each token of each point: 1 is a token, as in Hugging Face's `attention_mask`; where the name says "padding",
    1 (or True) is padding, as in PyTorch's `src_key_padding_mask`.
    """
    found = []
    for name, x in _by_name(model, inputs).items():
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[0] != n or not name.endswith("mask"):
            continue
        if x.dtype == torch.bool or bool(((x == 0) | (x == 1)).all()):
            found.append(x == 0 if "padding" in name else x != 0)
    return found


def _by_name(model: nn.Module, inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {str(name): x for name, x in inputs.items()}
    if not isinstance(inputs, (tuple, list)):
        return {}
    return dict(zip(inspect.signature(model.forward).parameters, inputs, strict=False))
