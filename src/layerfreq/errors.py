"""The errors that bad input gets: one line that names the argument, the value and the remedy."""

from __future__ import annotations

import contextlib
import reprlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_OWN = (str(Path(__file__).parent), contextlib.__file__, "<@beartype")


class InputError(ValueError):
    """An argument, a file or a folder that cannot be used as given; the message is one line."""


@contextmanager
def blame(layer: str) -> Iterator[None]:
    """Let an InputError raised inside name the layer."""
    try:
        yield
    except InputError as error:
        raise InputError(f"layer {layer!r}: {error}") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that suggests the names nearest to an unknown one.

    Args:
        name: What was asked for.
        known: What there is.

    Returns:
        A clause without a final stop, for the end of an error message.
    """
    known = list(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known are: {shown}" if known else "there are none"


def first_line(error: BaseException, *, kind: bool = False, most: int = 160) -> str:
    """Return the first line of what an exception says, or its kind where it says nothing.

    Args:
        error: The exception.
        kind: Put its kind before it.
        most: Characters that it may have.
    """
    text, name = str(error).strip(), type(error).__name__
    if not text:
        return name
    return ((f"{name}: " if kind else "") + text.splitlines()[0])[:most]


def shown(value: Any) -> str:
    """Return a short text for a value, whatever it is."""
    try:
        text = reprlib.repr(value)
    except Exception:  # of anybody's classes
        text = f"a {type(value).__name__}"
    return " ".join(text.split())[:80]


def warn_caller(message: str) -> None:
    """Warn at the line outside the package that called it, however deep inside it the reason was found."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_OWN) or "jaxtyping" in frame.f_code.co_filename
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
