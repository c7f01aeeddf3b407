"""Runs of the experiments beside the published figures: a table, figures, and notes.

Each function is what an experiment's module does in its `beside(out, seeds)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layerfreq import plots
from layerfreq.errors import InputError
from layerfreq.experiments import Table
from layerfreq.experiments.figures import comparison_figures, published
from layerfreq.experiments.figures.comparison import NEAR, Comparison, compare, mean_gap, rank_correlation
from layerfreq.files import write_whole
from layerfreq.measure.result import Spectrum
from layerfreq.runs.reader import read_back
from layerfreq.runs.run import Run

HEAD = ["panel", "curve", "place\nours", "theirs", "ours :\ntheirs", "height\nours", "theirs", "ours :\ntheirs", "area"]
DEPTH_HEAD = ["hidden layers", "steps, ours", "theirs"]
MLP = ("images", "width", "hidden", "rows", "recipe", "rate")  # settings that matter
RESNET = ("images", "validation", "width", "head", "epochs", "batch", "rate")
ACCURACIES = {"train": "running_accuracy", "val": "validation_accuracy"}  # panel -> column of the run's metrics

# seed -> panel -> published curve -> ours
Ours = Mapping[int, Mapping[str, Mapping[str, Spectrum]]]


def compare_mlp(out: Path, runs: Mapping[int, Run], paper: Mapping[str, Any]) -> Table:
    """Compare the layers' densities with the published MNIST figure.

    Args:
        out: The experiment's folder.
        runs: seed -> run, with layers hidden1 .. hidden5 at scale "maxabs".
        paper: The config of the preset `paper`, as a mapping: what differs from it is said under the table.
    """
    config = Run(out).config
    if Path(str(config["data"])).name != Path(str(paper["data"])).name:
        return Table(HEAD, [], [], [f"Not compared with the published curves: {config['data']} is not their data."])
    names = {f"layer{i}": f"hidden{i}" for i in range(1, 6)}
    wanted = {epoch: epoch for epoch in published.EPOCHS[published.MNIST]}
    ours = {
        seed: _by_panel(run, wanted, {layer: curve for curve, layer in names.items()}) for seed, run in runs.items()
    }
    notes = [*_unlike(config, paper, MLP), *_missing(ours, wanted)]
    return _densities(out, published.MNIST, ours, names, _title(config, runs), notes)


def compare_resnet(
    out: Path, runs: Mapping[tuple[int, int], Run], paper: Mapping[str, Any], layer: str = "hidden1"
) -> Table:
    """Set densities of S^[-3] and accuracies of the variants beside the published figures.

    The config's `panels`, where they are five, stand for the five published epochs: a training may be shorter.

    Args:
        out: The experiment's folder.
        runs: (variant 1 to 4, seed) -> run, with `layer` at scale "maxabs".
        paper: The config of the preset `paper`, as a mapping: what differs from it is said under the table.
        layer: The module that puts S^[-3] out.
    """
    config = Run(out).config
    if Path(str(config["data"])).name != Path(str(paper["data"])).name:
        return Table(HEAD, [], [], [f"Not compared with the published curves: {config['data']} is not their data."])
    epochs = published.EPOCHS[published.RESNET]
    panels = config["panels"] if len(config["panels"]) == len(epochs) else epochs
    wanted = dict(zip(epochs, panels, strict=True))
    ours: dict[int, dict[str, dict[str, Spectrum]]] = {}
    for (variant, seed), run in runs.items():
        for panel, curves in _by_panel(run, wanted, {layer: f"Resnet18-{variant}"}).items():
            ours.setdefault(seed, {}).setdefault(panel, {}).update(curves)
    names = {f"Resnet18-{variant}": f"-{variant}" for variant in sorted({variant for variant, _ in runs})}
    title = _title(config, ours)
    notes = [*_unlike(config, paper, RESNET), *_missing(ours, wanted)]
    moved = [f"{ours} for {theirs}" for theirs, ours in wanted.items() if theirs != ours]
    if moved:
        notes.append(f"Our epochs in place of theirs: {', '.join(moved)}.")
        title += f"; our epochs {', '.join(moved)}"
    table = _densities(out, published.RESNET, ours, names, title, notes)
    files, notes = _accuracies(out, runs, names, config["epochs"], title)
    return table._replace(files=table.files + files, notes=[*table.notes, *notes])


def compare_sine(out: Path, run: Run, names: Mapping[str, str]) -> Table:
    """Set LFR and RDF of the sines beside the published figure; ours are at raw scale, for the closed form.

    Args:
        out: The experiment's folder.
        run: With the layers that are the values of `names`.
        names: Published curve -> layer.
    """
    frame: Any = run.spectra
    curves = {layer: curve for curve, layer in names.items()}
    found = {curves[one.layer]: one.spectrum for one in read_back(frame[frame["scale"] == "raw"])}
    config = Run(out).config
    title = f"sine, preset {config['preset']}: {config['points']} points"
    notes = ["Their vertices below 1/δ = 50 are guessed; k=1 has its peak there."]
    table = _densities(out, published.SINE, {0: {"RDF": found}}, names, title, notes)
    panel = published.panel(published.SINE, "LFR")
    assert panel.edges is not None
    edges = panel.edges
    ours = {curve: (edges, one.at(edges).lfr[None]) for curve, one in found.items()}
    gap = np.mean([mean_gap(edges, y[0], panel.lines[curve].y) for curve, (_, y) in ours.items()])
    figure = comparison_figures.courses([("LFR", panel.lines, ours)], names, ("1/δ", "LFR"), title)
    files = plots.save(figure, out / "figures", "theirs-fig_sin-LFR")
    return table._replace(files=table.files + files, notes=[*table.notes, f"LFR: mean distance {gap:.2g}."])


def compare_depth(out: Path, layers: Sequence[int], steps: Any, given_up: int) -> Table:
    """Set the steps to an error beside the published ones: their order alone, since the settings are unknown.

    Args:
        out: The experiment's folder.
        layers: (m,) numbers of hidden layers.
        steps: (m, seeds) steps to the error.
        given_up: Steps after which a training was given up, so that such a number is only a bound.
    """
    line = published.panel(published.DEPTH, "steps_vs_depth").lines["step"]
    theirs = dict(zip(line.x.astype(int).tolist(), line.y.tolist(), strict=True))
    known = [i for i, layer in enumerate(layers) if layer in theirs]
    if not known:
        return Table(DEPTH_HEAD, [], [], ["Not compared with the published steps: these are for 3 to 7 layers."])
    numbers = [layers[i] for i in known]
    ours = np.asarray(steps, dtype=np.float64)[known]
    mean = ours.mean(axis=1)
    bound = ["> " * bool((each >= given_up).any()) for each in ours]
    rows = [
        [str(number), f"{sign}{value:.0f}", f"{theirs[number]:.0f}"]
        for number, sign, value in zip(numbers, bound, mean, strict=True)
    ]
    rank = rank_correlation(mean, [theirs[number] for number in numbers])
    notes = [
        f"Only the order can be compared (Spearman {_share(rank)}): width, points, optimizer, rate and threshold of "
        "the published figure are unknown."
    ]
    first = theirs[numbers[0]]
    relative = published.Line(line.x, line.y / first, line.y_err / first, line.hidden)
    figure = comparison_figures.courses(
        [("cos(3x) + cos(5x)", {"step": relative}, {"step": (np.array(numbers), (ours / mean[0]).T)})],
        {"step": "steps"},
        ("hidden layers", f"steps / those of {numbers[0]} layers"),
        f"depth, preset {Run(out).config['preset']}",
    )
    files = plots.save(figure, out / "figures", "theirs-fig1a")
    written = [{"layers": n, "steps": each, "their_steps": theirs[n]} for n, each in zip(numbers, mean, strict=True)]
    return Table(DEPTH_HEAD, rows, [*files, _write(out, "theirs-fig1a", written)], notes)


def _by_panel(run: Run, wanted: Mapping[int, int], curves: Mapping[str, str]) -> dict[str, dict[str, Spectrum]]:
    """Return the published panels that a run has measured, at scale "maxabs": curve -> spectrum."""
    frame: Any = run.spectra
    panels = {step: f"epoch{epoch}" for epoch, step in wanted.items()}
    chosen = (frame["scale"] == "maxabs") & frame["step"].isin(panels) & frame["layer"].isin(curves)
    found: dict[str, dict[str, Spectrum]] = {}
    for one in read_back(frame[chosen]):
        found.setdefault(panels[one.step], {})[curves[one.layer]] = one.spectrum
    return found


def _densities(out: Path, figure: str, ours: Ours, names: Mapping[str, str], title: str, notes: list[str]) -> Table:
    """Compare every panel of a figure that was measured, write and draw it."""
    import pandas as pd

    groups, refused = _groups(figure, ours)
    notes = [*refused, *notes]
    if not groups:
        return Table(HEAD, [], [], [*notes, "Not compared with the published curves: nothing comparable was measured."])
    parts = [one.peaks.assign(seed=seed) for group in groups for seed, one in group.items()]
    peaks: Any = pd.concat(parts, ignore_index=True)
    drawn = comparison_figures.densities([list(group.values()) for group in groups], names, title)
    files = plots.save(drawn, out / "figures", f"theirs-{figure}")
    areas = peaks.groupby("panel", sort=False)["area"].mean()
    files.append(_write(out, f"theirs-{figure}-peaks", peaks))
    files.append(_write(out, f"theirs-{figure}-areas", areas.reset_index()))
    relative = next(iter(groups[0].values())).panel.relative
    return Table(HEAD, _rows(peaks, names), files, [*_summary(peaks, areas, relative), *notes])


def _groups(figure: str, ours: Ours) -> tuple[list[dict[int, Comparison]], list[str]]:
    """Return for each panel the comparisons of the seeds, and lines on those that were refused."""
    names = [f"epoch{epoch}" for epoch in published.EPOCHS.get(figure, ())] or ["RDF"]
    groups, refused = [], []
    for name in names:
        panel, group = published.panel(figure, name), {}
        for seed, parts in ours.items():
            try:
                group |= {seed: compare(panel, parts[name])} if name in parts else {}
            except InputError as error:
                refused.append(f"{name}, seed {seed}, is not compared: {error}.")
        groups += [group] if group else []
    return groups, refused


def _rows(peaks: Any, names: Mapping[str, str]) -> list[list[str]]:
    """Return the table's rows: one a panel and curve, means over seeds."""
    rows = []
    for (panel, curve), part in peaks.groupby(["panel", "curve"], sort=False):
        bound = "*" if part["at_edge"].any() else ""
        cells = [str(panel), names[str(curve)]]
        for what, mark in (("place", bound), ("height", "")):
            mine, theirs = part[what].mean(), part[f"their_{what}"].mean()
            cells += [f"{mine:.3g}{mark}", f"{theirs:.3g}", f"{mine / theirs:.2f}"]
        rows.append([*cells, f"{part['area'].mean():.3f}"])
    return rows


