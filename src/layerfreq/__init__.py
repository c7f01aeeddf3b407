"""Which frequencies each layer of a network still has to learn."""

from layerfreq._version import __version__
from layerfreq.layers import LayerSpectra, layer_spectra
from layerfreq.monitor.monitor import Monitor
from layerfreq.network.extract import layer_features
from layerfreq.network.find import hidden_layers
from layerfreq.network.split import split
from layerfreq.response import ErrorSpectrum, error_spectrum
from layerfreq.runs.run import Run
from layerfreq.spectrum import Spectrum, spectrum

__all__ = [
    "ErrorSpectrum",
    "LayerSpectra",
    "Monitor",
    "Run",
    "Spectrum",
    "__version__",
    "error_spectrum",
    "hidden_layers",
    "layer_features",
    "layer_spectra",
    "spectrum",
    "split",
]
