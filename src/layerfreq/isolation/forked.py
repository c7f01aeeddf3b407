"""Forked processes, where OpenMP waits forever for threads that were not copied."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def _copied() -> bool:
    """Whether this process is a copy of another that has not started a program of its own (Linux: PF_FORKNOEXEC)."""
    if sys.platform != "linux":
        return False
    try:
        return bool(int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[6]) & 0x40)
    except (OSError, ValueError, IndexError):
        return False


_COPIED, _BORN = _copied(), os.getpid()  # the process number shows nothing where the copy itself imports this first


def forked() -> bool:
    """Whether this process was forked, so that threads of the parent may be missing."""
    return _COPIED or os.getpid() != _BORN


class Lock:
    """A reentrant lock that is free in a forked process, except for the thread that forked while it held it.

    The parent's other threads are not copied and could never release it.

    Attributes:
        here: The lock of this process, for `with`: Python itself takes and releases it, without a gap for a signal.
    """

    def __init__(self) -> None:
        self.here = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._free)

    def _free(self) -> None:
        if self.here.acquire(blocking=False):
            self.here.release()
        else:
            self.here = threading.RLock()


@contextmanager
def threads_that_exist() -> Iterator[None]:
    """Keep PyTorch to one thread for a while in a forked process.

    If the parent has used OpenMP, the copy of its thread would wait for OpenMP threads that only the parent has.
    Whether it has cannot be found out. Threads started since the fork are not affected: OpenMP starts others for them.
    """
    count = torch.get_num_threads()
    if count == 1 or not forked() or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(count)
