"""What the scripts of the gallery share: run the seeds, write the table, the sentences and the figure of a page.

    python examples/label_noise.py            # full size, writes into docs/gallery
    python examples/label_noise.py --smoke    # seconds; prints the sentences, writes nothing unless --out is given
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

import layerfreq

PAGES = Path(__file__).parents[1] / "docs" / "gallery"
LABELS = {"raw": "1/δ, raw", "rms": "1/δ, features at unit RMS"}
# Okabe and Ito's colours, which the colour-blind tell apart, each with its own marker and dash.
LOOKS: list[dict[str, Any]] = [
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": (0, (6, 1.5))},
    {"color": "#009E73", "marker": "^", "linestyle": (0, (4, 1, 1, 1))},
    {"color": "#CC79A7", "marker": "D", "linestyle": (0, (2, 1))},
    {"color": "#000000", "marker": "v", "linestyle": (0, (1, 1))},
]


def publish(
    name: str,
    measure: Callable[..., list[dict[str, Any]]],
    sentences: Callable[[pd.DataFrame], list[str]],
    figure: Callable[[pd.DataFrame], Figure],
    smoke: dict[str, Any],
    seeds: int = 5,
) -> None:
    """Run an example for several seeds and write what its page shows.

    Args:
        name: Of the page; files are `data/<name>.csv`, `data/<name>.txt` and so on.
        measure: seed -> rows of the table.
        sentences: table -> the answer, then remarks.
        figure: table -> figure.
        smoke: Arguments of `measure` that make it take a few seconds.
        seeds: Number of seeds, from 0.
    """
    parser = argparse.ArgumentParser(description=f"The gallery's example {name!r}.")
    parser.add_argument("--smoke", action="store_true", help="two seeds at a size of seconds")
    parser.add_argument("--out", type=Path, help="folder to write to; default: docs/gallery, with --smoke none")
    options = parser.parse_args()
    out = options.out or (None if options.smoke else PAGES)
    started, rows, used = time.perf_counter(), [], range(2 if options.smoke else seeds)
    for seed in used:
        rows += [{"seed": seed, **row} for row in measure(seed, **(smoke if options.smoke else {}))]
        print(f"seed {seed} done, {time.perf_counter() - started:.0f} s", flush=True)
    spent = time.perf_counter() - started
    table = pd.DataFrame(rows)
    if out is not None:
        (out / "data").mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "data" / f"{name}.csv", index=False, float_format="%.5g")
        table = read(name, out)
        (out / "data" / f"{name}.txt").write_text(answer(sentences(table)))
        (out / "data" / f"{name}.remarks.txt").write_text(remarks(sentences(table)))
        (out / "data" / f"{name}.made.txt").write_text(
            f"`python examples/{name}.py`, seeds {used[0]} to {used[-1]}, {spent:.0f} s on {torch.get_num_threads()} "
            f"thread(s) of {processor()}; layerfreq {layerfreq.__version__}, torch {torch.__version__}\n"
        )
        save(figure(table), out / f"{name}.png")
    else:
        save(figure(table), None)
    print("\n".join(sentences(table)))


def read(name: str, out: Path = PAGES) -> pd.DataFrame:
    """Read the table of a page."""
    return pd.read_csv(out / "data" / f"{name}.csv")


def answer(sentences: list[str]) -> str:
    """The answer, as the page includes it."""
    return sentences[0] + "\n"


def remarks(sentences: list[str]) -> str:
    """The remarks as a list in Markdown."""
    return "".join(f"- {one}\n" for one in sentences[1:])


def spread(values: Any, digits: int = 2) -> str:
    """Mean over seeds, and the least and the greatest: `3.4 (3.1 to 3.8)`."""
    values = pd.Series(values).dropna()
    mean, low, high = (number(v, digits) for v in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low} to {high})"


def number(value: float, digits: int = 2) -> str:
    """A number to so many significant digits, without an exponent."""
    text = f"{float(f'{value:.{digits}g}'):.10f}".rstrip("0").rstrip(".")
    return text if text != "-0" else "0"


def error_bars(ax: Any, x: Any, table: pd.DataFrame, by: str, value: str, label: str, look: dict[str, Any]) -> None:
    """Draw mean and range over seeds against `by`; hollow where a seed's median lies beyond the resolution.

    Args:
        ax: Axes.
        x: value of `by` -> place on the axis.
        table: Rows of one condition, a row for each seed and `by`.
        by: Column of the horizontal axis.
        value: Column of the vertical axis.
        label: Name in the legend.
        look: Colour, marker and dash.
    """
    groups = table.groupby(by)
    at = [x(one) for one in groups.groups]
    mean, low, high = groups[value].mean(), groups[value].min(), groups[value].max()
    ax.errorbar(at, mean, [mean - low, high - mean], label=label, capsize=3, markersize=5, linewidth=1.4, **look)
    if value == "median":
        hollow = groups[["median", "resolution"]].apply(lambda part: not (part["median"] <= part["resolution"]).all())
        where = [(a, m) for a, m, h in zip(at, mean, hollow, strict=True) if h]
        if where:
            ax.plot(*zip(*where, strict=True), look["marker"], color=look["color"], markerfacecolor="white", zorder=5)


def log_axis(axis: Any) -> None:
    """Make an axis logarithmic with plain numbers on it."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.2, 0.6)))


def save(figure: Figure, path: Path | None) -> None:
    """Write a figure as a PNG of few colours, 1400 pixels wide for 7 inches; None draws it only."""
    from io import BytesIO

    from matplotlib import pyplot as plt
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=200)
    plt.close(figure)
    if path is not None:
        Image.open(drawn).convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
