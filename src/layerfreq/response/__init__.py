"""Error by frequency: what a whole network has learned so far, and what it has not."""

from layerfreq.response.measure import error_spectrum
from layerfreq.response.result import ErrorSpectrum

__all__ = ["ErrorSpectrum", "error_spectrum"]
