"""The tables and figures of docs/cause.md, from the study's published data: `python benchmarks/cause_page.py [RUN]`.

With the folder of a `layerfreq reproduce cause`, its results are published first, as docs/data/cause/results.parquet:
those of the networks and steps that are there for every seed.
"""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from layerfreq.experiments import cause
from layerfreq.experiments.figures import cause_figures
from layerfreq.experiments.figures.cause_tables import (
    BY,
    DIRECTIONS,
    OWN,
    by_step,
    league_of,
    packed,
    unpacked,
    with_interval,
)
from layerfreq.runs.run import Run
from layerfreq.verdict.ranking import bootstrap, league

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA, PAGE = DOCS / "data" / "cause" / "results.parquet", DOCS / "cause.md"
STUDIES = {"mnist-mlp": "MNIST MLP", "digits-mlp": "digits MLP", "cifar10-resnet": "CIFAR-10 ResNet"}
PAIRS = ("within step", "overall")
RULES = ("best", "fixed")
OWN_MEDIANS = (("rms", "rms_median"), ("raw", "raw_median"))


def contests(table):
    """Compare the rms median at rms scale with its rivals, paired by seed.

    The first rival of each table is the raw median with the steps of heads at raw scale ("raw_median at raw scale");
    the others are predictors of the same heads. Correlations count in the direction said beforehand.

    Returns:
        Columns study, optimizer, rule, head, pairs_of, rival, difference, low, high, answer: "better", "worse" (the
        rms median than the rival) or "undecided".
    """
    single = league(unpacked(table), by=[*BY, "seed"])
    single["signed"] = single["correlation"] * single["predictor"].map(DIRECTIONS)
    out = []
    where = ["study", "optimizer", "rule", "head", "pairs_of"]
    for names, part in single.dropna(subset="signed").groupby(where):
        value = part.set_index(["scale", "predictor", "seed"])["signed"]
        if not {"raw", "rms"} <= set(part["scale"]):
            continue
        own = value["rms"]["rms_median"]
        rivals = {"raw_median at raw scale": value["raw"]["raw_median"]}
        measured = set(part["predictor"])
        rivals |= {name: value["rms"][name] for name in DIRECTIONS if name != "rms_median" and name in measured}
        for rival, other in rivals.items():
            half = ((own - other) / 2).to_numpy()  # `bootstrap` keeps within -1 .. 1
            difference, low, high = (2 * x for x in bootstrap(half))
            answer = "better" if low > 0 else "worse" if high < 0 else "undecided"
            out.append([*names, rival, difference, low, high, answer])
    return pd.DataFrame(out, columns=pd.Index([*where, "rival", "difference", "low", "high", "answer"]))


