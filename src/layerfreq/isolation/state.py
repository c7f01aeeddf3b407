"""Remembering what objects hold, and putting it back; what cannot be put back is at least noticed."""

from __future__ import annotations

import array
import functools
import io
import itertools
import operator
import types
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from layerfreq.isolation.memory import free_memory
from layerfreq.isolation.reach import ATOMS, Found, attributes, is_plain, named_by, slots

LARGE = 4 << 20  # bytes from which on NumPy does so
FEW = 64 << 20  # bytes of arrays and tensors, outside of the model, whose contents are remembered
_said: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


class Kept:
    """What some objects hold now.

    Args:
        found: The objects, as from `reached`.
        sharded: Parameters are shared out over ranks, which move them about themselves: leave them alone.
    """

    def __init__(self, found: Iterable[Found], *, sharded: bool = False) -> None:
        self._notes: list[tuple[Found, Any]] = []
        room = {True: FEW, False: free_memory() // 2}
        for one in found:
            note = _note(one.value, sharded)
            if isinstance(note, (_Numbers, _Items)):
                few = one.data or not one.inside
                copied = note.size <= room[few] and note.copy()
                room[few] -= note.size if copied else 0
            if note is not None:
                self._notes.append((one, note))
            names = named_by(one.value)
            if names:
                self._notes.append((one, _Names(one.value, names)))
        self._tensors = [note for _, note in self._notes if isinstance(note, _Numbers)]
        for note in self._tensors:
            note.hide()

    def put_back(self, model: nn.Module) -> None:
        """Put back what has changed inside of model and loader; warn, once a model, of what else has.

        Args:
            model: Whose forward pass it was.
        """
        for note in self._tensors:
            note.show()
        lost: dict[str, set[str]] = {}
        for one, note in self._notes:
            what = note.changed()
            if what and not (one.inside and note.put_back()):
                lost.setdefault(one.owner, set()).add(what)
        for owner, what in lost.items():
            _warn(model, owner, what)


def _warn(model: nn.Module, owner: str, what: set[str]) -> None:
    said = _said.setdefault(model, set())
    new = sorted(what - said)
    if not new:
        return
    said.update(new)
    kind = type(model.get_submodule(owner)).__name__ if owner in dict(model.named_modules()) else ""
    where = f"model: {owner!r}{f' ({kind})' if kind else ''}" if owner else "inputs: the loader"
    warnings.warn(
        f"{where} changes {', '.join(new[:3])} as it runs, which a measurement cannot put back; training may differ "
        "from one that is not measured. Keep such state in attributes of the module",
        stacklevel=2,
    )


def _note(value: Any, sharded: bool) -> Any:
    """Remember one object; None where there is nothing that could change."""
    if isinstance(value, Tensor):
        skip = is_lazy(value) or (sharded and isinstance(value, nn.Parameter))
        return None if skip else _Numbers(value, hide=not sharded)
    if isinstance(value, (np.ndarray, array.array, bytearray)):
        return _Items(value)
    if isinstance(value, (dict, list, set, deque)):
        return _Container(value)
    mark = _mark(value)
    if mark is not None:
        return _Opaque(value, mark)
    return _Attributes(value) if is_plain(value) and attributes(value) else None


class _Attributes:
    """The attributes of an object, by reference."""

    def __init__(self, value: Any) -> None:
        self._value, self._before = value, attributes(value)

    def changed(self) -> str:
        now, before = attributes(self._value), self._before
        other = [name for name in {**before, **now} if name not in now or name not in before]
        other += [name for name, value in now.items() if name in before and value is not before[name]]
        return f"the attribute {min(map(str, other))!r} of a {type(self._value).__name__}" if other else ""

    def put_back(self) -> bool:
        home, by_slot, before = getattr(self._value, "__dict__", {}), slots(self._value), self._before
        for name in attributes(self._value).keys() - before.keys():
            if name in by_slot:
                by_slot[name].__delete__(self._value)
            else:
                del home[name]
        for name, value in before.items():
            if name in by_slot:
                if getattr(self._value, name, self) is not value:
                    by_slot[name].__set__(self._value, value)
            elif home.get(name, home) is not value:
                home[name] = value
        return not self.changed()


class _Container:
    """The entries of a dict, list, set or deque, by reference and in order, and a subclass's attributes."""

    def __init__(self, value: Any) -> None:
        self._value, self._before = value, _entries(value)
        own = is_plain(value) and bool(getattr(value, "__dict__", None))
        self._own = _Attributes(value) if own else None

    def changed(self) -> str:
        now, before = _entries(self._value), self._before
        if len(now) == len(before) and all(map(_same_entry, now, before)):
            return "" if self._own is None else self._own.changed()
        return f"a {type(self._value).__name__}"

    def put_back(self) -> bool:
        value, before = self._value, self._before
        if isinstance(value, list):
            list.__setitem__(value, slice(None), before)
        elif isinstance(value, dict):
            base: Any = OrderedDict if isinstance(value, OrderedDict) else dict
            base.clear(value)
            for name, one in before:
                base.__setitem__(value, name, one)
        elif isinstance(value, set):
            set.clear(value)
            set.update(value, before)
        else:
            deque.clear(value)
            deque.extend(value, before)
        return self._own is None or self._own.put_back()


def _entries(value: Any) -> list[Any]:
    if isinstance(value, dict):
        kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict
        return list(kind.items(value))
    base: Any = next(kind for kind in (list, set, deque) if isinstance(value, kind))
    return list(base.__iter__(value))


def _same_entry(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) is tuple and len(a) == len(b) == 2 and a[0] is b[0] and a[1] is b[1])


