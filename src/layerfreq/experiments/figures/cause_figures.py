"""The figures of the experiment `cause`: steps over frequency, who orders the cuts best, and that step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.experiments.figures.cause_tables import DIRECTIONS, OWN, by_step
from layerfreq.verdict.ranking import PREDICTORS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RULES = {"best": ("#0072B2", "o"), "fixed": ("#D55E00", "s")}  # of Okabe and Ito's colours, safe for the colour-blind
SCALES = {"rms": ("#0072B2", "o"), "raw": ("#D55E00", "s")}
NAMES = {
    "rms_median": "rms median frequency",
    "raw_median": "raw median frequency",
    "maxabs_median": "maxabs median frequency (the paper's)",
    "rdf_peak": "RDF peak",
    "energy_above_chance": "energy above chance",
    "depth": "depth of the cut",
    "kernel_alignment": "kernel alignment",
    "probe_loss": "linear-probe loss",
    "initial_loss": "loss of the fresh head",
    "feature_rms": "feature RMS",
    "dimension": "dimension",
    "effective_rank": "effective rank",
}


def draw(table: pd.DataFrame, league: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw all figures, and return their files.

    Args:
        table: As from `packed` or `gather`.
        league: As from `league_of`.
        folder: Where they go.
    """
    from layerfreq import plots

    figures = {"steps": figure_steps(table), "league": figure_league(league), "within": figure_within(by_step(table))}
    files = []
    for name, figure in figures.items():
        files += plots.save(figure, folder, f"cause-{name}")
    return files


def figure_steps(table: pd.DataFrame) -> Figure:
    """Draw steps over median frequency at the best rate and the middle error: rows are scales, columns are studies."""
    from matplotlib import colormaps
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    studies = _studies(table)
    shares: list[float] = sorted(table["share"].unique())
    share = shares[len(shares) // 2]
    figure, axes = plt.subplots(2, len(studies), figsize=(3.6 * len(studies), 6.4), squeeze=False, layout="constrained")
    places = [(row, scale, column, study) for row, scale in enumerate(OWN) for column, study in enumerate(studies)]
    for row, scale, column, study in places:
        ax: Any = axes[row, column]
        rows = _where(table, study=study, scale=scale, rule="best", share=share, optimizer="sgd")
        steps = sorted(rows["step"].unique())
        for i, step in enumerate(steps):
            colour = colormaps["viridis"](0.9 * i / max(1, len(steps) - 1))
            for late, face in ((False, colour), (True, "none")):
                here = _where(rows, step=step, censored=late)
                label = None if late else f"epoch {step}"
                ax.scatter(
                    here[OWN[scale]], here["steps"], s=14, facecolors=face, edgecolors=[colour], lw=0.7, label=label
                )
        ax.set(xscale="log", yscale="log", title=_title(study) if row == 0 else "")
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(f"median 1/δ, {scale} scale")
        if column == 0:
            ax.set_ylabel(f"steps to {share:g} of the constant loss\n(heads at {scale} scale, best rate)")
        if row == 0:
            ax.legend(fontsize="x-small", title="open: not reached", title_fontsize="x-small")
    return figure


def figure_league(league: pd.DataFrame) -> Figure:
    """Draw each predictor's correlation within steps, heads at rms scale, both rules: a column a study."""
    from matplotlib import pyplot as plt

    rows = _where(league, scale="rms", pairs_of="within step", optimizer="sgd")
    studies = _studies(rows)
    measured = set(rows["predictor"])
    order = [name for name in dict.fromkeys([*DIRECTIONS, *PREDICTORS]) if name in measured][::-1]
    figure, axes = plt.subplots(1, len(studies), figsize=(3 + 2.7 * len(studies), 4.4), sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
    for ax, study in zip(axes[0], studies, strict=True):
        for shift, (rule, (colour, marker)) in zip((0.15, -0.15), RULES.items(), strict=True):
            part = _where(rows, study=study, rule=rule).set_index("predictor").loc[order]
            style: Any = {"color": colour, "marker": marker, "ls": "none", "ms": 4, "capsize": 2}
            at = np.arange(len(order)) + shift
            ax.errorbar(part["correlation"], at, xerr=_bounds(part), label=f"{rule} rate", **style)
        ax.axvline(0, color="0.6", lw=0.8, zorder=0)
        ax.set(title=_title(study), xlim=(-1.1, 1.1), xlabel="rank correlation with the steps")
    axes[0, 0].set_yticks(range(len(order)), [NAMES[name] for name in order])
    axes[0, 0].legend(fontsize="x-small", loc="upper left")
    return figure


def figure_within(found: pd.DataFrame) -> Figure:
    """Draw the correlation of each scale's own median within every measured step, best rate above fixed rate."""
    from matplotlib import pyplot as plt

    studies = _studies(found)
    figure, axes = plt.subplots(
        2, len(studies), figsize=(3.2 * len(studies), 5), sharey=True, squeeze=False, layout="constrained"
    )
    for row, rule in enumerate(RULES):
        for ax, study in zip(axes[row], studies, strict=True):
            here = _where(found, study=study, rule=rule, optimizer="sgd")
            steps = sorted(here["step"].unique())
            for shift, (scale, (colour, marker)) in zip((-0.06, 0.06), SCALES.items(), strict=True):
                part = _where(here, scale=scale, predictor=OWN[scale]).set_index("step").loc[steps]
                at = np.arange(len(steps)) + shift
                style: Any = {"color": colour, "marker": marker, "capsize": 3, "label": f"{scale} scale"}
                ax.errorbar(at, part["correlation"], yerr=_bounds(part), **style)
            ax.axhline(0, color="0.6", lw=0.8, zorder=0)
            ax.set_xticks(range(len(steps)), [str(step) for step in steps])
            ax.set(ylim=(-1.12, 1.12), title=_title(study) if row == 0 else "", xlabel="epoch" if row else "")
        axes[row, 0].set_ylabel(f"rank correlation\nwithin the epoch, {rule} rate")
    axes[0, 0].legend(fontsize="x-small", loc="lower right")
    return figure


def _where(table: Any, **values: Any) -> Any:
    """Return the rows that have these values in the columns of these names."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def _bounds(part: Any) -> np.ndarray:
    """Return lengths of the bars below and above; none where there is no interval."""
    bars = np.array([part["correlation"] - part["low"], part["high"] - part["correlation"]])
    return np.nan_to_num(np.maximum(bars, 0))


def _studies(table: Any) -> list[str]:
    order = {"mnist": 0, "digits": 1, "cifar10": 2}
    return sorted(map(str, table["study"].unique()), key=lambda name: (order.get(name.split("-")[0], 3), name))


def _title(study: str) -> str:
    data, kind = study.split("-")
    names = {"mnist": "MNIST", "digits": "digits", "cifar10": "CIFAR-10", "mlp": "MLP", "resnet": "ResNet"}
    return f"{names.get(data, data)}, {names.get(kind, kind)}"