def _summary(peaks: Any, areas: Any, relative: bool) -> list[str]:
    """Return a summary of all peaks, means over seeds."""
    columns = ["place", "their_place", "height", "their_height"]
    mean = peaks.groupby(["panel", "curve"], sort=False)[columns].mean()
    near = {what: (mean[what] / mean[f"their_{what}"] - 1).abs() <= NEAR for what in ("place", "height")}
    ranks = {what: _share(rank_correlation(mean[what], mean[f"their_{what}"])) for what in ("place", "height")}
    how = "both refined by a parabola"
    found = f"in height {near['height'].sum()}, in both {(near['place'] & near['height']).sum()}"
    spearman = f"Spearman: place {ranks['place']}, height {ranks['height']}"
    if relative:
        how, found = "at the upper ends of their cells, each curve over its maximum", "the heights being 1"
        spearman = f"Spearman: place {ranks['place']}"
    lines = [
        f"Peaks of difference quotients on the published cutoffs, {how}; *: a bound, at the first or last.",
        f"Of {len(mean)} peaks, within {NEAR:.0%} in place {near['place'].sum()}, {found}; {spearman}.",
        "Area between the curves, each of area 1 (0 the same, 1 disjoint), mean over curves: "
        + ", ".join(f"{panel} {area:.3f}" for panel, area in areas.items())
        + ".",
    ]
    less = peaks[peaks["cells"] < peaks["of"]]
    if len(less):
        lines.append(f"{len(less)} of ours cover a part of the published cutoffs only, and are compared on that.")
    return lines


