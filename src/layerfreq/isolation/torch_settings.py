"""The caller's settings of PyTorch, kept away from sums whose precision and place are chosen by the code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


class Flag:
    """A setting of the whole process, which several threads want otherwise for a while: the last one out restores it.

    Args:
        get: Returns it.
        put: Sets it.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        self._get, self._put, self._lock = get, put, threading.RLock()
        self._inside, self._before = 0, None

    @contextmanager
    def at(self, value: Any) -> Iterator[None]:
        """Set it to a value; all who do so at a time have to want the same."""
        with self._lock:
            if not self._inside:
                self._before = self._get()
                self._put(value)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._put(self._before)


plain_products = Flag(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
fused_encoders = Flag(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled)
default_dtype = Flag(torch.get_default_dtype, torch.set_default_dtype)


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute without the caller's autocast, default dtype and default device; also a decorator of functions."""
    with ExitStack() as stack:
        stack.enter_context(default_dtype.at(torch.float32))
        for kind in _kinds():
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


class CallersSettings:
    """The settings as they are now, to run the caller's model under them inside `own_settings`."""

    def __init__(self) -> None:
        self._dtype, self._device = torch.get_default_dtype(), torch.get_default_device()
        self._casts = {kind: torch.get_autocast_dtype(kind) for kind in _kinds() if torch.is_autocast_enabled(kind)}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Switch them on."""
        with ExitStack() as stack:
            _default_dtype(stack, self._dtype)
            for kind, dtype in self._casts.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            if self._device != torch.get_default_device():
                stack.enter_context(self._device)
            yield


def _kinds() -> set[str]:
    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    return {"cpu", "cuda" if accelerator is None else accelerator.type}


def _default_dtype(stack: ExitStack, dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    if dtype != before:
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(dtype)
