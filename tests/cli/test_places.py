"""Where files lie: ~ is the home folder wherever a path is taken, and a URL is refused."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.errors import InputError
from layerfreq.report import write_report
from layerfreq.verdict.depth import verdict

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
URLS = ["https://example.org/run", "s3://bucket/run", "hf://datasets/a/b", "file:///tmp/run", "gs:/x"]
HOME = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a run, arrays and weights, and another current folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "work" / "placed_net.py").write_text(HOME)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with Monitor(model, X, Y, run="~/run", inv_delta=[0.1, 1.0], checkpoints=True) as monitor:
        monitor.measure(0, loss=1.0)
    np.savez(tmp_path / "home" / "arrays.npz", features=X, inputs=X, targets=Y)
    torch.save(model.state_dict(), tmp_path / "home" / "step-7.pt")
    return tmp_path / "home"


ANALYZE = ("analyze", "placed_net:net")
RELEARN = ("--optimizer", "sgd", "--scale", "rms", "--budget", 5, "--seeds", 1, "--cut", 0)
COMMANDS = {  # with ~ -> what is there afterwards
    "spectrum": (("spectrum", "~/arrays.npz", "--out", "~/made"), "made/spectrum.csv"),
    "analyze": ((*ANALYZE, "~/step-7.pt", "--data", "~/arrays.npz", "--out", "~/made"), "made/config.yaml"),
    "report": (("report", "~/run", "--out", "~/page.html"), "page.html"),
    "verdict": (("verdict", "~/run"), "run"),
    "relearn": (("relearn", "~/run", "--model", "placed_net:net", "--data", "~/arrays.npz", *RELEARN), "run/relearn"),
    "reproduce": (("reproduce", "sine", "--preset", "smoke", "--out", "~/made"), "made/config.yaml"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_home_folder_in_every_command(name, home, cli, tmp_path):
    arguments, made = COMMANDS[name]
    if name in ("analyze", "relearn"):  # features are none of forward's arguments
        np.savez(home / "arrays.npz", inputs=X, targets=Y)
    status, _, error = cli(*arguments)
    assert (status, error) == (0, "")
    assert (home / made).exists()
    assert not (tmp_path / "work" / "~").exists()


@pytest.mark.parametrize("url", URLS)
def test_urls_are_refused_in_every_command(url, home, cli, tmp_path):
    for arguments in (
        ("spectrum", url),
        ("spectrum", "~/arrays.npz", "--out", url),
        (*ANALYZE, "--data", url),
        (*ANALYZE, url, "--data", "~/arrays.npz"),
        (*ANALYZE, "--data", "~/arrays.npz", "--out", url),
        ("analyze", url, "--data", "~/arrays.npz"),
        ("report", url),
        ("report", "~/run", "--out", url),
        ("verdict", url),
        ("relearn", url),
        ("relearn", "~/run", "--model", "placed_net:net", "--data", url),
        ("reproduce", "sine", "--preset", "smoke", "--out", url),
        ("reproduce", "mlp", "--preset", "smoke", "--data", url, "--out", "~/made"),
        ("doctor", url),
    ):
        status, _, error = cli(*arguments)
        assert status == 2, (arguments, error)
        assert len(error.strip().splitlines()) == 1
        assert "is a URL; pass a local" in error, (arguments, error)
    assert [part.name for part in (tmp_path / "work").iterdir() if not part.name.startswith("__")] == ["placed_net.py"]


def test_the_home_folder_in_python(home, tmp_path):
    run = Run("~/run")
    assert verdict("~/run").runs == verdict(["~/run"]).runs == 1
    assert write_report([run], "~/one.html") == home / "one.html"
    assert run.report("~/two.html") == home / "two.html"
    assert len(pd.read_parquet(home / "run" / "spectra"))
    for url in URLS:
        for function in (Run, verdict, run.report, Run.create, lambda at: verdict([run, at])):
            with pytest.raises(InputError, match=re.escape(url)):
                function(url)
    assert not list((tmp_path / "work").glob("~*"))
