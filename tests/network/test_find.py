import copy
import inspect
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra, split
from layerfreq.isolation.rng import random_state_kept
from tests.helpers.refusals import Code, refuses


def mlp():
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(inplace=True),
        nn.Linear(16, 3), nn.Softmax(-1),
    )  # fmt: skip


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(4), Block(4))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.left, self.right, self.fc2 = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = F.relu(self.fc1(x))
        return self.fc2(torch.tanh(self.left(x)) + torch.tanh(self.right(x)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, ids, scale=None):
        return self.head(self.encoder(self.embed(ids)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.rnn, self.fc, self.out = nn.LSTM(8, 6, batch_first=batch_first), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.rnn(x if self.batch_first else x.transpose(0, 1))[0]
        return self.out(torch.relu(self.fc(x[:, -1] if self.batch_first else x[-1])))


MODELS = {
    "mlp": (mlp, lambda: torch.randn(9, 8), ["2", "5"]),
    "shared": (Shared, lambda: torch.randn(9, 8), ["act:1", "act:2", "act:3"]),
    "residual": (Residual, lambda: torch.randn(9, 3, 8, 8), ["relu", "layer1.0", "layer1.1"]),
    "functional": (Functional, lambda: torch.randn(9, 8), ["fc1.relu", "right.add"]),
    "attention": (Attention, lambda: {"ids": torch.randint(0, 11, (9, 5))}, ["encoder.layers.0", "encoder.layers.1"]),
    "recurrent": (Recurrent, lambda: torch.randn(9, 5, 8), ["rnn", "fc.relu"]),
}


def run(model, inputs):
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_both_parts_of_every_cut(name):
    make, draw, expected = MODELS[name]
    torch.manual_seed(0)
    model, inputs = make().eval(), draw()
    assert hidden_layers(model, inputs) == expected
    features = layer_features(model, inputs)
    for layer in expected:
        before, after = split(model, layer, inputs)
        value = run(before, inputs)
        assert torch.equal(after(value), run(model, inputs))
        with torch.no_grad():  # as features are found: a recurrent network then takes another kernel
            assert torch.equal(run(before, inputs).flatten(1), features[layer])
    for layer, streamed in layer_features(model, inputs, stream=True):
        assert torch.equal(streamed, features[layer])


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.below, self.tied, self.above = (nn.Linear(8, 8) for _ in range(3))
        self.scale, self.unused = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.below.weight.requires_grad_(False)
        self.net = nn.Sequential(self.above)  # another name of the same parameters

    def forward(self, x):
        x = torch.tanh(self.tied(self.below(x)))
        return self.scale * self.net(self.tied(x)) if x.sum() > -1e9 else x


def test_replayed_parts_own_what_they_use():
    torch.manual_seed(0)
    model, x = Untraceable(), torch.randn(9, 8)
    tied = {"tied.weight", "tied.bias"}
    expected = {"below.weight", "below.bias"} | tied, {"above.weight", "above.bias", "scale"} | tied
    parts = split(model, "tied.tanh", x)
    for part, names in zip((*parts, copy.deepcopy(parts[1])), (*expected, expected[1]), strict=True):
        assert {name.removeprefix("model.") for name, _ in part.named_parameters()} == names
        assert len(list(part.parameters())) == len(names)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["below.weight"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    features = parts[0](x).detach()
    assert torch.equal(parts[1](features), model(x))
    optimizer = torch.optim.SGD(parts[1].parameters(), lr=0.1, weight_decay=0.1)
    parts[1](features).square().mean().backward()
    optimizer.step()
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == expected[1]


def test_inner_branches_are_no_cuts_and_say_why():
    model, x = Functional(), torch.randn(20, 8)
    spectra = layer_spectra(model, x, torch.arange(20) % 2)
    assert list(spectra) == ["fc1.relu", "right.add"]
    assert "another way" in spectra.refused["left.tanh"]
    assert "left.tanh" in repr(spectra)
    with refuses("layer", Code.UNSUPPORTED):
        split(model, "left.tanh", x)
    assert layer_features(model, x, ["left.tanh"])["left.tanh"].shape == (20, 8)


def test_an_input_beside_the_points_that_is_used_above_a_layer_is_why_it_cannot_be_split():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x, edges):
            for f in (self.first, self.second):
                x = torch.relu(f(torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])))
            return self.head(x)

    model, inputs = Graph(), (torch.randn(9, 8), torch.randint(0, 9, (2, 20)))
    assert hidden_layers(model, inputs, whole=True) == ["first.relu", "second.relu"]
    with refuses("layer", Code.UNSUPPORTED, "'first.relu'", "edges"):
        split(model, "first.relu", inputs)
    before, after = split(model, "second.relu", inputs)
    torch.testing.assert_close(after(before(*inputs)), model(*inputs))


def test_what_cannot_be_measured_is_named():
    with pytest.warns(UserWarning, match="first dimension must be the batch"):
        assert hidden_layers(Recurrent(batch_first=False), torch.randn(9, 5, 8)) == ["fc.relu"]
    with refuses("layers", Code.UNKNOWN, "'5'"):
        layer_features(mlp(), torch.randn(4, 8), ["55"])
    with refuses("layers", Code.UNKNOWN):
        layer_features(Shared(), torch.randn(4, 8), ["act"])
    with refuses("model", Code.UNSUPPORTED):
        hidden_layers(nn.Sequential(nn.Linear(8, 3)), torch.randn(4, 8))
    with refuses("inputs", Code.UNSUPPORTED):
        layer_spectra(mlp(), iter([(torch.randn(4, 8), torch.arange(4))]))
    broken = mlp()
    nn.init.constant_(broken[0].weight, float("nan"))
    with refuses("features", Code.NOT_FINITE, "layer '2'"):
        layer_spectra(broken, torch.randn(9, 8), torch.arange(9), layers="2")


def test_wrappers_and_forms_of_input():
    model, x, y = mlp(), torch.randn(40, 8), torch.arange(40) % 3
    expected = layer_spectra(model, x, y, inv_delta=[0.1, 1.0])["5"].lfr
    loader = DataLoader(TensorDataset(x, y), 7, shuffle=True)
    for inputs, targets in ((x.numpy(), y.numpy()), ((x,), y), (loader, None), (list(loader), None)):
        np.testing.assert_allclose(layer_spectra(model, inputs, targets, inv_delta=[0.1, 1.0])["5"].lfr, expected, 1e-5)
    assert hidden_layers(torch.compile(model), x) == ["2", "5"]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.net = mlp()

    def forward(self, x):
        self.calls += 1
        return self.net(x)


def test_measuring_leaves_no_trace():
    model, x, y = Counting(), torch.randn(40, 8), torch.arange(40) % 3
    model.net[3].eval()
    nn.functional.cross_entropy(model(x), y).backward()
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    generators = torch.get_rng_state(), loader.generator.get_state()
    numpy_state = str(np.random.get_state())  # noqa: NPY002
    layer_spectra(model, loader)
    with refuses("layers", Code.UNKNOWN):
        layer_spectra(model, loader, layers="nothing")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(generators[0], torch.get_rng_state())
    assert torch.equal(generators[1], loader.generator.get_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_pythons_random_state_is_put_back():
    # The runtime checks of these tests draw from it themselves, so it is looked at without them.
    kept = contextmanager(inspect.unwrap(random_state_kept))
    before = random.getstate()
    with kept([]):
        random.random()
    assert before == random.getstate()


@pytest.mark.parametrize("when", ["often", 0, -3])
def test_bad_schedules(when):
    with refuses("when", Code.VALUE):
        Monitor(mlp(), torch.randn(9, 8), torch.arange(9), when=when)
