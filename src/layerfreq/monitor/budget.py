"""A budget of time: how much of a measurement fits into a share of the training time since the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from layerfreq.errors import is_not, warn_caller
from layerfreq.probe import Probe

LEAST, PART = 32, 0.25  # fewest filter centres, and smallest part of those asked for, with which errors double


class Budget:
    """Keeps track of the time that measuring may take, and of what a measurement costs.

    A measurement has a fixed cost (the forward pass) and a cost per filter centre; both are learned from earlier
    measurements. The first one has no estimate yet: it is always made, and paid back before the next, as is any time
    beyond an estimate.

    Args:
        share: The part of the time between two measurements that the second may take.
        note: Receives a line about each measurement with fewer centres than asked for, and about skipped ones.
        clock: Returns the time in seconds.

    Raises:
        InputError: If `share` is not a number above 0 and at most 1.
    """

    def __init__(
        self, share: Any, note: Callable[[str], Any] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise is_not("budget", share, "a share of the time", "a number above 0 and at most 1, such as 0.03")
        self._share, self._note, self._clock = float(share), note, clock
        self._last, self._debt = clock(), 0.0
        self._whole: float | None = None  # seconds with all the filter centres that are asked for
        self._fixed = 0.0  # of these, what does not grow with the centres
        self._left_out: list[int] = []  # the first step left out since the last measurement, the last, how many
        self._told = False

    @property
    def affordable(self) -> float:
        """Seconds that a measurement may take now; negative while an earlier one is being paid back."""
        return self._share * (self._clock() - self._last) - self._debt

    def rows(self, most: int, *, fewer: bool = True) -> int:
        """Return how many filter centres there is time for: `most`, fewer, or 0 for no measurement.

        Args:
            most: Number asked for.
            fewer: Whether fewer can be drawn, down to a quarter.
        """
        seconds = self.affordable
        if self._whole is None or self._whole <= seconds:
            return most
        part = (seconds - self._fixed) / max(self._whole - self._fixed, 1e-9)
        fit = math.floor(most * min(1.0, part))
        return fit if fewer and fit >= max(LEAST, PART * most) else 0

    @contextmanager
    def spending(self, part: float = 1.0) -> Iterator[None]:
        """Time a measurement.

        Args:
            part: The share of the filter centres asked for that it has.
        """
        affordable, begun, done = self.affordable, self._clock(), False
        try:
            yield
            done = True
        finally:
            self._last = self._clock()
            taken = self._last - begun
            self._debt = max(0.0, taken - affordable)
            if done:  # a measurement that failed halfway says nothing about costs
                self._learn(part, taken)

    def _learn(self, part: float, taken: float) -> None:
        if part >= 1 or self._whole is None:
            self._whole = taken
        else:  # a part of the centres takes at least that part of the time
            self._whole = min(self._whole, taken / part)
            self._fixed = max(0.0, (taken - part * self._whole) / (1 - part))
        self._fixed = min(self._fixed, self._whole)

    @contextmanager
    def measurement(
        self, step: int, probes: Mapping[str, Probe], points: Mapping[str, int]
    ) -> Iterator[Mapping[str, Probe] | None]:
        """Return what there is time to measure at a step: the probe sets, the same with fewer filter centres, or None.

        Args:
            step: The step.
            probes: The probe sets, by name.
            points: Number of points of each at the layer with fewest; unknown before the first measurement.
        """
        asked = {name: probe.options.get("rows") or points.get(name, 1) for name, probe in probes.items()}
        first, most = next(iter(probes.values())), min(asked.values())
        fewer = first.options.get("rtol") is None and bool(points)
        rows = self.rows(most, fewer=fewer)
        rows = -round(first.shards.largest(-float(rows)))  # all ranks measure alike
        if not rows:
            self._leave_out(step)
            yield None
            return
        self.settle()
        if rows < most:
            some = {name: {**probes[name].options, "rows": all_ * rows // most} for name, all_ in asked.items()}
            probes = {name: replace(probe, options=some[name]) for name, probe in probes.items()}
            self._say(f"step {step}: {rows} filter centres instead of {most}, within budget={self._share:g}")
        with self.spending(rows / most):
            yield probes

    def settle(self) -> None:
        """Record which steps were skipped since the last measurement."""
        if self._left_out:
            first, last, count = self._left_out
            steps = f"step {first} was" if count == 1 else f"{count} steps from {first} to {last} were"
            self._say(f"{steps} due and not measured, within budget={self._share:g}")
        self._left_out = []

    def _leave_out(self, step: int) -> None:
        first, _, count = self._left_out or (step, step, 0)
        self._left_out = [first, step, count + 1]
        if not self._told:
            self._told = True
            warn_caller(
                f"step {step}: skipped, since it would take more than budget={self._share:g} of the time since the "
                "last measurement; the run's notes list skipped steps, and this warning is shown only once"
            )

    def _say(self, text: str) -> None:
        if self._note is not None:
            self._note(text)
