"""Tensors on an accelerator are compared together: what changes is put back all the same, bit for bit."""

import pytest
import torch
from torch import nn

from layerfreq.isolation import numbers
from layerfreq.isolation.preserve import untouched


class Restless(nn.Module):
    """Tensors of many kinds, some of which a forward pass changes."""

    def __init__(self, changes):
        super().__init__()
        self.changes = changes
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(3, k)) for k in range(6)])
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.conv, self.norm = conv, nn.BatchNorm1d(3)
        self.odd = nn.Parameter(torch.tensor([0.0, -0.0, float("nan"), float("inf")]).half())
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("turn", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("view", torch.arange(12.0).view(3, 4).T)
        self.register_buffer("single", torch.tensor(3))

    def forward(self, x):
        with torch.no_grad():
            for name in self.changes:
                value = self.get_parameter(name) if name in dict(self.named_parameters()) else self.get_buffer(name)
                value.copy_(~value if value.dtype == torch.bool else -value)
        return self.norm(x)


def bits(model):
    return {name: value.detach().clone() for name, value in model.state_dict(keep_vars=True).items()}


def same(a, b):
    raw = [torch.view_as_real(t) if t.is_complex() else t for t in (a, b)]
    return raw[0].dtype == raw[1].dtype and raw[0].numpy().tobytes() == raw[1].numpy().tobytes()


CHANGES = [
    [],
    ["weights.3"],
    ["odd"],
    ["mask", "single"],
    ["turn"],
    ["view", "conv.weight"],
    ["weights.1", "norm.bias"],
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda names: "+".join(names) or "none")
@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_all_is_put_back(changes, piece, monkeypatch):
    monkeypatch.setattr(numbers, "HOST", ())
    monkeypatch.setattr(numbers, "PIECE", piece)
    model = Restless(changes)
    before = bits(model)
    with untouched(model):
        model(torch.randn(4, 3))
        changed = {name for name, value in bits(model).items() if not same(value, before[name])}
    assert changed == set(changes)
    after = bits(model)
    assert all(same(after[name], before[name]) for name in before)


def test_comparing_waits_once_for_each_dtype_not_for_each_tensor(monkeypatch):
    monkeypatch.setattr(numbers, "HOST", ())
    model, equal, calls = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20))), torch.equal, []
    monkeypatch.setattr(torch, "equal", lambda *pair: calls.append(pair) or equal(*pair))
    with untouched(model):
        model(torch.randn(2, 4))
    assert len(calls) == 1
