"""The CPU engine for distances that are known already: only the pass over the pairs is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.targets import Targets
from layerfreq.engines.cpu.bins import SHORTEST
from layerfreq.engines.cpu.engine import PAIR, STRIP, TOO_CLOSE, Columns, Cpu, Rows
from layerfreq.engines.distances import Distances
from layerfreq.engines.threads import hands, parts, threads
from layerfreq.errors import InputError


class Given(Cpu):
    """Sums over pairs whose distances are given; the filter centres are those of `Distances`, in their order.

    The loops over pairs get points without features and of size zero, and minus half the squared distance as the
    product of a pair, which has all its digits.
    """

    def __init__(self, distances: Distances, targets: Targets, inv_delta: Tensor) -> None:
        points = distances.points
        self._distances = distances
        self._row = np.full(distances.squared.shape[1], -1)
        self._row[distances.index.numpy()] = np.arange(len(distances.index))
        nothing = torch.empty(distances.squared.shape[1], 0, dtype=torch.float32)
        none = torch.empty(0, dtype=torch.float64)
        super().__init__(replace(points, features=nothing, shift=none, gain=none), targets, inv_delta)
        squared = distances.squared[:, self._own.order] * (-0.5 * self._stretch**2)
        self._products = squared.astype(np.float32)

    @property
    def _folds(self) -> bool:
        return False

    def _refuse_closer_pairs(self) -> None:
        squared = self._distances.squared * self._stretch**2
        if np.any((squared > 0) & (squared < SHORTEST)):
            raise InputError(TOO_CLOSE)

    def _looked_at(self) -> np.ndarray:
        squared = self._distances.squared * self._stretch**2
        squared[np.arange(len(squared)), self._distances.index.numpy()] = np.inf
        return squared

    def add(self, rows: Rows, columns: Columns) -> None:
        """See `Engine.add`."""
        at_hand = self._row[rows.place]
        count, blocks = hands(len(at_hand) * self._products.shape[1] * PAIR), self._blocks(columns)

        def strip(at: slice) -> None:
            for block in blocks:
                tile = np.ascontiguousarray(self._products[at_hand[at], block.at])
                self._deposit(rows, at, tile, columns, block)

        with threads(count) as run:
            list(run(strip, parts(len(at_hand), STRIP, count=count)))
