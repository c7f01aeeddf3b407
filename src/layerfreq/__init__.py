"""Which frequencies each layer of a network still has to learn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerfreq._version import __version__
from layerfreq.errors import InputError
from layerfreq.inspection.diagnosis import Diagnosis, doctor
from layerfreq.layers import LayerSpectra, layer_spectra
from layerfreq.monitor.monitor import Monitor
from layerfreq.network.extract import layer_features
from layerfreq.network.find import hidden_layers
from layerfreq.network.split import split
from layerfreq.response import ErrorSpectrum, error_spectrum
from layerfreq.runs.run import Run
from layerfreq.spectrum import Spectrum, spectrum

if TYPE_CHECKING:
    from layerfreq.advice import Advice, advise
    from layerfreq.verdict import compare, verdict

__all__ = [
    "Advice",
    "Diagnosis",
    "ErrorSpectrum",
    "InputError",
    "LayerSpectra",
    "Monitor",
    "Run",
    "Spectrum",
    "__version__",
    "advise",
    "compare",
    "doctor",
    "error_spectrum",
    "hidden_layers",
    "layer_features",
    "layer_spectra",
    "spectrum",
    "split",
    "verdict",
]


def __getattr__(name: str) -> Any:
    """Import what few scripts need when it is first asked for."""
    if name == "verdict":  # the module, which can be called as its function
        return import_module("layerfreq.verdict")
    if name == "compare":
        return import_module("layerfreq.verdict").compare
    if name in ("Advice", "advise"):
        return getattr(import_module("layerfreq.advice"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
