"""Compiling loops, kept on disk for the next process where there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FINITE = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}  # fast arithmetic where no number is inf or NaN


def loop(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function with Numba, to run without the interpreter's lock.

    Where neither the package's folder nor the user's can be written, as in containers, it is compiled in every process;
    the environment variable NUMBA_CACHE_DIR names another place.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # Numba finds no folder to keep it in
            return njit(nogil=True, **options)(function)

    return compiled
