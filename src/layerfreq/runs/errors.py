"""Error by frequency in a run: as rows of Parquet, and read back from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from layerfreq.response.result import ErrorSpectrum, parts

if TYPE_CHECKING:
    import pandas as pd

ERRORS_COLUMNS = ["step", "output", "method", "k", "target_energy", "error_energy", "relative", "chance", "stderr"]
ERRORS = re.compile(r"step-(\d{12})\.parquet")
TOGETHER = "all"  # the output of which rows are those of all columns of a target together


def frame_of(step: int, error: ErrorSpectrum) -> pd.DataFrame:
    """Return the rows of one measurement, one per band; `stderr` is 0 if it is exact."""
    frame = error.to_frame().assign(step=step, output=TOGETHER, method=error.method)
    return frame.loc[:, ERRORS_COLUMNS]


def read_errors(frame: pd.DataFrame) -> Iterator[tuple[int, ErrorSpectrum]]:
    """Iterate over the measurements in a run's errors by step.

    What a run does not keep (n, d, columns, floor, leak) is 0 or None; e_low and e_high assume that bands add up.

    Args:
        frame: As `Run.errors`.
    """
    for step, part in frame.groupby("step", sort=True):
        rows = part.sort_values("k")
        k, target, error, relative, chance, stderr = (
            rows[name].to_numpy(dtype=np.float64, copy=True) for name in ERRORS_COLUMNS[3:]
        )
        low, high = parts(target, error).values()
        found = ErrorSpectrum(
            k=k,
            target_energy=target,
            error_energy=error,
            relative=relative,
            chance=chance,
            low=low,
            high=high,
            stderr=stderr if np.nan_to_num(stderr).any() else None,
            columns=np.stack([target, error])[..., None],
            floor=None,
            leak=None,
            mse=float(error.sum()),
            n=0,
            d=0,
            method=str(rows["method"].iloc[0]),
        )
        yield int(step), found  # pyright: ignore[reportArgumentType]