class _Numbers:
    """A tensor: its memory, the numbers there, whether it is trained, its gradient.

    The gradient is hidden meanwhile, so that nothing is added to it.
    """

    def __init__(self, value: Tensor, *, hide: bool) -> None:
        self._value, self._before = value, None
        self._memory = value.detach() if _is_filled(value) else None
        self.size = 0 if self._memory is None else value.numel() * value.element_size()
        self._version = None if value.is_inference() else value._version
        self._trained = value.requires_grad
        self._leaf = hide and value.is_leaf and not value.is_inference()
        self._gradient = value.grad if self._leaf else None

    def hide(self) -> None:
        """Take the gradient away."""
        if self._gradient is not None:
            self._value.grad = None

    def show(self) -> None:
        """Put gradient and flag back."""
        if self._leaf:
            if self._value.requires_grad != self._trained:
                self._value.requires_grad_(self._trained)
            if self._value.grad is not self._gradient:
                self._value.grad = self._gradient

    def copy(self) -> bool:
        """Remember the numbers."""
        if self._memory is None:
            return False
        home = self._memory.device
        if home.type == "cuda" and self.size > torch.cuda.mem_get_info(home)[0] // 4:
            home = torch.device("cpu")
        try:
            self._before = _copied(self._memory, home)
        except (RuntimeError, NotImplementedError):  # kinds of tensors without a copy, or no memory for one
            return False
        return True

    def changed(self) -> str:
        value, memory = self._value, self._memory
        if memory is None:
            return ""
        moved = not _same_memory(value, memory)
        if self._before is None:
            written = self._version is not None and value._version != self._version
        else:
            written = not _same(memory, self._before)
        return f"a tensor of {self.size >> 20} MiB" if moved or written else ""

    def put_back(self) -> bool:
        value, memory, before = self._value, self._memory, self._before
        assert memory is not None
        if not _same_memory(value, memory):
            value.data = memory
        if before is None:
            return False
        with torch.inference_mode(memory.is_inference()), torch.no_grad():
            memory.data.copy_(before)  # .data, since a graph may be waiting for its backward pass
        if self._version is not None and value._version != self._version:
            _set_version(value, self._version)
        return True


def _copied(memory: Tensor, home: torch.device) -> Tensor:
    """Return a copy; a large one of the host's lies in memory of NumPy's, which asks the system for large pages.

    Touching fresh memory page by page takes several times as long as copying.
    """
    plain = type(memory) is Tensor and memory.layout == torch.strided and memory.is_contiguous()
    size = memory.numel() * memory.element_size()
    if not plain or size < LARGE or memory.device.type != "cpu" or home.type != "cpu" or memory.is_quantized:
        return memory.to(home, copy=True)
    room = torch.from_numpy(np.empty(size, dtype=np.uint8)).view(memory.dtype).view(memory.shape)
    return room.copy_(memory)