def _accuracies(
    out: Path, runs: Mapping[tuple[int, int], Run], names: Mapping[str, str], epochs: int, title: str
) -> tuple[list[Path], list[str]]:
    """Draw accuracies beside the published ones; return files, and lines on the end and the mean distance."""
    panels, notes, written = [], [], []
    for name, column in ACCURACIES.items():
        theirs = published.panel(published.ACCURACY, name).lines
        ours, ends, gaps = {}, [], []
        for curve, label in names.items():
            parts = [run.metrics for (variant, _), run in runs.items() if f"Resnet18-{variant}" == curve]
            line = theirs[curve]
            ours[curve] = x, values = _course(parts, column, len(line.x) / epochs)
            end = float(values[:, -1].mean())
            ends.append(f"{label} {end:.3f} : {line.y[-1]:.3f}")
            inside = (line.x >= x[0]) & (line.x <= x[-1])
            gaps.append(mean_gap(line.x[inside], np.interp(line.x[inside], x, values.mean(axis=0)), line.y[inside]))
            written.append({"panel": name, "curve": curve, "end": end, "their_end": line.y[-1], "mean_gap": gaps[-1]})
        panels.append((name, theirs, ours))
        notes.append(f"Accuracy ({name}) at the end: {', '.join(ends)}; mean distance {np.mean(gaps):.3f}.")
    if epochs != 80:
        notes.append(f"Our {epochs} epochs are stretched over their 80.")
    figure = comparison_figures.courses(panels, names, ("epoch, as published", "accuracy"), title)
    files = plots.save(figure, out / "figures", "theirs-r18_acc")
    return [*files, _write(out, "theirs-r18_acc", written)], notes


