"""Runs whose layers have given medians."""

import numpy as np
import pandas as pd

from layerfreq import Run

GRID = np.geomspace(1e-3, 1e3, 97)


def curves(median, resolution=1e2):
    """LFR exp(-ln(2) m / u), whose median is m and whose RDF is its derivative, as a frame."""
    c = median * np.log(2)
    lfr = np.exp(-c / GRID)
    neighbours = 2 * (resolution / GRID) ** 0.5
    frame = pd.DataFrame({"inv_delta": GRID, "lfr": lfr, "rdf": lfr * c / GRID**2, "neighbours": neighbours})
    return frame.assign(chance=np.linspace(0, 0.01, len(GRID)), stderr=0.0)


def write_run(path, medians, config=None, losses=None, scales=("raw", "rms")):
    """A run with medians[step][layer], the same at all scales."""
    run = Run.create(path, config or {})
    for step, layers in medians.items():
        parts = [
            curves(m).assign(layer=f"hidden{depth}", depth=depth, scale=scale)
            for depth, m in enumerate(layers, 1)
            for scale in scales
        ]
        frame = pd.concat(parts, ignore_index=True)
        frame.attrs = {"n": 100, "rows": 100, "floor": 0.0}
        run.write_spectra(step, frame)
    for step, loss in (losses or {}).items():
        run.log(step, loss=loss)
    run.flush()
    return run
