"""Filter centres whose distances to all points are known, from one look at wide features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from layerfreq.data.source import Source
from layerfreq.data.targets import Targets
from layerfreq.data.validation import Curve, Scale
from layerfreq.engines import Engine, RowCurves
from layerfreq.engines.cpu.engine import Cpu
from layerfreq.engines.distances import Distances, can_look, look
from layerfreq.measure.grid import a_few, covering


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
            room: Bytes, as of `Meeting`.
            own_grid: Whether `own_grid` will be asked for.
        """
        features = source.features
        if features is None or not source.shards.alone or make_engine is not Cpu:
            return None
        few = a_few(len(features), features) if own_grid else centres[:0]
        index = torch.unique(torch.cat([centres, few]))
        if not can_look(features, len(index), room):
            return None
        distances = look(features, index, scale)
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
