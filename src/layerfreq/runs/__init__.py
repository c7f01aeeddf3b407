"""A run on disk: written so that a kill at any instant leaves it whole, read as data frames."""

from layerfreq.runs.run import Run, natural, sweep, write_whole

__all__ = ["Run", "natural", "sweep", "write_whole"]
