"""Threads for loops that run without the interpreter's lock: as many as PyTorch uses, each with BLAS to itself."""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from threadpoolctl import LibController, ThreadpoolController

from layerfreq.isolation.forked import forked
from layerfreq.isolation.torch_settings import Flag

# Operations, a few milliseconds of them, that the caller does: to wake threads takes longer where they wait for a core.
SMALL = 10**8
MOMENT = 0.1  # seconds for which it is taken as settled whose threads work
LINE = 64  # bytes of a line of the cache, and of the widest registers


def hands(work: int) -> int:
    """How many threads some work is worth, counted in operations: one, or as many as PyTorch uses."""
    return 1 if work < SMALL else max(1, torch.get_num_threads())


_Map = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]
_Start = Callable[..., Any]  # calls a function on OpenMP's threads


@contextmanager
def threads(count: int | None = None) -> Iterator[_Map]:
    """Give a `map` that runs on so many threads: None for as many as PyTorch uses, 1 for the caller's own."""
    count = torch.get_num_threads() if count is None else count
    with one_blas_thread():
        yield map if count == 1 else partial(_together, _torchs(count), count)


def every_two(many: int) -> list[tuple[int, int]]:
    """Return all pairs of one or an even number of blocks; after each with itself, every block meets one other a turn.

    Example:
        >>> every_two(4)
        [(0, 0), (1, 1), (2, 2), (3, 3), (0, 3), (1, 2), (0, 1), (2, 3), (0, 2), (3, 1)]
    """
    pairs = [(i, i) for i in range(many)]
    for turn in range(many - 1):  # a round robin
        ring = [0, *(1 + (i + turn) % (many - 1) for i in range(many - 1))]
        pairs += ((ring[i], ring[-1 - i]) for i in range(many // 2))
    return pairs


def in_turn(meet: Callable[[tuple[int, int]], None], pairs: list[tuple[int, int]], run: _Map) -> None:
    """Call a function with pairs of blocks on several threads; no block is in two calls at a time.

    Each block meets its partners in the order of the list, whichever thread is faster: sums are the same to the last
    bit. A thread that waits for its core holds up only what needs its two blocks.

    Args:
        meet: What is called.
        pairs: Which blocks meet.
        run: A `map` that runs on them.
    """
    missing, before, last = [0] * len(pairs), [list[int]() for _ in pairs], dict[int, int]()
    for at, pair in enumerate(pairs):
        for block in set(pair):
            if block in last:
                missing[at] += 1
                before[last[block]].append(at)
            last[block] = at
    ready, lock = SimpleQueue[int | None](), threading.Lock()  # no signal leaves these half done, as `Condition` may be
    for at, those in enumerate(missing):
        if not those:
            ready.put(at)

    def work(_: Any) -> None:
        """Do one pair; there is one call for each."""
        try:
            at = ready.get()
            if at is None:
                ready.put(None)
                return
            meet(pairs[at])
            with lock:
                for later in before[at]:
                    missing[later] -= 1
                    if not missing[later]:
                        ready.put(later)
        except BaseException:
            ready.put(None)  # those that wait go no further
            raise

    list(run(work, range(len(pairs))))


def parts(n: int, most: int, even: int = 1, count: int | None = None) -> list[slice]:
    """Cut n rows in equal parts of at most `most`, so many that every thread has as many of them as the others.

    None is empty, so that few rows are fewer parts; no rows are one.

    Args:
        n: Number of rows.
        most: Rows of a part.
        even: The number of parts is a multiple of this, too, or one.
        count: Threads; None for as many as PyTorch uses.
    """
    count = max(1, torch.get_num_threads() if count is None else count) * even
    count *= max(1, -(-n // (count * most)))
    count = max(1, min(count, n // even * even))
    edges = [n * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def one_blas_thread() -> Any:
    """Keep BLAS to one thread for a while: threads that it wakes would still be spinning when ours start."""
    return _limit.at([1] * len(_libraries()))


@cache
def _libraries() -> list[LibController]:
    """The BLAS libraries; to look for them takes longer than a small spectrum."""
    return [one for one in ThreadpoolController().lib_controllers if one.user_api == "blas"]


def _set(counts: list[int | None]) -> None:
    for library, count in zip(_libraries(), counts, strict=True):
        if count is not None:
            library.set_num_threads(count)


_limit = Flag(lambda: [library.num_threads for library in _libraries()], _set)


def _torchs(count: int) -> _Start | None:
    """Return what starts PyTorch's own threads, where they are those of OpenMP, awake, and cores are free.

    After each of its operations these spin for a while, so that the next one finds them awake: threads of ours would
    have to share the cores with them. Where they sleep, or cores are busy, ours are no slower. To change from one to
    the other costs more than to stay with either, so that what is found holds for a moment.
    """
    start = None if forked() else _openmp()  # OpenMP's threads are none of a forked process
    if start is None or any(library.num_threads != 1 for library in _libraries()):
        return None  # OpenBLAS keeps its limit to the main thread, and warns of more threads within OpenMP's
    until, asked, ours = _kept.__dict__.get("choice", (0.0, 0, True))
    if time.monotonic() > until or asked != count:
        if len(_team()) < count - 1:
            _together(start, count, len, ())  # shows which they are
        ours = not _apart(count)
        _kept.choice = time.monotonic() + MOMENT, count, ours
    return None if ours else start


def _team() -> set[int]:
    """The system's numbers of the OpenMP threads that work for this one."""
    return _kept.__dict__.setdefault("team", set())


def _apart(count: int) -> bool:
    """Whether so many threads, the caller and its team, run now, each on a core that no other wants; as Linux says."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
        cores = {_core(thread) for thread in (threading.get_native_id(), *_team())} - {None}
    except (OSError, ValueError, IndexError):
        return False
    return len(cores) >= count and running <= (os.cpu_count() or 1)


def _core(thread: int) -> int | None:
    """The core on which one of this process's threads runs, or for which it waits; None where it sleeps."""
    try:
        fields = Path(f"/proc/self/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # it has ended: which are there now is to be found out
        _team().clear()
        return None
    return int(fields[36]) if fields[0] == "R" else None


_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> _Start | None:
    """Return the function by which PyTorch's OpenMP threads call another; on Linux, where GNU's and Intel's have it."""
    if sys.platform != "linux" or not torch.backends.openmp.is_available():
        return None
    loaded = [one for one in ThreadpoolController().lib_controllers if one.user_api == "openmp"]
    home = Path(torch.__file__).parent
    own = [one for one in loaded if home in Path(one.filepath).parents] or loaded
    start = getattr(own[0].dynlib, "GOMP_parallel", None) if len(own) == 1 else None
    if start is not None:
        start.argtypes, start.restype = [_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return start


def _together(start: _Start | None, count: int, one: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
    """Do what `map` does, at once and on so many threads, of which the caller's is one.

    Whatever is raised, also by a signal, no thread is at work any more when this returns.

    Args:
        start: OpenMP's function, for its threads; None for new ones.
        count: How many.
        one: What is called.
        items: With what.
    """
    todo = list(items)
    found, failed, waiting = [None] * len(todo), list[BaseException](), enumerate(todo)  # each takes the next
    # To Python the threads are new ones each time, so that the caller keeps the scratch memory of all.
    caller, rooms, team = threading.get_ident(), _kept.__dict__.pop("rooms", []), _team()
    rooms += ({} for _ in range(count - 1 - len(rooms)))
    free = deque(rooms)

    def work(_: Any = None) -> None:
        try:
            if threading.get_ident() != caller:
                _kept.buffers = free.popleft()
                if start is not None:
                    team.add(threading.get_native_id())
            with np.errstate(all="ignore"):  # what overflows is looked for
                for at, item in waiting:
                    if failed:
                        return
                    found[at] = one(item)
        except BaseException as error:
            failed.append(error)

    if start is None:
        _on_new_threads(work, count - 1, failed)
    else:
        with _unraised(failed):
            start(_Work(work), None, count, 0)
    _kept.rooms = rooms
    if failed:
        raise failed[0]
    return iter(found)


def _on_new_threads(work: Callable[[], None], others: int, failed: list[BaseException]) -> None:
    """Call a function in this thread and others at once; return when all are through, whatever a signal raises.

    Those that stay would not be sooner at work than new ones, but have to end with the process, and lack in its forks.
    """
    began, ended, news = list[int](), list[None](), SimpleQueue[None]()

    def other() -> None:
        try:
            work()
        finally:
            ended.append(None)
            news.put(None)

    def through() -> None:
        try:
            while len(ended) < len(began):
                news.get()
        except BaseException as error:
            failed.append(error)
            through()

    try:
        try:
            with suppress(RuntimeError):  # the system gives no more; those that are there do it all
                # No signal comes between the start of a thread and its note: there is no line of Python between them.
                began.extend(map(_thread.start_new_thread, repeat(other, others), repeat(())))
            work()
            through()
        except BaseException as error:  # of a signal, where `work` and `through` cannot catch it yet, or any more
            failed.append(error)
    finally:
        through()


@contextmanager
def _unraised(failed: list[BaseException]) -> Iterator[None]:
    """Note what a signal raises in the main thread before its callback can catch it, which ctypes would only print."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if threading.current_thread() is threading.main_thread() and "ctypes callback" in (lost.err_msg or ""):
            failed.append(lost.exc_value)
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


_kept = threading.local()


def scratch(height: int, width: int, dtype: Any, which: int = 0) -> np.ndarray:
    """Room of this thread's own, used again, because fresh memory is slow to come by."""
    buffers, key = _kept.__dict__.setdefault("buffers", {}), (which, dtype)
    if key not in buffers or buffers[key].size < height * width:
        room = np.empty(height * width * np.dtype(dtype).itemsize + LINE, np.uint8)
        begin = -room.ctypes.data % LINE
        buffers[key] = room[begin : begin + room.size - LINE].view(dtype)
    return buffers[key][: height * width].reshape(height, width)
