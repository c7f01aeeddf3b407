"""What changed in the outputs from one kept step to the next, by frequency: a table per run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch import Tensor

from layerfreq.errors import InputError
from layerfreq.related.changes import Change, run_change
from layerfreq.report.escaping import table, text
from layerfreq.report.sections.section import Section, Trained, affordable, some

INTERVALS = (8, 4, 2)  # numbers of intervals between kept steps to show: the first that leaves enough points
POINTS = 1000  # most points at which outputs are compared
ENOUGH = 200
FEWEST = 20
PASSES = 7  # forward passes per interval: two ends, five random steps

NOTE = (
    "Size: of the change, as a share of the outputs' own, without a constant shift. Low share: of its energy, next to "
    "that of parameter steps as long in random directions (least to greatest), and of the change with its points "
    "shuffled. Only what lies outside of the random steps' range is a mark of this training."
)


def changes(trained: Trained) -> Section:
    """Return the table of changes.

    Raises:
        InputError: If two steps were not kept, the network is too slow, or it does not take the inputs.
    """
    if len(trained.steps) < 2:
        raise InputError("weights of one step only")
    if not isinstance(trained.inputs, Tensor) or not trained.inputs.is_floating_point():
        raise InputError("inputs are not coordinates of points: a tensor of floats")
    run, model = trained.run, trained.model
    steps, count = _affordable(trained)
    inputs = trained.at(trained.drawn(count))
    # Low frequencies are those that hold half of the variance of the outputs at the last step.
    cutoff = run_change(run, steps[-1], steps[0], model, inputs, controls=0, shuffles=1).cutoff
    rows = ""
    for before, after in pairwise(steps):
        try:
            rows += _row(before, after, run_change(run, before, after, model, inputs, cutoff))
        except InputError as error:  # nothing changed, or weights are damaged
            why = text(str(error).partition("; ")[0])
            rows += f'<tr><th scope="row">{before} to {after}</th><td colspan="5">none ({why})</td></tr>'
    unit = text(trained.unit)
    heads = (f"{unit}s", "size", "low share", "of random steps", "of the function before", "chance")
    head = "".join(f"<th>{one}</th>" for one in heads)
    return Section(
        html=f'<p class="quiet">Between kept {unit}s, low being k ≤ {cutoff:.3g}, at {trained.told(count)}.</p>'
        f'{table("changes", "changes of the outputs", head, rows)}<p class="quiet">{NOTE}</p>'
    )


def _affordable(trained: Trained) -> tuple[list[int], int]:
    """Return the kept steps to compare, and the number of points.

    Raises:
        InputError: If there would be too few points.
    """
    steps, count = trained.steps, 0
    for intervals in INTERVALS:
        steps, last = some(trained.steps, intervals + 1), intervals == INTERVALS[-1]
        count = affordable(trained, PASSES * (len(steps) - 1), POINTS, FEWEST if last else 0)
        if count >= min(ENOUGH, trained.n):
            break
    return steps, count


def _row(before: int, after: int, found: Change) -> str:
    assert found.control is not None
    random, *ends = map(_share, found.control)
    shares = (_share(found.share), f"{random} ({' to '.join(ends)})", _share(found.share_before))
    cells = (f"{found.size:.3g}", *shares, _share(found.chance[0]))
    return f'<tr><th scope="row">{before} to {after}</th>{"".join(f"<td>{one}</td>" for one in cells)}</tr>'


def _share(value: float) -> str:
    """Return a share as text; it is NaN if the energy is no more than noise."""
    return "–" if np.isnan(value) else f"{value:.2f}"
