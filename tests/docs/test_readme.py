"""What the README shows is what there is."""

import re
from pathlib import Path

import matplotlib as mpl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.main import get_command

from layerfreq import Run
from layerfreq.cli.program import app

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_twelve_lines_run(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) <= 12
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(1200, 4)
    labels = (inputs[:, 0] > 0).long()
    loader = DataLoader(TensorDataset(inputs, labels), 300, shuffle=True)
    exec(snippet, {"model": model, "inputs": inputs, "labels": labels, "loader": loader,
                   "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})  # fmt: skip
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"1", "3"}
    assert Run("my-run").steps() == [0, 1, 2, 3, 4]  # the last one by close()
    assert Path("my-run.png").read_bytes().startswith(b"\x89PNG")


def test_every_command_is_in_the_table():
    shown = set(re.findall(r"^\| `layerfreq (\w+)", README, re.MULTILINE))
    assert shown == set(get_command(app).commands)
