"""The features that a network computes at its layers, gathered over all its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import batches, call, count, device_of, is_loader, on_device, owned
from layerfreq.data.source import Source
from layerfreq.errors import Code, InputError, Refusal, blame
from layerfreq.isolation.memory import group_by_memory, read_memory, reserve
from layerfreq.isolation.preserve import sharded_modules, untouched
from layerfreq.isolation.torch_settings import CallersSettings, own_settings
from layerfreq.network.capture import watch
from layerfreq.network.cuts import Cut
from layerfreq.network.find import choose_layers, reject_one_pass, unwrap
from layerfreq.network.labelled import for_model
from layerfreq.network.naming import Layers
from layerfreq.network.reading import Layout, tokens_there
from layerfreq.trace.hooks import first_tensor
from layerfreq.trace.row_order import unmeasurable

WIDTHS = "its width differs between batches; pad the inputs to one size, or pass reading='mean'"
# Gets a layer's name, features (k, d) of one batch, the number of inputs in it, and k targets or None.
Take = Callable[[str, Tensor, int, Tensor | None], Any]
# If one batch has all points: gets a layer's name, their features (k, d) and their targets or None; returns what to
# keep in place of the features, or None to keep them as they are.
Instead = Callable[[str, Tensor, Tensor | None], Any]
# Gets a batch's inputs, its targets or None, and what the model returned.
OnOutput = Callable[[Any, Any, Any], Any]


class _Reached(BaseException):  # no Exception, since a model may catch those
    pass


def layer_features(
    model: nn.Module,
    inputs: Any,
    layers: Layers = None,
    *,
    reading: Any = "flatten",
    stream: bool = False,
    memory: int | str | None = None,
    whole: bool = False,
) -> dict[str, Tensor] | Iterator[tuple[str, Tensor]]:
    """Return the features at layers: their outputs in eval mode, without gradients, flattened to (n, d).

    If a module returns several tensors, the first floating-point one is used.

    Args:
        model: Any module; it is left as it was.
        inputs: What its forward takes, for n points, or an iterable of (inputs, targets) batches.
        layers: Names as from `hidden_layers`, or of any other module of the model; None means the hidden layers.
        reading: How outputs with positions (pixels, tokens) become feature vectors: "flatten"; "mean" or "max" over the
            positions, without padding if an input named as a mask marks it; "cls", the first token, or "last", the last
            one that is not padding; or "positions", a row per position, starting with those of the first sample. Or a
            function from the output (n, ...) to features (n, ...). Pass one for all layers, or a mapping for some; the
            others are flattened. The feature axis is 1 for convolutions, batch norms and poolings, and the last for
            linear, embedding, attention and recurrent modules and layer norms; if it is unclear, name it as in "mean:1"
            or "positions:-1". Outputs (n, d) have no positions: one reading for all leaves them as they are, and a
            mapping must not name them.
        stream: Return an iterator of (name, features) that holds only as many layers as fit into `memory`, at least
            one, at the cost of one forward pass per group of layers.
        memory: With `stream`, bytes for features, or text such as "500MB" or "2GiB"; None means a quarter of the free
            memory, and at most 4 GiB.
        whole: Run the model on all inputs at once, see `hidden_layers`.

    Returns:
        name -> (n, d) tensor, (n x positions, d) with "positions", or the iterator. Features are on the model's device,
        or in host memory if an accelerator has no room for them.

    Raises:
        InputError: For a layer that is unknown or cannot be measured, with the reason.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> {name: tuple(features.shape) for name, features in layer_features(model, x).items()}
        {'1': (200, 16), '3': (200, 16)}
    """
    model = unwrap(model)
    if memory is not None and not stream:
        raise Code.CONFLICT("memory: given without stream=True, where all features are returned at once; leave it out")
    if stream:
        reject_one_pass(inputs)
    if whole and not is_loader(inputs):
        inputs = list(batches(inputs, whole=True))
    inputs = for_model(model, inputs)
    with untouched(model, inputs):
        cuts = choose_layers(model, inputs, layers, reading, whole=whole).layers
    if stream:
        return _one_by_one(model, inputs, cuts, read_memory(memory))
    return collect(model, inputs, None, cuts)[0]


def _one_by_one(model: nn.Module, inputs: Any, cuts: list[Cut], memory: int) -> Iterator[tuple[str, Tensor]]:
    n = most_points(model, inputs)
    for group, _ in group_by_memory([(cut, n * cut.each, 0) for cut in cuts], memory):
        features, _ = collect(model, inputs, None, group)
        for cut in group:
            yield cut.name, features.pop(cut.name)


def collect(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    cuts: Sequence[Cut],
    points: int | None = None,
    on_output: OnOutput | None = None,
    *,
    labelled: bool = True,
    instead: Instead | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Run the model once over all batches; gather the features of some layers, and for each the targets of its rows.

    `points` is what `most_points` returned, if it was called before. For `on_output` and `labelled`, see
    `run_through`; for `instead`, see `Instead`.
    """
    points = most_points(model, inputs) if points is None else points
    buffers = {cut.name: Buffer(points) for cut in cuts}
    labels: dict[str, list[Tensor]] = {cut.name: [] for cut in cuts}
    looked: dict[str, Any] = {}

    def keep(name: str, part: Tensor, n: int, label: Tensor | None) -> None:
        if label is not None:
            labels[name].append(label.clone())  # a loader may write the next batch into the same memory
        found = instead(name, part, label) if instead is not None and n == points else None
        if name in looked:
            raise Code.CONFLICT(f"inputs: more than {points} points in a pass, as many as there were; pass a fixed set")
        if found is not None:
            looked[name] = found
            return
        with blame(name):
            buffers[name].put(part, n)

    run_through(model, inputs, targets, cuts, keep, on_output, labelled=labelled)
    features = {name: looked.get(name, buffer.whole()) for name, buffer in buffers.items()}
    return features, {name: torch.cat(parts) for name, parts in labels.items() if parts}


