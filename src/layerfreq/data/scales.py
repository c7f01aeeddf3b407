"""The scales of features in words, in the order in which they are shown: the paper's first."""

from __future__ import annotations

from collections.abc import Iterable

SENTENCES = {
    "maxabs": "the paper's; each dimension centred, over its largest absolute value",
    "raw": "features as they are; larger outputs alone mean lower frequencies",
    "rms": "a layer centred, divided by its root mean square; its size does not count",
}
NAMES = {"maxabs": "maxabs", "raw": "raw", "rms": "unit RMS"}
TITLES = {"maxabs": "Maxabs scale, the paper's", "raw": "Raw scale", "rms": "Unit RMS features"}


def in_order(scales: Iterable[str]) -> list[str]:
    """Return the scales that are given, each once, as they are shown."""
    given = set(scales)
    return [scale for scale in SENTENCES if scale in given]


def explained(scale: str) -> str:
    """Return a line that explains a scale."""
    return f"{scale}: {SENTENCES[scale]}."


def spoken(scales: Iterable[str]) -> str:
    """Return where something holds, such as "at maxabs scale, the paper's, and at raw and rms scale"."""
    names = in_order(scales)
    paper = ["at maxabs scale, the paper's"] if "maxabs" in names else []
    others = [name for name in names if name != "maxabs"]
    return ", and ".join([*paper, *([f"at {' and '.join(others)} scale"] if others else [])])