def _set_version(value: Tensor, version: int) -> None:
    autograd: Any = getattr(torch._C, "_autograd")  # noqa: B009  which its stubs leave out
    try:
        autograd._unsafe_set_version_counter((value,), (version,))
    except TypeError:  # before PyTorch 2.7
        autograd._unsafe_set_version_counter(value, version)


class _Items:
    """The items of an array or a bytearray."""

    def __init__(self, value: Any) -> None:
        self._value: Any = value
        self._before: Any = None
        self.size = value.nbytes if isinstance(value, np.ndarray) else len(value) * getattr(value, "itemsize", 1)

    def copy(self) -> bool:
        """Remember them."""
        if isinstance(self._value, np.memmap):
            return False
        self._before = self._value.copy() if isinstance(self._value, np.ndarray) else self._value[:]
        return True

    def changed(self) -> str:
        before = self._before
        if before is None:
            return ""
        same = _bytes(before) == _bytes(self._value) if isinstance(before, np.ndarray) else before == self._value
        return "" if same else f"a {type(self._value).__name__}"

    def put_back(self) -> bool:
        if not isinstance(self._value, np.ndarray):
            self._value[:] = self._before
        elif not self._value.flags.writeable or self._value.shape != self._before.shape:
            return False
        else:
            np.copyto(self._value, self._before, casting="no")
        return True


def _bytes(value: np.ndarray) -> Any:
    if value.dtype.hasobject:
        return [id(one) for one in value.flat]
    return value.shape, value.dtype, value.tobytes()


class _Opaque:
    """Something that shows how far it has come, but cannot be set back: a file, an iterator, a cache of results."""

    def __init__(self, value: Any, mark: Any) -> None:
        self._value, self._before = value, mark

    def changed(self) -> str:
        return f"a {type(self._value).__name__.strip('_')}" if _mark(self._value) != self._before else ""

    def put_back(self) -> bool:
        return False


def _mark(value: Any) -> Any:
    try:
        if isinstance(value, functools._lru_cache_wrapper):
            return value.cache_info()
        if isinstance(value, io.IOBase):
            return value.tell()
        if isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            return (-1,) if frame is None else (frame.f_lasti, *map(id, frame.f_locals.values()))
        if isinstance(value, itertools.count):
            return repr(value)
        if hasattr(type(value), "__next__") and not hasattr(value, "__dict__"):
            return operator.length_hint(value, -1)
    except Exception:  # closed files, pipes, iterators of anybody's
        return None
    return None


class _Names:
    """What the names mean that a function or a class uses."""

    def __init__(self, value: Any, names: dict[str, Any]) -> None:
        self._value, self._before = value, names

    def changed(self) -> str:
        now = named_by(self._value)
        for name in {**self._before, **now}:
            a, b = self._before.get(name), now.get(name)
            if a is not b and not (type(a) is type(b) and type(a) in ATOMS and a == b):
                return name
        return ""

    def put_back(self) -> bool:
        return False


def _is_filled(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers of its own now: not one on "meta", and none whose memory has been given back."""
    try:
        return not tensor.is_meta and tensor.untyped_storage().nbytes() > 0
    except (RuntimeError, NotImplementedError, ValueError):  # kinds of tensors without a storage, or lazy ones
        return False


def _same_memory(a: Tensor, b: Tensor) -> bool:
    try:
        kind = a.dtype == b.dtype and a.device == b.device and a.shape == b.shape and a.stride() == b.stride()
        return kind and a.data_ptr() == b.data_ptr()
    except RuntimeError:  # wrappers without an address
        return True


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit."""
    b = b.to(a.device)
    if a.is_quantized:
        a, b = a.int_repr(), b.int_repr()
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(a.element_size())
    try:
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
            whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        return torch.equal(a, b) if whole is None else torch.equal(a.view(whole), b.view(whole))
    except (RuntimeError, TypeError, NotImplementedError):
        return torch.equal(a, b)
