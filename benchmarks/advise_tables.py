"""The tables of docs/advise.md, from the files of `benchmarks/advise.py`: what rules lose, how often they are wrong."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from scipy.stats import t as student

TOLERANCE = 0.02


def first(part, column, least):
    within = part.index[part[column] >= least]
    return within[0] if len(within) else part.index[-1]


def choices(part, reached):
    """Row that each rule takes; `part` has the cuts of one network, and in the column `reached` the truth."""
    whole = part["test_accuracy"].iloc[0]
    return {
        "advise": first(part, "linear_gap", -TOLERANCE),
        "advise, for sure": first(part, "linear_low", -TOLERANCE),
        "one hidden layer": first(part, "hidden_gap", -TOLERANCE),
        "probe alone": part["logistic"].idxmax(),
        "lowest frequency": part["rms"].fillna(np.inf).idxmin(),
        "always last": part.index[-1],
        "always middle": part.index[len(part) // 2],
        "hindsight": first(part, reached, whole - TOLERANCE),
    }


def regrets(table, reached):
    """A row per network, seed and rule: accuracy lost, share of the time taken, and how much more than was needed."""
    rows = []
    for (network, seed), part in table.groupby(["network", "seed"], sort=False):
        share = part["share"]
        picked = choices(part, reached)
        best = share[picked["hindsight"]]
        for rule, at in picked.items():
            lost = part["test_accuracy"].iloc[0] - part.loc[at, reached]
            row = {"network": network, "seed": seed, "rule": rule, "layer": part.loc[at, "layer"], "lost": lost}
            rows.append({**row, "time": share[at], "not_saved": share[at] - best, "wrong": lost > TOLERANCE})
    return pd.DataFrame(rows)


def interval(values):
    """Mean and 95% interval over seeds."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{values.mean():.3f} ± {half:.3f}"


def often(wrong):
    """How many of how many, and the exact 95% interval of their share (Clopper & Pearson)."""
    found = binomtest(int(wrong.sum()), len(wrong)).proportion_ci(0.95, method="exact")
    return f"{wrong.sum()} of {len(wrong)} ({found.low:.0%} to {found.high:.0%})"


def counted(layers):
    """Layers, each with how often it was taken, where that is more than once."""
    return ", ".join(f"`{one}`" + (f" × {n}" if n > 1 else "") for one, n in layers.value_counts().items())


def markdown(table):
    """Print a data frame with its index as a table of a page."""
    table = table.reset_index()
    print(f"\n| {' | '.join(map(str, table.columns))} |\n|{' --- |' * len(table.columns)}")
    for row in table.itertuples(index=False):
        print(f"| {' | '.join(map(str, row))} |")


def transfers(table):
    """A row per network, seed and rule: how far the cut's features, trained again on the other data, are behind."""
    rows = []
    for (network, seed), part in table.groupby(["network", "seed"], sort=False):
        rules = {
            "advise": part["transfer"].idxmax(),
            "lowest frequency": part["rms"].fillna(np.inf).idxmin(),
            "always last": part.index[-1],
            "always middle": part.index[len(part) // 2],
        }
        for rule, at in rules.items():
            behind = {name: part[f"other_{name}"].max() - part.loc[at, f"other_{name}"] for name in ("exit", "kept")}
            rows.append({"network": network, "seed": seed, "rule": rule, "layer": part.loc[at, "layer"], **behind})
    return pd.DataFrame(rows)


def predictors(table):
    """Rank correlations over the hidden cuts of one network with what they reach when cut there."""
    rows = []
    for (network, seed), part in table[table["layer"] != "inputs"].groupby(["network", "seed"], sort=False):
        part = part.assign(rms=-part["rms"], raw=-part["raw"], maxabs=-part["maxabs"])
        ranks = part[["linear", "hidden", "logistic", "rms", "raw", "maxabs", "cut", "exit", "kept"]].rank()
        for reached in ("exit", "kept"):
            known = {name: ranks[name].corr(ranks[reached]) for name in ranks if name not in ("exit", "kept")}
            line = np.c_[np.ones(len(ranks)), ranks["linear"]]
            left = [v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (ranks["rms"], ranks[reached])]
            partial = float(np.corrcoef(*left)[0, 1])
            rows.append({"network": network, "seed": seed, "truth": reached, **known, "rms given linear": partial})
    return pd.DataFrame(rows)


def show(folder):
    table = pd.concat([pd.read_csv(file, dtype={"layer": str}) for file in sorted(folder.glob("cuts-*.csv"))])
    spent = pd.read_csv(folder / "times.csv", dtype={"layer": str})
    whole = spent[spent["layer"] == "network"].set_index("network")["seconds"]
    spent["share"] = spent["seconds"] / spent["network"].map(whole)
    table = table.merge(spent[["network", "layer", "share"]], on=["network", "layer"], how="left")
    for reached in ("exit", "kept"):
        found = regrets(table, reached)
        grouped = found.groupby(["network", "rule"], sort=False)
        said = grouped[["lost", "time", "not_saved"]].agg(interval)
        markdown(said.assign(wrong=grouped["wrong"].agg(often), layers=grouped["layer"].agg(counted)))
        every = found.groupby("rule", sort=False)
        markdown(every[["lost", "time", "not_saved"]].agg(interval).assign(wrong=every["wrong"].agg(often)))
    found = transfers(table)
    grouped = found.groupby(["network", "rule"], sort=False)
    markdown(grouped[["exit", "kept"]].agg(interval).assign(layers=grouped["layer"].agg(counted)))
    found = predictors(table).drop(columns="seed")
    markdown(
        found.groupby(["network", "truth"], sort=False).agg(
            lambda v: f"{v.mean():+.2f} ({v.min():+.2f} to {v.max():+.2f})"
        )
    )
    shown = table.groupby(["network", "seed"])[["probe_accuracy", "test_accuracy", "octaves"]].first()
    markdown(shown)
    files = sorted(folder.glob("depth-*.csv"))
    if files:
        deep = pd.concat([pd.read_csv(file) for file in files])
        deep["next"] = deep.groupby(["network", "seed"])["test_accuracy"].shift(-1) - deep["test_accuracy"]
        markdown(deep.groupby(["network", "layers"])[["test_accuracy", "octaves", "gain", "next"]].agg(interval))
        markdown(deep.dropna(subset=["next"]).groupby(["network", "answer"])["next"].agg(["size", interval]))
