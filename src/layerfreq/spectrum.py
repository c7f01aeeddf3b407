"""The measure and what it returns, under the name that they are imported by."""

from layerfreq.measure.measure import spectrum
from layerfreq.measure.result import Spectrum

__all__ = ["Spectrum", "spectrum"]
