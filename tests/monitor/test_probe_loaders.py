"""Loaders that the probe set comes from: what order its points are in, and who else goes through them."""

import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from layerfreq import layer_features, layer_spectra
from tests.monitor.test_setups import GRID, X, Y, expected, model_of, works  # noqa: F401  (a fixture among them)


class Noisy(torch.utils.data.Dataset):
    """Points with noise from a generator of the data set's own, and from NumPy's global one."""

    def __init__(self):
        self.random = np.random.default_rng(3)

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] + self.random.normal() * 0.1 + np.random.normal() * 0.1, Y[i]  # noqa: NPY002


@works("a shuffling DataLoader")
def test_a_shuffling_loader_gives_the_same_points_every_time():
    own = DataLoader(Noisy(), 16, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(3))
    for loader in (own, DataLoader(torch.utils.data.Subset(Noisy(), range(30)), 7, shuffle=True)):
        model = model_of()
        one = layer_features(model, loader)
        torch.rand(3), next(iter(loader))  # training goes on
        held = loader.dataset.random if loader is own else loader.dataset.dataset.random
        state = held.bit_generator.state, torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        two = layer_features(model, loader)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert held.bit_generator.state == state[0]
        assert torch.equal(torch.get_rng_state(), state[1])
        assert np.random.get_state()[1].tolist() == state[2]  # noqa: NPY002
        assert not torch.equal(next(iter(loader))[0], next(iter(loader))[0])


class Stream(IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        yield from zip(*((X, Y) if info is None else (X[info.id :: 2], Y[info.id :: 2])), strict=True)


@works("an IterableDataset")
def test_an_iterable_data_set(expected):  # noqa: F811
    found = layer_spectra(model_of(), DataLoader(Stream(), 16), inv_delta=GRID)
    for name, one in found.items():
        np.testing.assert_allclose(one.lfr, expected[name], rtol=1e-6)


@works("a DataLoader with workers")
def test_workers_that_training_uses_go_on_where_they_were(expected):  # noqa: F811
    """Workers that are kept serve one pass at a time; measuring must not take them from the loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few cores
        loader = DataLoader(TensorDataset(X, Y), 10, num_workers=2, persistent_workers=True)
        model, seen = model_of(), []
        for i, (inputs, _) in enumerate(loader):
            if i == 1:
                state = torch.get_rng_state()
                found = layer_spectra(model, loader, layers="body.1", inv_delta=GRID)
                assert torch.equal(torch.get_rng_state(), state)
            seen.append(inputs)
    assert torch.equal(torch.cat(seen), X)
    np.testing.assert_allclose(found["body.1"].lfr, expected["body.1"], rtol=1e-6)


@works("a DataLoader with workers")
def test_looking_for_a_one_pass_iterator_starts_no_worker_and_draws_no_seed():
    class Loader(DataLoader):
        def __iter__(self):
            passes.append(self)
            return super().__iter__()

    passes = []  # what the loader itself holds is put back after every pass
    model, loader = model_of(), Loader(TensorDataset(X, Y), 10, shuffle=True)
    state = torch.get_rng_state()
    found = layer_features(model, loader, "body.1", stream=True)
    assert len(passes) == 1  # a few points to know the layers by
    assert [name for name, _ in found] == ["body.1"]
    assert len(passes) == 2
    assert torch.equal(state, torch.get_rng_state())
