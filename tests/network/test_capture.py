"""A cut is the same place of the model in every batch, or an error says that it is not."""

import pytest
import torch
from torch import nn

from layerfreq import doctor, hidden_layers, layer_features, layer_spectra, split
from layerfreq.errors import LayerWarning, Refusal
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import D, Net, fc, many


def steps(m, x):
    h = torch.zeros(len(x), D)
    for t in range(x.shape[1]):
        h = m.cell(x[:, t], h)
    return m.head(h)


def written_out(m, x):
    h = torch.zeros(len(x), D)
    for t in range(x.shape[1]):
        h = torch.tanh(m.f(x[:, t]) + m.g(h))
    return m.head(h)


LOOPS = {
    "a cell": (Net(steps, cell=nn.GRUCell(D, D), head=fc(D, 2)), "cell:4"),
    "a sum and a function": (Net(written_out, f=fc(), g=fc(), head=fc(D, 2)), "g.tanh:4"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_over_batches_of_other_lengths(name):
    model, last = LOOPS[name]
    batches = [(torch.randn(6, t, D), torch.arange(6) % 2) for t in (4, 4, 7)]
    assert hidden_layers(model, batches) == [last]
    one, two, longer = (x for x, _ in batches)
    expected = torch.cat([layer_features(model, x)[last] for x in (one, two)])
    torch.testing.assert_close(layer_features(model, batches[:2])[last], expected)
    for layers in (None, last):
        with refuses("layer", Code.UNSUPPORTED, last, "'head'", Refusal.UNSURE.long):
            layer_features(model, batches, layers)
        with refuses("layer", Code.UNSUPPORTED, last):
            layer_spectra(model, batches, layers=layers)
    with refuses("layer", Code.UNSUPPORTED, last):  # shorter
        layer_features(model, [batches[0], (one[:, :2], batches[0][1])], last)
    before, after = split(model, last, one)
    assert torch.equal(after(before(two)), model(two))
    with refuses("layer", Code.UNSUPPORTED, last):
        before(longer)
    with refuses("layer", Code.UNSUPPORTED, last):
        before(one[:, :2])


def test_what_is_read_is_what_was_returned_though_the_next_step_writes_into_it():
    def run(m, x):
        x = torch.tanh(m.f(x))
        x = torch.tanh(m.g(x))
        return m.head(x.mul_(3))

    model, x = Net(run, f=fc(), g=nn.Identity(), head=fc(D, 2)), torch.randn(9, D)
    with torch.no_grad():
        first = torch.tanh(model.f(x))
    for layers in (None, "g.tanh"):
        torch.testing.assert_close(layer_features(model, x, layers)["g.tanh"], torch.tanh(first))
    model.g = model.f  # called twice
    with torch.no_grad():
        first = torch.tanh(model.f(x))
        second = torch.tanh(model.f(first))
    found = layer_features(model, x)
    torch.testing.assert_close(found, {"f.tanh:1": first, "f.tanh:2": second})
    torch.testing.assert_close(layer_features(model, x, "f.tanh:2")["f.tanh:2"], second)


def experts(m, x):
    h, out = torch.relu(m.stem(x)), torch.zeros_like(x)
    best = h.argmax(-1) % len(m.experts)
    for k in best.unique().tolist():
        out[best == k] = torch.tanh(m.experts[k](h[best == k]))
    return m.head(out)


def mixture():
    model = Net(experts, stem=fc(), experts=many(fc, 4), head=fc(D, 2))
    nn.init.eye_(model.stem.weight)
    nn.init.zeros_(model.stem.bias)
    return model


def test_a_function_after_an_expert():
    model, x = mixture(), 10 * torch.eye(D).repeat(8, 1) + torch.rand(64, D)
    assert hidden_layers(model, x) == ["stem.relu", "experts.3.setitem"]
    with torch.no_grad():
        h = torch.relu(model.stem(x))
        expected = torch.stack([torch.tanh(model.experts[int(row.argmax()) % 4](row)) for row in h])
    torch.testing.assert_close(layer_features(model, x)["experts.3.setitem"], expected)
    before, after = split(model, "experts.3.setitem", x)
    torch.testing.assert_close(after(before(x)), model(x))
    few = x[x.argmax(-1) % 4 < 3]
    with refuses("layer", Code.UNSUPPORTED, "experts.3.setitem"):  # that no point of the last batch reaches
        layer_features(model, [(x, None), (few, None)])
    with refuses("layer", Code.UNSUPPORTED, "experts.3.setitem"):
        before(few)
    with refuses("layer", Code.UNSUPPORTED, "experts.3.setitem"):  # two points stand in for two
        after(before(x)[:2])


def test_a_function_after_an_expert_where_others_were_not_reached():
    model = mixture()
    x = 10 * torch.eye(D)[[0, 1, 4, 5]].repeat(16, 1) + torch.rand(64, D)
    with pytest.warns(LayerWarning, match=r"'experts.1.setitem' cannot be measured: .* depends on the batch"):
        assert hidden_layers(model, x) == ["stem.relu"]
    assert doctor(model, x).refused["experts.1.setitem"] == Refusal.UNSURE.short
    with refuses("layer", Code.UNSUPPORTED, "experts.1.setitem"):
        layer_features(model, x, "experts.1.setitem")


def test_a_list_of_which_a_part_is_used_is_no_mixture():
    model = Net(lambda m, x: m.head(torch.tanh(m.fs[1](torch.tanh(m.fs[0](x))))), fs=many(fc, 4), head=fc(D, 2))
    assert hidden_layers(model, torch.randn(64, D)) == ["fs.0.tanh", "fs.1.tanh"]
