"""What LFR and RDF look like: sin(k pi x) for k = 1, 5, 9, 13, compared with the closed form.

Experiment 2 of the method. With delta the variance, LFR = exp(-(k pi)^2 delta), and the RDF peaks at
1/delta = (k pi)^2 / 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerfreq.experiments import Request, Table
from layerfreq.experiments.figures.beside import compare_sine
from layerfreq.layers import LayerSpectra
from layerfreq.measure.measure import spectrum
from layerfreq.runs.reader import read_back
from layerfreq.runs.run import Run

FREQUENCIES = (1, 5, 9, 13)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Chosen values: the interval, and how finely it is sampled.

    Attributes:
        points: Number of points on [-10, 10].
        rows: Filter centres drawn; None for every point.
        cutoffs: Number of cutoffs up to 1/delta = 2500.
    """

    points: int
    rows: int | None
    cutoffs: int


PRESETS = {
    "smoke": Config(points=2001, rows=200, cutoffs=60),
    "small": Config(points=20001, rows=2000, cutoffs=250),
    "paper": Config(points=20001, rows=None, cutoffs=500),
}
UNIT = "step"
SEEDS = 1


def run(config: Config, request: Request) -> None:
    """Measure the four sines; there is nothing to train, so a resumed run starts over."""
    top, progress = request.open("sine", UNIT, config), request.progress
    x = torch.linspace(-10, 10, config.points, dtype=torch.float64)
    grid = 2500 * (np.arange(1, config.cutoffs + 1) / config.cutoffs) ** 2  # even steps in k
    spectra = {}
    progress.start("sine", len(FREQUENCIES), 0)
    for i, k in enumerate(FREQUENCIES):
        name = f"sin({k}πx)"
        progress.measuring(name)
        spectra[name] = spectrum(x, torch.sin(k * math.pi * x), grid, rows=config.rows, seed=request.seeds[0])
        progress.step(i + 1)
    top.write_spectra(0, LayerSpectra(spectra).to_frame())
    progress.finish()


def present(out: Path, seeds: list[int]) -> Table:
    """Draw LFR and RDF as published, and compare each peak with its closed form."""
    from matplotlib import pyplot as plt

    from layerfreq import plots

    frame: Any = Run(out).spectra
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rows: list[list[str]] = []
    for (depth, name), part in frame.groupby(["depth", "layer"]):
        k, u = FREQUENCIES[int(depth) - 1], part["inv_delta"].to_numpy()
        look: dict[str, Any] = plots.style(int(depth), len(FREQUENCIES))
        look.pop("marker")
        exact = np.exp(-((k * math.pi) ** 2) / u)
        left.plot(u, part["lfr"], label=str(name), **look)
        left.plot(u[::16], exact[::16], ".", color="black", markersize=3, zorder=3)
        right.plot(u, part["rdf"] / part["rdf"].max(), label=str(name), **look)
        (measured,) = read_back(part)
        peak, error = measured.spectrum.peak or 0.0, np.abs(part["lfr"].to_numpy() - exact).max()
        rows.append([str(name), f"{peak:.4g}", f"{(k * math.pi) ** 2 / 2:.4g}", f"{error:.2g}"])
    left.set(xlabel=plots.LABELS["raw"], ylabel="LFR (dots: closed form)", ylim=(0, 1.02))
    right.set(xlabel=plots.LABELS["raw"], ylabel="RDF / its maximum")
    left.legend(frameon=False)
    for ax in (left, right):
        ax.set_xlim(0, 2500)
        plots.frequency_axis(ax)
    head = ["target", "RDF peak", "closed form", "largest LFR error"]
    return Table(head, rows, plots.save(figure, out / "figures", "sine"))


def beside(out: Path, seeds: list[int]) -> Table:
    """Compare LFR and RDF with the published figure."""
    return compare_sine(out, Run(out), {f"k={k}": f"sin({k}πx)" for k in FREQUENCIES})
