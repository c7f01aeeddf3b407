"""A model that does not run on other batches than those that come: said once, with what it raised, if that is why."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Monitor, layer_spectra

N, GRID = 300, [1e-4, 1e-3, 1e-2]
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.randint(1, 8, (N,), generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()
OPTIONS = {"rows": 30, "engine": "cpu", "inv_delta": GRID}


class Sorted(nn.Module):
    """A wide layer of a model that takes points of falling length, as packed sequences do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head, self.broken = nn.Linear(3, 2100), nn.Linear(2100, 2), False

    def forward(self, x, lengths):
        if self.broken:
            raise KeyError("broken")
        if bool((lengths[1:] > lengths[:-1]).any()):
            raise RuntimeError("lengths must be sorted")
        return self.head(torch.relu(self.layer(x)))


def in_batches():
    """Sorted within each, the first points of the first alike, so that finding the layers takes any order of them."""
    orders = [part.argsort(descending=True, stable=True) for part in LENGTHS.split(50)]
    orders[0] = torch.cat([LENGTHS[:50].argmax()[None].expand(4), orders[0][1:-3]])
    return [
        ((x[at], lengths[at]), y[at])
        for x, lengths, y, at in zip(X.split(50), LENGTHS.split(50), Y.split(50), orders, strict=True)
    ]


def plain(given):
    """The same layer without a word on lengths."""
    model = Sorted()
    net = nn.Sequential(model.layer, nn.ReLU(), model.head)
    return layer_spectra(net, [(x, y) for (x, _), y in given], whole=True, **OPTIONS)["1"]


def test_what_it_raises_is_said_once_and_the_layer_is_measured():
    given = in_batches()
    monitor, expected = Monitor(Sorted(), given, **OPTIONS), plain(given)
    with pytest.warns(UserWarning, match="does not run .* in other batches .*RuntimeError: lengths must be") as said:
        found = [monitor.measure(step)["layer.relu"] for step in range(3)]
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    np.testing.assert_allclose(found[2].lfr, expected.lfr, rtol=1e-6)
    with warnings.catch_warnings():  # whoever says so beforehand is told nothing
        warnings.simplefilter("error")
        layer_spectra(Sorted(), given, whole=True, **OPTIONS)


def test_batches_are_not_blamed_where_the_model_runs_on_none():
    model, given = Sorted(), [((x, torch.ones(50)), y) for x, y in zip(X.split(50), Y.split(50), strict=True)]
    monitor = Monitor(model, given, **OPTIONS)
    model.broken = True
    with pytest.warns(UserWarning, match="KeyError: 'broken'; the training continues") as said:
        assert monitor.measure(0) is None
    assert len(said) == 1
    model.broken = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "layer.relu" in monitor.measure(1)
