"""A spectrum from its rows in a run, straight: what every reader of runs has to find."""

import numpy as np

from layerfreq.measure.result import Spectrum

CASES = [("raw", "rms"), ("maxabs",), ("raw", "rms", "maxabs")]  # the scales that a run may hold, and no others


def spectrum_of(part, about):
    """The rows of one layer, step and scale, by cutoff, and what the run says of all its spectra."""
    (scale,) = part["scale"].unique()
    names = ["inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr"]
    curves = {name: part[name].to_numpy(dtype=np.float64, copy=True) for name in names}
    stderr = curves.pop("stderr")
    about = {"n": about["n"], "rows": about["rows"], "floor": about["floor"], "scale": scale}
    return Spectrum(**curves, **about, stderr=stderr if stderr.any() else None, d=0, spread=0.0, engine="")
