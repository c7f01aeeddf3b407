"""A run on disk: written so that a kill at any instant leaves it whole, read as data frames."""

from layerfreq.files import natural, sweep, write_whole
from layerfreq.runs.run import Run

__all__ = ["Run", "natural", "sweep", "write_whole"]
