"""Wide layers are looked at as a batch with all points passes by: the same spectra, and nothing is held."""

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from layerfreq.network.extract import Buffer
from tests.helpers.refusals import Code, refuses

N = 80
X = torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = (X.mean(dim=(1, 2, 3)) > 0).long() + 2 * (X[:, 0, 0, 0] > 0).long()
GRID = np.geomspace(1e-4, 10, 9)


class Convolutions(nn.Module):
    """Three layers of 4,096 numbers, one of them a function that writes into the one before."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()
        self.out = nn.Linear(4096, 4)

    def forward(self, x):
        x = torch.relu_(self.first(x))
        return self.out(self.act(self.second(x)).flatten(1))


def net():
    torch.manual_seed(0)
    return Convolutions()


@pytest.fixture
def held(monkeypatch):
    """Layers whose features are held, in order."""
    seen, put = [], Buffer.put
    monkeypatch.setattr(Buffer, "put", lambda self, part, n: seen.append(tuple(part.shape)) or put(self, part, n))
    return seen


@pytest.mark.parametrize("rows", [None, 20])
@pytest.mark.parametrize("inv_delta", [None, GRID], ids=["own", "given"])
@pytest.mark.parametrize("scale", ["raw", "maxabs"])
def test_nothing_wide_is_held_and_spectra_are_those_of_the_features(rows, inv_delta, scale, held):
    model, options = net(), {"rows": rows, "inv_delta": inv_delta, "scale": scale, "engine": "cpu"}
    found = layer_spectra(model, X, Y, ["second", "act"], **options)
    assert held == []
    for name, features in layer_features(model, X, ["second", "act"]).items():
        one, exact = found[name], spectrum(features, Y, **options)
        np.testing.assert_allclose(one.inv_delta, exact.inv_delta, rtol=1e-6)
        for curve in ("lfr", "chance"):
            np.testing.assert_allclose(getattr(one, curve), getattr(exact, curve), atol=1e-6)
        assert (one.d, one.n, one.rows, one.engine, one.scale) == (4096, N, rows or N, "cpu", scale)
        assert one.spread == pytest.approx(exact.spread, rel=1e-6)
        whole = spectrum(features.double(), Y, one.inv_delta, engine="blocked", rows=rows, scale=scale)
        np.testing.assert_allclose(one.lfr, whole.lfr, atol=1e-6)


def test_layers_made_by_functions_are_seen_before_they_are_written_into(held):
    model = net()
    found = layer_spectra(model, X, Y, engine="cpu", inv_delta=[0.001, 0.01], device="cpu")
    assert held == []
    for name, features in layer_features(model, X, list(found)).items():
        np.testing.assert_allclose(found[name].lfr, spectrum(features, Y, [0.001, 0.01]).lfr, atol=1e-6)


def test_what_is_not_looked_at_is_held_as_ever(held):
    options = {"inv_delta": [0.001, 0.01], "layers": "act"}
    wide = (N, 4096)
    layer_spectra(net(), X, Y, engine="blocked", **options)
    layer_spectra(net(), X, Y, engine="cpu", rtol=0.1, **options)
    layer_spectra(net().double(), X.double(), Y, engine="reference", rows=3, **options)
    assert held == [wide] * 3
    layer_spectra(net(), [(X[:50], Y[:50]), (X[50:], Y[50:])], engine="cpu", **options)
    assert held[3:] == [(50, 4096), (30, 4096)]
    del held[:]
    residual = {"label": Y, "said": lambda x, y, output: output}
    both = layer_spectra(net(), X, residual, engine="cpu", **options)
    assert held == []
    layer_spectra(net(), X, residual, engine="cpu", rows=20, **options)  # which are drawn by targets not known yet
    assert held == [wide]
    np.testing.assert_allclose(both["label"]["act"].lfr, layer_spectra(net(), X, Y, **options)["act"].lfr, atol=1e-6)


def test_bad_features_and_targets_are_told_as_ever():
    model = net()
    with torch.no_grad():
        model.second.weight[3] = float("nan")
    with refuses("features", Code.NOT_FINITE, "layer 'act'"):
        layer_spectra(model, X, Y, "act", engine="cpu")
    with refuses("rows", Code.VALUE):
        layer_spectra(net(), X, Y, "act", engine="cpu", rows=81)
    with pytest.warns(UserWarning, match="rows=2: stderr is mostly") as said:
        layer_spectra(net(), X, Y, "act", engine="cpu", rows=2, inv_delta=[0.001, 1e6])
    assert said[0].filename == __file__


def test_a_monitor_measures_at_several_scales_and_within_autocast(held):
    model = net()
    monitor = Monitor(model, X, Y, layers="act", engine="cpu", scale=("maxabs", "raw"), inv_delta=GRID)
    before = [p.clone() for p in model.parameters()]
    found = monitor.measure(0)["act"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = monitor.measure(1)["act"]
    assert held == [(N, 4096)]  # bfloat16 has a copy in float32 made where it is held
    assert found.scale == cast.scale == "maxabs"
    np.testing.assert_allclose(cast.lfr, found.lfr, atol=0.02)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
