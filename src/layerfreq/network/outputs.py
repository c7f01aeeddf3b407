"""A model's outputs, and targets made of them, gathered by the pass that reads its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.data.arraylike import as_array, as_tensor
from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import LABELS, batches, count, is_loader, is_shuffled, owned, tensors_of
from layerfreq.data.targets import read_targets
from layerfreq.errors import Code, InputError, a_kind, alone, failed, none_given, shown, wrong_length
from layerfreq.isolation.torch_settings import settings_kept
from layerfreq.network.reading import Layout
from layerfreq.trace.hooks import first_tensor

ONE = ""  # name of a single target


class Outputs:
    """Inputs, targets and outputs, batch by batch.

    Args:
        inputs: What the batches are taken from; see `in_one_piece`.
    """

    def __init__(self, inputs: Any = None) -> None:
        self._held = in_one_piece(inputs)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def seen(self) -> bool:
        """Whether a batch has been taken in."""
        return bool(self._parts)

    def see(self, inputs: Any, targets: Any, output: Any) -> None:
        """Take in a batch."""
        x, value = coordinates(inputs), tensor_of(output)
        if value.ndim == 0 or len(value) != len(x):
            raise Code.SHAPE(f"error: the model returns {tuple(value.shape)} for {len(x)} points; error=None")
        mine = x[:0] if self._held is not None else x.clone()
        self._parts.append((mine, labels_of(targets, len(x)), value.detach().clone()))

    def whole(self, shards: Shards) -> tuple[Tensor, Tensor, Tensor]:
        """Return (n, d) inputs, (n, ...) targets and (n, ...) outputs of all batches of all ranks, and forget them."""
        found = [torch.cat(parts) for parts in zip(*self._parts, strict=True)]
        self._parts = []
        if self._held is not None:
            found[0] = self._held.to(found[2].device)
        if not shards.alone:
            said = shards.gather([one.cpu() for one in found])
            found = [torch.cat(parts) for parts in zip(*said, strict=True)]
        return found[0], found[1], found[2]


def in_one_piece(inputs: Any) -> Tensor | None:
    """Return one tensor or array as points (n, d), without a copy; None for anything else.

    Batches of a loader have to be copied: it may write each into the memory of the one before.
    """
    inputs = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
    return coordinates(inputs) if isinstance(inputs, Tensor) else None


def coordinates(inputs: Any) -> Tensor:
    """Return a batch's inputs as points (n, d) that have frequencies; labels among them are not coordinates.

    Raises:
        InputError: If they are several tensors.
    """
    if isinstance(inputs, Mapping):
        inputs = {name: one for name, one in inputs.items() if name not in LABELS}
    tensors = tensors_of(inputs)
    if len(tensors) != 1:
        raise Code.UNSUPPORTED(
            f"error: inputs are {len(tensors)} tensors; pass error=None, and outputs to error_spectrum"
        )
    return tensors[0].detach().reshape(count(inputs), -1)


def labels_of(targets: Any, n: int | None = None) -> Tensor:
    """Return a batch's targets as a tensor on the CPU, a copy.

    Raises:
        InputError: If there are none, or not one for each of n points.
    """
    if targets is None:
        raise none_given("targets", "one for each input besides any function, since error needs labels")
    found = as_tensor(targets, "targets").detach().to("cpu", copy=True)
    if n is not None and found.shape[:1] != (n,):
        raise wrong_length("targets", f"shape {tuple(found.shape)}", n)
    return found


def tensor_of(output: Any, argument: str = "error", remedy: str = "pass error=None") -> Tensor:
    """Return the `logits` of a model's output, or its first floating-point tensor.

    Args:
        output: What the model returned.
        argument: The argument that asks for it, for messages.
        remedy: What to do if there is none, for messages.

    Raises:
        InputError: If there is none.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    found = logits if isinstance(logits, Tensor) else first_tensor(output)
    if found is None:
        raise Code.UNSUPPORTED(f"{argument}: the model returns {a_kind(output)} without floats; {remedy}")
    return found


def as_wanted(inputs: Any, targets: Any) -> tuple[Any, dict[Any, Any] | None]:
    """Separate labels from the targets that are measured in their place or beside them.

    Args:
        inputs: As for `layer_spectra`.
        targets: As for `layer_spectra`.

    Returns:
        The labels of the inputs, None if the inputs bring their own or there are none; and a mapping of names to what
        is measured: a function, (n, ...) targets, or None for the labels of batches. It is None if only labels are.

    Raises:
        InputError: If a mapping is empty, or asks for labels that the inputs do not bring.
    """
    if callable(targets):
        return None, {ONE: targets}
    if isinstance(targets, (list, tuple)) and any(callable(one) for one in targets):
        raise InputError("targets: functions in a list; name them, as in {'labels': y, 'residual': function}")
    if not isinstance(targets, Mapping):
        return targets, None
    if not targets:
        raise none_given("targets", "some, as in {'labels': y, 'residual': function}")
    if ONE in targets:
        raise InputError(f"targets: {ONE!r} is not a valid name; pass others, as {{'labels': y, 'residual': function}}")
    fixed = {name: one for name, one in targets.items() if one is not None and not callable(one)}
    bare = next((name for name, one in targets.items() if one is None), None)
    if is_loader(inputs):
        if fixed and is_shuffled(inputs):
            said = f"targets: {next(iter(fixed))!r} is in the order of the points, but the loader shuffles them"
            raise Code.CONFLICT(f"{said}; pass shuffle=False, or None for the loader's labels")
        return None, dict(targets)
    if bare is not None:
        raise Code.EMPTY(f"targets: {bare!r} is None, and the inputs bring no labels; pass one target for each input")
    for name, one in fixed.items():
        with about_target(name):
            next(batches(inputs, one))
    labels = next((as_array(one, "targets") for one in fixed.values()), None)
    return labels, dict(targets)


