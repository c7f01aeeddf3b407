"""Which frequencies each layer of a network still has to learn."""

from layerfreq._version import __version__
from layerfreq.features import layer_features
from layerfreq.layers import LayerSpectra, layer_spectra
from layerfreq.monitor import Monitor
from layerfreq.network import hidden_layers
from layerfreq.runs import Run
from layerfreq.spectrum import Spectrum, spectrum
from layerfreq.splitting import split

__all__ = [
    "LayerSpectra",
    "Monitor",
    "Run",
    "Spectrum",
    "__version__",
    "hidden_layers",
    "layer_features",
    "layer_spectra",
    "spectrum",
    "split",
]
