"""When to measure: turns `when` into a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from layerfreq.data.notes import as_step
from layerfreq.errors import InputError, failed, is_not
from layerfreq.isolation.torch_settings import settings_kept

When = int | np.integer | str | Iterable[Any] | Callable[[int], bool]


class Schedule:
    """Decides at each step whether to measure.

    Counters may jump (two optimizers count twice per batch): the first call at or after a due step is due. A user's
    function decides alone.

    Args:
        when: See `Monitor`.

    Raises:
        InputError: If it is not a schedule.
    """

    def __init__(self, when: Any) -> None:
        self._last: int | None = None
        self._steps: frozenset[int] = frozenset()
        self.ends = isinstance(when, str) and when == "log"  # the last step is due, too
        if isinstance(when, (np.ndarray, Tensor)) and when.ndim == 0:
            when = when.item()
        if callable(when):
            self._decide: Callable[[int, int], Any] = settings_kept()(lambda step, _: when(step))
        elif isinstance(when, Integral) and not isinstance(when, bool) and int(when) > 0:
            every = int(when)
            self._decide = lambda step, last: step % every == 0 or last // every < step // every
        elif self.ends:
            self._decide = _logarithmic
        else:
            self._steps = _named(when)
            self._decide = lambda step, last: any(last < one <= step for one in self._steps) or step in self._steps

    def __call__(self, step: int) -> bool:
        """Return whether to measure at a step."""
        last = self._last
        if last is None:  # named steps before the first call have been jumped over, others not been asked for
            last = -1 if self._steps else step - 1
        self._last = step
        try:
            return bool(self._decide(step, last))
        except Exception as error:  # of a function of the user's
            raise failed("when", f"the function fails at step {step}", error) from error

    def go_on(self, step: int) -> None:
        """Count everything up to a step as done."""
        self._last = step

    @property
    def missed(self) -> list[int]:
        """The listed steps that have not come yet."""
        return sorted(one for one in self._steps if self._last is not None and one > self._last)


def _named(when: Any) -> frozenset[int]:
    if isinstance(when, str) or not isinstance(when, Iterable):
        raise _refusal(when)
    try:
        return frozenset(as_step(step) for step in when)
    except (InputError, TypeError):
        raise _refusal(when) from None


def _refusal(when: Any) -> InputError:
    return is_not("when", when, "a valid schedule", "k > 0, a list of steps, 'log', or a function of the step")


def _logarithmic(step: int, last: int) -> bool:
    """Step 0, and the first step in each eighth of an octave."""
    if step <= 1:
        return True
    last = min(last, step - 1)
    return last < 1 or math.floor(8 * math.log2(step)) > math.floor(8 * math.log2(last))
