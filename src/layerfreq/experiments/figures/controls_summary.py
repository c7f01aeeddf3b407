"""What the controls have to show, and whether they do: every expectation with its bound, fixed before the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfreq.verdict.ranking import correlation, known_pairs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR = 0.25  # octaves within which a measured median is at its level
SAME = 1e-3  # relative difference up to which steps are the same: float32 is rounded differently in each case
EXACT = 1e-6  # the same for medians, which are of float64 features
RANKED = 0.9  # a rank correlation that is near 1
LOOKS = {
    ("random", "true"): ("#b2182b", "s", "--", "random network"),
    ("trained", "true"): ("#2166ac", "o", "-", "trained network"),
    ("random", "shuffled"): ("#b2182b", "D", ":", "random network, shuffled labels"),
    ("trained", "shuffled"): ("#2166ac", "^", "-.", "trained network, shuffled labels"),
}


@dataclass(frozen=True)
class Control:
    """An expectation and what was found.

    Attributes:
        control: What was done.
        expected: What has to come out, with its bound.
        found: What came out.
        holds: Whether it is as expected, in every seed.
    """

    control: str
    expected: str
    found: str
    holds: bool


def judge_controls(frame: pd.DataFrame) -> list[Control]:
    """Judge all controls from the rows of the experiment; bounds hold for every seed, not on average.

    Steps are the mean over the heads, at the best rate where nothing else is said; those of a head that did not arrive
    count as its budget.

    Args:
        frame: Columns seed, control, network, case, cut, k, scale, head, rule, head_seed, steps, censored, median,
            expected, resolution.
    """
    return [*_shuffled(frame), *_random(frame), *_invariant(frame), *_waves(frame)]


def as_table(controls: list[Control]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of controls."""
    head = ["control", "expected", "found", "as expected"]
    return head, [[one.control, one.expected, one.found, "yes" if one.holds else "no"] for one in controls]


def _shuffled(frame: Any) -> list[Control]:
    cells = _cells(frame[frame["control"] == "labels"], ["network", "cut", "seed"])
    true, shuffled = cells["true"], cells["shuffled"]
    away = np.abs(np.log2(shuffled["median"] / shuffled["expected"]))
    above = np.log2(shuffled["median"] / true["median"])
    ratio = shuffled["steps"] / true["steps"]
    name = "shuffled labels"
    return [
        Control(
            name,
            f"median within {NEAR} octaves of the chance level, at every cut",
            f"at most {away.max():.2f} octaves away",
            bool((away <= NEAR).all()),
        ),
        Control(
            name,
            "median above that of the true labels, at every cut",
            f"{above.min():.2f} to {above.max():.2f} octaves above",
            bool((above > 0).all()),
        ),
        Control(
            name,
            "more steps than with the true labels, at every cut",
            f"{ratio.min():.1f} to {ratio.max():.0f} times as many",
            bool((ratio > 1).all()),
        ),
    ]


def _random(frame: Any) -> list[Control]:
    own = frame[(frame["control"] == "labels") & (frame["case"] == "true")]
    cells = _cells(own, ["cut", "seed"], "network")
    cuts = sorted(own["cut"].unique())
    first, last = cuts[0], cuts[-1]
    found = []
    for name, sign in (("random", 1), ("trained", -1)):
        octaves = np.log2(cells[name]["median"].loc[last] / cells[name]["median"].loc[first])
        ratio = cells[name]["steps"].loc[last] / cells[name]["steps"].loc[first]
        low = "not lower" if sign > 0 else "lower"
        few = "not fewer" if sign > 0 else "fewer"
        good = (octaves >= 0) if sign > 0 else (octaves < 0)
        found += [
            Control(
                f"{name} network",
                f"median {low} above the last layer than at the inputs",
                f"{octaves.min():+.2f} to {octaves.max():+.2f} octaves",
                bool(good.all()),
            ),
            Control(
                f"{name} network",
                f"steps {few} above the last layer than at the inputs",
                f"{ratio.min():.2f} to {ratio.max():.2f} times",
                bool(((ratio >= 1) if sign > 0 else (ratio < 1)).all()),
            ),
        ]
    hidden = {name: table.loc[cuts[1:]] for name, table in cells.items()}
    octaves = np.log2(hidden["trained"]["median"] / hidden["random"]["median"])
    ratio = hidden["trained"]["steps"] / hidden["random"]["steps"]
    found += [
        Control(
            "trained against random",
            "median lower above every hidden layer",
            f"{octaves.min():+.2f} to {octaves.max():+.2f} octaves",
            bool((octaves < 0).all()),
        ),
        Control(
            "trained against random",
            "steps fewer above every hidden layer",
            f"{ratio.min():.2f} to {ratio.max():.2f} times",
            bool((ratio < 1).all()),
        ),
    ]
    return found


