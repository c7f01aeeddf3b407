"""The advice, and what it is based on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.advice.depth import Depth

if TYPE_CHECKING:
    import pandas as pd

DEPTHS = {
    "more": "the last layer still lowers the frequency of what is left to learn; another may, too",
    "enough": "the last layer neither lowers nor raises the frequency of what is left to learn for sure",
    "too much": "an earlier cut has a lower frequency than the last",
    "unknown": "the frequencies at the cuts are not resolved on so few points",
}


@dataclass(frozen=True)
class Gap:
    """A mean difference of scores, paired by point.

    Attributes:
        value: The mean.
        low: Lower end of its 95% interval.
        high: Upper end of its 95% interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray, others: np.ndarray, groups: np.ndarray | None = None) -> Gap:
        """Return how much better scores (n,) are than others (n,) of the same points.

        Points of one group, such as the tokens of a text, err together, so that the groups are what is drawn: the
        variance of the mean is that of their sums of residuals (Liang & Zeger 1986), Student's t has one degree of
        freedom fewer than there are groups.

        Args:
            scores: (n,).
            others: (n,).
            groups: (n,) numbers 0 .. g-1; None means that each point is one.
        """
        from scipy.stats import t

        apart = scores - others
        value = float(apart.mean())
        sums = apart - value if groups is None else np.bincount(groups, apart - value)
        g = len(sums)
        half = float(t.ppf(0.975, g - 1)) * math.sqrt(g / (g - 1) * float(sums @ sums)) / len(apart)
        return cls(value, value - half, value + half)


