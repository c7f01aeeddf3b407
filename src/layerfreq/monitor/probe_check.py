"""A probe set, gone through once before anything is measured or written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from layerfreq.data.arraylike import as_array
from layerfreq.data.distributed import Shards
from layerfreq.data.inputs import batches, count
from layerfreq.data.targets import EXACT, prepare_targets, read_targets
from layerfreq.isolation.preserve import untouched
from layerfreq.measure.options import check_options
from layerfreq.network.outputs import coordinates, labels_of
from layerfreq.network.reading import Layout
from layerfreq.probe import Probe
from layerfreq.response.options import check_error


def check_points(model: nn.Module, probe: Probe) -> tuple[int, bool]:
    """Check all targets, and that as many rows can be drawn as are asked for.

    Args:
        model: What the points are for, unwrapped.
        probe: What is to be measured; layers read by positions have more rows, and targets of their own.

    Returns:
        The number of points, and whether the mean target is subtracted.

    Raises:
        InputError: For points, targets, `rows` or `center` that no measurement takes.
    """
    options = probe.options
    positions = any(place.reading.name == "positions" for place in probe.plan.layers)
    n, labels, center, seen = 0, [], options.get("center"), []
    with untouched(model, probe.inputs):
        for x, y in batches(probe.inputs, probe.targets):
            n += count(x)
            if probe.error is not None:
                seen.append((coordinates(x), labels_of(y)))
            if center is None:
                center = _are_floats(y)
            if not positions:
                labels.append(Layout(count(x)).label(y)[0])
    if probe.error is not None and probe.shards.alone:
        inputs, labelled = (torch.cat(parts) for parts in zip(*seen, strict=True))
        check_error(inputs, labelled, probe.error)
    if not probe.plan.layers:
        return n, bool(center)
    if positions or options.get("group") is not None:  # as many rows as positions, or the other ranks' points besides
        return n, bool(center)
    check_options(options, n)
    y = read_targets(torch.cat(labels), n)
    if y.ndim == 1 or y.shape[1] <= EXACT:
        prepare_targets(y, Shards(count=n), center=bool(center), seed=options.get("seed", 0))
    return n, bool(center)


def _are_floats(targets: Any) -> bool:
    try:
        return torch.as_tensor(as_array(targets, "targets")).is_floating_point()
    except (TypeError, ValueError, RuntimeError, OverflowError):  # said where they are read
        return False