def _invariant(frame: Any) -> list[Control]:
    own = frame[frame["control"] == "invariance"]
    keys = ["cut", "seed", "head_seed", "rule"]
    rms, raw = (_cells(own[(own["scale"] == scale) & (own["head"] == "hidden-1")], keys) for scale in ("rms", "raw"))
    lines = _cells(own[own["head"] == "linear, no bias"], keys)

    def off(one: Any, other: Any, column: str) -> float:
        return float(np.abs(one[column] / other[column] - 1).max())

    moved = ("rotated", "rescaled", "all")
    medians = max(off(rms[case], rms["plain"], "median") for case in moved)
    steps = max(off(rms[case], rms["plain"], "steps") for case in moved)
    turned = off(raw["rotated"], raw["plain"], "steps")
    plain, scaled = lines["plain, same grid"], lines["rescaled, scaled grid"]
    best = [table.xs("best", level="rule") for table in (plain, scaled)]
    line = off(best[1], best[0], "steps")
    ratios = {}
    for rule in ("fixed", "best"):
        a, b = (raw[case].xs(rule, level="rule")["steps"] for case in ("rescaled", "plain"))
        ratios[rule] = (a / b).to_numpy()
    changed = {rule: np.exp(np.abs(np.log(values))) for rule, values in ratios.items()}
    same = lines["rescaled, same grid"].xs("fixed", level="rule")["steps"] / plain.xs("fixed", level="rule")["steps"]
    apart = np.exp(np.abs(np.log(same.to_numpy())))
    name = {"rms": "rotated, rescaled, both and shifted; rms scale", "raw": "rotated; raw scale"}
    return [
        Control(
            name["rms"],
            f"medians the same to {EXACT:g}",
            _at_most(medians),
            bool(medians <= EXACT),
        ),
        Control(
            name["rms"],
            f"steps the same to {SAME:g}, at the fixed and at the best rate",
            _at_most(steps),
            bool(steps <= SAME),
        ),
        Control(
            name["raw"],
            f"steps the same to {SAME:g}, at the fixed and at the best rate",
            _at_most(turned),
            bool(turned <= SAME),
        ),
        Control(
            "rescaled; raw scale, linear head without bias, weights scaled back",
            "steps at the fixed rate differ by more than 10 %",
            f"by a factor of {apart.min():.2f} to {apart.max():.2f}",
            bool((apart > 1.1).all()),
        ),
        Control(
            "rescaled; raw scale, linear head without bias, weights scaled back",
            f"steps the same to {SAME:g} at the best rate of the correspondingly scaled grid",
            _at_most(line),
            bool(line <= SAME),
        ),
        Control(
            "rescaled; raw scale, head of one hidden layer",
            "steps at the fixed rate differ by more than 10 %",
            f"by a factor of {changed['fixed'].min():.2f} to {changed['fixed'].max():.2f}",
            bool((changed["fixed"] > 1.1).all()),
        ),
        Control(
            "rescaled; raw scale, head of one hidden layer",
            "the best rate undoes it in part: steps differ less, on geometric average",
            f"by a factor of {_geometric(changed['best']):.2f} (at the fixed rate {_geometric(changed['fixed']):.2f})",
            bool(_geometric(changed["best"]) < _geometric(changed["fixed"])),
        ),
    ]


