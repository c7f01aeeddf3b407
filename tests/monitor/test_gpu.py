"""A model on a GPU: the same spectra as on the CPU, training left bit for bit as it was, and memory given back."""

import gc
import os
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from tests.helpers.training import NETWORKS, data, differences, train

pytestmark = pytest.mark.needs("a GPU", "triton")
GRID = np.geomspace(1e-2, 10, 12)
SETUPS = {
    "plain": {},
    "compiled before": {"compiled": torch.compile},
    "compiled after": {"compiled": torch.compile, "attached_first": True},
    "autocast to bfloat16": {"autocast": torch.bfloat16},
    "autocast to float16 with GradScaler": {"autocast": torch.float16, "scaler": True},
    "gradient checkpointing": {"reentrant": False},
    "EMA copies": {"ema": True},
}


@pytest.fixture
def deterministic():
    """Bit for bit only where two trainings without a monitor agree bit for bit."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = cudnn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.Tanh(),
        nn.Dropout(0.3), nn.Linear(32, 4),
    )  # fmt: skip


X = torch.randn(400, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0].mean(dim=(1, 2)) > 0).long() + 2 * (X[:, 1, 0, 0] > 0).long()


def close(one, other, tolerance):
    assert one.keys() == other.keys()
    for layer in one:
        np.testing.assert_allclose(one[layer].lfr, other[layer].lfr, rtol=0, atol=tolerance)
        np.testing.assert_allclose(one[layer].chance, other[layer].chance, rtol=0, atol=tolerance)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("options", SETUPS.values(), ids=SETUPS)
def test_training_is_bit_identical(network, options, deterministic):
    torch._dynamo.reset()
    off, _ = train(network, False, device="cuda", **options)
    again, _ = train(network, False, device="cuda", **options)
    if differences(off, again):
        pytest.skip("GPU: two trainings without a monitor differ already")
    torch._dynamo.reset()
    on, spectra = train(network, True, device="cuda", **options)
    assert differences(on, off) == []
    assert len(spectra) >= 2


@pytest.mark.parametrize("network", NETWORKS)
def test_spectra_are_those_of_the_cpu(network):
    torch.manual_seed(0)
    model, (x, y) = NETWORKS[network]().double().eval(), data(network, 200)
    x = x.double() if x.is_floating_point() else x
    here = layer_spectra(model, x, y, inv_delta=GRID, engine="reference")
    for inputs, targets in ((x, y), (x.cuda(), y), (x.cuda(), y.cuda())):
        close(layer_spectra(model.cuda(), inputs, targets, inv_delta=GRID, engine="reference"), here, 1e-9)
        close(layer_spectra(model, inputs, targets, inv_delta=GRID, engine="cuda"), here, 1e-5)
        close(layer_spectra(model, inputs, targets, inv_delta=GRID), here, 1e-5)
    loader = DataLoader(TensorDataset(x, y), 64)
    close(layer_spectra(model, loader, inv_delta=GRID), here, 1e-5)


@pytest.mark.parametrize("engine", ["auto", "cuda", "blocked"])
@pytest.mark.parametrize("rows", [None, 100])
def test_features_in_parts_have_the_spectra_of_whole_ones(engine, rows):
    model = net().eval().cuda()
    whole = layer_spectra(model, X, Y, inv_delta=GRID, engine=engine, rows=rows)
    close(layer_spectra(model, X, Y, inv_delta=GRID, engine=engine, rows=rows, memory="200 KiB"), whole, 2e-6)


def test_features_are_where_the_model_is():
    features = layer_features(net().eval().cuda(), X)
    assert {f.device.type for f in features.values()} == {"cuda"}
    assert not any(f.requires_grad for f in features.values())


def test_memory_is_given_back():
    model = net().cuda()
    monitor = Monitor(model, X, Y, inv_delta=GRID)
    monitor.measure(0)
    gc.collect()
    held = torch.cuda.memory_allocated()
    for step in range(1, 200):
        monitor.measure(step)
    gc.collect()
    assert torch.cuda.memory_allocated() <= held + (1 << 16)
    monitor.close()
    one = weakref.ref(model)
    del model, monitor
    gc.collect()
    assert one() is None


def test_the_device_that_is_named_computes():
    features = torch.randn(700, 40, generator=torch.Generator().manual_seed(0))
    y = torch.arange(700) % 3
    on_gpu, here = spectrum(features, y, GRID, device="cuda"), spectrum(features, y, GRID, engine="reference")
    np.testing.assert_allclose(on_gpu.lfr, here.lfr, rtol=0, atol=1e-5)
    np.testing.assert_allclose(on_gpu.rdf, here.rdf, rtol=0, atol=1e-4 * here.rdf.max())
