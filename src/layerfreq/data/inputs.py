"""Inputs in any supported form: a tensor, an array, a dict, a tuple, or a loader of batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from itertools import chain
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from layerfreq.data.arraylike import as_array, is_table
from layerfreq.errors import Code, InputError, a_kind, failed, none_given, shown, together, wrong_length

MOST = 10_000  # most batches of a loader of unknown length
SAMPLES = 256  # points in one batch of a data set
LABELS = ("labels", "label", "label_ids")  # names of the targets in batches that are dicts
BATCH = 1024  # points in one forward pass, if the inputs come in one piece


def is_loader(inputs: Any) -> bool:
    """Whether the inputs are an iterable of (inputs, targets) batches, or a data set, rather than one batch."""
    if isinstance(inputs, (Tensor, np.ndarray, Mapping, tuple)) or is_table(inputs):
        return False
    if isinstance(inputs, list):
        first = inputs[0] if inputs else None
        pair = isinstance(first, (tuple, list)) and len(first) == 2 and not isinstance(first[0], Number)
        return pair or isinstance(first, Mapping) or is_record(first)
    return isinstance(inputs, Iterable) or is_dataset(inputs)


def is_dataset(inputs: Any) -> bool:
    """Whether the inputs are a data set of samples: PyTorch's or Hugging Face's."""
    return isinstance(inputs, Dataset) or (type(inputs).__module__.split(".")[0] == "datasets" and not is_table(inputs))


def is_shuffled(inputs: Any) -> bool:
    """Whether a loader draws its points in random order."""
    sampler = getattr(inputs, "sampler", None)
    drawn = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
    return isinstance(sampler, drawn) or bool(getattr(sampler, "shuffle", False))


def batches(inputs: Any, targets: Any = None, *, whole: bool = False) -> Iterator[tuple[Any, Any]]:
    """Iterate over (inputs, targets) batches; targets are None if none were given.

    Args:
        inputs: A tensor or array (n, ...), a dict or tuple of them as the model's forward takes, or an
            iterable of (inputs, targets) batches.
        targets: (n, ...) or None; must be None for an iterable of batches.
        whole: Use inputs held in one piece as one batch, however many points they have.

    Raises:
        InputError: For empty data, or on batches that are not pairs.
    """
    if is_loader(inputs):
        if targets is not None:
            raise together("targets", "an iterable of batches, which brings its own", "pass None")
        inputs = as_loader(inputs)
        empty, endless = True, not hasattr(inputs, "__len__") or isinstance(inputs, DataLoader)
        for number, batch in enumerate(collated(inputs)):
            if endless and number == MOST:
                raise Code.UNSUPPORTED(f"inputs: {MOST} batches and no end; pass list(itertools.islice(loader, 100))")
            x, y = pair_of(batch)
            x = _as_tensors(x)
            if count(x) == 0:
                continue
            empty = False
            yield x, y
        if empty:
            raise Code.EMPTY("inputs: no batches; the loader is empty or used up by an earlier pass")
        return
    inputs, targets = _as_tensors(inputs), as_array(targets, "targets")
    n = count(inputs)
    if n == 0:
        raise none_given("inputs", "at least one point")
    if targets is not None and (not hasattr(targets, "__len__") or getattr(targets, "ndim", 1) == 0):
        raise wrong_length("targets", f"{shown(targets)}, one thing,", n)
    if targets is not None and len(targets) != n:
        raise wrong_length("targets", len(targets), n)
    size = n if whole else BATCH
    for start in range(0, n, size):
        at = slice(start, start + size)
        yield take(inputs, at, n), None if targets is None else targets[at]


def as_loader(inputs: Any) -> Any:
    """Return a loader of a data set's samples, in order; anything else as it is."""
    return DataLoader(inputs, SAMPLES, collate_fn=stacked) if is_dataset(inputs) else inputs


def stacked(samples: list[Any]) -> Any:
    """Make a batch of samples as PyTorch does, except that lists of numbers become rows instead of columns."""
    return default_collate([_rows(sample) for sample in samples])


