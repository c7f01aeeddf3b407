"""The sections of the network as HTML: each kind once, with the contents of every run."""

from __future__ import annotations

from collections.abc import Sequence

from layerfreq.report.collect import Shown

HEADINGS = {
    "changes": ("How the outputs changed", ""),
    "axis": (
        "Frequencies along an axis",
        "For layers with a time or space axis. Top: how much the spectra of their channels differ (focus: the variance "
        "over channels of max |X| / rms |X|). Bottom: where the spectra are centred, in cycles per position. Neither "
        "says which frequencies of the target are left to learn.",
    ),
    "images": (
        "Image frequency",
        "How much the mean cross-entropy of a class rises when a frequency is removed from its images: changes from "
        "pixel to pixel, with the mean in the middle; not the target's frequency. The table has the accuracy on images "
        "filtered to the frequencies that a class needs most, and to as many drawn at random.",
    ),
    "suspects": (
        "Suspects",
        "Points whose targets disagree with those of the points around them in a layer's features: the squared "
        "residual from the others' mean, by rank, and what the same points would have with another point's target. A "
        "network may have learned wrong labels; they then stand out only in early layers, or nowhere.",
    ),
}
FIGURES = {
    "axis": ("figure tall", "focus and centroid of layers over steps"),
    "images": ("figure", "maps of what classes lose without a frequency of the images"),
    "suspects": ("figure", "squared residual of the points by rank, by layer"),
}


def parts(runs: Sequence[Shown]) -> str:
    """Return the sections that some run has, as HTML; the page shows those of the chosen run."""
    return "".join(_part(kind, runs) for kind in HEADINGS if any(kind in shown.sections for shown in runs))


def _part(kind: str, runs: Sequence[Shown]) -> str:
    heading, says = HEADINGS[kind]
    figure = ""
    if kind in FIGURES:
        look, label = FIGURES[kind]
        figure = f'<div id="{kind}" class="{look}" role="img" aria-label="{label}"></div>'
        figure += f'<ul class="key" id="{kind}-key"></ul>'
    has = [(i, shown.sections[kind]) for i, shown in enumerate(runs) if kind in shown.sections]
    above, below = (
        "".join(f'<div data-run="{i}">{html}</div>' for i, html in texts if html)
        for texts in ([(i, one.html) for i, one in has], [(i, one.below) for i, one in has])
    )
    told = f'<p class="quiet">{says}</p>' if says else ""
    return f'<section id="part-{kind}" data-kind="{kind}"><h2>{heading}</h2>{told}{above}{figure}{below}</section>'