def _waves(frame: Any) -> list[Control]:
    own = frame[(frame["control"] == "waves") & (frame["rule"] == "best")]
    away = np.log2(own["median"] / own["expected"])
    ranked = {}
    for name in ("k", "median"):
        agreeing = []
        for _, part in own.groupby(["seed", "head_seed"]):
            order, i, j = known_pairs(part["steps"].to_numpy(), part["censored"].to_numpy())
            x = part[name].to_numpy()
            agreeing.append(correlation(order, np.sign(x[i] - x[j])))
        ranked[name] = np.array(agreeing)
    return [
        Control(
            "waves of known frequency",
            f"median within {NEAR} octaves of the closed form, at every k",
            f"{away.min():+.2f} to {away.max():+.2f} octaves",
            bool((np.abs(away) <= NEAR).all()),
        ),
        *(
            Control(
                "waves of known frequency",
                f"rank correlation of steps and {what} at least {RANKED}",
                f"{ranked[name].min():.2f} to {ranked[name].max():.2f}",
                bool((ranked[name] >= RANKED).all()),
            )
            for name, what in (("k", "k"), ("median", "measured median"))
        ),
    ]


def _cells(frame: Any, keys: list[str], by: str = "case") -> dict[str, Any]:
    """Return, for each value of a column, the mean steps and medians at its keys; of the best rate unless keyed."""
    own = frame if "rule" in keys else frame[frame["rule"] == "best"]
    means = own.groupby([by, *keys])[["steps", "median", "expected"]].mean()
    return {name: means.xs(name, level=by) for name in dict.fromkeys(own[by])}


def _at_most(difference: float) -> str:
    return f"largest relative difference {difference:.1g}" if difference > 1e-12 else "the same to 1e-12"


def _geometric(values: Any) -> float:
    return float(np.exp(np.log(values).mean()))


def figure(frame: pd.DataFrame) -> Figure:
    """Draw steps and medians over cuts, true labels and shuffled, and over the frequency of waves."""
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    (steps, medians), (wave_steps, wave_medians) = axes
    best: Any = frame[frame["rule"] == "best"]
    labels = best[best["control"] == "labels"]
    for (network, case), (color, marker, line, name) in LOOKS.items():
        own = labels[(labels["network"] == network) & (labels["case"] == case)]
        look = {"color": color, "marker": marker, "linestyle": line, "label": name}
        _ranges(steps, own, "cut", "steps", look)
        _ranges(medians, own, "cut", "median", look)
    chance = labels[labels["case"] == "shuffled"].groupby(["network", "cut"])["expected"].mean()
    medians.plot(chance.index.get_level_values("cut"), chance, "_k", markersize=22, label="chance level (mean)")
    waves = best[best["control"] == "waves"]
    look = {"color": "black", "marker": "o", "linestyle": "-"}
    _ranges(wave_steps, waves, "k", "steps", {**look, "label": "all heads arrived"}, hollow=True)
    _ranges(wave_medians, waves, "k", "median", {**look, "linestyle": "none", "label": "measured"})
    exact = waves.groupby("k")["expected"].mean()
    wave_medians.plot(exact.index, exact, "--", color="#b2182b", label="closed form", zorder=0)
    for ax, x, y in (
        (steps, "cut (0: inputs)", "steps of a head to a tenth of the loss"),
        (medians, "cut (0: inputs)", "median 1/δ (unit RMS features)"),
        (wave_steps, "k of sin(k w·x)", "steps of a head to a quarter of the loss"),
        (wave_medians, "k of sin(k w·x)", "median 1/δ"),
    ):
        ax.set(xlabel=x, ylabel=y, yscale="log")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize="small")
    for ax in (steps, medians):
        ax.set_ylim(top=ax.get_ylim()[1] * 6)  # room for the legend
        ax.set_xticks(sorted(labels["cut"].unique()))
    return drawn


def _ranges(ax: Axes, rows: Any, x: str, y: str, look: dict[str, Any], hollow: bool = False) -> None:
    """Draw the means over seeds and heads with their ranges; hollow where a head did not arrive."""
    groups = rows.groupby(x)[y]
    mean, low, high = groups.mean(), groups.min(), groups.max()
    ax.errorbar(mean.index, mean, yerr=[mean - low, high - mean], capsize=2, markersize=5, **look)
    late = rows.groupby(x)["censored"].any()
    if hollow and late.any():
        at = late.index[late]
        ax.plot(
            at,
            mean.loc[at],
            "o",
            mfc="white",
            mec="black",
            markersize=6,
            zorder=5,
            label="some did not: budget counted",
        )
