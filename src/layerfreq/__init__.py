"""Which frequencies each layer of a network still has to learn."""

from layerfreq._version import __version__
from layerfreq.spectrum import Spectrum, spectrum

__all__ = ["Spectrum", "__version__", "spectrum"]
