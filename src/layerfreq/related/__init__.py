"""Other measures of this literature, one per file: each with its definition, its source and its chance level."""

from layerfreq.related.changes import Change, output_change, run_change

__all__ = ["Change", "output_change", "run_change"]
