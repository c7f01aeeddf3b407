"""Saving what objects hold, and restoring it; a change that cannot be undone gives a warning."""

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
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from layerfreq.errors import a_kind, with_article
from layerfreq.isolation.memory import free_memory
from layerfreq.isolation.numbers import Numbers, compare
from layerfreq.isolation.reach import ATOMS, Found, attributes, is_plain, named_by, slots

OUTSIDE = 64 << 20  # most bytes of arrays and tensors outside the model that are saved
_warned: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


class Kept:
    """The saved contents of some objects.

    Args:
        found: The objects, as from `reached`.
        sharded: Whether parameters are sharded over ranks, which move them themselves; they are then left alone.
    """

    def __init__(self, found: Iterable[Found], *, sharded: bool = False) -> None:
        self._notes: list[tuple[Found, Any]] = []
        room = {True: OUTSIDE, False: free_memory() // 2}
        for one in found:
            note = _note(one.value, sharded)
            if isinstance(note, (Numbers, _Items)):
                outside = one.data or not one.inside
                if note.size <= room[outside] and note.copy():
                    room[outside] -= note.size
            if note is not None:
                self._notes.append((one, note))
            names = named_by(one.value)
            if names:
                self._notes.append((one, _Names(one.value, names)))
        self._tensors = [note for _, note in self._notes if isinstance(note, Numbers)]
        for note in self._tensors:
            note.hide()

    def put_back(self, model: nn.Module) -> None:
        """Restore what has changed inside model and loader; warn, once per model, about anything else.

        Args:
            model: The model that was run.
        """
        for note in self._tensors:
            note.show()
        compare(self._tensors)
        lost: dict[str, set[str]] = {}
        for one, note in self._notes:
            what = note.changed()
            if what and not (one.inside and note.put_back()):
                lost.setdefault(one.owner, set()).add(what)
        for owner, what in lost.items():
            _warn(model, owner, what)


def _warn(model: nn.Module, owner: str, what: set[str]) -> None:
    warned = _warned.setdefault(model, set())
    new = sorted(what - warned)
    if not new:
        return
    warned.update(new)
    kind = type(model.get_submodule(owner)).__name__ if owner in dict(model.named_modules()) else ""
    where = f"model: {owner!r}{f' ({kind})' if kind else ''}" if owner else "inputs: the loader"
    warnings.warn(
        f"{where} changes {', '.join(new[:3])} when it runs, which a measurement cannot restore, so training may "
        "differ from an unmeasured one; keep such state in attributes of the module",
        stacklevel=2,
    )


def _note(value: Any, sharded: bool) -> Any:
    """Save one object; None if nothing in it could change."""
    if isinstance(value, Tensor):
        skip = is_lazy(value) or (sharded and isinstance(value, nn.Parameter))
        return None if skip else Numbers(value, hide=not sharded)
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
        return f"the attribute {min(map(str, other))!r} of {a_kind(self._value)}" if other else ""

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
        return a_kind(self._value)

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


class _Items:
    """The items of an array or a bytearray."""

    def __init__(self, value: Any) -> None:
        self._value: Any = value
        self._before: Any = None
        self.size = value.nbytes if isinstance(value, np.ndarray) else len(value) * getattr(value, "itemsize", 1)

    def copy(self) -> bool:
        """Save the items; return whether that was possible."""
        if isinstance(self._value, np.memmap):
            return False
        self._before = self._value.copy() if isinstance(self._value, np.ndarray) else self._value[:]
        return True

    def changed(self) -> str:
        before = self._before
        if before is None:
            return ""
        same = _bytes(before) == _bytes(self._value) if isinstance(before, np.ndarray) else before == self._value
        return "" if same else a_kind(self._value)

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
    """Something whose progress can be seen but not reset: a file, an iterator, a cache of results."""

    def __init__(self, value: Any, mark: Any) -> None:
        self._value, self._before = value, mark

    def changed(self) -> str:
        return with_article(type(self._value).__name__.strip("_")) if _mark(self._value) != self._before else ""

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
    """The meaning of the names that a function or a class uses."""

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
