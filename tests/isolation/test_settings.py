"""Settings of PyTorch and NumPy that the user's own functions change in a measurement are afterwards as they were."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from layerfreq import InputError, Monitor, layer_spectra, spectrum
from layerfreq.errors import Code
from layerfreq.isolation.torch_settings import PLAIN, Flag, plain_products
from layerfreq.network.extract import Buffer

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
GRID = {"inv_delta": [0.1, 1.0], "engine": "reference"}
cudnn, mkldnn, products = torch.backends.cudnn, torch.backends.mkldnn, torch.backends.cuda.matmul
# How a setting is read, how a careless function sets it, and how the test puts it back.
SETTINGS = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 1),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled, False),
    "threads": (torch.get_num_threads, torch.set_num_threads, 3),
    "products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "products of a library": (
        lambda: getattr(products, "fp32_precision", None),
        lambda how: setattr(products, "fp32_precision", how),
        "tf32",
    ),
    "cuDNN": (lambda: cudnn.deterministic, lambda on: setattr(cudnn, "deterministic", on), True),
    "oneDNN": (lambda: mkldnn.enabled, lambda on: setattr(mkldnn, "enabled", on), False),
    "fused encoders": (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False),
    "anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, True),
    "default device": (torch.get_default_device, torch.set_default_device, torch.device("meta")),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda on: torch.set_autocast_enabled("cpu", on),
        True,
    ),
    "NumPy's errors": (lambda: np.geterr()["under"], lambda how: np.seterr(under=how), "warn"),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


class Careless(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.inner, self.change = net(), change

    def forward(self, x):
        self.change()
        return self.inner(x)


class Samples(Dataset):
    def __init__(self, change):
        self.change = change

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        self.change()
        return X[i], Y[i]


def measured(where, change):
    def target(x, y, output):
        change()
        return output.float()

    def reading(value):
        change()
        return value.flatten(1).float()

    if where == "model":
        return layer_spectra(Careless(change), X, Y, **GRID)["inner.1"]
    if where == "data set":
        return layer_spectra(net(), Samples(change), **GRID)["1"]
    if where == "reading":
        return layer_spectra(net(), X, Y, reading=reading, **GRID)["1"]
    if where == "target":
        return layer_spectra(net(), X, target, **GRID)["1"]
    if where == "when":
        return Monitor(net(), X, Y, when=lambda step: not change(), **GRID).measure(0)["1"]
    monitor = Monitor(net(), X, {"labels": Y, "own": target}, **GRID)
    monitor.measure(0)
    return monitor.parts["own"]["1"]


@pytest.mark.filterwarnings("ignore:.* changes a list when it runs")
@pytest.mark.parametrize("where", ["model", "data set", "reading", "target", "when", "one of several targets"])
def test_what_the_users_functions_set_is_put_back(where):
    plain = measured(where, lambda: None)
    for name, (get, put, other) in SETTINGS.items():
        before = get()
        if before is None:  # of older versions of PyTorch
            continue
        calls = []

        def change(put=put, other=other, calls=calls):
            calls.append(1)
            put(other)

        try:
            found = measured(where, change)
            assert calls
            assert get() == before, name
        finally:
            put(before)
        own = 1e-3 if name == "autocast" else 1e-6  # a model that casts is measured as it casts
        np.testing.assert_allclose(found.lfr, plain.lfr, rtol=own, err_msg=name)


@pytest.mark.skipif(not hasattr(products, "fp32_precision"), reason="PyTorch has no precision for each library")
def test_precision_for_each_library_is_measured_under_and_kept():
    """Once it is set, PyTorch refuses to read the precision for all."""
    expected, before = spectrum(X, Y, [0.1, 1.0], engine="reference"), products.fp32_precision
    try:
        products.fp32_precision = "tf32"
        found = spectrum(X, Y, [0.1, 1.0], engine="blocked")
        assert products.fp32_precision == "tf32"
        with plain_products.at(PLAIN):
            assert products.fp32_precision == "ieee"
    finally:
        products.fp32_precision = before
    np.testing.assert_allclose(found.lfr, expected.lfr, atol=1e-6)


@pytest.mark.parametrize("order", ["inside", "outside", "other begins", "other ends"])
def test_a_flag_that_another_thread_holds_is_left_to_it(order):
    """`at` of another thread may begin and end at any time; in the end all is as it was in the beginning."""
    now = ["caller's"]
    flag = Flag(lambda: now[0], lambda value: now.__setitem__(0, value))
    other, kept = flag.at("ours"), flag.kept()
    for step in {
        "inside": [kept.__enter__, other.__enter__, "set", lambda: other.__exit__(None, None, None), "set", "leave"],
        "outside": [other.__enter__, kept.__enter__, "set", "leave", lambda: other.__exit__(None, None, None)],
        "other begins": [kept.__enter__, other.__enter__, "leave", lambda: other.__exit__(None, None, None)],
        "other ends": [other.__enter__, kept.__enter__, lambda: other.__exit__(None, None, None), "set", "leave"],
    }[order]:
        if step == "set":
            now[0] = "careless"
        elif step == "leave":
            kept.__exit__(None, None, None)
            assert now[0] == ("caller's" if order in ("inside", "other ends") else "ours")
        else:
            step()
    assert now[0] == "caller's"


def wide(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2100), nn.ReLU(), nn.Linear(2100, 2))
    with torch.no_grad():
        model[0].weight.mul_(scale), model[0].bias.mul_(scale)
    return model


BATCHES = list(zip(X.split(16), Y.split(16), strict=True))
WAYS = {"passing by": {"rows": 10}, "held": {}, "streamed": {"memory": 1}, "streamed, drawn": {"memory": 1, "rows": 10}}


@pytest.mark.parametrize("engine", ["cpu", "blocked", "reference"])
@pytest.mark.parametrize("way", WAYS)
def test_inference_mode_of_the_caller_changes_nothing(way, engine, monkeypatch):
    model, options = wide(), {**WAYS[way], "inv_delta": GRID["inv_delta"], "engine": engine}
    plain, held = layer_spectra(model, BATCHES, **options)["1"], []
    monkeypatch.setattr(Buffer, "put", lambda self, part, n, put=Buffer.put: held.append(n) or put(self, part, n))
    with torch.inference_mode():
        inside = layer_spectra(model, BATCHES, **options)["1"]
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(inside.lfr, plain.lfr)
    assert bool(held) == (way == "held" or (way == "passing by" and engine != "cpu"))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batches", [BATCHES, [(X, Y)]], ids=["several", "one"])
@pytest.mark.parametrize("rows", [10, None])
@pytest.mark.filterwarnings("error")
def test_of_numbers_that_overflow_numpy_neither_warns_nor_raises(rows, batches, count, monkeypatch):
    monkeypatch.setattr("layerfreq.engines.threads.SMALL", 0)
    threads, errors = torch.get_num_threads(), np.seterr(all="raise" if count == 1 else "warn")
    torch.set_num_threads(count)
    try:
        options = {"engine": "cpu", "scale": "rms", "rows": rows, "inv_delta": [0.1, 1.0]}
        plain = layer_spectra(wide(), batches, **options)["1"]
        for scale in (1e22, 1e35):
            found = layer_spectra(wide(scale), batches, **options)["1"]
            np.testing.assert_allclose(found.lfr, plain.lfr, atol=1e-5)
    finally:
        torch.set_num_threads(threads)
        np.seterr(**errors)


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_a_default_device_without_numbers_disturbs_nothing(device):
    """It may also be one that this machine lacks, so that PyTorch fails whenever a tensor is made."""

    model = net()

    def all_of_it():
        found = layer_spectra(model, X, {"labels": Y, "own": lambda x, y, output: output}, **GRID)
        batches = [(X.numpy(), Y.tolist())] * 2
        streamed = layer_spectra(model, batches, memory=1, rows=10, inv_delta=GRID["inv_delta"])
        monitor = Monitor(model, X, Y, error="auto", **GRID)
        return [one["1"].lfr for one in (found["labels"], found["own"], streamed, monitor.measure(0))], monitor.error

    expected = all_of_it()
    torch.set_default_device(device)
    try:
        found = all_of_it()
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1].error_energy, expected[1].error_energy)


def test_a_loader_that_fails_from_the_start_is_one_line():
    model = net()
    torch.set_default_device("meta")
    try:
        with pytest.raises(InputError, match=r"^inputs: the loader fails .*meta") as caught:
            layer_spectra(model, DataLoader(TensorDataset(X, Y)), **GRID)
    finally:
        torch.set_default_device(None)
    assert caught.value.code is Code.FAILED


def test_a_loader_without_labels_says_so():
    with pytest.raises(InputError, match="targets: none given") as caught:
        layer_spectra(net(), [(X, None)], **GRID)
    assert (caught.value.argument, caught.value.code) == ("targets", Code.EMPTY)