def markdown(head, rows):
    """Return a Markdown table."""
    lines = [[cell.replace("\n", ", ") for cell in head], ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(table):
    """The parts of the page that are written from the data: name -> Markdown."""
    league, found = league_of(table), contests(table)
    parts = {"counts": counts(table, league), "answers": answers(league, found), "primary": primary(league, found)}
    parts["first look"] = looked(table)
    parts["rivals"] = rivals(found)
    parts["epochs"] = epochs(by_step(table))
    for study in STUDIES:
        for scale in OWN:
            parts[f"league {study} {scale}"] = one_league(league, study, scale)
    return parts


def counts(table, league):
    rows = []
    for study, name in STUDIES.items():
        part = unpacked(table)
        part = part[part["study"] == study]
        trained = part[part["cut"] > 0]
        heads = len(trained[["run", "step", "cut", "scale", "head_seed"]].drop_duplicates())
        best = part[(part["rule"] == "best") & ~part["censored"]]
        edges = [(best["at_edge"] & (best["rate"] < 1)).mean(), (best["at_edge"] & (best["rate"] > 1)).mean()]
        networks = trained["run"].str.rpartition("/")[0].nunique()
        at = league[(league["study"] == study) & (league["pairs_of"] == "within step") & (league["rule"] == "best")]
        pairs = [at.loc[at["scale"] == scale, "pairs"].iloc[0] for scale in ("rms", "raw")]
        late = [part.loc[part["scale"] == scale, "censored"].mean() for scale in ("rms", "raw")]
        rows.append([name, networks, part["seed"].nunique(), _listed(part["step"]), heads, _percents(late)])
        rows[-1] += [_percents(edges), " / ".join(map(str, pairs))]
    head = ["study", "networks", "seeds", "epochs", "heads, each at 5 rates", "not arrived (rms / raw)"]
    head += ["best rate is the grid's first / last", "usable pairs within step, best rate (rms / raw)"]
    return markdown(head, [[str(cell) for cell in row] for row in rows])


def epochs(found):
    """The correlation of each scale's own median within every measured step."""
    head = ["study", "epoch", *(f"{scale} median, {rule} rate" for rule in RULES for scale in ("rms", "raw"))]
    rows = []
    for study, name in STUDIES.items():
        part = found[found["study"] == study]
        for step in sorted(part["step"].unique()):
            cells = []
            for rule in RULES:
                for scale in ("rms", "raw"):
                    own = part[(part["step"] == step) & (part["rule"] == rule) & (part["scale"] == scale)]
                    one = _row(own[own["predictor"] == OWN[scale]])
                    cells.append(with_interval(one, "correlation", "low", "high"))
            rows.append([name, str(step), *cells])
    return markdown(head, rows)


def answers(league, found):
    """One sentence a study: whether the first look survived there."""
    lines = []
    for study, name in STUDIES.items():
        rms, raw, contest = _own(league, found, study, "within step", "best")
        survived = rms["low"] > 0 and contest["low"] > 0
        lines.append(
            f"- **{name}: {'survived' if survived else 'did not survive'}.** Within step, best rate: rms median "
            f"{with_interval(rms, 'correlation', 'low', 'high')}, raw median "
            f"{with_interval(raw, 'correlation', 'low', 'high')}; difference "
            f"{with_interval(contest, 'difference', 'low', 'high')}."
        )
    return "\n".join(lines)


def primary(league, found):
    head = ["study", "pairs", "rate", "rms median, heads at rms scale", "raw median, heads at raw scale", "difference"]
    rows = []
    for study, name in STUDIES.items():
        for pairs in PAIRS:
            for rule in RULES:
                rms, raw, contest = _own(league, found, study, pairs, rule)
                cells = [with_interval(one, "correlation", "low", "high") for one in (rms, raw)]
                rows.append([name, pairs, rule, *cells, with_interval(contest, "difference", "low", "high")])
    return markdown(head, rows)


def first_look(table, study="mnist-mlp", hidden=5, share=0.2):
    """Repeat the first look's measure: Spearman's correlation of medians and steps at the fixed rate, per seed.

    Returns:
        Columns scale, points ("all", or a step), mean, least, most (over seeds).
    """
    rows = unpacked(table)
    good = (rows["study"] == study) & rows["run"].str.contains(f"hidden-{hidden}/") & (rows["rule"] == "fixed")
    rows = rows[good & np.isclose(rows["share"], share)]
    out = []
    for scale, part in rows.groupby("scale"):
        for step in ["all", *sorted(part["step"].unique())]:
            here = part if step == "all" else part[part["step"] == step]
            values = []
            for _, own in here.groupby("seed"):
                mean = own.groupby(["step", "cut"])[["steps", OWN[scale]]].mean()
                values.append(float(spearmanr(mean["steps"], mean[OWN[scale]]).statistic))
            out.append([scale, str(step), float(np.mean(values)), min(values), max(values)])
    return pd.DataFrame(out, columns=pd.Index(["scale", "points", "mean", "least", "most"]))


def looked(table):
    """The first look's own measure, on this study's networks of 5 layers."""
    found = first_look(table)
    was = {"raw": {"all": "0.78", "middle": "-0.14, -0.14"}, "rms": {"all": "0.92", "middle": "0.90 to 1.00"}}
    rows = []
    for row in found.to_dict("records"):
        then = was[row["scale"]].get("all" if row["points"] == "all" else "", "")
        where = "all epochs" if row["points"] == "all" else f"epoch {row['points']}"
        rows.append([row["scale"], where, f"{row['mean']:+.2f}", f"{row['least']:+.2f} to {row['most']:+.2f}", then])
    return markdown(["scale", "points", "Spearman, mean over seeds", "least to most", "first look"], rows)


def rivals(found):
    """The rms median against each rival, within step: difference, and what it says."""
    head = ["rival", *(f"{name}, {rule}" for name in STUDIES.values() for rule in RULES)]
    rows = []
    part = found[found["pairs_of"] == "within step"].set_index(["rival", "study", "rule"]).sort_index()
    for rival in [name for name in DIRECTIONS if name in set(found["rival"])]:  # others were not measured then
        cells = []
        for study in STUDIES:
            for rule in RULES:
                one = _row(part[part.index == (rival, study, rule)])
                words = with_interval(one, "difference", "low", "high")
                cells.append(words if words == "-" else f"{one['answer']} {words}")
        rows.append([cause_figures.NAMES[rival], *cells])
    return markdown(head, rows)


def one_league(league, study, scale):
    """Every predictor of one study and scale, the strongest within step at the best rate first."""
    part = league[(league["study"] == study) & (league["scale"] == scale)]
    columns = [part[(part["pairs_of"] == p) & (part["rule"] == r)].set_index("predictor") for p in PAIRS for r in RULES]
    head = ["predictor", *(f"{p}, {r}" for p in PAIRS for r in RULES)]
    head += ["within step, best, RMS and dimension held", "within step, best, depth and probe held"]
    rows = []
    for name in columns[0].index:
        cells = [with_interval(_row(one[one.index == name]), "correlation", "low", "high") for one in columns]
        held = with_interval(columns[0].loc[name], "partial", "partial_low", "partial_high")
        given = with_interval(columns[0].loc[name], "given", "given_low", "given_high")
        rows.append([cause_figures.NAMES[name], *cells, held, given])
    return markdown(head, rows)


def filled(page, parts):
    """The page with every part between its marks; each mark is there once."""
    for name, text in parts.items():
        marks = re.compile(rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(marks.findall(page)) == 1, name
        page = marks.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def whole_seeds(table):
    """The rows of networks and steps that are there for every seed."""
    rows = unpacked(table)
    seeds = rows["seed"].nunique()
    network = rows["run"].str.replace(r"seed-\d+$", "", regex=True)
    cells = rows.assign(network=network)[["study", "network", "seed", "step", "cut", "scale"]].drop_duplicates()
    counted = cells.groupby(["study", "network", "step"]).size()
    cuts = cells.groupby(["study", "network"])["cut"].nunique()
    good = {key for key, count in counted.items() if count == cuts[key[:2]] * len(OWN) * seeds}
    keep = [key in good for key in zip(rows["study"], network, rows["step"], strict=True)]
    return table[keep].reset_index(drop=True)


def _own(league, found, study, pairs, rule):
    at = league[(league["study"] == study) & (league["pairs_of"] == pairs) & (league["rule"] == rule)]
    rms, raw = (_row(at[(at["scale"] == scale) & (at["predictor"] == name)]) for scale, name in OWN_MEDIANS)
    contest = found[(found["study"] == study) & (found["pairs_of"] == pairs) & (found["rule"] == rule)]
    return rms, raw, _row(contest[contest["rival"] == "raw_median at raw scale"])


def _row(rows):
    """The only row, or one of NaN where no head arrived, so that there is nothing to compare."""
    return rows.iloc[0] if len(rows) else pd.Series(math.nan, rows.columns)


def _percents(shares):
    return " / ".join(f"{share:.0%}" for share in shares)


def _listed(values):
    return ", ".join(str(value) for value in sorted(values.unique()))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        out = Path(sys.argv[1])
        seeds = Run(out).config["seeds"]
        DATA.parent.mkdir(parents=True, exist_ok=True)
        whole_seeds(packed(cause.gather(out, seeds))).to_parquet(DATA, index=False, compression="zstd")
    table = pd.read_parquet(DATA)
    PAGE.write_text(filled(PAGE.read_text(), sections(table)))
    for file in cause_figures.draw(table, league_of(table), DOCS):
        if file.suffix == ".pdf":
            file.unlink()
