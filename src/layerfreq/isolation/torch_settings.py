"""PyTorch settings: the caller's are kept out of our sums, and those that a user's function changes are restored."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd import set_detect_anomaly

from layerfreq.isolation.forked import Lock, threads_that_exist


class Flag:
    """A process-wide setting that several threads may change at the same time; the last one to finish restores it.

    Args:
        get: Returns the setting.
        put: Sets it.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        self._get, self._put, self._lock = get, put, Lock()
        self._users, self._before = dict[object, int](), None  # who wants it changed now, and in which thread
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_others)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restore the setting if code inside changes it directly; `at` in other threads is not affected."""
        with self._lock.here:
            nested, now = bool(self._users), self._get()
            before = self._before if nested else now
        try:
            yield
        finally:
            with self._lock.here:
                if self._users:
                    self._before = before
                wanted = now if nested and self._users else before
                if (nested or not self._users) and self._get() != wanted:
                    self._put(wanted)

    @contextmanager
    def at(self, value: Any) -> Iterator[None]:
        """Set it to a value; all concurrent users must want the same one."""
        user = object()
        try:
            try:
                with self._lock.here:
                    if not self._users:
                        self._before = self._get()
                    self._users[user] = threading.get_ident()
                    if len(self._users) == 1:
                        self._put(value)
                yield
            finally:
                self._leave(user)
        finally:  # in case a signal has ended the first try
            self._leave(user)

    def _leave(self, user: object) -> None:
        with self._lock.here:
            if user in self._users:
                if len(self._users) == 1:
                    self._put(self._before)
                del self._users[user]

    def _forget_others(self) -> None:
        """In a forked process, restore what only threads of the parent wanted changed."""
        ours = {user: thread for user, thread in self._users.items() if thread == threading.get_ident()}
        if self._users and not ours:
            self._put(self._before)
        self._users = ours


# PyTorch 2.9 also has one precision of products per library; once one is set, the global one cannot be read.
_LIBRARIES: list[Any] = [
    one
    for one in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    if hasattr(one, "fp32_precision")
]
PLAIN = "highest", ("ieee",) * len(_LIBRARIES)


def _kinds() -> set[str]:
    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    return {"cpu", "cuda" if accelerator is None else accelerator.type}


def _autocast() -> dict[str, tuple[bool, torch.dtype]]:
    return {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _kinds()}


def _set_autocast(how: dict[str, tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in how.items():
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _device() -> torch.device | None:
    """Return the default device; None for one that this machine does not have, which cannot be read."""
    try:
        return torch.get_default_device()
    except Exception:
        return None


def _set_device(device: torch.device | None) -> None:
    if device is not None:
        torch.set_default_device(None if device.type == "cpu" else device)


def _precision() -> tuple[str | None, tuple[str, ...]]:
    of_all: Any = None
    try:
        of_all = torch.get_float32_matmul_precision()
    except RuntimeError:
        pass
    return of_all, tuple(one.fp32_precision for one in _LIBRARIES)


def _set_precision(precision: tuple[str | None, tuple[str, ...]]) -> None:
    of_all, of_each = precision
    if of_all is not None and _precision()[0] is not None:  # it can only be set while it can be read
        torch.set_float32_matmul_precision(of_all)
    for one, how in zip(_LIBRARIES, of_each, strict=True):
        one.fp32_precision = how


plain_products = Flag(_precision, _set_precision)
fused_encoders = Flag(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled)
default_dtype = Flag(torch.get_default_dtype, torch.set_default_dtype)
# Settings that we never change ourselves: how to read them, and how to set what was read.
_OTHERS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()), lambda v: set_detect_anomaly(*v)),
    (_device, _set_device),
    (_autocast, _set_autocast),
    (np.geterr, lambda how: np.seterr(**how)),
    *(
        (partial(getattr, place, name), partial(setattr, place, name))
        for place, name in (
            (torch.backends.cudnn, "enabled"),
            (torch.backends.cudnn, "benchmark"),
            (torch.backends.cudnn, "deterministic"),
            (torch.backends.mkldnn, "enabled"),
        )
    ),
)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore PyTorch and NumPy settings that a user's function changes; also a decorator."""
    before = [(get(), get, put) for get, put in _OTHERS]
    with plain_products.kept(), fused_encoders.kept(), default_dtype.kept():
        try:
            yield
        finally:
            for value, get, put in before:
                if get() != value:
                    put(value)


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute without the caller's autocast, default dtype and device, and inference mode; also a decorator.

    NumPy neither warns of overflow and NaN inside nor raises: the library looks for them itself.
    """
    with threads_that_exist(), np.errstate(all="ignore"), ExitStack() as stack:
        if torch.is_inference_mode_enabled():  # tensors made in it cannot be written to outside it, where a model runs
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(default_dtype.at(torch.float32))
        for kind in _kinds():
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if _device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        yield


class CallersSettings:
    """The current settings, to run the caller's model under them inside `own_settings`."""

    def __init__(self) -> None:
        self._dtype, self._device = torch.get_default_dtype(), _device()
        self._inference, self._errors = torch.is_inference_mode_enabled(), np.geterr()
        self._casts = {kind: torch.get_autocast_dtype(kind) for kind in _kinds() if torch.is_autocast_enabled(kind)}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Apply them inside a block."""
        with ExitStack() as stack:
            before = torch.get_default_dtype()
            if self._dtype != before:
                stack.callback(torch.set_default_dtype, before)
                torch.set_default_dtype(self._dtype)
            stack.enter_context(np.errstate(**self._errors))
            if self._inference:
                stack.enter_context(torch.inference_mode())
            for kind, dtype in self._casts.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            if self._device is not None and self._device != _device():
                stack.enter_context(self._device)
            yield