def _course(parts: Sequence[Any], column: str, stretch: float) -> tuple[Any, Any]:
    """Return epochs as published (m,) and the values (seeds, m) of a column of the runs' metrics.

    Their epoch 0 is the first that was trained, as Keras counts; ours is before it.
    """
    columns = [part[part["step"] >= 1].set_index("step")[column].dropna() for part in parts]
    steps = sorted(set.intersection(*(set(one.index) for one in columns)))
    return np.array(steps) * stretch - 1, np.array([one.loc[steps].to_numpy() for one in columns])


def _write(out: Path, name: str, rows: Any) -> Path:
    """Write rows as CSV among the figures; return where."""
    import pandas as pd

    path = out / "figures" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, partial(pd.DataFrame(rows).to_csv, index=False))
    return path


def _unlike(config: Mapping[str, Any], paper: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return a line on the settings that differ from the paper's, if any."""
    unlike = [f"{key} {config.get(key)} (paper: {paper[key]})" for key in keys if config.get(key) != paper[key]]
    return [f"Other settings: {', '.join(unlike)}. Places depend on the number of points."] if unlike else []


def _missing(ours: Ours, wanted: Mapping[int, int]) -> list[str]:
    """Return a line on the published epochs that some seed did not measure."""
    gone = [epoch for epoch in wanted if any(f"epoch{epoch}" not in parts for parts in ours.values())]
    return [f"Not measured in every seed: their epochs {', '.join(map(str, gone))}."] if gone else []


def _title(config: Mapping[str, Any], seeds: Any) -> str:
    many = " (line: mean, band: range)" if len(seeds) > 1 else ""
    data = Path(str(config["data"])).name
    return (
        f"{config['experiment']}, preset {config['preset']}: {config['images']} images of {data}\n"
        f"seeds {' '.join(map(str, seeds))}{many}"
    )


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
