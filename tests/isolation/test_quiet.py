"""A measurement leaves no trace in models and loaders that keep state in odd places, or says which it leaves."""

import random
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from layerfreq import Monitor, layer_features, layer_spectra
from tests.helpers.hostile import HELD, D, Net
from tests.helpers.unheld import LOST

X = torch.randn(24, D, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3
OPTIONS = {"engine": "reference", "inv_delta": [0.1, 1.0]}


def train(make, monitored, loader=None):
    """Train a few steps, measuring between all parts of a step; returns losses and what is left."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = make()
    loader = [(X[i : i + 8].clone(), Y[i : i + 8]) for i in (0, 8, 16)] if loader is None else loader()
    probe = (loader, None)
    monitor = (
        Monitor(model, *probe, layers="stem" if hasattr(model, "stem") else None, **OPTIONS) if monitored else None
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    losses = []

    def measure(step):
        if monitor is not None:
            monitor.measure(step)

    for step, (x, y) in enumerate(loader):
        measure(3 * step)
        loss = nn.functional.cross_entropy(model(x), y)
        measure(3 * step + 1)
        loss.backward()
        measure(3 * step + 2)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    rest = [*(p.detach().numpy().tobytes() for p in model.state_dict().values()), torch.rand(2).tolist()]
    return [*losses, *rest, *(p.requires_grad for p in model.parameters()), np.random.rand()]  # noqa: NPY002


COMPANY = pytest.mark.filterwarnings("ignore:layer '[a-z0-9]+'.* its features of a point change")


@COMPANY
@pytest.mark.compatibility("set-up", "a model that keeps state of any kind", "works")
@pytest.mark.parametrize("name", HELD)
def test_state_of_every_kind_is_put_back_without_a_word(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*cannot restore")
        assert train(HELD[name], True) == train(HELD[name], False)


@pytest.mark.compatibility(
    "set-up",
    "a model that writes into globals, closures or files",
    "works with a limit",
    "a warning names the module",
)
@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_put_back_is_said_once_by_the_name_of_the_module(name):
    with pytest.warns(UserWarning, match="cannot restore") as said:
        train(LOST[name], True)
    texts = [str(one.message) for one in said if "cannot restore" in str(one.message)]
    assert len(texts) == len(set(texts)) == 1
    assert name in texts[0] or "'stem'" in texts[0]


def test_a_warning_names_the_module_inside():
    class Outer(nn.Sequential):
        pass

    model = Outer(nn.Linear(D, D), LOST["Iterators"]())
    with pytest.warns(UserWarning, match="model: '1' "):
        layer_features(model, X, "0")


class Add:
    """A transform with a generator of its own, as people write them."""

    def __init__(self, rng):
        self.rng = rng

    def __call__(self, x):
        draw = self.rng.normal if hasattr(self.rng, "normal") else lambda: self.rng.gauss(0, 1)
        return x + draw()


class Compose:
    def __init__(self, *parts):
        self.parts = list(parts)

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Data(Dataset):
    def __init__(self, transform):
        self.transform, self.count, self.rows = transform, 0, X.clone()

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        self.count += 1
        self.rows[i] += 0.01
        return (self.transform(self.rows[i]) + 0.001 * self.count).float(), Y[i]


class Stream(IterableDataset):
    """Goes on where it was."""

    def __init__(self):
        self.at = SimpleNamespace(row=0)

    def __iter__(self):
        for _ in range(24):
            self.at.row += 5
            yield X[self.at.row % 24], Y[self.at.row % 24]


class OwnLoader:
    """Nobody's class, with a generator and a count."""

    def __init__(self):
        self.rng, self.epoch = random.Random(3), 0

    def __iter__(self):
        self.epoch += 1
        rows = torch.tensor(self.rng.sample(range(24), 16)).roll(self.epoch)
        yield from ((X[part], Y[part]) for part in rows.split(8))


def closed_over():
    rng = np.random.default_rng(5)
    return DataLoader(Data(lambda x: x + rng.normal()), 8, collate_fn=None)


LOADERS = {
    "numpy, inside a Compose": lambda: DataLoader(Data(Compose(Compose(Add(np.random.default_rng(1))))), 8),
    "random, behind a Subset": lambda: DataLoader(Subset(Data(Compose(Add(random.Random(1)))), range(20)), 8),
    "in a closure": closed_over,
    "a stream": lambda: DataLoader(Stream(), 8),
    "a loader of one's own": OwnLoader,
    "shuffled, by the global state": lambda: DataLoader(TensorDataset(X, Y), 8, shuffle=True),
    "views of the user's tensor": lambda: [(X[i : i + 8], Y[i : i + 8]) for i in (0, 8)],
}


@pytest.mark.compatibility(
    "set-up",
    "a loader with state or generators of its own",
    "works with a limit",
    "arrays of a data set beyond 64 MiB are not kept",
)
@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("kind", [Net, nn.Sequential])
def test_what_a_loader_leads_to_is_put_back(name, kind):
    make = Net if kind is Net else lambda: nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))
    assert train(make, True, LOADERS[name]) == train(make, False, LOADERS[name])


class Seeded(Dataset):
    """Tells what its worker was seeded with."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return torch.randn(D) + np.random.rand(), Y[i]  # noqa: NPY002


@pytest.mark.parametrize("wrapped", [False, True])
def test_workers_that_stay_are_seeded_by_the_training(wrapped):
    def loader():
        one = DataLoader(Seeded(), 8, num_workers=1, persistent_workers=True)
        return Wrapped(one) if wrapped else one

    assert train(Net, True, loader) == train(Net, False, loader)


class Wrapped:
    def __init__(self, loader):
        self.inside = loader

    def __iter__(self):
        return iter(self.inside)


@pytest.mark.parametrize("name", ["WritesItsInput", "ReluFirst"])
@pytest.mark.parametrize("shape", ["tensor", "array", "dict", "list of batches", "expanded"])
def test_no_model_runs_on_memory_of_the_caller(name, shape):
    x = X[:1].expand(24, D) if shape == "expanded" else X.clone()
    inputs = {"array": x.numpy(), "dict": {"x": x}, "list of batches": [(x, Y)]}.get(shape, x)
    targets = None if isinstance(inputs, list) else Y
    before = x.clone()
    model = HELD[name]()
    monitor = Monitor(model, inputs, targets, layers="stem", inv_delta=[1.0])
    assert torch.equal(x, before)
    found = [monitor.measure(step)["stem"].lfr[0] for step in range(3)]
    assert torch.equal(x, before)
    assert found[0] == found[1] == found[2]
    with torch.no_grad():
        if targets is not None:
            expected = layer_spectra(model, before.clone(), Y, "stem", inv_delta=[1.0])["stem"].lfr[0]
            assert found[0] == expected


def test_after_measurements_in_eight_threads_nothing_global_has_changed():
    def state():
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.get_default_dtype(),
            torch.get_rng_state().tolist(),
            [m.training for m in model.modules()],
        )

    model = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, 3))
    before, failed = state(), []
    torch.set_float32_matmul_precision("medium")
    before = state()

    def work():
        try:
            for engine in ("blocked", "cpu") * 4:
                layer_spectra(model, X, Y, engine=engine, inv_delta=[1.0])
        except Exception as error:
            failed.append(error)

    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert state() == before
    finally:
        torch.set_float32_matmul_precision("highest")
