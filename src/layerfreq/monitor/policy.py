"""How errors are handled during training."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from layerfreq.errors import InputError, first_line, unknown, warn_caller


class Policy:
    """Turns errors into warnings, one per kind, or raises them.

    Args:
        on_error: "warn" or "raise".

    Attributes:
        full: Whether the disk was found full.

    Raises:
        InputError: If it is neither.
    """

    def __init__(self, on_error: Any) -> None:
        if on_error not in ("warn", "raise"):
            raise unknown("on_error", on_error, ("warn", "raise"))
        self.full = False
        self._raises, self._said = on_error == "raise", set()

    @contextmanager
    def survived(self, where: str, of: Hashable = None) -> Iterator[None]:
        """Let training survive errors raised inside.

        Args:
            where: What is being done, for the warning.
            of: Which of several things it is done to; each is reported once.
        """
        try:
            yield
        except Exception as error:  # no error is worth the loss of hours of training
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.full = True
            self.met(error, where, None if of is None else (type(error), of))

    def met(self, error: Exception, where: str = "", kind: Hashable = None) -> None:
        """Raise an error or warn of it, unless one of its kind was reported before.

        Args:
            error: The error.
            where: What was being done.
            kind: The kind it counts as; None means its class.
        """
        if self._raises:
            raise error
        kind = type(error) if kind is None else kind
        if kind not in self._said:
            self._said.add(kind)
            rest = "nothing more is measured, the disk is full" if self.full else "the next ones like it are not told"
            _tell(error, where, rest)

    def unmeasured(self, error: Exception, who: str) -> None:
        """Raise an error for which a training cannot be measured at all, or warn of it.

        Args:
            error: The error.
            who: What would have measured it.
        """
        if self._raises:
            raise error
        _tell(error, who, "none of it is measured")


def _tell(error: Exception, where: str, rest: str) -> None:
    said = str(error) if isinstance(error, InputError) else first_line(error, kind=True, most=400)
    warn_caller(f"{where}{': ' if where else ''}{said}; the training continues ({rest})", again=True)
