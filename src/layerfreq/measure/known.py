"""Filter centres whose distances to all points are known, from one look at wide features.

The features may be held, or pass by once, as a network computes them: then nothing of them is kept (`seen`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.source import See, Source
from layerfreq.data.targets import Targets, prepare_targets, read_targets
from layerfreq.data.validation import Curve, Scale, as_features
from layerfreq.engines import USUAL, Engine, RowCurves, pick_engine
from layerfreq.engines.cpu.engine import Cpu
from layerfreq.engines.distances import Distances, can_look, look
from layerfreq.errors import InputError
from layerfreq.isolation.torch_settings import own_settings
from layerfreq.measure.grid import a_few, covering
from layerfreq.measure.sampling import draw


class Known:
    """Does what `Meeting` does, where distances are known.

    Args:
        distances: Of the filter centres, and of the few points that say how far apart points are.
        targets: The targets of all points.
    """

    def __init__(self, distances: Distances, targets: Targets) -> None:
        self.points = distances.points
        self._distances, self._targets = distances, targets

    @classmethod
    def of(
        cls,
        source: Source,
        make_engine: type[Engine],
        targets: Targets,
        scale: Scale,
        centres: Int64[Tensor, " r"],
        *,
        room: int | None,
        own_grid: bool,
    ) -> Known | None:
        """Look at the features that a source holds; None where another way is quicker, or this one does not do.

        Args:
            source: Of the features.
            make_engine: The engine asked for.
            targets: As of the class.
            scale: As in `look`.
            centres: The filter centres.
            room: Bytes, as for `Meeting`.
            own_grid: Whether `own_grid` will be asked for.
        """
        if isinstance(source, Seen):
            return cls(source.distances[scale], targets)
        features = source.features
        if features is None or not source.shards.alone or make_engine is not Cpu:
            return None
        index = _centres(features, centres, own_grid=own_grid)
        distances = look(features, index, scale) if can_look(features, len(index), room) else None
        return None if distances is None else cls(distances, targets)

    def own_grid(self) -> Curve:
        """See `Meeting.own_grid`."""
        known = self._distances
        few = torch.searchsorted(known.index, a_few(known.squared.shape[1], known.points.features))
        squared = known.squared[few.numpy()]
        return covering(float(squared.max()), np.where(squared > 0, squared, np.inf).min(axis=1))

    def begin(self, cutoffs: Tensor) -> None:
        """See `Meeting.begin`."""
        from layerfreq.engines.cpu.given import Given

        self._work = Given(self._distances, self._targets, cutoffs)

    def curves(self, index: Tensor) -> Iterator[RowCurves]:
        """See `Meeting.curves`."""
        return self._work.run(index)


class Seen(Source):
    """Features that are gone, of which the distances are left.

    Attributes:
        distances: scale -> distances.
        width: How many features there were.
    """

    def __init__(self, distances: Mapping[Scale, Distances]) -> None:
        one = next(iter(distances.values()))
        super().__init__(one.points.features.device, Shards(count=one.squared.shape[1]))
        self.distances, self.width = distances, one.points.features.shape[1]

    def visit(self, see: See) -> None:
        """Not possible any more."""
        raise RuntimeError("the features have passed by, and only their distances were kept")

    def __len__(self) -> int:
        return self.shards.n

    @property
    def nbytes(self) -> int:
        """Bytes of what is left."""
        return sum(one.squared.nbytes for one in self.distances.values())


def seen(
    features: Tensor,
    targets: Any,
    scales: Sequence[Scale],
    *,
    inv_delta: Any = None,
    center: bool | None = None,
    rows: int | None = None,
    rtol: float | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    seed: int = 0,
    group: Any = None,
) -> Seen | None:
    """Look at all points' features while a network computes them.

    Args:
        features: (n, d) of all points; nothing of them is kept.
        targets: Of the points, as for `spectrum`; None where they are not known yet.
        scales: At which to measure.
        inv_delta: As for `spectrum`, like all that follows.

    Returns:
        What `measure_source` takes for them; None where they have to be held, also where they are bad input, of which
        one is told when they are measured.
    """
    n, d = features.shape
    given = group is None and rtol is None and torch.device(device or "cpu").type == "cpu"
    if not given or (rows is not None and targets is None) or not can_look(features, rows or n, None):
        return None
    with torch.no_grad(), torch._C.DisableTorchFunction(), own_settings():  # nor does a model's tracer see this
        cutoffs = USUAL if inv_delta is None else len(inv_delta)
        if pick_engine(engine, features.device, n, d, cutoffs)[1] is not Cpu:
            return None
        known: dict[Scale, Distances] = {}
        try:
            x, centres = as_features(features), torch.arange(n)
            if rows is not None:
                y = prepare_targets(read_targets(targets, n), Shards(count=n), center=center, seed=seed)
                centres = draw(y, n, rows, rtol, seed).order
            index = _centres(x, centres, own_grid=inv_delta is None)
            for scale in scales if can_look(x, len(index), None) else ():
                one = look(x, index, scale)
                if one is None:
                    return None
                known[scale] = one
        except InputError:
            return None
    return Seen(known) if known else None


def _centres(features: Tensor, centres: Tensor, *, own_grid: bool) -> Tensor:
    """Return the filter centres, and the few points that an own grid asks for, in order."""
    few = a_few(len(features), features) if own_grid else centres[:0]
    return torch.unique(torch.cat([centres, few]))
