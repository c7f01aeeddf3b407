"""Figures and tables of the experiments, and the published ones next to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from layerfreq.plots import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_titled(figures: Mapping[str, tuple[Figure, str]], folder: Path) -> list[Path]:
    """Write figures with a title above each.

    Args:
        figures: Name of the file -> figure and title.
        folder: Where they go.

    Returns:
        The files.
    """
    files: list[Path] = []
    for name, (figure, title) in figures.items():
        figure.suptitle(title, fontsize="medium")
        files += save(figure, folder, name)
    return files
