"""The tables of docs/paper.md and docs/resnet.md, from published data: `python -m benchmarks.paper_page [RUN ...]`.

With the folder of a `layerfreq reproduce mlp` or `resnet`, its data and figure are published first, in docs/data.
"""

import sys
from functools import partial
from pathlib import Path
from shutil import copyfile

import numpy as np
import pandas as pd
from benchmarks.cause_page import filled, markdown

from layerfreq import Run
from layerfreq.experiments.figures.comparison import NEAR, rank_correlation
from layerfreq.experiments.residual import CUTS
from layerfreq.runs.summary import summarise

DOCS = Path(__file__).resolve().parents[1] / "docs"
CURVES = ["lfr", "rdf", "chance", "neighbours", "stderr", "inv_delta"]
VARIANTS = (1, 2, 3, 4)
FIGURES = {"mlp": ["theirs-mnist_rdf"], "resnet": ["theirs-r18_rdf", "theirs-r18_acc", "median-frequency"]}


def pages():
    """Page -> the parts between its marks, of the data that are there."""
    found = {}
    for page, name, parts in (
        ("paper.md", "mlp-paper", mnist),
        ("resnet.md", "resnet-small", resnet),
        ("resnet.md", "resnet-medium", partial(resnet, mark="medium")),
    ):
        if (DOCS / "data" / name / "peaks.csv").exists():
            found.setdefault(DOCS / page, {}).update(parts(DOCS / "data" / name))
    return found


def mnist(data):
    peaks = pd.read_csv(data / "peaks.csv")
    head = ["epoch", *(f"S^[{layer}]" for layer in range(1, 6)), "area between, mean"]
    rows = [
        [panel.removeprefix("epoch"), *map(_both, _means(part)), f"{part['area'].mean():.3f}"]
        for panel, part in peaks.groupby("panel", sort=False)
    ]
    summary = pd.read_parquet(data / "summary.parquet")
    medians = [
        [scale, str(step), *(f"{value:.3g}" for value in part.groupby("depth")["median"].mean())]
        for (scale, step), part in summary.groupby(["scale", "step"])
        if step in (0, summary["step"].max())
    ]
    last = pd.read_parquet(data / "metrics.parquet").groupby("seed").last()
    trained = "; ".join(
        f"seed {seed}: epoch {one['step']:.0f}, loss {one['loss']:.4f}, accuracy {one['accuracy']:.3f}"
        for seed, one in last.iterrows()
    )
    return {
        "mnist peaks": markdown(head, rows),
        "mnist agreement": _agreement(peaks),
        "mnist medians": markdown(["scale", "epoch", *(f"S^[{layer}]" for layer in range(1, 6))], medians),
        "mnist training": f"{trained}.",
    }


def resnet(data, mark="resnet"):
    peaks = pd.read_csv(data / "peaks.csv")
    head = ["their epoch", *(f"-{variant}" for variant in VARIANTS), "area between, mean"]
    rows = [
        [panel.removeprefix("epoch"), *map(_both, _means(part)), f"{part['area'].mean():.3f}"]
        for panel, part in peaks.groupby("panel", sort=False)
    ]
    summary, metrics = (pd.read_parquet(data / f"{name}.parquet") for name in ("summary", "metrics"))
    at = summary[summary["layer"] == next(iter(CUTS))]
    ends = [int(at["step"].min()), int(at["step"].max())]
    final = metrics.groupby(["seed", "variant"])["validation_accuracy"].last()
    columns = ["seed", *(f"-{variant}" for variant in VARIANTS)]
    places = [
        [scale, str(step), str(seed), *(f"{value:.3g}" for value in part.sort_values("variant")["peak"])]
        for scale in ("maxabs", "rms", "raw")
        for step in ends
        for seed, part in at[(at["scale"] == scale) & (at["step"] == step)].groupby("seed")
    ]
    medians = [
        [scale, str(seed), *(f"{value:.3g}" for value in part.sort_values("variant")["median"])]
        for scale in ("maxabs", "rms", "raw")
        for seed, part in at[(at["scale"] == scale) & (at["step"] == ends[1])].groupby("seed")
    ]
    return {
        f"{mark} peaks": markdown(head, rows),
        f"{mark} agreement": _agreement(peaks),
        f"{mark} places": markdown(["scale", "epoch", *columns], places),
        f"{mark} medians": markdown(["scale", *columns], medians),
        f"{mark} validation": markdown(
            columns,
            [[str(seed), *(f"{value:.3f}" for value in part)] for seed, part in final.groupby("seed")],
        ),
    }


def publish(out):
    """Put data and figures of a run into docs/; return the folder of the data."""
    config = Run(out).config
    kind, preset, seeds = config["experiment"], config["preset"], config["seeds"]
    data = DOCS / "data" / f"{kind}-{preset}"
    data.mkdir(parents=True, exist_ok=True)
    runs = {path.parent.name: Run(path.parent) for path in sorted(Path(out).glob("*seed-*/config.yaml"))}
    metrics, summaries = [], []
    for name, run in runs.items():
        seed = int(name.rpartition("-")[2])
        about = {"variant": int(name.split("-")[1])} if kind == "resnet" else {}
        metrics.append(run.metrics.assign(seed=seed, **about))
        summaries.append(summarise({seed: run}).assign(**about))
    for name, frames in (("metrics", metrics), ("summary", summaries)):
        pd.concat(frames, ignore_index=True).to_parquet(data / f"{name}.parquet", index=False, compression="zstd")
    assert {int(name.rpartition("-")[2]) for name in runs} == set(seeds)
    figures = Path(out) / "figures"
    copyfile(next(figures.glob("theirs-*-peaks.csv")), data / "peaks.csv")
    for name in FIGURES[kind]:
        if (figures / f"{name}.png").exists():
            copyfile(figures / f"{name}.png", DOCS / f"{kind}-{preset}-{name.removeprefix('theirs-')}.png")
    return data


def _means(part):
    """Means over seeds, one row a curve."""
    columns = ["place", "their_place", "height", "their_height"]
    return part.groupby("curve")[columns].mean().sort_index().itertuples(index=False)


def _both(one):
    return f"{one.place:.3g} : {one.their_place:.3g} ({one.height:.3g} : {one.their_height:.3g})"


def _agreement(peaks):
    columns = ["place", "their_place", "height", "their_height"]
    mean = peaks.groupby(["panel", "curve"])[columns].mean()
    near = [(mean[what] / mean[f"their_{what}"] - 1).abs() <= NEAR for what in ("place", "height")]
    ranks = [rank_correlation(mean[what], mean[f"their_{what}"]) for what in ("place", "height")]
    within = [np.count_nonzero(one) for one in (near[0], near[1], near[0] & near[1])]
    return (
        f"Of {len(mean)} peaks {within[0]} lie within {NEAR:.0%} of the published position, {within[1]} within "
        f"{NEAR:.0%} of the published height, and {within[2]} within both. Spearman's correlation with the published "
        f"ones is {ranks[0]:.3f} for positions and {ranks[1]:.3f} for heights."
    )


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        publish(folder)
    for page, parts in pages().items():
        page.write_text(filled(page.read_text(), parts))
