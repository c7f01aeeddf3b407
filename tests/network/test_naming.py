"""Layers named by name, pattern, number or module are the same layers, from every way in."""

import pytest
import torch
from torch import nn

from layerfreq import InputError, Monitor, hidden_layers, layer_features, layer_spectra, split
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
GRID = {"inv_delta": [0.1, 1.0, 10.0], "engine": "reference"}


class Network(nn.Module):
    """Three hidden layers, one of them in a list; a module beside the way, and one that is never called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2))
        self.idle, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(scope="module")
def model():
    return Network()


@pytest.fixture(scope="module")
def hidden(model):
    return hidden_layers(model, X)


def test_the_network_has_three_hidden_layers(hidden):
    assert len(hidden) == 3


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("*", [0, 1, 2]),
        ("blocks.*", [1, 2]),
        (["blocks.[1]*", "stem*"], [2, 0]),
        (0, [0]),
        ([-1, 0], [2, 0]),
        ([0, "stem*", "*"], [0, 1, 2]),
    ],
    ids=str,
)
def test_patterns_and_numbers_choose_among_the_hidden_layers(model, hidden, layers, expected):
    assert list(layer_features(model, X, layers)) == [hidden[i] for i in expected]


def test_every_way_in_takes_them(model, hidden):
    assert list(layer_spectra(model, X, Y, [0, "blocks.1*"], **GRID)) == [hidden[0], hidden[2]]
    with Monitor(model, X, Y, layers=-1, **GRID) as monitor:
        assert monitor.layers == hidden[-1:]
        assert list(monitor.measure(0)) == hidden[-1:]


def test_modules_are_found_in_the_model(model):
    one, other = model.blocks[0], model.stem[0]
    found = layer_features(model, X, [one, other])
    assert list(found) == ["blocks.0", "stem.0"]
    torch.testing.assert_close(found["stem.0"], other(X).detach(), check_stride=False)
    assert list(layer_features(model, X, model.stem)) == ["stem"]
    assert list(layer_features(model, X, model.blocks)) == ["blocks.0", "blocks.1"]


def test_a_pattern_that_matches_no_hidden_layer_stands_for_any_it_matches(model):
    """What comes out of a Linear is no cut of its own accord."""
    assert list(layer_features(model, X, "*.0.0")) == ["blocks.0.0"]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (3, ("layers", Code.UNKNOWN)),
        (-4, ("layers", Code.UNKNOWN)),
        ("block.*", ("layers", Code.UNKNOWN)),
        ("stem.9", ("layers", Code.UNKNOWN)),
        (nn.ReLU(), ("layers", Code.UNKNOWN)),
        ("idle", ("layers", Code.UNKNOWN)),
        (True, ("layers", Code.VALUE)),
        ([1.0], ("layers", Code.VALUE)),
        ([], ("layers", Code.VALUE)),
    ],
    ids=str,
)
def test_what_there_is_not_is_one_line(model, layers, said):
    from jaxtyping import config

    config.update("jaxtyping_disable", True)  # which refuses some of them before
    try:
        with refuses(*said):
            layer_features(model, X, layers)
    finally:
        config.update("jaxtyping_disable", False)


def test_the_whole_model_is_no_layer_of_itself(model):
    with refuses("layers", Code.UNKNOWN):
        layer_features(model, X, model)


class Copies(nn.Module):
    """Copies its inputs, and writes into them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        copy = x.clone()
        x.mul_(2)
        return self.head(torch.tanh(self.stem(copy + x)))


@pytest.mark.parametrize("gradients", [False, True])
def test_copies_made_for_measuring_are_none_of_the_models_calls(monkeypatch, gradients):
    model, before = Copies(), X.clone()
    if gradients:  # a model that differentiates inside its forward

        def forward(x):
            return Copies.forward(model, x) + torch.autograd.grad(x.square().sum(), x, create_graph=True)[0][:, :2]

        monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(InputError, match="'nope'") as failed:
        layer_features(model, X, ["nope"])
    assert str(failed.value).split("known are: ")[1].split(", ")[:3] == ["clone", "mul", "add"]
    features = layer_features(model, X, ["clone", "add", "stem"])
    torch.testing.assert_close(features["clone"], before, rtol=0, atol=0)
    torch.testing.assert_close(features["add"], 3 * before, rtol=0, atol=0)
    torch.testing.assert_close(features["stem"], model.stem(3 * before).detach())
    assert torch.equal(X, before)
    if not gradients:
        lower, upper = split(model, "add", X)
        torch.testing.assert_close(upper(lower(before.clone())), model(before.clone()), rtol=0, atol=0)
