"""Loaders without an end: one line after some number of batches, whatever they are passed to; never a hang."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra, split
from layerfreq.data import inputs as module
from layerfreq.errors import InputError
from layerfreq.inspection.modules import inspect_model
from layerfreq.relearn import relearn
from tests.helpers.refusals import Code, refuses

MODEL = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
GRID = {"inv_delta": [1.0], "engine": "reference"}
MOST = 12


class Endless(IterableDataset):
    """Samples without end; says so itself where more are taken than anybody should."""

    def __init__(self, batch=None):
        self.batch = batch

    def __iter__(self):
        for i in itertools.count():
            assert i < 40 * MOST * 1024, "more than the limit"
            x = torch.full((4,) if self.batch is None else (self.batch, 4), float(i))
            yield x, torch.tensor(i % 2) if self.batch is None else torch.arange(self.batch) % 2


def begun(name, inputs, **options):
    """Begin a training with a framework's callback."""
    callbacks = pytest.importorskip(f"layerfreq.integrations.{name}")
    callback = callbacks.LayerSpectraCallback(inputs, **GRID, on_error="raise", **options)
    if name == "lightning":
        precision = SimpleNamespace(convert_input=lambda x: x)
        callback.on_train_start(SimpleNamespace(precision_plugin=precision, fast_dev_run=False, global_step=0), MODEL)
    else:
        callback.on_train_begin(None, SimpleNamespace(global_step=0, stateful_callbacks={}), None, model=MODEL)


WAYS = {
    "layer_spectra": lambda loader: layer_spectra(MODEL, loader, **GRID),
    "layer_spectra, streamed": lambda loader: layer_spectra(MODEL, loader, memory=1, **GRID),
    "layer_spectra, whole": lambda loader: layer_spectra(MODEL, loader, whole=True, **GRID),
    "layer_features": lambda loader: layer_features(MODEL, loader),
    "layer_features, streamed": lambda loader: list(layer_features(MODEL, loader, stream=True)),
    "Monitor": lambda loader: Monitor(MODEL, loader, **GRID),
    "Monitor, whole": lambda loader: Monitor(MODEL, loader, whole=True, **GRID),
    "Lightning": lambda loader: begun("lightning", loader, trackers=()),
    "Hugging Face": lambda loader: begun("transformers", loader),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["loader", "data set", "batches"])
def test_a_loader_without_end_is_one_line(way, kind, monkeypatch):
    monkeypatch.setattr(module, "MOST", MOST)
    data = Endless(batch=3 if kind == "batches" else None)
    loader = {"loader": DataLoader(data, batch_size=3), "data set": data, "batches": DataLoader(data, batch_size=None)}
    with refuses("inputs", Code.UNSUPPORTED, f"{MOST} batches"):
        WAYS[way](loader[kind])


def test_an_endless_loader_of_empty_batches_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "MOST", MOST)
    with refuses("inputs", Code.UNSUPPORTED):
        layer_spectra(MODEL, DataLoader(Endless(batch=0), batch_size=None), **GRID)


def test_what_looks_at_the_first_batch_alone_takes_a_loader_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", MOST)
    loader = DataLoader(Endless(), batch_size=3)
    assert hidden_layers(MODEL, loader) == ["1"]
    for look in (lambda: split(MODEL, "1", loader), lambda: inspect_model(MODEL, loader, points=10)):
        try:
            look()
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017  some take no loader
    with Monitor(MODEL, torch.randn(9, 4), torch.arange(9) % 2, run=tmp_path / "run", checkpoints=True, **GRID) as m:
        m.measure(0)
    with refuses("inputs", Code.UNSUPPORTED):
        relearn(tmp_path / "run", MODEL, loader)
