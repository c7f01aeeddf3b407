"""What the scripts of the gallery share: run the seeds, write the table, the sentences and the figure of a page.

python examples/label_noise.py            # full size, writes into docs/gallery
python examples/label_noise.py --smoke --out DIR    # seconds
python examples/label_noise.py --redraw   # sentences and figure from the table there is
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import pandas as pd
import torch
from matplotlib.figure import Figure

import layerfreq

PAGES = Path(__file__).parents[1] / "docs" / "gallery"
LABELS = {"raw": "1/δ, raw", "rms": "1/δ, unit RMS features"}
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
    parser.add_argument("--smoke", action="store_true", help="two seeds at a size of seconds, in a folder of its own")
    parser.add_argument("--redraw", action="store_true", help="sentences and figure anew from the table there is")
    parser.add_argument("--out", type=Path, help="folder to write to; default: docs/gallery")
    options = parser.parse_args()
    if options.smoke and options.out is None:
        parser.error("--smoke needs --out, so that the pages' own data stay")
    out = options.out or PAGES
    if not options.redraw:
        run(name, partial(measure, **smoke) if options.smoke else measure, range(2 if options.smoke else seeds), out)
    table = read(name, out)
    (out / "data" / f"{name}.txt").write_text(answer(sentences(table)))
    (out / "data" / f"{name}.remarks.txt").write_text(remarks(sentences(table)))
    save(figure(table), out / f"{name}.png")
    print("\n".join(sentences(table)))


def run(name: str, measure: Callable[[int], list[dict[str, Any]]], seeds: range, out: Path) -> None:
    """Measure for every seed, and write the table and how it was made."""
    started, rows = time.process_time(), []
    for seed in seeds:
        rows += [{"seed": seed, **row} for row in measure(seed)]
        print(f"seed {seed} done, {time.process_time() - started:.0f} s of processor time", flush=True)
    spent, threads = time.process_time() - started, torch.get_num_threads()
    (out / "data").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "data" / f"{name}.csv", index=False, float_format="%.4g")
    (out / "data" / f"{name}.made.txt").write_text(
        f"`python examples/{name}.py`, seeds {seeds[0]} to {seeds[-1]}, {spent:.0f} s of processor time on {threads} "
        f"thread{'s' * (threads > 1)} of {processor()}; layerfreq {layerfreq.__version__}, torch {torch.__version__}\n"
    )


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


def join(parts: list[str]) -> str:
    """Parts as words: a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


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
    ax.errorbar(
        at,
        mean,
        [(mean - low).clip(lower=0), (high - mean).clip(lower=0)],
        label=label,
        capsize=3,
        markersize=5,
        linewidth=1.4,
        **look,
    )
    if value == "median":
        hollow = groups[["median", "resolution"]].apply(lambda part: not (part["median"] <= part["resolution"]).all())
        where = [(a, m) for a, m, h in zip(at, mean, hollow, strict=True) if h]
        if where:
            ax.plot(*zip(*where, strict=True), look["marker"], color=look["color"], markerfacecolor="white", zorder=5)


def log_axis(axis: Any) -> None:
    """Make an axis logarithmic with plain numbers on it; call it when all is drawn."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    shown = next(
        digits for most, digits in ((3, "23456789"), (30, "2346"), (300, "25"), (inf, "")) if high / low < most
    )
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in shown else "")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colours, 1190 pixels wide for 7 inches."""
    from io import BytesIO

    from matplotlib import pyplot as plt
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=170)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