class Wanted:
    """Targets that a user's functions make of inputs, labels and outputs, batch by batch, and fixed ones beside them.

    Args:
        wanted: As from `as_wanted`.
        strict: Whether all are needed.

    Attributes:
        failed: name -> error, for targets that could not be made.
        seen: Whether no batch is needed, or one has been taken in.
    """

    def __init__(self, wanted: Mapping[Any, Any], *, strict: bool = True) -> None:
        self.failed: dict[Any, InputError] = {}
        self._wanted, self._strict = wanted, strict
        self._whole: dict[Any, Tensor] | None = None
        self._parts: dict[Any, list[Tensor]] = {
            name: [] for name, one in wanted.items() if one is None or callable(one)
        }
        self.seen = not self._parts

    def see(self, inputs: Any, labels: Any, output: Any) -> None:
        """Take in a batch: inputs, labels or None, and what the model returned."""
        self.seen = True
        for name, parts in self._parts.items():
            if name in self.failed:
                continue
            with self._noting(name):
                make = self._wanted[name]
                parts.append(labels_of(labels, count(inputs)) if make is None else _made(make, inputs, labels, output))

    def whole(self, shards: Shards) -> dict[Any, Tensor]:
        """Return name -> targets of this rank's points, without those that failed on any rank.

        Raises:
            InputError: If one failed, and all are needed; the same on all ranks.
        """
        if self._whole is not None:
            return self._whole
        found = {}
        for name in (name for name in self._wanted if name not in self.failed):
            with self._noting(name):
                found[name] = Layout(0).label(self._joined(name))[0]
        for said in shards.gather(self.failed):
            self.failed = {**said, **self.failed}
        if self._strict and self.failed:
            raise min(self.failed.values(), key=str)
        self._whole = {name: y for name, y in found.items() if name not in self.failed}
        return self._whole

    def _joined(self, name: Any) -> Any:
        parts = self._parts.get(name)
        if parts is None:
            return self._wanted[name]
        widths = sorted({tuple(part.shape[1:]) for part in parts})
        if len(widths) > 1:
            raise Code.SHAPE(f"targets: of other shapes in other batches, {shown(widths)}; make them all alike")
        if len({part.is_floating_point() for part in parts}) > 1:
            raise Code.CONFLICT("targets: class ids in some batches and floats in others; return either in all of them")
        return torch.cat(parts)

    @contextmanager
    def _noting(self, name: Any) -> Iterator[None]:
        """Record in `failed` that a target could not be made."""
        try:
            with about_target(name):
                yield
        except InputError as error:
            self.failed[name] = alone(error)


def _made(make: Callable[..., Any], inputs: Any, labels: Any, output: Any) -> Tensor:
    """Return what a function makes of copies of a batch, on the CPU.

    Raises:
        InputError: If it fails, or makes anything but one target for each point.
    """
    called, n = name_of(make), count(inputs)
    out = tensor_of(output, "targets", "a function of the outputs needs some").detach().clone()
    y = None if labels is None else labels_of(labels).to(out.device, copy=True)
    try:
        with settings_kept():
            found = make(owned(inputs), y, out)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        remedy = "fix it" if y is not None else "y is None, pass labels besides: {'labels': y, 'residual': function}"
        raise failed("targets", f"{called} fails on an output {tuple(out.shape)}", error, remedy) from error
    try:
        found = as_tensor(found, "targets").detach().to("cpu", copy=True)  # it may write there again
    except (OverflowError, TypeError, ValueError, RuntimeError):
        raise InputError(f"targets: {called} returns {shown(found)}; return numbers, one row for each point") from None
    shape = tuple(found.shape)
    if shape[:1] != (n,):
        raise wrong_length("targets", f"{called} returns {shape}", n, "points")
    if n > 1 and shape == (n, n) and y is not None and y.shape == (n,) and out.shape == (n, 1):
        raise Code.SHAPE(f"targets: {called} returns {shape}, for y {(n,)} less an output {(n, 1)}; take output[:, 0]")
    read_targets(found, n)
    return found


def name_of(function: Any) -> str:
    """Return what a user's function is called."""
    name = getattr(function, "__name__", type(function).__name__)
    return "the function" if name == "<lambda>" else name


@contextmanager
def about_target(name: Any) -> Iterator[None]:
    """Let an InputError about targets that is raised inside name the target, if there are several."""
    try:
        yield
    except InputError as error:
        said = str(error)
        if name == ONE or not said.startswith("targets: "):
            raise
        raise InputError(f"targets[{name!r}]: {said.removeprefix('targets: ')}", error.code) from error


class Function(nn.Module):
    """A plain function of the inputs, as a module without layers.

    Args:
        function: Makes (n, ...) outputs, a tensor or an array, of (n, ...) inputs.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the function's outputs, arrays as tensors."""
        found = self.function(*inputs, **named)
        if isinstance(found, Tensor) or first_tensor(found) is not None:
            return found
        return torch.as_tensor(np.array(as_array(found, "outputs")))
