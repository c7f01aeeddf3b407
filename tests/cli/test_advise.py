"""`layerfreq advise`: of a run and of a model with its checkpoint; what cannot be done is one line."""

import json
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("safetensors")

from layerfreq import Monitor
from layerfreq.advice import cells, heads
from layerfreq.loading.models import make

HOME = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))

def flat():
    return nn.Linear(5, 3)

def points():
    x = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long()

def others():
    x, y = points()
    return x, (x[:, 2] > 0).long()

def bare():
    return points()[0], None
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A module of a user's in the current folder, a run of its network that kept weights, and a checkpoint."""
    name = f"advised_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(HOME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(heads, "STEPS", 8)
    x, y = make(f"{name}:points", "data")
    model = make(f"{name}:net", "model")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(60):
        if step in (0, 59):
            Monitor(model, x, y, run="run" if step else "bare", checkpoints=step > 0).measure(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.save(model.state_dict(), "net.pt")
    return name


@pytest.mark.slow
def test_a_run_and_a_checkpoint_get_advice_and_fit_a_terminal(cli, home):
    given = ("--data", f"{home}:points")
    status, out, error = cli(
        "advise", "run", "--model", f"{home}:net", *given, "--transfer", f"{home}:others", "--table"
    )
    assert (status, error) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "inputs" in out
    assert "network" in out
    assert "by frequency: " in out
    assert "other data take features" in " ".join(out.split())
    status, out, error = cli("advise", f"{home}:net", "net.pt", *given, "--json")
    assert (status, error) == (0, "")
    (one,) = json.loads(out)["advice"]
    assert [row["layer"] for row in one["table"]] == ["inputs", "1", "3"]
    assert one["network"] > 0.9
    assert one["trained_on"] is False


def test_stopped_it_says_how_to_resume_and_does(cli, home, tmp_path, monkeypatch):
    given = ("advise", f"{home}:net", "net.pt", "--data", f"{home}:points", "--json")
    calls = []

    def train(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return heads.held_out(*arguments)

    monkeypatch.setattr(cells, "held_out", train)
    status, out, error = cli(*given, "--out", "kept")
    assert (status, out, error.count("\n")) == (130, "", 1)
    assert "kept keeps the finished cuts; resume with: layerfreq advise" in error
    status, out, error = cli(*given, "--out", "kept")
    assert (status, error, len(calls)) == (0, "", 8)  # the first cut's are there
    assert cli(*given, "--out", "kept") == (0, out, "")
    assert len(calls) == 8
    calls.clear()
    assert "--out FOLDER" in cli(*given)[2]


def test_what_cannot_be_advised_is_one_line(cli, home, tmp_path):
    net, data = f"{home}:net", ("--data", f"{home}:points")
    for given, words in (
        (("nowhere", "--model", net, *data), "no run at 'nowhere'"),
        (("./nowhere", *data), "model: no folder './nowhere'"),
        (("bare", "--model", net, *data), "no weights in"),
        (("run", "--model", net), "data: none given"),
        (("run", "--model", net, *data, "--step", 7), "kept no weights at step 7"),
        (("run",), "is not a run of an experiment"),
        ((net, "net.pt"), "data: none for"),
        ((net, "none.pt", *data), "none.pt"),
        ((net, "net.pt", "net.pt", *data), "checkpoint: 2 given"),
        ((net, "net.pt", *data, "--step", 1), "step: 1 of"),
        ((net, "net.pt", *data, "--tolerance", 1.5), "tolerance: 1.5"),
        ((net, "net.pt", *data, "--out", "net.pt"), "out: 'net.pt' is not a folder"),
        ((net, "net.pt", *data, "--out", ""), "out: '' is not a valid path"),
        (("run", "bare", "--model", net, *data, "--out", "kept"), "no weights in"),
        ((net, "net.pt", "--data", f"{home}:bare"), "for targets"),
        ((f"{home}:flat", *data), "no hidden layer found"),
        ((net, "net.pt", *data, "--transfer", f"{home}:bare"), "for targets"),
    ):
        status, out, error = cli("advise", *given)
        assert status == 2, (given, out, error)
        assert len(error.strip().splitlines()) == 1
        assert words in error, error
    assert not (tmp_path / "kept").exists()  # all runs are looked at before the first one's heads are trained
