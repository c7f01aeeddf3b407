"""Code of a model or of data that ends the program or fails: one line, nothing left, the corrected command works."""

import sys
from pathlib import Path

import pytest

from layerfreq import Run
from layerfreq.cli.program import main

HOME = """
import sys
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

def points():
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3

def leaves():
    sys.exit(0)

def leaves_with_words():
    sys.exit("done")

def quits():
    raise SystemExit

def raises():
    raise RuntimeError("no such table\\nmore")

def silent():
    raise KeyError

def asserts():
    assert False

class Leaving:
    def __iter__(self):
        yield points()
        sys.exit(0)

class Raising:
    def __iter__(self):
        yield points()
        raise OSError("the disk is gone")

class Exits(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
        self.calls = 0
    def forward(self, x):
        sys.exit(0)

class Fails(Exits):
    def forward(self, x):
        raise ValueError("out of its mind")

class Late(Exits):
    \"\"\"Fails at the first batch that has more than four points.\"\"\"
    def forward(self, x):
        if len(x) > 4:
            raise ValueError("too many")
        return self.net(x)

class Dead(Exits):
    \"\"\"All its features are NaN.\"\"\"
    def forward(self, x):
        return self.net(x * float("nan"))
"""


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("layerfreq.inspection.analysis.Run.plot", lambda run: None)
    monkeypatch.setattr("layerfreq.plots.save", lambda figure, folder, name: [])
    name = f"endings_{tmp_path.name}".replace("-", "_")
    Path(f"{name}.py").write_text(HOME)

    def run(model, data, *more):
        arguments = ["layerfreq", "analyze", f"{name}:{model}", "--data", f"{name}:{data}", "--out", "kept/run", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


DATA = ["leaves", "leaves_with_words", "quits", "raises", "silent", "asserts", "Leaving", "Raising"]
MODELS = [*DATA[:6], "Exits", "Fails", "Late", "Dead"]


@pytest.mark.parametrize(("model", "data"), [*(("net", one) for one in DATA), *((one, "points") for one in MODELS)])
def test_one_line_nothing_left_and_the_corrected_command_works(model, data, cli, tmp_path):
    before = set(tmp_path.iterdir())
    status, error = cli(model, data)
    assert status == 2, error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error
    assert {one for one in tmp_path.iterdir() if one.name != "__pycache__"} - before == set()
    assert cli("net", "points") == (0, "")
    assert Run("kept/run").steps() == [0]
