"""`layerfreq relearn RUN --model --data`: a user's own run, from training to verdict."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from layerfreq import Monitor
from layerfreq.loading.models import make
from layerfreq.relearn import Design, relearn

HOME = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))

def wider():
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3))

def points():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long()

def loader():
    return DataLoader(TensorDataset(*points()), 20)

def named():
    x, y = points()
    return {"x": x}, y
"""
OPTIONS = ("--optimizer", "sgd", "--scale", "rms", "--budget", 20, "--batch", 0, "--seeds", 1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A module of a user's in the current folder, and two runs of its network: with weights kept, and without."""
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(HOME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    x, y = make(f"{name}:points", "data")
    for run, kept in (("run", True), ("bare", False)):
        torch.manual_seed(0)
        model = make(f"{name}:net", "model")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        monitor = Monitor(model, x, y, run=run, when=[0, 5], checkpoints=kept)
        for step in range(6):
            monitor.measure(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return name


@pytest.mark.slow
def test_a_users_run_from_weights_to_verdict(cli, home, tmp_path):
    arguments = ("relearn", "run", "--model", f"{home}:net", *OPTIONS)
    status, out, error = cli(*arguments, "--data", f"{home}:points")
    assert (status, error) == (0, "")
    assert "rms scale, sgd, best rate, hidden-1 head, within step" in out
    assert "Does frequency explain" in out
    table = out.partition("\nDoes frequency explain")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "..." not in table
    assert "nan" not in table.split()  # one seed has no interval
    assert "\u2026" not in table
    status, said, error = cli(*arguments, "--data", f"{home}:points", "--resume", "--json")
    assert (status, error) == (0, "")
    said = json.loads(said)
    assert list(said) == ["run", "league", "verdict"]
    assert said["verdict"] in out
    assert {word for row in said["league"] for word in row["predictor"].split("_")} <= set(table.split())
    found = pd.concat(pd.read_parquet(file) for file in sorted((tmp_path / "run/relearn/cells").iterdir()))
    assert found.groupby("step")["cut"].unique().map(list).to_dict() == {0: [0, 1, 2], 5: [0, 1, 2]}
    assert found.groupby("cut")["layer"].first().tolist() == ["inputs", "1", "3"]
    (tmp_path / "run/relearn").rename(tmp_path / "first")
    design = Design(optimizers=("sgd",), scales=("rms",), budget=20, batch=None, seeds=1)
    expected = relearn("run", make(f"{home}:net", "model"), *make(f"{home}:points", "data"), design=design)
    np.testing.assert_array_equal(found["steps"], expected["steps"])
    assert np.isfinite(found["rms_median"]).all()
    (tmp_path / "run/relearn").rename(tmp_path / "second")
    status, _, error = cli(*arguments, "--data", f"{home}:loader", "--step", 5, "--cut", 1)  # batches of the same
    assert (status, error) == (0, "")
    again = pd.concat(pd.read_parquet(file) for file in (tmp_path / "run/relearn/cells").iterdir())
    one = found[(found["step"] == 5) & (found["cut"] == 1)]
    np.testing.assert_array_equal(again["steps"], one["steps"])
    status, out, error = cli("verdict", "run")
    assert (status, error) == (0, "")
    assert "needs 2 seeds" in " ".join(out.split())


def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(cli, home, tmp_path):
    net, points = ("--model", f"{home}:net"), ("--data", f"{home}:points")
    for run, given, words in (
        ("run", (), "not a run of an experiment; name its --model and --data"),
        ("run", net, "model: given without --data"),
        ("run", points, "data: given without --model"),
        ("none", (*net, *points), "no run at 'none'"),
        ("bare", (*net, *points), "run: no weights in"),
        ("run", ("--model", f"{home}:wider", *points), "holds the weights of another model"),
        ("run", (*net, *points, "--step", 3), "no weights of step 3 in 'run'; it has [0, 5]"),
        ("run", (*net, *points, "--cut", 3), "no cut 3; choose among 0 (inputs) .. 2 (3)"),
        ("run", (*net, "--data", f"{home}:named"), "inputs: a dict or tuple is not supported"),
        ("run", (*net, "--data", f"{home}:nothing"), "has no 'nothing'"),
        ("run", ("--model", f"{home}:nothing", *points), "has no 'nothing'"),
    ):
        status, _, error = cli("relearn", run, *given, *OPTIONS)
        assert status == 2, (given, error)
        assert len(error.strip().splitlines()) == 1
        assert words in error, error
    assert not (tmp_path / "run/relearn").exists()


def spoiled(kind):
    """What is done to a file."""
    return {
        "empty": lambda file: file.write_bytes(b""),
        "foreign": lambda file: file.write_bytes(b"PAR1 and nothing else"),
        "cut short": lambda file: file.write_bytes(file.read_bytes()[:99]),
        "a folder": lambda file: (file.unlink(), file.mkdir()),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "foreign", "cut short", "a folder"])
@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "spectra/step-000000000005.parquet",
        "checkpoints/step-000000000000.safetensors",
        "checkpoints/step-000000000005.safetensors",
    ],
)
def test_a_damaged_run_is_one_line_with_the_files_name(cli, home, tmp_path, name, kind):
    spoiled(kind)(tmp_path / "run" / name)
    status, _, error = cli("relearn", "run", "--model", f"{home}:net", "--data", f"{home}:points", *OPTIONS, "--cut", 1)
    if name == "config.yaml" and kind in ("empty", "cut short"):  # it says nothing, or less, of itself
        assert status == 0
        return
    assert status == 2, error
    assert len(error.strip().splitlines()) == 1
    assert name in error
    assert not (tmp_path / "run/relearn").exists()


def test_damaged_results_are_one_line_and_foreign_files_do_no_harm(cli, home, tmp_path):
    asked = ("relearn", "run", "--model", f"{home}:net", "--data", f"{home}:points", *OPTIONS, "--cut", 1, "--resume")
    (tmp_path / "run/checkpoints/step-0 (1).safetensors").write_bytes(b"")
    (tmp_path / "run/checkpoints/step-x.safetensors").write_bytes(b"")
    assert cli(*asked)[0] == 0
    (tmp_path / "run/relearn/cells/._cell.parquet").write_bytes(b"x")
    assert cli(*asked)[0] == 0
    cell = sorted((tmp_path / "run/relearn/cells").glob("step*"))[0]
    for change, words in (
        (lambda: cell.write_bytes(b""), "is damaged"),
        (lambda: pd.DataFrame({"a": [1]}).to_parquet(cell), "has no column 'step'"),
        (lambda: cell.rename(cell.with_name("step-0 (1).parquet")), "is not a file of the run"),
    ):
        change()
        for command in (asked, ("verdict", "run")):
            status, _, error = cli(*command)
            assert status == 2
            assert len(error.strip().splitlines()) == 1
            assert "relearn/cells/step-0" in error
            assert words in error
    cell.with_name("step-0 (1).parquet").unlink()
    for text in ("- 1", "a: [1", "\0"):
        (tmp_path / "run/relearn/design.yaml").write_text(text)
        status, _, error = cli(*asked)
        assert status == 2
        assert "design.yaml" in error
        assert len(error.strip().splitlines()) == 1
