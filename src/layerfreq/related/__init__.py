"""Other measures of this literature, one per file: each with its definition, its source and its chance level."""

from layerfreq.related.changes import Change, output_change, run_change
from layerfreq.related.condensation import neuron_condensation, neuron_similarity, plot_condensation, run_condensation
from layerfreq.related.convergence import layer_convergence, plot_convergence
from layerfreq.related.suspects import Suspects, suspects

__all__ = [
    "Change",
    "Suspects",
    "layer_convergence",
    "neuron_condensation",
    "neuron_similarity",
    "output_change",
    "plot_condensation",
    "plot_convergence",
    "run_change",
    "run_condensation",
    "suspects",
]