def collect_labels(model: nn.Module, inputs: Any, targets: Any, cut: Cut) -> Tensor:
    """Return the targets of a layer's rows, without its features."""
    labels: list[Tensor] = []
    if cut.reading.name == "positions":  # how many there are is known only when the model has run
        run_through(
            model, inputs, targets, [cut], lambda name, part, n, label: label is None or labels.append(label.clone())
        )
    else:
        with while_read(model, inputs):
            labels += [Layout(count(x)).label(y)[0].clone() for x, y in batches(inputs, targets)]
    return torch.cat(labels)


def run_through(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    cuts: Sequence[Cut],
    take: Take,
    on_output: OnOutput | None = None,
    *,
    gradients: bool = False,
    labelled: bool = True,
    instead: Iterable[tuple[Any, Any]] | None = None,
) -> None:
    """Run the model over all batches, up to the last of some layers.

    Args:
        model: The model, unwrapped; left as it was.
        inputs: See `layer_features`.
        targets: In the shape of the inputs, or None.
        cuts: The layers.
        take: See `Take`. It must copy what it keeps: the model may write into it afterwards.
        on_output: Gets what the model returns; the model is then run to its end.
        gradients: Whether the model runs only with gradients, even if no cut says so.
        labelled: Whether the batches' targets are those of the layers' rows; else only `on_output` gets them.
        instead: (inputs, targets) batches to run in place of those of the inputs.
    """
    gradients = gradients or any(cut.gradients for cut in cuts)
    with untouched(model, inputs):
        for x, y in batches(inputs, targets) if instead is None else instead:
            _run_batch(model, on_device(model, x), y, cuts, take, on_output, gradients, labelled)


def _run_batch(
    model: nn.Module,
    x: Any,
    y: Any,
    cuts: Sequence[Cut],
    take: Take,
    on_output: OnOutput | None,
    gradients: bool,
    labelled: bool,
) -> None:
    wanted, n = {cut.name: cut for cut in cuts}, count(x)
    there = tokens_there(model, x, n)
    # A pass that stops halfway would leave sharded parameters gathered.
    stops = on_output is None and not sharded_modules(model)
    last: list[tuple[str, Tensor, int, Tensor | None]] = []  # what `take` gets when the pass has stopped
    unsure: list[Cut] = []  # whose next step is to be seen

    def see(name: str, output: Any) -> None:
        cut = wanted.pop(name, None)
        if cut is None:
            return
        with blame(name):
            rows, label = _rows_of(output, n, cut, there, y if labelled else None)
        unsure.extend([cut] if cut.then is not None else [])
        if wanted or not stops:
            take(name, rows, n, label)
            return
        last.append((name, rows, n, label))
        if not unsure:
            raise _Reached

    def step(word: str) -> None:
        while unsure:
            unsure.pop().check(word)
            if last:
                raise _Reached

    given = owned(x, gradients)  # a model may write into its inputs
    with watch(model, cuts, see, step):
        try:
            output = call(model, given, gradients)
        except _Reached:
            output = None
    for cut in unsure:
        cut.check("")
    if wanted:
        raise Code.UNSUPPORTED(f"layer {min(wanted)!r}: not reached for every batch; choose another")
    if on_output is not None:
        on_output(x, y, output)
    for one in last:  # outside the model, whose other activations are free by now
        take(*one)


