"""The names of functions tell where in the model's code they run, and are the names of nothing else."""

import torch
from torch import nn
from torch.nn import functional as F

from layerfreq import hidden_layers, layer_features
from layerfreq.trace.trace import trace
from tests.helpers.styles import D, Net, fc, flat, image


class First(nn.Module):
    """Activates before it calls any module."""

    def __init__(self):
        super().__init__()
        self.fc = fc()

    def forward(self, x):
        return self.fc(torch.tanh(x))


class Scaled(nn.Module):
    """Has no modules, but parameters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(D))

    def forward(self, x):
        return torch.tanh(x * self.scale) * 2


def names(model, inputs):
    return [value.name for value in trace(model, inputs).values if value.module is None]


def test_a_function_is_named_after_the_module_before_it_in_the_same_forward():
    model = Net(lambda m, x: m.head(torch.tanh(m.body(m.stem(x)))), stem=fc(), body=First(), head=fc(D, 2))
    assert names(model, flat()) == ["body.forward.tanh", "body.tanh"]
    model = Net(lambda m, x: m.out(m.body(torch.sin(x))), body=nn.Sequential(fc(), First(), First()), out=fc(D, 2))
    assert names(model, flat()) == ["sin", "body.1.forward.tanh", "body.2.forward.tanh"]
    model = Net(lambda m, x: m.out(m.body(m.body(torch.sin(m.stem(x))))), stem=fc(), body=First(), out=fc(D, 2))
    assert names(model, flat()) == ["stem.sin", "body.forward.tanh:1", "body.forward.tanh:2"]
    model = Net(lambda m, x: m.out(m.body(m.stem(x)) * 3), stem=fc(), body=Scaled(), out=fc(D, 2))
    assert names(model, flat()) == ["body.forward.mul:1", "body.forward.tanh", "body.forward.mul:2", "body.mul"]


def test_no_function_has_the_name_of_a_module():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.tanh, self.out = fc(), First(), fc(D, 2)

        def forward(self, x):
            x = x / x.norm(dim=1, keepdim=True)
            return self.out(torch.tanh(self.tanh(torch.tanh(self.norm(x)))))

    model, x = Net(lambda m, x: m.head(torch.tanh(m.body(x))), body=Normed(), head=nn.Linear(2, 2)), flat()
    found = names(model, x)
    assert found == [
        "body.forward.norm", "body.forward.div", "body.norm.tanh", "body.tanh.forward.tanh", "body.tanh.tanh",
        "forward.tanh",
    ]  # fmt: skip
    assert not set(found) & {name for name, _ in model.named_modules()}
    assert hidden_layers(model, x) == ["body.tanh.forward.tanh", "body.tanh.tanh", "forward.tanh"]


def test_the_cuts_of_blocks_that_begin_with_an_activation():
    def run(m, x):
        x = m.stem(x)
        for block in m.blocks:
            x = block(x)
        return m.head(F.relu(x).mean((2, 3)))

    def block():
        return Net(lambda m, x: m.conv(F.relu(x)), conv=nn.Conv2d(3, 3, 3, padding=1))

    model = Net(run, stem=nn.Conv2d(3, 3, 1), blocks=nn.ModuleList([block(), block()]), head=nn.Linear(3, 2))
    x = image()
    cuts = ["blocks.0.forward.relu", "blocks.1.forward.relu", "blocks.1.relu"]
    assert hidden_layers(model, x) == cuts
    found = layer_features(model, x, cuts)
    with torch.no_grad():
        x = model.stem(x)
        for name, module in zip(cuts, model.blocks, strict=False):
            torch.testing.assert_close(found[name], F.relu(x).flatten(1))
            x = module(x)
        torch.testing.assert_close(found[cuts[2]], F.relu(x).flatten(1))
