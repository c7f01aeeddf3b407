"""Many classes: what the curves need of their sums is kept instead of the sums themselves.

All curves of a filter centre with sums S (classes, r) follow from the matrix SᵀS and a few combinations of the classes.
A class then costs r² operations instead of r for each cutoff and derivative, and memory does not grow with the number
of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from layerfreq.engines.cpu.expansion import Expansion


@dataclass
class Folded:
    """What the curves need of the sums of h filter centres over the other points, for c classes and r functions.

    Attributes:
        offset: (c,) added to the filtered one-hot targets.
        label: (h,) the centres' own classes.
        square: (h, r, r) SᵀS.
        own: (h, r) the sums of the centre's own class.
        total: (h, r) of all classes.
        shifted: (h, r) the classes' sums times their offsets.
    """

    offset: Float64[np.ndarray, " c"]
    label: Int64[np.ndarray, " h"]
    square: Float64[np.ndarray, "h r r"]
    own: Float64[np.ndarray, "h r"]
    total: Float64[np.ndarray, "h r"]
    shifted: Float64[np.ndarray, "h r"]

    @classmethod
    def empty(cls, offset: Float64[np.ndarray, " c"], label: Int64[np.ndarray, " h"], r: int) -> Folded:
        """Make room for the sums of some centres."""
        h = len(label)
        return cls(offset, label, np.empty((h, r, r)), np.empty((h, r)), np.empty((h, r)), np.empty((h, r)))

    def take(self, at: slice, sums: Float64[np.ndarray, "k c r"]) -> None:
        """Fold the sums of some of the centres, which have met all points."""
        np.matmul(sums.transpose(0, 2, 1), sums, out=self.square[at])
        self.own[at] = sums[np.arange(len(sums)), self.label[at]]
        self.total[at] = sums.sum(axis=1)
        self.shifted[at] = np.matmul(self.offset, sums)

    def curves(self, functions: Expansion, at: slice, out: Float64[np.ndarray, "3 k m"]) -> None:
        """Write energy, its derivative in 1/delta and self-weight of some centres, as `kernels.curves` does.

        Let a = S v be the classes' sums of the kernel, b those of its derivative, y the centre's one-hot target, o the
        offset and w = 1 / (1 + sum of a). The filter keeps (a + y) w + o, with the derivative
        (b - (a + y) w sum of b) w.
        """
        m = functions.square.shape[1]
        v, slope = functions.values[:, :m], functions.values[:, m:]
        square = self.square[at].reshape(-1, v.shape[0] ** 2)
        aa = square @ (v[:, None] * v).reshape(-1, m)
        ab = square @ (v[:, None] * slope).reshape(-1, m)
        a, b = np.split(self.own[at] @ functions.values, 2, axis=1)
        total, fall = np.split(self.total[at] @ functions.values, 2, axis=1)
        oa, ob = np.split(self.shifted[at] @ functions.values, 2, axis=1)
        oa += self.offset[self.label[at], None]
        w = 1 / (1 + np.maximum(total, -0.5))  # as in `kernels.curves`
        kept, offset = (aa + 2 * a + 1) * w**2, float(self.offset @ self.offset)
        out[0] = kept + 2 * w * oa + offset
        out[1] = 2 * w * ((ab + b) * w - kept * fall + ob - oa * w * fall)
        out[2] = np.minimum((1 + self.total[at] @ functions.square) * w**2, 1)
