"""Frequencies along a time or space axis, by layer over the kept steps: a figure per run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from layerfreq.errors import InputError
from layerfreq.network.find import plan
from layerfreq.related.axis import run_axis_frequencies
from layerfreq.report.escaping import plain, text
from layerfreq.report.sections.section import SECONDS, Section, Trained, affordable, some

STEPS = 40  # most kept steps that are read
POINTS = 200  # most points
FEWEST = 10
SLOWER = 3.0  # cost in forward passes, with the spectra and those of shuffled positions
SHOWN = ("focus", "centroid", "chance_focus", "chance_centroid")


def axis(trained: Trained) -> Section:
    """Return focus and centroid of the layers that have a time or space axis.

    Raises:
        InputError: If no layer has one, or the network is too slow.
    """
    few = trained.at(trained.drawn(4))
    groups: dict[bool, list[str]] = defaultdict(list)
    depths: dict[str, int] = {}
    # A plan to read the mean over positions tells which axis holds the channels: 1, as of convolutions, or the last.
    for depth, cut in enumerate(plan(trained.model, few, None, reading="mean").layers):
        depths[cut.name] = depth
        if cut.reading.axis is not None:
            groups[cut.reading.axis == 1].append(cut.name)
    if not groups:
        raise InputError("no layer with a time or space axis")
    count = affordable(trained, SLOWER * min(2, len(trained.steps)), POINTS, FEWEST)
    own, each = trained.costs
    most = SECONDS / max(SLOWER * (own + each * count), 1e-9)
    steps = some(trained.steps, int(min(STEPS, max(2, most))))
    inputs, rows, refused = trained.at(trained.drawn(count)), [], {}
    for first, layers in groups.items():
        axes = {"axis": -1, "channels": 1} if first else {"axis": 1, "channels": -1}
        try:
            frame: Any = run_axis_frequencies(trained.run, trained.model, inputs, layers, steps=steps, **axes)
        except InputError as error:
            refused |= dict.fromkeys(layers, str(error))
            continue
        refused |= frame.attrs["refused"]
        rows += frame.to_dict("records")
    if not rows:
        raise InputError(next(iter(refused.values())).partition("; ")[0])
    names = sorted({str(row["layer"]) for row in rows}, key=depths.__getitem__)
    values = {name: np.full((len(names), len(steps)), np.nan) for name in SHOWN}
    for row in rows:
        for name in SHOWN:
            values[name][names.index(row["layer"]), steps.index(row["step"])] = row[name]
    without = [name for name in depths if name not in names]
    left = f" Without such an axis: <bdi>{text(', '.join(without))}</bdi>." if without else ""
    return Section(
        about={"layers": [plain(name) for name in names]},
        arrays={"steps": (steps, "f8"), **{name: (array, "f4") for name, array in values.items()}},
        below=f'<p class="quiet">At {trained.told(count)} and {len(steps)} of {len(trained.steps)} kept '
        f"{text(trained.unit)}s.{left}</p>",
    )