@dataclass(frozen=True, eq=False, repr=False)
class Advice:
    """Where to cut a trained network, where to take features from, and whether it is deep enough.

    Attributes:
        table: A data frame with a row per cut, input to output: cut, layer, dimension; medians `raw`, `rms` and
            `maxabs` (1/delta, NaN if there is none or it is not resolved); for the heads `linear` and `hidden` the
            score on held-out points, `*_gap`, `*_low` and `*_high`, its difference from the network's with a 95%
            interval, and `*_steps` to a tenth of the constant prediction's loss; `time`, as a share of the network's,
            and `parameters` of the layers below. With `transfer`, also `transfer`, the linear head's score on that data
            set, and `transfer_gap`, `_low`, `_high`, its difference from the best cut's.
        measure: What scores are, "accuracy" or "R2".
        network: The score of the whole network.
        constant: That of the best constant prediction: the share of the most frequent class, or an R2 of 0.
        parameters: Number of parameters of the whole network.
        points: Number of points; with reading="positions", of positions.
        inputs: Number of inputs that the points belong to.
        tolerance: How far a head may score below the network.
        depth: What frequencies say about the number of layers.
        transfer_measure: What the scores of `transfer` are; None without.

    Examples:
        >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> found = layerfreq.advise(model, x, (x[:, 0] > 0).long())
        >>> found.measure, found.features, round(found.constant, 3)
        ('accuracy', None, 0.533)
        >>> found.to_frame()[["layer", "parameters"]].values.tolist()
        [['inputs', 0], ['1', 12]]
    """

    table: pd.DataFrame
    measure: str
    network: float
    constant: float
    parameters: int
    points: int
    inputs: int
    tolerance: float
    depth: Depth
    transfer_measure: str | None = None

    @property
    def exit(self) -> str | None:
        """The shallowest cut whose linear head is within the tolerance of the network; None if there is none."""
        return self._first("linear_gap")

    @property
    def sure_exit(self) -> str | None:
        """The shallowest cut whose whole 95% interval is within the tolerance; None if there is none."""
        return self._first("linear_low")

    @property
    def features(self) -> str | None:
        """The cut whose linear head does best on the data set of `transfer`; None without one."""
        return max(self._rows, key=lambda row: row["transfer"])["layer"] if "transfer" in self.table else None

    @property
    def as_good(self) -> list[str]:
        """The other cuts that may be as good as `features`, given their interval."""
        alike = [row["layer"] for row in self._rows if row.get("transfer_high", -1) >= 0]
        return [layer for layer in alike if layer != self.features]

    @property
    def agreement(self) -> float:
        """Rank correlation over the cuts of low rms medians with high linear scores; NaN below four cuts."""
        from scipy.stats import spearmanr

        known = [(-row["rms"], row["linear"]) for row in self._rows if not math.isnan(row["rms"])]
        if len(known) < 4 or any(len(set(values)) < 2 for values in zip(*known, strict=True)):
            return float("nan")
        low, scores = zip(*known, strict=True)
        found: Any = spearmanr(low, scores)
        return float(found.statistic)

    @property
    def sentences(self) -> list[str]:
        """The advice in words, one sentence for each of its parts."""
        return [self._cutting(), *self._trivial(), *self._transferring(), self._deepening(), *self._frequency()]

    def to_frame(self) -> pd.DataFrame:
        """Return the table, a copy."""
        return self.table.copy()

    def __repr__(self) -> str:
        head = ("layer", "rms", "linear", "hidden", "time", "parameters")
        cells = [[_cell(row[name]) for name in head] for row in self._rows]
        wide = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, wide, strict=True)) for row in (head, *cells)]
        return "\n".join([*lines, *self.sentences])

    def _repr_html_(self) -> str:
        return self.table.to_html(border=0, index=False) + "".join(f"<p>{escape(one)}</p>" for one in self.sentences)

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [{str(name): value for name, value in row.items()} for row in self.table.to_dict("records")]

    def _row(self, layer: str) -> dict[str, Any]:
        return next(row for row in self._rows if row["layer"] == layer)

    def _first(self, column: str) -> str | None:
        return next((row["layer"] for row in self._rows if row[column] >= -self.tolerance), None)

    def _cutting(self) -> str:
        found, sure, last = self.exit, self.sure_exit, self._rows[-1]["layer"]
        network = f"the network's {self.measure} {self.network:.3f}"
        if found is None:
            row = max(self._rows, key=lambda row: row["linear"])
            return (
                f"Do not cut: no linear head comes within {self.tolerance:g} of {network}; the best, at "
                f"{row['layer']!r}, is {_apart(row, 'linear')}."
            )
        row = self._row(found)
        saved = f", in {row['time']:.0%} of the time"
        where = "The inputs do" if found == "inputs" else f"Cut at {found!r}" + (", the last" if found == last else "")
        surely = {None: "; no cut is within it for sure", found: "; for sure"}.get(sure, f"; for sure only at {sure!r}")
        return (
            f"{where}: a linear head reaches {row['linear']:.3f}{saved}, {_apart(row, 'linear')} compared with "
            f"{network} (tolerance {self.tolerance:g}{surely})."
        )

    def _trivial(self) -> list[str]:
        if self.constant < self.network - self.tolerance:
            return []
        if self.constant > self.network:
            return [
                f"A constant prediction reaches {self.constant:.3f}, more than the network; check weights and targets."
            ]
        more = ", or points with as many of each class" if self.measure == "accuracy" else ""
        return [
            f"A constant prediction reaches {self.constant:.3f}, which is within the tolerance, too, so that this says "
            f"little; pass a smaller tolerance{more}, or a better network."
        ]

    def _transferring(self) -> list[str]:
        if self.features is None:
            return []
        row, others = self._row(self.features), self.as_good
        if row["transfer"] <= 0:  # R^2: no better than the mean target
            return [f"For the other data no features help: the best, {self.features!r}, reach {row['transfer']:.3f}."]
        alike = f"; {_listed(others)} may do as well" if others else "; all others do worse for sure"
        alike = alike if len(self.table) > 1 else ""
        reached = f"{self.transfer_measure or 'score'} {row['transfer']:.3f}"
        return [f"For the other data take features from {self.features!r}: {reached}{alike}."]

    def _deepening(self) -> str:
        said, d = DEPTHS[self.depth.answer], self.depth
        if d.answer == "unknown" and sum(name != "inputs" for name in self.table["layer"].tolist()) < 2:
            return "Depth, by frequency: unknown; it takes two hidden layers to compare, and there is one."
        if d.answer == "unknown":
            return f"Depth, by frequency: unknown; {said}."
        number = f"{d.octaves:+.2f} octaves by the last layer, {d.low:+.2f} to {d.high:+.2f}"
        lowest = f"; lowest at {d.lowest!r}" if d.answer == "too much" else ""
        return f"Depth, by frequency: {d.answer}; {said} ({number}{lowest}). In tests this did not predict accuracy."

    def _frequency(self) -> list[str]:
        if math.isnan(self.agreement):
            return []
        return [
            f"Rank correlation of low frequency with the linear heads' scores over the cuts: {self.agreement:+.2f}. "
            "The advice on cutting and on features is the heads' alone."
        ]


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() else f"{value:.3g}"


def _apart(row: dict[str, Any], head: str) -> str:
    return f"{row[f'{head}_gap']:+.3f} ({row[f'{head}_low']:+.3f} to {row[f'{head}_high']:+.3f})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more