def _rows(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return {name: _rows(value) for name, value in sample.items()}
    if isinstance(sample, tuple):
        parts = [_rows(value) for value in sample]
        return type(sample)(*parts) if hasattr(sample, "_fields") else tuple(parts)
    if isinstance(sample, list) and sample and isinstance(sample[0], (Number, list)):
        try:
            return torch.as_tensor(sample)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # ragged, or not numeric
            return sample
    return sample


def collated(loader: Any) -> Iterator[Any]:
    """Iterate over a loader; samples that cannot be collated raise a one-line error."""
    batches = None
    while True:
        try:
            batches = iter(loader) if batches is None else batches
            batch = next(batches)
        except StopIteration:
            return
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a user's data set may raise anything
            raise failed("inputs", "the loader fails", error, "fix it, or pad its samples to one size") from error
        yield batch


def one_pass() -> InputError:
    """Return the error for inputs that can be iterated over only once."""
    return Code.UNSUPPORTED("inputs: a one-pass iterator, and several passes are needed; pass a list or a DataLoader")


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a batch: of a pair, or of a dict or record with one of `LABELS`.

    Raises:
        InputError: If it is none of these, or one sample.
    """
    if is_record(batch):
        batch = {one.name: getattr(batch, one.name) for one in fields(batch)}
    if isinstance(batch, Mapping):
        name = next((name for name in LABELS if batch.get(name) is not None), None)
        if name is None:
            raise Code.MISSING(f"inputs: a batch has {', '.join(map(repr, batch))}, but none of {', '.join(LABELS)}")
        if isinstance(batch[name], Number) or getattr(batch[name], "ndim", 1) == 0:
            said = f"inputs: {name!r} of a batch is {shown(batch[name])}, as of one sample"
            raise Code.SHAPE(f"{said}; pass DataLoader(samples, 32), or a data set")
        inputs = {key: value for key, value in batch.items() if key != name}
        return {key: value for key, value in inputs.items() if not _is_text(value)} or inputs, batch[name]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise Code.EMPTY(f"inputs: {type(batch).__name__} batches without targets; pass list(zip(loader, y.split(n)))")
    raise Code.SHAPE(f"inputs: a batch of {len(batch)}; pass pairs, as in [((x, mask), y) for x, y, mask in loader]")


def _is_text(value: Any) -> bool:
    """Whether this is a column of text, which data sets keep beside the inputs of the model."""
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], str))


def is_record(value: Any) -> bool:
    """Whether this is an instance of a dataclass that is not a mapping."""
    return is_dataclass(value) and not isinstance(value, (type, Mapping))


def count(inputs: Any) -> int:
    """Number of points n in one batch of inputs: the first dimension of its first tensor."""
    for tensor in tensors_of(inputs):
        if tensor.ndim:
            return tensor.shape[0]
    raise InputError(f"inputs: {a_kind(inputs)} without tensors; pass what the model's forward takes")


def take(inputs: Any, at: slice | Tensor | list[int], n: int) -> Any:
    """Take some of n points: every tensor with first dimension n is indexed, everything else is passed on."""
    return map_tensors(lambda t: t[at] if t.ndim and t.shape[0] == n else t, inputs)


def map_tensors(change: Callable[[Tensor], Any], inputs: Any, other: Callable[[Any], Any] = lambda value: value) -> Any:
    """Apply a function to every tensor in a tensor, dict, tuple or list, and another to anything else."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: map_tensors(change, value, other) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(map_tensors(change, value, other) for value in inputs))
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(map_tensors(change, value, other) for value in inputs)
    if is_record(inputs):
        changed = copy.copy(inputs)
        for one in fields(inputs):
            object.__setattr__(changed, one.name, map_tensors(change, getattr(inputs, one.name), other))
        return changed
    return other(inputs)


def call(model: nn.Module, inputs: Any, gradients: bool = False) -> Any:
    """Call a model as its user does: a dict by keyword, a tuple or list by position, else one argument.

    The model may write into these inputs, so pass a copy from `owned`. Make it before the model is watched, or the
    copying is recorded as part of the model. With `gradients`, autograd is on.
    """
    with torch.enable_grad() if gradients else nullcontext():
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, (tuple, list)):
            return model(*inputs)
        return model(inputs)


