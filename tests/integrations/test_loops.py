"""Monitor in loops of one's own: plain, Fabric's and Accelerate's."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import layerfreq.integrations
from layerfreq import Monitor, Run
from tests.integrations.training import GRID, X, Y


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    )


def train(run=None, prepare=lambda *parts: parts, backward=lambda loss: loss.backward()):
    """Train for 12 steps; returns the losses and, with a run, what the monitor found."""
    torch.manual_seed(1)
    loader = DataLoader(TensorDataset(X, Y), 8, shuffle=True)
    model = net()
    model, optimizer, loader = prepare(model, torch.optim.SGD(model.parameters(), 0.1), loader)
    monitor = None if run is None else Monitor(model, X, Y, run=run, when=4, inv_delta=GRID)
    losses, step = [], 0
    for _ in range(2):
        for x, y in loader:
            if monitor is not None:
                monitor.measure(step)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            backward(loss)
            optimizer.step()
            losses.append(loss.item())
            step += 1
    if monitor is not None:
        monitor.close()
    return losses


def fabric():
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)

    def prepare(model, optimizer, loader):
        return *fabric.setup(model, optimizer), fabric.setup_dataloaders(loader)

    return {"prepare": prepare, "backward": fabric.backward}


def accelerate():
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True)
    return {"prepare": accelerator.prepare, "backward": accelerator.backward}


@pytest.mark.parametrize(
    "kit",
    [
        pytest.param(dict, marks=pytest.mark.compatibility("framework", "plain PyTorch loop", "works")),
        pytest.param(fabric, marks=pytest.mark.compatibility("framework", "Lightning Fabric", "works")),
        pytest.param(accelerate, marks=pytest.mark.compatibility("framework", "Hugging Face Accelerate", "works")),
    ],
)
def test_a_loop_is_bit_identical_with_a_monitor_and_layers_keep_their_names(tmp_path, kit):
    bare, watched = train(**kit()), train(tmp_path / "run", **kit())
    assert len(bare) == 12
    assert watched == bare
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 4, 8]
    assert run.spectra["layer"].unique().tolist() == ["2", "5"]
    if kit is not dict:
        train(tmp_path / "plain")
        np.testing.assert_array_equal(
            Run(tmp_path / "plain").spectra.query("step == 0"), run.spectra.query("step == 0")
        )


@pytest.mark.compatibility("framework", "plain PyTorch loop", "works")
def test_the_loop_of_the_docstring_runs(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", layerfreq.integrations.__doc__, re.DOTALL)
    model = net()
    names = {"model": model, "inputs": X, "targets": Y, "loader": DataLoader(TensorDataset(X, Y), 8)}
    exec(code, {**names, "loss": nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(model.parameters(), 0.1)})
    assert Run("runs/mine").steps() == [0, 1, 2, 3, 4, 5, 6]  # the last one by close()
    assert list((tmp_path / "runs" / "board").iterdir())
