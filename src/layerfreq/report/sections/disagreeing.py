"""Points whose targets disagree with those around them, at each cut of the last kept step: a figure and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.errors import InputError
from layerfreq.network.extract import layer_features
from layerfreq.network.reading import NAMES, TOKENS
from layerfreq.related.suspects import Suspects, suspects
from layerfreq.report.escaping import plain, table, text
from layerfreq.report.sections.section import Section, Trained, affordable, some

CUTS = 12  # most layers
TOP = 20  # suspects in a table
POINTS = 2000  # most points
PRODUCTS = 60_000_000_000  # of features of two points, in all layers: some seconds
RANKS = 200  # ranks in the figure
WINDOW = 1.5  # factor between ranks that chance is averaged over
FEWEST = 30


def disagreeing(trained: Trained) -> Section:
    """Return the ranked residuals of the targets at each cut, and the first of them.

    Raises:
        InputError: If there are no targets, one per point, or the network is too slow.
    """
    y = trained.targets
    if y is None or y.ndim > (2 if y.is_floating_point() else 1):
        raise InputError("no targets, one per point")
    reading = trained.run.config.get("reading", "flatten")
    readings = set(reading.values() if isinstance(reading, dict) else [reading])
    if "positions" in readings:
        raise InputError("layers are read by position, targets are per point")
    if not readings <= {*NAMES, *TOKENS}:
        raise InputError("layers are read by a function, which a run does not keep")
    widths = _features(trained, trained.drawn(4), trained.layers or None, reading)
    layers = some(list(widths), CUTS) or list(widths)
    width = sum(widths[layer].shape[1] for layer in layers)
    # Each point meets all others, and up to a thousand of them do once more, for the choice of a cutoff.
    most = int((PRODUCTS / (1.5 * width)) ** 0.5)
    count = affordable(trained, len(layers), min(POINTS, max(FEWEST, most)), FEWEST)
    places = trained.drawn(count)
    found: dict[str, Suspects] = {}
    for layer in layers:  # one at a time, since features of all layers may be large
        own = reading.get(layer, "flatten") if isinstance(reading, dict) else reading
        found[layer] = suspects(_features(trained, places, [layer], own)[layer], y[places])
    ranks = np.unique(np.geomspace(1, count, RANKS).round().astype(int))
    scores = np.stack([one.score[one.order][ranks - 1] for one in found.values()])
    chances = np.stack([_smoothed(one.chance[one.order], ranks) for one in found.values()])
    last = f"{text(trained.unit)} {trained.steps[-1]}"
    of = f"{len(layers)} of {len(widths)} layers, " if len(layers) < len(widths) else ""
    return Section(
        about={"layers": [plain(layer) for layer in found]},
        arrays={"ranks": (ranks, "f8"), "score": (scores, "f4"), "chance": (chances, "f4")},
        html=f'<p class="quiet">At {last}: {of}{trained.told(count)}.</p>',
        below="".join(_table(layer, one, places, y, layer == layers[-1]) for layer, one in found.items()),
    )


def _features(trained: Trained, places: Tensor, layers: list[str] | None, reading: Any) -> dict[str, Tensor]:
    found = layer_features(trained.model, trained.at(places), layers, reading=reading)
    assert isinstance(found, dict)
    return found


def _smoothed(values: Any, ranks: Any) -> Any:
    """Return (r,) means of values (n,) over the ranks within a factor `WINDOW` of each: single values scatter."""
    ends = np.clip((ranks * WINDOW).astype(int), ranks, len(values))
    starts = (ranks / WINDOW).astype(int)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[ends] - sums[starts]) / (ends - starts)


def _table(layer: str, found: Suspects, places: Tensor, y: Tensor, shown: bool) -> str:
    """Return the first suspects of a layer as HTML, open if `shown`."""
    ids = found.classes is not None
    heads = ("rank", "point", "label" if ids else "target", "neighbours say", "score", "chance")
    head = "".join(f"<th>{one}</th>" for one in heads)
    rows = "".join(
        f'<tr><th scope="row">{rank}</th><td>{int(places[at])}</td><td>{_named(y[places[at]])}</td>'
        f"<td>{_named(torch.tensor(found.suggested[at]))}</td><td>{found.score[at]:.3g}</td>"
        f"<td>{found.chance[at]:.3g}</td></tr>"
        for rank, at in enumerate(map(int, found.order[:TOP]), start=1)
    )
    said = (
        f"{found.worse} of {len(found.score)} points fit worse than another point's target would; mean score "
        f"{found.score.mean():.3g}, chance {found.chance.mean():.3g}"
    )
    name = text(layer)
    return (
        f"<details{' open' if shown else ''}><summary><bdi>{name}</bdi>: {said}</summary>"
        f"{table('changes', f'points that fit worst at {name}', head, rows)}</details>"
    )


def _named(target: Tensor) -> str:
    """Return a class id, or the first three of some numbers, as text."""
    if not target.is_floating_point():
        return str(int(target))
    values = target.reshape(-1)
    return ", ".join(f"{float(one):.3g}" for one in values[:3]) + (", …" if len(values) > 3 else "")
