"""`layerfreq report` with a network and points of a user's, or of an experiment's run."""

import sys

import pytest
import torch
from torch import nn

pytest.importorskip("plotly")
pytest.importorskip("safetensors")

from layerfreq import Monitor, Run
from layerfreq.loading.models import make
from layerfreq.relearn.rebuilt import Source

HOME = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2))

def flat():
    return nn.Linear(5, 3)

def points():
    x = torch.randn(40, 1, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0, 0] > 0).long()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A module of a user's in the current folder, and a run of its network that kept weights."""
    name = f"reported_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(HOME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    model, (x, y) = make(f"{name}:net", "model"), make(f"{name}:points", "data")
    monitor = Monitor(model, x, y, run="run", checkpoints=True)
    for step in range(2):
        monitor.measure(step, loss=1.0)
        for p in model.parameters():
            p.data *= 0.9
    return name


def kinds(path):
    text = (path / "report.html").read_text(encoding="utf-8")
    return [kind for kind in ("changes", "axis", "images", "suspects") if f'data-kind="{kind}"' in text]


def test_a_network_and_points_that_are_named(cli, home, tmp_path):
    assert cli("report", "run", "--model", f"{home}:net", "--data", f"{home}:points") == (0, "run/report.html\n", "")
    assert kinds(tmp_path / "run") == ["changes", "axis", "suspects"]
    assert cli("report", "run") == (0, "run/report.html\n", "")
    assert kinds(tmp_path / "run") == []
    assert "is not a run of an experiment; name its --model and --data" in (tmp_path / "run/report.html").read_text()


def test_what_cannot_be_used_is_one_line(cli, home):
    net, data = f"{home}:net", f"{home}:points"
    for given, words in (
        (("--data", data), "data: given without --model"),
        (("--model", net), "model: given without --data"),
        (("--model", f"{home}:flat", "--data", data), "weights of another model"),
        (("--model", f"{home}:none", "--data", data), "has no 'none'"),
        (("--model", net, "--data", "nowhere.npz"), "nowhere.npz"),
    ):
        status, out, error = cli("report", "run", *given)
        assert (status, out) == (2, "")
        assert len(error.strip().splitlines()) == 1
        assert words in error


def test_an_experiments_run_is_rebuilt(cli, home, tmp_path, monkeypatch):
    """By its config, in the folder above; here of an experiment that has another network than it would have."""
    from layerfreq.experiments import mlp

    top = Run.create(tmp_path / "top", {"experiment": "mlp", "seeds": [0]})
    (tmp_path / "run").rename(top.path / "seed-0")
    x, y = make(f"{home}:points", "data")
    built = nn.Sequential(nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2))
    monkeypatch.setattr(mlp, "rebuild", lambda run, config: Source(x, y, lambda seed: built))
    assert cli("report", "top")[0] == 0
    assert kinds(top.path) == ["changes", "axis", "suspects"]
    assert torch.equal(x, make(f"{home}:points", "data")[0])
