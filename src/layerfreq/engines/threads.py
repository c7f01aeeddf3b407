"""Threads for loops that run without the interpreter's lock: as many as PyTorch uses, each with BLAS to itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

from layerfreq.isolation.torch_settings import Flag


@contextmanager
def threads() -> Iterator[Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]]:
    """Give a `map` that runs on all threads."""
    with one_blas_thread():
        yield _pool(torch.get_num_threads(), os.getpid()).map


def parts(n: int, most: int, even: int = 1) -> list[slice]:
    """Cut n rows in equal parts of at most `most`, so many that every thread has as many of them as the others.

    Args:
        n: Number of rows.
        most: Rows of a part.
        even: The number of parts is a multiple of this, too.
    """
    count = max(1, torch.get_num_threads()) * even
    count *= max(1, -(-n // (count * most)))
    edges = [n * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def one_blas_thread() -> Any:
    """Keep BLAS to one thread for a while: threads that it wakes would still be spinning when ours start."""
    return _limit.at(None)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


# Setting this "flag" is making the limiter, which remembers what was before.
_limit = Flag(lambda: _controller().limit(limits=1, user_api="blas"), lambda limiter: limiter and limiter.unregister())


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay, and their scratch memory with them; a forked process needs its own."""
    return ThreadPoolExecutor(count, thread_name_prefix=f"layerfreq-{process}")
