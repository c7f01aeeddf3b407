"""The DeepXDE callback: nothing changes, steps are its own, and a second optimizer goes on with the run."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from layerfreq import Run, layer_spectra

pytestmark = pytest.mark.needs("deepxde")
if find_spec("deepxde"):
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    import deepxde as dde

    from layerfreq.integrations.deepxde import LayerSpectraCallback

    if dde.backend.backend_name != "pytorch":
        pytest.skip("deepxde has another backend than PyTorch", allow_module_level=True)

X = np.linspace(-1, 1, 60)[:, None]
Y = np.sin(np.pi * X)
GRID = [1.0, 10.0, 100.0]


def trained(callbacks=(), optimizers=("adam",)):
    """u'' = -pi^2 sin(pi x) on [-1, 1], u = 0 at both ends."""
    dde.config.set_random_seed(0)

    def residual(x, u):
        return dde.grad.hessian(u, x) + np.pi**2 * torch.sin(np.pi * x)

    interval = dde.geometry.Interval(-1, 1)
    ends = dde.icbc.DirichletBC(interval, lambda x: 0, lambda _, on: on)
    data = dde.data.PDE(interval, residual, ends, num_domain=30, num_boundary=2)
    model = dde.Model(data, dde.nn.FNN([1, 8, 8, 1], "tanh", "Glorot normal"))
    for name in optimizers:
        model.compile(name, lr=1e-3) if name == "adam" else model.compile(name)
        model.train(iterations=6, display_every=3, callbacks=list(callbacks), verbose=0)
    return model


def test_training_is_what_it_is_without(tmp_path):
    callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=2, inv_delta=GRID)
    model, alone = trained([callback]), trained()
    for one, other in zip(model.net.parameters(), alone.net.parameters(), strict=True):
        assert torch.equal(one, other)
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2, 4, 6]
    losses = run.metrics.dropna(subset=["loss"]).set_index("step")["loss"]
    assert sorted(losses.index) == [3, 6]
    assert losses[6] == pytest.approx(sum(model.losshistory.loss_train[-1]))
    last = run.spectra[(run.spectra["step"] == 6) & (run.spectra["scale"] == "raw")]
    found = layer_spectra(model.net, torch.from_numpy(X).float(), Y, inv_delta=GRID)
    for (_, part), spectrum in zip(last.groupby("depth"), found.values(), strict=True):
        np.testing.assert_allclose(part["lfr"], spectrum.lfr, rtol=1e-6)
    assert callback.monitor is None


def test_a_second_optimizer_goes_on_with_the_run(tmp_path):
    callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=1, inv_delta=GRID)
    model = trained([callback], ("adam", "L-BFGS"))
    steps = Run(tmp_path / "run").steps()
    assert steps[:7] == list(range(7))
    assert steps[-1] == model.train_state.step
    assert steps == sorted(set(steps))