def owned(inputs: Any, gradients: bool = False) -> Any:
    """Return a deep copy of inputs; a tensor that occurs twice is copied once.

    With `gradients`, floating-point copies require gradients, for a model that differentiates inside its forward.
    """
    copies: dict[int, Tensor] = {}

    def clone(t: Tensor) -> Tensor:
        if id(t) not in copies:
            copies[id(t)] = _differentiable(t) if gradients and t.is_floating_point() else t.clone()
        return copies[id(t)]

    def copied(value: Any) -> Any:
        if isinstance(value, (Tensor, Mapping, tuple, list)) or is_record(value):
            return map_tensors(clone, value, copied)
        try:
            return value if isinstance(value, nn.Module) else copy.deepcopy(value)
        except Exception:  # what cannot be copied, such as a lock, is passed on
            return value

    return copied(inputs)


def _differentiable(x: Tensor) -> Tensor:
    with torch.enable_grad():  # a clone, since nobody may write into a leaf
        return x.detach().clone().requires_grad_().clone()


def on_device(model: nn.Module, inputs: Any) -> Any:
    """Return the inputs on the device of the model's parameters, copying only what is elsewhere."""
    tensor = _any_tensor(model)
    return inputs if tensor is None else map_tensors(lambda t: t.to(tensor.device), inputs)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, or the CPU."""
    tensor = _any_tensor(model)
    return torch.device("cpu") if tensor is None else tensor.device


def _any_tensor(model: nn.Module) -> Tensor | None:
    return next(chain(model.parameters(), model.buffers()), None)


@contextmanager
def blaming_inputs(model: nn.Module, inputs: Any, also: str = "") -> Iterator[None]:
    """Turn what a model raises into an InputError that names the inputs it got, followed by `also`."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model may raise anything for unsuitable inputs
        given = tensors_of(inputs)
        kinds = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in given[:3]) or "no tensors"
        remedy = _remedy(model, inputs, given, str(error))
        raise failed("inputs", f"{type(model).__name__} does not run on {kinds}{also}", error, remedy) from error


def _remedy(model: nn.Module, inputs: Any, given: list[Tensor], said: str) -> str:
    """Return what to do about inputs on which a model raises, as far as these and what it said tell."""
    floats = {t.dtype for t in given if t.is_floating_point()}
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    other = floats != {own} if floats else "dtype" in said
    if own is not None and other:
        return f"its parameters are {own}, convert the inputs"
    if isinstance(inputs, Mapping) and "unexpected keyword argument" in said:
        return "a dict is passed by keyword; pass ({...},) to a forward that takes the dict itself"
    if isinstance(inputs, Mapping) and not any(name in inputs for name in LABELS) and _wants_labels(model, said):
        return "its forward needs labels; pass inputs={..., 'labels': y} beside targets=y"
    if 'required "forward" function' in said:
        return "give it a forward, or pass a module in it that has one (callbacks: module='name')"
    if isinstance(inputs, list) and len(given) > 1 and "positional argument" in said:
        return "each item of a list is an argument of forward; of a list of points pass torch.stack(inputs)"
    return "pass what its forward takes"


def _wants_labels(model: nn.Module, said: str) -> bool:
    """Whether a model that raised has labels among its arguments, and said that it lacks something."""
    lacks = "NoneType" in said or "required positional argument" in said
    return lacks and any(name in inspect.signature(model.forward).parameters for name in LABELS)


def _as_tensors(inputs: Any) -> Any:
    inputs = as_array(inputs, "inputs")
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "fiub":
            raise InputError(f"inputs: an array of {inputs.dtype}; pass numbers")
        return torch.from_numpy(inputs)
    if is_record(inputs):
        return map_tensors(_as_tensors, inputs, lambda value: as_array(value, "inputs"))
    if isinstance(inputs, Mapping):
        return {key: _as_tensors(value) if _has_numbers(value) else value for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        if isinstance(inputs, list) and not any(
            _has_numbers(value) and not isinstance(value, list) for value in inputs
        ):
            try:
                return torch.as_tensor(inputs)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                raise InputError("inputs: a list that is not numeric; pass a tensor, array, dict or tuple") from None
        if hasattr(inputs, "_fields"):
            return type(inputs)(*(_as_tensors(value) for value in inputs))
        return type(inputs)(_as_tensors(value) for value in inputs)
    return inputs


def _has_numbers(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, Mapping, tuple, list)) or is_table(value)


def tensors_of(inputs: Any) -> list[Tensor]:
    """Return every tensor in a tensor, dict, tuple, list or record."""
    found: list[Tensor] = []
    map_tensors(found.append, inputs)
    return found
