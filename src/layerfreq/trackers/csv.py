"""Measurements as lines of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerfreq.files import Anchored, as_path


class CSV:
    """Appends a line `step,name,value` for each number to a file, which is made, with a header, if it is not there.

    Args:
        path: The file. Nothing stays open between two measurements.

    Examples:
        >>> tracker = CSV("numbers.csv")
        >>> tracker.log(0, {"layerfreq/raw/median/1": 4.5}, figure=lambda: None)
        >>> print(Path("numbers.csv").read_text().strip())
        step,name,value
        0,layerfreq/raw/median/1,4.5
        >>> tracker.close()
    """

    path = Anchored()

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path, "path")

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Append the numbers; the figure is not drawn."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        with self.path.open("a", newline="", encoding="utf-8") as file:
            if not file.tell():
                lines.writerow(["step", "name", "value"])
            lines.writerows([step, name, repr(value)] for name, value in scalars.items())
            file.write(text.getvalue())

    def close(self) -> None:
        """Do nothing."""
