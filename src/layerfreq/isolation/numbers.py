"""Saving the values of tensors, and restoring them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 4 << 20  # bytes; copies of this size and more are allocated by NumPy
PIECE = 64 << 20  # bytes compared at once on an accelerator
HOST = ("cpu",)  # devices on which a comparison does not wait
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Numbers:
    """A tensor as it was: its memory, its values, whether it requires gradients, and its gradient.

    The gradient is hidden until `show`, so that nothing is added to it.
    """

    def __init__(self, value: Tensor, *, hide: bool) -> None:
        self._value, self._before = value, None
        self._same = False  # known to be unchanged
        self._memory = value.detach() if _is_filled(value) else None
        self.size = 0 if self._memory is None else value.numel() * value.element_size()
        self._version = None if value.is_inference() else value._version
        self._trained = value.requires_grad
        self._leaf = hide and value.is_leaf and not value.is_inference()
        self._gradient = value.grad if self._leaf else None

    def hide(self) -> None:
        """Hide the gradient."""
        if self._gradient is not None:
            self._value.grad = None

    def show(self) -> None:
        """Restore gradient and flag."""
        if self._leaf:
            if self._value.requires_grad != self._trained:
                self._value.requires_grad_(self._trained)
            if self._value.grad is not self._gradient:
                self._value.grad = self._gradient

    def copy(self) -> bool:
        """Save the values; return whether that was possible."""
        if self._memory is None:
            return False
        home = self._memory.device
        if home.type == "cuda" and self.size > PIECE and self.size > torch.cuda.mem_get_info(home)[0] // 4:
            home = torch.device("cpu")
        try:
            self._before = _copied(self._memory, home)
        except (RuntimeError, NotImplementedError):  # kinds of tensors without a copy, or no memory for one
            return False
        return True

    def changed(self) -> str:
        """Return what has changed, as text; empty if nothing has."""
        value, memory = self._value, self._memory
        if memory is None:
            return ""
        moved = not _same_memory(value, memory)
        if self._before is None:
            written = self._version is not None and value._version != self._version
        else:
            written = not self._same and not _same(memory, self._before)
        return f"a tensor of {self.size >> 20} MiB" if moved or written else ""

    def put_back(self) -> bool:
        """Restore the values; return whether they were saved."""
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

    @property
    def elsewhere(self) -> bool:
        """Whether the values are on an accelerator."""
        return self._memory is not None and self._memory.device.type not in HOST

    def flat(self) -> tuple[Tensor, Tensor] | None:
        """Return the present and the saved values as flat integers; None if a tensor cannot be viewed as such."""
        now, before = self._memory, self._before
        if now is None or before is None or type(now) is not Tensor or now.device != before.device:
            return None
        if now.layout != torch.strided or now.is_quantized or now.is_complex() or now.element_size() not in _WHOLE:
            return None
        whole = _WHOLE[now.element_size()]
        return now.view(whole).reshape(-1), before.view(whole).reshape(-1)

    def known(self) -> None:
        """Record that the values are unchanged."""
        self._same = True


def compare(notes: Iterable[Numbers]) -> None:
    """Check on an accelerator, for many tensors at once, whether their values are unchanged.

    One by one, each comparison would wait for the device.
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[tuple[Numbers, Tensor, Tensor]]] = defaultdict(list)
    for note in notes:
        pair = note.flat() if note.size <= PIECE and note.elsewhere else None
        if pair is not None:
            kinds[pair[0].device, pair[0].dtype].append((note, *pair))
    for alike in kinds.values():
        while alike:
            taken, size = [], 0
            while alike and (not taken or size + alike[-1][0].size <= PIECE):
                taken.append(alike.pop())
                size += taken[-1][0].size
            try:
                same = torch.equal(torch.cat([now for _, now, _ in taken]), torch.cat([old for _, _, old in taken]))
            except RuntimeError:  # out of memory: `changed` compares them one by one
                return
            for note, *_ in taken if same else ():
                note.known()


def _copied(memory: Tensor, home: torch.device) -> Tensor:
    """Return a copy; a large one in host memory is allocated by NumPy, which gets large pages from the system.

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


def _is_filled(tensor: Tensor) -> bool:
    """Whether a tensor has values: it is not on "meta", and its memory has not been released."""
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
    """Whether two tensors are equal bit for bit."""
    b = b.to(a.device)
    if a.is_quantized:
        a, b = a.int_repr(), b.int_repr()
    whole = _WHOLE.get(a.element_size())
    try:
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
            whole = _WHOLE[a.element_size()]
        return torch.equal(a, b) if whole is None else torch.equal(a.view(whole), b.view(whole))
    except (RuntimeError, TypeError, NotImplementedError):
        return torch.equal(a, b)
