"""The sections of the network, of each training that kept its weights, or why one is not there."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.inputs import batches, count
from layerfreq.data.targets import as_numbers
from layerfreq.errors import Code, InputError, first_line
from layerfreq.network.find import unwrap
from layerfreq.related.kept import load_kept
from layerfreq.report.collect import Shown
from layerfreq.report.sections.axis import axis
from layerfreq.report.sections.changes import changes
from layerfreq.report.sections.disagreeing import disagreeing
from layerfreq.report.sections.images import images
from layerfreq.report.sections.section import Origin, Section, Trained, costs_of
from layerfreq.runs.run import Run
from layerfreq.runs.weights import kept_steps, load_weights, read_weights

# Gets the number of sections done, the number of all, and the name of the one in work.
Tell = Callable[[int, int, str], None]
SECTIONS: dict[str, Callable[[Trained], Section]] = {
    "changes": changes,
    "axis": axis,
    "images": images,
    "suspects": disagreeing,
}
TITLES = {
    "changes": "changes of the outputs",
    "axis": "frequencies along an axis",
    "images": "image frequency",
    "suspects": "suspects",
}
TRAININGS = 4  # most trainings with sections; the first of each kind come first
SECONDS = 60.0  # after which no further training is begun
NO_WEIGHTS = "no weights were kept; train with checkpoints=True"
NO_NETWORK = "no network given; use layerfreq report RUN --model MODULE:FACTORY --data NAME"


def add_sections(
    runs: Sequence[Shown], origin_of: Callable[[Run], Any] | None, unit: str, tell: Tell | None = None
) -> str:
    """Make the sections of the network, and return a sentence on missing ones and the reasons; "" if none is missing.

    Args:
        runs: The trainings; their `sections` are filled.
        origin_of: Returns the `Origin` of a run; None if there is none.
        unit: What a step is called.
        tell: Called before every section.
    """
    kept = [shown for shown in runs if kept_steps(shown.run.path)]
    if not kept or origin_of is None:
        return _sentence({(kind, NO_NETWORK if kept else NO_WEIGHTS): [] for kind in SECTIONS}, 0)
    first = list({shown.case: shown for shown in reversed(kept)}.values())[::-1]
    chosen = [*first, *(shown for shown in kept if shown not in first)]
    missing: dict[tuple[str, str], list[str]] = {}
    start = time.monotonic()
    for at, shown in enumerate(chosen):
        if at >= TRAININGS or time.monotonic() - start > SECONDS:
            why = f"limited to {TRAININGS} trainings and {SECONDS:.0f} s; report it by itself"
            found: dict[str, Section | str] = dict.fromkeys(SECTIONS, why)
        else:
            done = at * len(SECTIONS), min(len(chosen), TRAININGS) * len(SECTIONS)
            found = _sections(shown, origin_of, unit, tell, *done)
        for kind, one in found.items():
            if isinstance(one, str):
                missing.setdefault((kind, one), []).append(shown.name)
            else:
                shown.sections[kind] = one
    return _sentence(missing, len(kept))


def _sections(
    shown: Shown, origin_of: Callable[[Run], Any], unit: str, tell: Tell | None, done: int, total: int
) -> dict[str, Section | str]:
    """Return each section of a training, or why it is missing; an error in one does not end the report."""
    found: dict[str, Section | str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the measurement has already warned of layers
        try:
            trained = _trained(shown, origin_of(shown.run), unit)
        except Exception as error:
            return dict.fromkeys(SECTIONS, _why(error))
        for kind, make in SECTIONS.items():
            if tell is not None:
                tell(done + len(found), total, f"{shown.name}, {TITLES[kind]}")
            try:
                found[kind] = make(trained)
            except Exception as error:
                found[kind] = _why(error)
    return found


def _trained(shown: Shown, origin: Origin, unit: str) -> Trained:
    steps, model = kept_steps(shown.run.path), copy.deepcopy(unwrap(origin.fresh(0)))
    load_kept(shown.run, steps[-1], model)
    inputs, targets = origin.inputs, origin.targets
    n = count(inputs)
    return Trained(shown.run, shown.layers, unit, steps, model, inputs, targets, n, costs_of(model, inputs, n))


class Given:
    """A user's network and points.

    Args:
        model: A module with the runs' architecture.
        inputs: What its forward takes, or an iterable of (inputs, targets) batches.
        targets: One per point, or None.
        runs: Runs; the network must fit one of them.

    Raises:
        InputError: If these are no inputs or targets, the network does not take them, or all runs have weights of
            another network.
    """

    def __init__(self, model: nn.Module, inputs: Any, targets: Any, runs: Sequence[Run]) -> None:
        parts = list(batches(inputs, targets, whole=True))
        if len(parts) > 1 and not all(isinstance(x, Tensor) for x, _ in parts):
            raise Code.UNSUPPORTED("inputs: batches of dicts or tuples; pass one dict or tuple of all points")
        self.inputs = parts[0][0] if len(parts) == 1 else torch.cat([x for x, _ in parts])
        known = all(y is not None for _, y in parts)
        self.targets: Any = torch.cat([as_numbers(y) for _, y in parts]) if known else None
        self._model = copy.deepcopy(unwrap(model))
        _refuse_other(self._model, runs)
        costs_of(self._model, self.inputs, count(self.inputs))

    def of(self, _: Run) -> Given:
        """Return this object, whatever the run."""
        return self

    def fresh(self, _: int, /) -> nn.Module:
        """Return the network."""
        return self._model


def _refuse_other(model: nn.Module, runs: Sequence[Run]) -> None:
    """Raise an InputError if no run's weights fit a network; damaged weights are taken to fit."""
    wrong = []
    for run in runs:
        for step in kept_steps(run.path)[-1:]:
            try:
                read_weights(run.path, step)
            except InputError:
                return
            try:
                return load_weights(run.path, step, model)
            except InputError as error:
                wrong.append(error)
    if wrong:
        raise wrong[0]


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else first_line(error, kind=True)


def _sentence(missing: dict[tuple[str, str], list[str]], runs: int) -> str:
    """Return a sentence on what is not shown, sections with the same reason together."""
    reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (kind, why), names in missing.items():
        reasons.setdefault((why, tuple(names) if len(names) < runs else ()), []).append(TITLES[kind])
    parts = []
    for (why, names), titles in reasons.items():
        of = f" of {', '.join(names)}" if names else ""
        parts.append(f"{' and '.join([', '.join(titles[:-1])] * bool(titles[:-1]) + titles[-1:])}{of} ({why})")
    return f"Not shown: {'; '.join(parts)}." if parts else ""
