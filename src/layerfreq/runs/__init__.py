"""A run on disk: safe from a kill at any moment, and read as data frames."""

from layerfreq.files import natural, sweep, write_whole
from layerfreq.runs.run import Run

__all__ = ["Run", "natural", "sweep", "write_whole"]
