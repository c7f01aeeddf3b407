"""Measurements in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerfreq.extras import needs
from layerfreq.files import as_path


class TensorBoard:
    """Logs scalars, and the figure as the image `layerfreq/layers`.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`, which stays open, or a directory for a writer of its own.

    Raises:
        InputError: If the package is missing.

    Examples:
        >>> tracker = TensorBoard("board")
        >>> tracker.log(0, {"layerfreq/raw/median/1": 4.5}, figure=plt.figure)
        >>> tracker.close()
        >>> [file.name.split(".")[0] for file in Path("board").iterdir()]
        ['events']
    """

    def __init__(self, writer: Any) -> None:
        self._board = needs("torch.utils.tensorboard", "layerfreq[tensorboard]", "trackers")
        self._folder = as_path(writer, "writer").absolute() if isinstance(writer, (str, Path)) else None
        self._writer: Any = writer if self._folder is None else None

    def log(self, step: int, scalars: dict[str, float], figure: Callable[[], Any]) -> None:
        """Log one measurement, and make sure that it is on disk."""
        if self._writer is None:
            self._writer = self._board.SummaryWriter(str(self._folder))
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.add_figure("layerfreq/layers", figure(), step, close=False)
        self._writer.flush()

    def close(self) -> None:
        """Close the writer, if it is our own; the next measurement opens another."""
        if self._folder is not None and self._writer is not None:
            self._writer.close()
            self._writer = None
