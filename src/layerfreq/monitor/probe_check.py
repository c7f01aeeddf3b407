"""Checking a probe set once, before anything is measured or written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.arraylike import as_tensor
from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import batches, count
from layerfreq.data.targets import EXACT, prepare_targets, read_targets
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.options import check_options
from layerfreq.network.extract import run_through
from layerfreq.network.outputs import ONE, Wanted, about_target, coordinates, in_one_piece, labels_of
from layerfreq.network.reading import Layout
from layerfreq.probe import Probe
from layerfreq.response.measure import check_error


def check_points(model: nn.Module, probe: Probe) -> tuple[int, dict[Any, bool]]:
    """Check all targets, and that as many rows can be drawn as are asked for.

    Functions of outputs are tried on the first batch.

    Args:
        model: The model, unwrapped.
        probe: What to measure; layers read by positions have more rows, and their own targets.

    Returns:
        The number of points, and for each target whether its mean is subtracted.

    Raises:
        InputError: For points, targets, `rows` or `center` that no measurement takes.
    """
    options = probe.options
    positions = any(place.reading.name == "positions" for place in probe.plan.layers)
    n, labels, center, seen, first = 0, [], options.get("center"), [], None
    held = None if probe.error is None else in_one_piece(probe.inputs)
    with untouched(model, probe.inputs):
        for x, y in batches(probe.inputs, probe.targets):
            n += count(x)
            first = (x, y) if first is None else first
            if probe.error is not None:
                seen.append((coordinates(x).clone() if held is None else coordinates(x)[:0], labels_of(y, count(x))))
            if probe.wanted is None:
                center = _are_floats(y) if center is None else center
                if not positions:
                    labels.append(Layout(count(x)).label(y)[0].clone())
    if probe.error is not None and probe.shards.alone:
        inputs, labelled = (torch.cat(parts) for parts in zip(*seen, strict=True))
        check_error(inputs if held is None else held, labelled, probe.error)
    if probe.wanted is None:
        targets = {ONE: torch.cat(labels)} if labels else {}
        centers = {ONE: bool(center)}
    else:
        targets = try_wanted(model, probe, [first])
        centers = {name: y.is_floating_point() if center is None else bool(center) for name, y in targets.items()}
    if not probe.plan.layers:
        return n, centers
    if positions or options.get("group") is not None:  # as many rows as positions, or the other ranks' points besides
        return n, centers
    check_options(options, n)
    for name, y in targets.items():
        if probe.wanted is not None and (probe.wanted[name] is None or callable(probe.wanted[name])):
            continue  # of a batch, which says nothing of all points
        with about_target(name):
            y = read_targets(y, n)
            if y.ndim == 1 or y.shape[1] <= EXACT:
                prepare_targets(y, Shards(count=n), center=centers[name], seed=options.get("seed", 0))
    return n, centers


def try_wanted(model: nn.Module, probe: Probe, batch: list[Any]) -> dict[Any, Tensor]:
    """Return the targets that were passed, and what functions return for one batch.

    Raises:
        InputError: If one fails.
    """
    wanted, nothing = Wanted(probe.wanted or {}), []
    run_through(model, batch, None, nothing, lambda *_: None, wanted.see, gradients=probe.plan.gradients)
    return wanted.whole(Shards())


def _are_floats(targets: Any) -> bool:
    try:
        return as_tensor(targets, "targets").is_floating_point()
    except (TypeError, ValueError, RuntimeError, OverflowError):  # said where they are read
        return False
