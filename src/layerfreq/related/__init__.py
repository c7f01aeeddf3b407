"""Other measures from this literature, one per file, each with its definition, source and chance level."""

from layerfreq.related.axis import axis_frequencies, plot_axis_frequencies, run_axis_frequencies
from layerfreq.related.changes import Change, output_change, run_change
from layerfreq.related.condensation import neuron_condensation, neuron_similarity, plot_condensation, run_condensation
from layerfreq.related.convergence import layer_convergence, plot_convergence
from layerfreq.related.image_frequency import ImageFrequency, class_spectra, image_frequency
from layerfreq.related.suspects import Suspects, suspects

__all__ = [
    "Change",
    "ImageFrequency",
    "Suspects",
    "axis_frequencies",
    "class_spectra",
    "image_frequency",
    "layer_convergence",
    "neuron_condensation",
    "neuron_similarity",
    "output_change",
    "plot_axis_frequencies",
    "plot_condensation",
    "plot_convergence",
    "run_axis_frequencies",
    "run_change",
    "run_condensation",
    "suspects",
]
