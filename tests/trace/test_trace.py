"""A trace of few points shows all of a model that points can reach."""

import warnings

import pytest
import torch
from torch import nn

from layerfreq import doctor, hidden_layers, layer_features, layer_spectra, split
from layerfreq.errors import LayerWarning, Refusal
from layerfreq.trace.trace import PROBE, PROBE_OF_EXPERTS, trace
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import D, Net, fc, many


class Experts(nn.Module):
    """Sends every point to the experts that `choose` names, (n, k) of them, as large models do."""

    def __init__(self, n, choose):
        super().__init__()
        self.experts, self.choose = many(lambda: nn.Sequential(fc(), nn.SiLU(), fc()), n), choose

    def forward(self, x):
        chosen, out = self.choose(x), torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows = torch.where((chosen == k).any(1))[0]
            if len(rows):
                out[rows] = out[rows] + expert(x[rows])
        return out


def mixture(n, choose):
    return Net(lambda m, x: m.head(m.mix(torch.relu(m.stem(x)))), stem=fc(), mix=Experts(n, choose), head=fc(D, 2))


def by_size(n, k=1):
    """The k experts after the one that the size of a point's largest feature names."""
    return lambda x: (x.argmax(1)[:, None] + torch.arange(k)) % n


def points(n=64):
    """Each n-th point is largest in the n-th feature, behind the stem, which is the identity here."""
    return 10 * torch.eye(D).repeat_interleave(8, dim=0)[:n] + torch.rand(n, D)


def straight(model):
    nn.init.eye_(model.stem.weight)
    nn.init.zeros_(model.stem.bias)
    return model


@pytest.mark.parametrize("k", [1, 2])
def test_experts_that_few_points_do_not_reach(k):
    model, x = straight(mixture(4, by_size(4, k))), points()
    got = trace(model, x)
    reached = {(i // 8 + j) % 4 for i in range(PROBE_OF_EXPERTS) for j in range(k)}
    assert reached == {0, 1, 2, 3}
    assert {v.name for v in got.values if v.name.count(".") == 2 and v.module is not None} == {
        f"mix.experts.{i}" for i in reached
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerWarning)
        found = layer_spectra(model, x, torch.arange(64) % 3, inv_delta=[0.1, 1.0])
    assert list(found) == ["stem.relu", "mix"]
    experts = {name: reason for name, reason in found.refused.items() if "experts" in name}
    assert set(experts.values()) == {Refusal.ROUTED.long}
    assert {name.removeprefix("mix.experts.")[0] for name in experts} == {"0", "1", "2", "3"}
    with torch.no_grad():
        value = model.mix(torch.relu(model.stem(x)))
    torch.testing.assert_close(layer_features(model, x)["mix"], value)
    before, after = split(model, "mix", x)
    assert torch.equal(after(before(x)), model(x))
    with refuses("layer", Code.UNSUPPORTED, "mix.experts.1"):
        layer_features(model, x, "mix.experts.1")


def test_experts_that_no_point_reaches_are_not_called():
    model, x = straight(mixture(8, by_size(8))), points()
    refused = doctor(model, x).refused
    assert {refused[f"mix.experts.{i}"] for i in range(4)} == {Refusal.ROUTED.short}
    assert {refused[f"mix.experts.{i}"] for i in range(4, 8)} == {Refusal.NOT_CALLED.short}


def test_more_points_are_taken_only_if_they_reach_more():
    sizes = []

    def run(m, x):
        sizes.append(len(x))
        return m.head(torch.tanh(m.fs[0](x)))

    x = points()
    for model, taken in [
        (Net(run, fs=many(fc, 1), head=fc(D, 2)), [PROBE, 3]),  # no experts
        (Net(run, fs=nn.ModuleList([fc(), nn.Tanh()]), head=fc(D, 2)), [PROBE, 3]),  # of another kind
        (Net(run, fs=many(fc, 2), head=fc(D, 2)), [PROBE, PROBE_OF_EXPERTS, 3]),  # never called
    ]:
        sizes.clear()
        assert hidden_layers(model, x) == ["fs.0.tanh"]
        assert sizes == taken


def test_rows_that_inputs_choose_are_not_those_of_experts():
    def run(m, x, edges):
        messages = torch.relu(m.msg(x[edges[0]]))
        return m.head(torch.tanh(m.f(torch.zeros_like(x).index_add(0, edges[1], messages))))

    model, edges = Net(run, msg=fc(), f=fc(), head=fc(D, 2)), torch.randint(0, 9, (2, 20))
    with pytest.warns(LayerWarning, match="run on 9 points it returns .* not a row for each"):
        assert hidden_layers(model, (torch.randn(9, D), edges), whole=True) == ["f.tanh"]
