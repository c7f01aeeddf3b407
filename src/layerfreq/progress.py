"""A line about a measurement that takes long: which layer it is at, and about how long it still takes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

AFTER = 1.0  # seconds after which a measurement counts as long


class Progress:
    """Tells on standard error, where a person sees it, and takes the line back in the end.

    Nothing is written to files and pipes, so that logs stay clean, nor into what another progress bar has taken over.

    Args:
        work: name -> how much work each layer is, in whatever unit, in the order in which they come.
        shown: Whether to tell anything.
        clock: Says the time in seconds.
    """

    def __init__(
        self, work: Mapping[str, float], *, shown: bool = True, clock: Callable[[], float] = monotonic
    ) -> None:
        self._work, self._clock, self._start = dict(work), clock, clock()
        self._stream: Any = sys.stderr if shown and _seen(sys.stderr) else None
        self._done, self._now, self._number, self._length = 0.0, "", 0, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._length:
            self._write(" " * self._length + "\r")

    def layer(self, name: str) -> None:
        """Tell that a layer is next, if the measurement has taken long so far."""
        if self._stream is None:
            return
        self._done += self._work.get(self._now, 0.0)
        self._now, self._number = name, self._number + 1
        taken = self._clock() - self._start
        if taken < AFTER:
            return
        share = self._done / (sum(self._work.values()) or 1.0)
        left = f", about {_spoken(taken * (1 - share) / share)} left" if share > 0 else ""
        line = f"layerfreq: layer {self._number} of {len(self._work)}{left} ({name})"
        line = line[: shutil.get_terminal_size().columns - 1]
        self._write(line.ljust(self._length))
        self._length = len(line)

    def _write(self, text: str) -> None:
        try:
            self._stream.write("\r" + text)
            self._stream.flush()
        except (AttributeError, OSError, ValueError):  # a terminal that has gone: the measurement does not need it
            self._stream = None


def _seen(stream: Any) -> bool:
    """Whether a person looks at a stream: a terminal or a notebook's, and not what rich's bars put in its place."""
    if type(stream).__module__.startswith("rich."):
        return False
    try:
        return bool(stream.isatty()) or type(stream).__module__ == "ipykernel.iostream"
    except (AttributeError, ValueError):  # None, as under pythonw, or closed
        return False


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
