"""Whether the controls show what they should: every expectation with its bound, fixed before the runs."""

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
RULES = "fixed", "best"  # of the learning rate
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


OCTAVES, TIMES = "{:+.2f} to {:+.2f} octaves", "{:.2f} to {:.2f} times"  # least and largest of what was found
FACTORS = "by a factor of {:.2f} to {:.2f}"


def _control(control: str, expected: str, values: Any, holds: Any, found: str = OCTAVES) -> Control:
    """Return an expectation with the least and largest of some values, and whether it holds for all of them."""
    return Control(control, expected, found.format(values.min(), values.max()), bool(np.all(holds)))


def _shuffled(frame: Any) -> list[Control]:
    cells = _cells(frame[frame["control"] == "labels"], ["network", "cut", "seed"])
    true, shuffled = cells["true"], cells["shuffled"]
    away = np.abs(np.log2(shuffled["median"] / shuffled["expected"]))
    above = np.log2(shuffled["median"] / true["median"])
    ratio = shuffled["steps"] / true["steps"]
    name, level = "shuffled labels", f"median within {NEAR} octaves of the chance level, at every cut"
    median = "median above that of the true labels, at every cut"
    steps = "more steps than with the true labels, at every cut"
    return [
        _control(name, level, away, away <= NEAR, "at most {1:.2f} octaves away"),
        _control(name, median, above, above > 0, "{:.2f} to {:.2f} octaves above"),
        _control(name, steps, ratio, ratio > 1, "{:.1f} to {:.0f} times as many"),
    ]


def _random(frame: Any) -> list[Control]:
    own = frame[(frame["control"] == "labels") & (frame["case"] == "true")]
    cells = _cells(own, ["cut", "seed"], "network")
    cuts = sorted(own["cut"].unique())
    found = []
    for name, no in (("random", "not "), ("trained", "")):
        first, last = (cells[name].loc[cut] for cut in (cuts[0], cuts[-1]))
        octaves, ratio = np.log2(last["median"] / first["median"]), last["steps"] / first["steps"]
        good = (octaves >= 0, ratio >= 1) if no else (octaves < 0, ratio < 1)
        place, name = "above the last layer than at the inputs", f"{name} network"
        found += [
            _control(name, f"median {no}lower {place}", octaves, good[0]),
            _control(name, f"steps {no}fewer {place}", ratio, good[1], TIMES),
        ]
    random, trained = (cells[name].loc[cuts[1:]] for name in ("random", "trained"))
    octaves, ratio = np.log2(trained["median"] / random["median"]), trained["steps"] / random["steps"]
    name = "trained against random"
    return [
        *found,
        _control(name, "median lower above every hidden layer", octaves, octaves < 0),
        _control(name, "steps fewer above every hidden layer", ratio, ratio < 1, TIMES),
    ]


def _invariant(frame: Any) -> list[Control]:
    own = frame[frame["control"] == "invariance"]
    keys = ["cut", "seed", "head_seed", "rule"]
    rms, raw = (_cells(own[(own["scale"] == scale) & (own["head"] == "hidden-1")], keys) for scale in ("rms", "raw"))
    lines = _cells(own[own["head"] == "linear, no bias"], keys)
    return [*_moved(rms, raw), *_rescaled_line(lines), *_rescaled_head(raw)]


def _moved(rms: Any, raw: Any) -> list[Control]:
    """Check that moving the features does not change medians and steps at rms scale, and rotation no steps at raw."""
    moved = ("rotated", "rescaled", "all")
    medians = max(_off(rms[case], rms["plain"], "median") for case in moved)
    steps = max(_off(rms[case], rms["plain"], "steps") for case in moved)
    turned = _off(raw["rotated"], raw["plain"], "steps")
    same = f"steps the same to {SAME:g}, at the fixed and at the best rate"
    name = "rotated, rescaled, both and shifted; rms scale"
    return [
        Control(name, f"medians the same to {EXACT:g}", _at_most(medians), bool(medians <= EXACT)),
        Control(name, same, _at_most(steps), bool(steps <= SAME)),
        Control("rotated; raw scale", same, _at_most(turned), bool(turned <= SAME)),
    ]


def _rescaled_line(lines: Any) -> list[Control]:
    """Check that to a linear head whose weights are scaled back, rescaling is only another learning rate."""
    plain, scaled, same = (lines[name] for name in ("plain, same grid", "rescaled, scaled grid", "rescaled, same grid"))
    apart = _apart(same.xs("fixed", level="rule"), plain.xs("fixed", level="rule"))
    off = _off(scaled.xs("best", level="rule"), plain.xs("best", level="rule"), "steps")
    name = "rescaled; raw scale, linear head without bias, weights scaled back"
    best = f"steps the same to {SAME:g} at the best rate of the correspondingly scaled grid"
    return [
        _control(name, "steps at the fixed rate differ by more than 10 %", apart, apart > 1.1, FACTORS),
        Control(name, best, _at_most(off), bool(off <= SAME)),
    ]


def _rescaled_head(raw: Any) -> list[Control]:
    """Check that to a head of one hidden layer, rescaling is more than another rate, which undoes only some of it."""
    fixed, best = (_apart(*(raw[case].xs(rule, level="rule") for case in ("rescaled", "plain"))) for rule in RULES)
    name = "rescaled; raw scale, head of one hidden layer"
    part = "the best rate undoes it in part: steps differ less, on geometric average"
    found = f"by a factor of {_geometric(best):.2f} (at the fixed rate {_geometric(fixed):.2f})"
    return [
        _control(name, "steps at the fixed rate differ by more than 10 %", fixed, fixed > 1.1, FACTORS),
        Control(name, part, found, _geometric(best) < _geometric(fixed)),
    ]


def _waves(frame: Any) -> list[Control]:
    own = frame[(frame["control"] == "waves") & (frame["rule"] == "best")]
    away = np.log2(own["median"] / own["expected"])
    name = "waves of known frequency"
    level = f"median within {NEAR} octaves of the closed form, at every k"
    found = [_control(name, level, away, np.abs(away) <= NEAR)]
    for column, what in (("k", "k"), ("median", "measured median")):
        agreeing = []
        for _, part in own.groupby(["seed", "head_seed"]):
            order, i, j = known_pairs(part["steps"].to_numpy(), part["censored"].to_numpy())
            x = part[column].to_numpy()
            agreeing.append(correlation(order, np.sign(x[i] - x[j])))
        ranks = np.array(agreeing)
        ranked = f"rank correlation of steps and {what} at least {RANKED}"
        found.append(_control(name, ranked, ranks, ranks >= RANKED, "{:.2f} to {:.2f}"))
    return found


def _off(one: Any, other: Any, column: str) -> float:
    """Return the largest relative difference."""
    return float(np.abs(one[column] / other[column] - 1).max())


def _apart(one: Any, other: Any) -> Any:
    """Return the factors, at least 1, by which the steps differ."""
    return np.exp(np.abs(np.log((one["steps"] / other["steps"]).to_numpy())))


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
        ax.legend(frameon=False, fontsize="small", loc="upper left", ncols=2 if x.startswith("cut") else 1)
    for ax in (steps, medians):
        ax.set_ylim(top=ax.get_ylim()[1] * 6)  # room for the legend
        ax.set_xticks(sorted(labels["cut"].unique()))
    for ax in (wave_steps, wave_medians):
        ax.set_xticks(sorted(waves["k"].unique()))
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