def _rows_of(output: Any, n: int, cut: Cut, there: Sequence[Tensor], targets: Any) -> tuple[Tensor, Tensor | None]:
    """Return the features (k, d) in what a layer returned for n points, and their k targets, or None.

    Raises:
        InputError: If there are none, or the targets do not fit them.
    """
    value = first_tensor(output)
    refused = unmeasurable(output, n)
    if value is None or refused is not None:
        raise InputError(refused or Refusal.NO_FLOATS.of())
    rows, layout = cut.reading.read(value.detach(), there)
    label, kept = (None, None) if targets is None else layout.label(targets)
    return rows if kept is None else rows[kept.to(rows.device)], label


class FeatureStream(Source):
    """The features of one layer, which the model computes anew on every pass.

    Args:
        model: The model, unwrapped.
        inputs: See `layer_features`.
        targets: In the shape of the inputs, or None; they determine which positions are dropped.
        cut: The layer.
        points: Number of points.
        device: Where features are handed over; None means where the model computes them.
        labelled: As for `run_through`.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        targets: Any,
        cut: Cut,
        points: int,
        device: Any = None,
        *,
        labelled: bool = True,
    ) -> None:
        super().__init__(device_of(model) if device is None else torch.device(device), Shards(count=points))
        self._model, self._inputs, self._targets, self._cut = model, inputs, targets, cut
        self._settings, self._labelled = CallersSettings(), labelled

    def visit(self, see: Callable[[int, Tensor], Any]) -> None:
        """See `Source.visit`; takes a forward pass up to the layer."""
        first, width = 0, None

        def take(name: str, part: Tensor, n: int, label: Tensor | None) -> None:
            nonlocal first, width
            width = part.shape[1] if width is None else width
            if part.shape[1] != width:
                raise Code.SHAPE(WIDTHS)
            if len(part):  # otherwise no position of the batch has a target
                with own_settings():
                    see(first, part.to(self.device))
            first += len(part)

        with self._settings.again():
            run_through(self._model, self._inputs, self._targets, [self._cut], take, labelled=self._labelled)


class Buffer:
    """Features of one layer, written batch by batch into memory that is reserved once.

    Args:
        points: Number of points to come, or a little more.
    """

    def __init__(self, points: int) -> None:
        self._points, self._used, self._room = points, 0, torch.empty(0, device="cpu")

    def put(self, part: Tensor, n: int) -> None:
        """Write the features (k, d) of a batch of n points behind the others.

        Raises:
            InputError: If they have another width than those before.
        """
        k, d = part.shape
        if self._used == 0:  # the first batch tells the number of rows per point, and their width
            rows = max(k, -(-self._points * k // n))
            device = home(part.device, rows * d * part.element_size())
            self._room = reserve(rows, d, part.dtype, device)
        if d != self._room.shape[1]:
            raise Code.SHAPE(WIDTHS)
        if self._used + k > len(self._room):  # more rows per point than in the first batch
            more = torch.empty(len(self._room) // 2 + k, d, dtype=part.dtype, device=self._room.device)
            self._room = torch.cat([self._room[: self._used], more])
        self._room[self._used : self._used + k] = part
        self._used += k

    def whole(self) -> Tensor:
        """Return all features (n, d)."""
        return self._room[: self._used]


def home(device: torch.device, size: int) -> torch.device:
    """Return where features of some bytes are held: on the accelerator if half of its free memory suffices."""
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
        return torch.device("cpu")
    return device


def most_points(model: nn.Module, inputs: Any) -> int:
    """Return the number of points in the inputs, or a little more, as a loader tells without being iterated over."""
    batch, dataset = getattr(inputs, "batch_size", None), getattr(inputs, "dataset", None)
    sized = dataset is not None and not isinstance(dataset, torch.utils.data.IterableDataset)
    if isinstance(batch, int) and sized and is_loader(inputs):
        return batch * len(inputs)
    return count_points(model, inputs)


def count_points(model: nn.Module, inputs: Any) -> int:
    """Return the number of points in the inputs, iterating over a loader."""
    with while_read(model, inputs):
        return sum(count(x) for x, _ in batches(inputs))


def while_read(model: nn.Module, inputs: Any) -> AbstractContextManager[None]:
    """Leave everything untouched while inputs are iterated over; a list or a tensor runs no code of the user's."""
    return untouched(model, inputs) if is_loader(inputs) and type(inputs) is not list else nullcontext()
