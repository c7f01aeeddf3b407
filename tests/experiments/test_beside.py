"""What is printed and written beside the published figures, for runs that are the published curves themselves."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from layerfreq import Run
from layerfreq.experiments.figures import beside, published

mpl.use("agg")
PAPER = {
    "data": "ylecun/mnist",
    "images": 30000,
    "width": 500,
    "hidden": 5,
    "rows": None,
    "recipe": "code",
    "rate": None,
}


class Made(Run):
    """A run that was never on disk."""

    spectra = metrics = None

    def __init__(self, spectra, metrics):
        self.spectra, self.metrics = spectra, metrics


def rows(panel, curve, step, layer):
    """A published curve as rows of a run: LFR is the sum over its cells."""
    lfr = 0.1 + np.concatenate([[0.0], np.cumsum(np.diff(panel.edges) * panel.lines[curve].y)])
    rdf = np.interp(panel.edges, panel.x, panel.lines[curve].y)
    about = {
        "step": step,
        "layer": layer,
        "depth": 1,
        "scale": "maxabs",
        "chance": 0.1,
        "neighbours": 2.0,
        "stderr": 0.0,
    }
    return pd.DataFrame({"inv_delta": panel.edges, "lfr": lfr, "rdf": rdf}).assign(**about)


def run_of(parts, metrics=None):
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs = {"n": 100, "rows": 100, "floor": 0.1}
    return Made(frame, metrics)


def test_mlp_beside_itself(tmp_path):
    config = {**PAPER, "experiment": "mlp", "preset": "small", "images": 2000}
    Run.create(tmp_path / "o", config)
    parts = []
    for epoch in (0, 800):
        panel = published.panel(published.MNIST, f"epoch{epoch}")
        parts += [rows(panel, f"layer{i}", epoch, f"hidden{i}") for i in range(1, 6)]
    found = beside.compare_mlp(tmp_path / "o", {seed: run_of(parts) for seed in (0, 1)}, PAPER)
    assert [(row[0], row[1]) for row in found.rows] == [
        (f"epoch{e}", f"hidden{i}") for e in (0, 800) for i in range(1, 6)
    ]
    assert {(row[4], row[7], row[8]) for row in found.rows} == {("1.00", "1.00", "0.000")}
    said = " ".join(found.notes)
    for words in (
        "Of 10 peaks, within 15% in place 10, in height 10, in both 10; Spearman: place 1.000, height 1.000",
        "epoch0 0.000, epoch800 0.000",
        "images 2000 (paper: 30000)",
        "Not measured in every seed: their epochs 200, 400, 600",
    ):
        assert words in said
    assert all(file.is_file() for file in found.files)
    assert len(pd.read_csv(tmp_path / "o" / "figures" / "theirs-mnist_rdf-peaks.csv")) == 20


def test_other_data_are_not_compared_and_said(tmp_path):
    Run.create(tmp_path / "o", {**PAPER, "data": "digits"})
    found = beside.compare_mlp(tmp_path / "o", {}, PAPER)
    assert (found.rows, found.files) == ([], [])
    assert "digits is not their data" in found.notes[0]


def test_resnet_beside_itself_at_another_length(tmp_path):
    config = {"experiment": "resnet", "preset": "small", "data": "uoft-cs/cifar10", "images": 8000, "validation": 1600}
    config |= {"width": 16, "head": 1024, "epochs": 40, "batch": 256, "rate": 1e-3, "panels": [0, 1, 2, 8, 40]}
    Run.create(tmp_path / "o", config)
    runs = {}
    for variant in (1, 4):
        name, parts = f"Resnet18-{variant}", []
        for epoch, step in zip((0, 1, 2, 15, 80), config["panels"], strict=True):
            parts.append(rows(published.panel(published.RESNET, f"epoch{epoch}"), name, step, "cut"))
        step = np.arange(41)  # the end of our epoch e is that of their 2 e, which they number 2 e - 1
        metrics = {"step": step}
        for panel, column in beside.ACCURACIES.items():
            theirs = published.panel(published.ACCURACY, panel).lines[name].y
            metrics[column] = np.where(step > 0, theirs[2 * step - 1], 0.1)
        runs[variant, 0] = run_of(parts, pd.DataFrame(metrics))
    paper = {**config, "images": 50000, "validation": 10000, "width": 64, "epochs": 80}
    found = beside.compare_resnet(tmp_path / "o", runs, paper, layer="cut")
    assert len(found.rows) == 10
    assert {row[8] for row in found.rows} == {"0.000"}
    said = " ".join(found.notes)
    for words in ("8 for 15, 40 for 80", "-1 0.889 : 0.889, -4 0.711 : 0.711", "width 16 (paper: 64)", "stretched"):
        assert words in said
    assert all(file.is_file() for file in found.files)


@pytest.mark.parametrize(("order", "rank"), [(1, "1.000"), (-1, "-1.000")])
def test_depth_is_compared_by_order_alone(tmp_path, order, rank):
    Run.create(tmp_path / "o", {"preset": "small"})
    steps = np.array([[500, 600], [400, 410], [300, 290], [200, 210], [100, 90]])[::order]
    found = beside.compare_depth(tmp_path / "o", [3, 4, 5, 6, 7], steps, 600)
    assert [row[2] for row in found.rows] == ["13456", "9933", "8124", "7046", "6007"]
    assert [row[1].startswith(">") for row in found.rows][::order] == [True, False, False, False, False]
    assert f"Spearman {rank}" in found.notes[0]
