"""Inputs in the forms that people have them: taken, with the same numbers, or refused in one line."""

# ruff: noqa: PT017  some of several reads may fail, and then with one line

import re
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import config
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from layerfreq import hidden_layers, layer_features, layer_spectra, split
from layerfreq.errors import InputError
from layerfreq.measure.measure import spectrum
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
GRID = {"inv_delta": [0.1, 1.0], "engine": "reference"}
MODEL = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
x, y = X.numpy(), Y.numpy()


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], Y[i]


class Stream(IterableDataset):
    def __init__(self, ragged=False):
        self.ragged = ragged

    def __iter__(self):
        yield from ((X[i][: 4 - (self.ragged and i % 2)], Y[i]) for i in range(30))


@dataclass
class Batch:
    input: torch.Tensor
    labels: torch.Tensor


class Lists(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        yield from self.samples


class Listed(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i]


class Unsized(Dataset):
    def __getitem__(self, i):
        return X[i], Y[i]


class Failing(Listed):
    def __init__(self):
        super().__init__([0, 0])

    def __getitem__(self, i):
        raise FileNotFoundError("no such image")


Sample = namedtuple("Sample", "x y")


class Raising:
    def __iter__(self):
        yield X[:5], Y[:5]
        raise OSError("the disk is gone")


TAKEN = {
    "a data frame and a series": (pd.DataFrame(x), pd.Series(y)),
    "after a split": (pd.DataFrame(x, index=range(40, 70)), pd.Series(y, index=range(40, 70))),
    "negative strides": (x[::-1].copy()[::-1], y[::-1].copy()[::-1]),
    "big endian": (x.astype(">f4"), y.astype(">i8")),
    "a view of a record": (np.rec.fromarrays([x], names="a", formats="(4,)f4").a, y),
    "read-only": (np.broadcast_to(x, (1, 30, 4))[0], y),
    "Fortran's order": (np.asfortranarray(x), y),
    "nested lists": (x.tolist(), y.tolist()),
    "nullable integers": (X, pd.Series(y, dtype="Int64")),
    "categories' codes": (X, pd.Series(y).astype("category")),
    "objects that are numbers": (pd.DataFrame(x).astype(object).astype("float32"), pd.Series(y).astype(object)),
    "unsigned": (X, y.astype(np.uint16)),
    "booleans": (X, Y.bool()),
    "a data set": (Pairs(), None),
    "a stream": (Stream(), None),
    "arrays and lists in batches": ([(x[:20], y[:20].tolist()), (x[20:], pd.Series(y[20:]))], None),
    "lists in batches": ([(x.tolist(), y.tolist())], None),
    "dicts": ([{"input": X, "labels": Y, "text": ["a"] * 30}], None),
    "dataclasses": ([Batch(X, Y)], None),
    "a loader": (DataLoader(Pairs(), 7), None),
    "a stream of lists": (Lists([(a.tolist(), int(b)) for a, b in zip(X, Y, strict=True)]), None),
    "a data set of lists": (Listed([(a.tolist(), int(b)) for a, b in zip(X, Y, strict=True)]), None),
    "a data set of dicts of lists": (
        Listed([{"input": a.tolist(), "labels": int(b), "text": "a"} for a, b in zip(X, Y, strict=True)]),
        None,
    ),
    "a data set of named tuples": (Listed([Sample(a.tolist(), int(b)) for a, b in zip(X, Y, strict=True)]), None),
    "a data set of arrays": (Listed(list(zip(x, y, strict=True))), None),
    "a dict of a data frame": ({"input": pd.DataFrame(x)}, Y),
}
REFUSED = {
    "masked": (np.ma.masked_array(x, x > 1), Y),
    "masked targets": (X, np.ma.masked_array(y, y > 0)),
    "text": (pd.DataFrame({"a": ["x"] * 30}), Y),
    "targets that are text": (X, ["a"] * 30),
    "missing targets": (X, pd.Series([None, *y[1:]], dtype="Int64")),
    "three in a batch": (DataLoader([(X[i], Y[i], Y[i]) for i in range(30)], 8), None),
    "inputs only": (DataLoader(X, 8), None),
    "inputs only, one in a tuple": (DataLoader(TensorDataset(X), 8), None),
    "inputs only, a data set": (TensorDataset(X), None),
    "inputs only, a list": ([X, X], None),
    "inputs only, with targets beside": (DataLoader(X, 8), Y),
    "a data set with targets beside": (TensorDataset(X), Y),
    "three in a sample": (TensorDataset(X, Y, Y), None),
    "ragged lists in a data set": (Listed([([1.0] * (3 + i % 2), 0) for i in range(6)]), None),
    "a data set without samples": (Listed([]), None),
    "a data set without a length": (Unsized(), None),
    "a data set of nothing": (Listed([None, None]), None),
    "a data set of texts": (Listed([("a", 0), ("b", 1)]), None),
    "a data set that raises": (Failing(), None),
    "ragged": (Stream(ragged=True), None),
    "a loader that raises": (Raising(), None),
    "used up": (iter([(X, Y)]), None),
    "nothing": (None, Y),
    "an object": (object(), Y),
    "characters": ("abc", Y),
    "bytes": (b"abc", Y),
    "a set": ({1, 2}, Y),
    "a module": (MODEL, Y),
    "no points": (X[:0], Y[:0]),
    "one number": (torch.tensor(3.0), Y),
    "sparse": (X.to_sparse(), Y),
    "quantized": (torch.quantize_per_tensor(X, 0.1, 0, torch.quint8), Y),
    "meta": (X.to("meta"), Y),
    "complex": (X.to(torch.complex64), Y),
    "half": (X.half(), Y),
    "extended": (x.astype(np.longdouble), Y),
    "ragged lists": ([[1, 2], [3]], Y),
    "a class id too large": (X, [2**70] * 30),
    "one target": (X, np.array(3)),
    "a dict of targets": (X, {"a": 1}),
    "a list of dicts without labels": ([{"input": X}], None),
    "no batches": ([], None),
}


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the tests' own check of types."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", TAKEN)
def test_taken_with_the_same_numbers(name):
    inputs, targets = TAKEN[name]
    found = layer_spectra(MODEL, inputs, targets, **GRID)["1"]
    np.testing.assert_allclose(found.lfr, layer_spectra(MODEL, X, Y, **GRID)["1"].lfr, rtol=1e-6)
    assert hidden_layers(MODEL, inputs) == ["1"]
    if targets is not None and not isinstance(inputs, dict):
        np.testing.assert_allclose(spectrum(inputs, targets, **GRID).lfr, spectrum(X, Y, **GRID).lfr, rtol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    inputs, targets = REFUSED[name]
    with pytest.raises(InputError) as caught:
        layer_spectra(MODEL, inputs, targets, **GRID)
    assert caught.value.argument in ("inputs", "targets")
    assert "\n" not in str(caught.value)
    for function in (
        lambda: spectrum(inputs, targets, **GRID),
        lambda: hidden_layers(MODEL, inputs),
        lambda: layer_features(MODEL, inputs),
        lambda: split(MODEL, "1", inputs),
    ):
        try:
            function()  # right where it takes fewer arguments, or other features
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (DataLoader(X, 8), ("inputs", Code.EMPTY)),
        (TensorDataset(X), ("inputs", Code.EMPTY)),
        (TensorDataset(X, Y, Y), ("inputs", Code.SHAPE)),
    ],
)
def test_the_remedy_that_is_named_works(inputs, words):
    with refuses(*words):
        layer_spectra(MODEL, inputs, **GRID)
    if isinstance(inputs, DataLoader):
        found = layer_spectra(MODEL, list(zip(inputs, Y.split(8), strict=True)), **GRID)["1"]
        np.testing.assert_allclose(found.lfr, layer_spectra(MODEL, X, Y, **GRID)["1"].lfr, rtol=1e-6)


class TakesADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = MODEL

    def forward(self, batch):
        return self.net(batch["image"])


class WantsLabels(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = MODEL

    def forward(self, image, labels=None):
        logits = self.net(image)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class OnlyParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = MODEL


REMEDIES = {
    "text": (MODEL, X, [f"class {int(k)}" for k in Y], "np.unique(targets, return_inverse=True)[1]"),
    "text of categories": (
        MODEL,
        X,
        pd.Series([f"class {int(k)}" for k in Y]).astype("category"),
        "return_inverse=True",
    ),
    "a column of ids": (MODEL, X, Y[:, None], "y[:, 0]"),
    "a list of points": (MODEL, list(X), Y, "torch.stack(inputs)"),
    "a dict for one argument": (TakesADict(), {"image": X}, Y, "({...},)"),
    "labels that forward needs": (WantsLabels(), {"image": X}, Y, "{..., 'labels': y}"),
    "a module without forward": (OnlyParts(), X, Y, "module='name'"),
    "integers": (MODEL, X.round().long(), Y, "torch.float32, convert the inputs"),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_of_what_people_pass_is_named(name):
    model, inputs, targets, remedy = REMEDIES[name]
    with pytest.raises(InputError, match=re.escape(remedy)):
        layer_spectra(model, inputs, targets, **GRID)


def test_these_remedies_work():
    expected = layer_spectra(MODEL, X, Y, **GRID)["1"].lfr
    words = REMEDIES["text"][2]
    for model, inputs, targets, layer in (
        (MODEL, X, np.unique(words, return_inverse=True)[1], "1"),
        (MODEL, X, Y[:, None][:, 0], "1"),
        (MODEL, torch.stack(list(X)), Y, "1"),
        (TakesADict(), ({"image": X},), Y, "net.1"),
        (WantsLabels(), {"image": X, "labels": Y}, Y, "net.1"),
    ):
        np.testing.assert_allclose(layer_spectra(model, inputs, targets, **GRID)[layer].lfr, expected, rtol=1e-12)


def test_columns_of_a_data_set():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"image": x.tolist(), "label": y.tolist()})
    expected = layer_spectra(MODEL, X, Y, **GRID)["1"].lfr
    for images, labels in (
        (table.with_format("torch")["image"], table["label"]),
        (table.with_format("numpy", dtype=np.float32)["image"], table.with_format("torch")["label"]),
    ):
        np.testing.assert_allclose(layer_spectra(MODEL, images, labels, **GRID)["1"].lfr, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["cpu_offload", "disk_offload"])
def test_an_offloaded_model_is_told_what_it_is(kind, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    options = {"offload_dir": tmp_path} if kind == "disk_offload" else {}
    getattr(accelerate, kind)(model, execution_device=torch.device("cpu"), **options)
    assert model(X).shape == (30, 2)
    for function in (lambda: layer_spectra(model, X, Y), lambda: hidden_layers(model, X), lambda: split(model, "1", X)):
        with refuses("model", Code.UNSUPPORTED, "'0.weight'"):
            function()


def test_a_model_that_accelerate_has_placed_is_measured():
    accelerate = pytest.importorskip("accelerate")
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    expected = layer_spectra(model, X, Y, **GRID)["1"].lfr
    accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
    np.testing.assert_array_equal(layer_spectra(model, X, Y, **GRID)["1"].lfr, expected)
