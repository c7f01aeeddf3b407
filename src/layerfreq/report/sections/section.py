"""What a section of the network gets, and what it gives the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from layerfreq.data.inputs import take
from layerfreq.errors import InputError
from layerfreq.related.outputs import network_outputs
from layerfreq.runs.run import Run

SECONDS = 6.0  # for the forward passes of one section, by estimate; it shows as much as that allows


class Origin(Protocol):
    """Where a run's network and points come from, as `layerfreq.experiments.source_of` returns it."""

    @property
    def inputs(self) -> Tensor:
        """(n, ...) what the network's forward takes."""
        ...

    @property
    def targets(self) -> Tensor:
        """(n,) class ids or (n, c) floats."""
        ...

    def fresh(self, seed: int, /) -> nn.Module:
        """Return the network, whose own weights do not matter."""
        ...


@dataclass(frozen=True)
class Trained:
    """A run with kept weights, a module of its kind, and points.

    Attributes:
        run: The run.
        layers: Names of the layers that it measured, if any.
        unit: What a step is called.
        steps: The kept steps, in order.
        model: A copy of the module, with the weights of the last step.
        inputs: What its forward takes, for n points.
        targets: (n,) class ids or (n,) or (n, c) floats; None if there are none.
        n: Number of points.
        costs: Seconds per forward pass, and seconds per point in addition.
    """

    run: Run
    layers: list[str]
    unit: str
    steps: list[int]
    model: nn.Module
    inputs: Any
    targets: Tensor | None
    n: int
    costs: tuple[float, float]

    def drawn(self, count: int) -> Tensor:
        """Return the indices of some drawn points, in order; a smaller draw is part of a larger one."""
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(0))[:count].sort().values

    def at(self, places: Tensor) -> Any:
        """Return the inputs of some points."""
        return self.inputs if len(places) == self.n else take(self.inputs, places, self.n)

    def told(self, count: int, what: str = "points") -> str:
        """Return how many points a section has used, in words."""
        return f"{self.n} {what}" if count >= self.n else f"{count} of {self.n} {what}"


def costs_of(model: nn.Module, inputs: Any, n: int) -> tuple[float, float]:
    """Return the seconds per forward pass, and per point in addition, measured on a few points."""

    def fastest(count: int) -> float:
        some, spent = take(inputs, slice(0, count), n), []
        for _ in range(3):  # the first pass also prepares, and others may be interrupted
            start = time.perf_counter()
            network_outputs(model, some)
            spent.append(time.perf_counter() - start)
        return min(spent)

    few, many = min(2, n), min(32, n)
    if few == many:
        return fastest(few), 0.0
    short, long = fastest(few), fastest(many)
    each = max(0.0, long - short) / (many - few)
    return max(0.0, short - few * each), each


@dataclass
class Section:
    """What one section shows of one run.

    Attributes:
        about: What the page's script needs, ready for JSON.
        arrays: name -> (numbers, type as for `Pack.add`).
        html: What stands above the figure, or instead of one.
        below: What stands below it.
    """

    about: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, tuple[Any, str]] = field(default_factory=dict)
    html: str = ""
    below: str = ""


def some(steps: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` of some steps or layers, evenly chosen with the first and the last; none if `most` < 2."""
    if most < 2:
        return []
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]


def affordable(trained: Trained, passes: float, most: int, fewest: int) -> int:
    """Return the number of points for which a section has time to run the network `passes` times.

    Raises:
        InputError: If that is too few to say anything.
    """
    own, each = trained.costs
    left = SECONDS / passes - own
    count = min(most, trained.n) if left >= each * min(most, trained.n) else max(0, int(left / each)) if each else 0
    if count < min(fewest, trained.n):
        would = passes * (own + each * fewest)
        raise InputError(f"{passes:.0f} forward passes of {fewest} points would take {would:.0f} s")
    return count
