"""Models in the styles of public repositories: every cut that a person would name is found, or the true reason said."""

import warnings

import pytest
import torch
from torch import nn

from layerfreq import hidden_layers, layer_features, split
from layerfreq.inspection.modules import inspect_model
from layerfreq.isolation.preserve import untouched
from layerfreq.network.find import find_cuts
from tests.helpers import styles, styles_text
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import D, N, Net, fc, flat, mlp

ALL = [*styles.STYLES, *styles_text.STYLES]


def drawn(style):
    if style.source == "Hugging Face":
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    return style.build(), style.draw()


def found(model, inputs):
    with warnings.catch_warnings(), untouched(model, inputs):
        warnings.simplefilter("ignore")
        return find_cuts(model, inputs)


def test_the_table_is_long_and_names_are_told_apart():
    assert len(ALL) >= 60
    assert len({style.name for style in ALL}) == len(ALL)


@pytest.mark.parametrize("style", ALL, ids=lambda style: style.name)
def test_what_a_person_would_name(style):
    model, inputs = drawn(style)
    if isinstance(style.cuts, str):
        with refuses("model", Code.UNSUPPORTED) as caught:
            found(model, inputs)
        assert style.cuts in str(caught.value)
        return
    cuts = found(model, inputs)
    assert [cut.name for cut in cuts.layers] == style.cuts
    assert set(style.holds) <= set(cuts.refused)


def turned(inputs, order):
    if isinstance(inputs, dict):
        return {key: x[order] for key, x in inputs.items()}
    return tuple(x[order] for x in inputs) if isinstance(inputs, tuple) else inputs[order]


def test_numbers_in_the_head_change_nothing():
    torch.manual_seed(0)
    model, x = styles.Net(styles.inline, fs=styles.many(fc, 4), head=fc(D, 2)), flat()
    expected = hidden_layers(model, x)
    for change in (lambda p: p.fill_(2e4), torch.zero_, lambda p: p.mul_(1e-30), lambda p: p.fill_(float("nan"))):
        with torch.no_grad():
            change(model.head.weight)
            change(model.head.bias)
        assert hidden_layers(model, x) == expected


def test_the_features_of_a_sum_and_of_a_function_are_their_values():
    torch.manual_seed(0)
    model, x = styles.Net(styles.inline, fs=styles.many(fc, 2), head=fc(D, 2)), flat()
    got = layer_features(model, x)
    with torch.no_grad():
        one = x + torch.relu(model.fs[0](x))
        two = one + torch.relu(model.fs[1](one))
    torch.testing.assert_close(got, {"fs.0.add": one, "fs.1.add": two})
    before, after = split(model, "fs.0.add", x)
    assert torch.equal(after(before(x)), model(x))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_the_state_of_a_recurrent_network_is_points_first(kind):
    torch.manual_seed(0)
    model = Net(lambda m, x: m.head(m.state(m.rnn(x)[1])), rnn=kind(D, 6, 2, batch_first=True), head=fc(6, 2))
    model.state = lambda h: (h[0] if isinstance(h, tuple) else h)[-1]
    x = styles_text.sequence()
    with torch.no_grad():
        state = model.rnn(x)[1]
    state = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(layer_features(model, x)["rnn.h_n"], state.transpose(0, 1).flatten(1))
    before, after = split(model, "rnn.h_n", x)
    torch.testing.assert_close(after(before(x)), model(x))


def test_a_model_that_takes_its_points_together_says_so():
    def run(m, x):
        assert len(x) == 12
        return m.head(torch.tanh(m.a(x)))

    model = Net(run, a=fc(), head=fc(D, 2))
    assert hidden_layers(model, torch.randn(12, D)) == ["a.tanh"]
    with refuses("inputs", Code.FAILED):
        hidden_layers(model, flat())


def test_finding_takes_two_passes():
    runs = []
    model = mlp()
    model.register_forward_hook(lambda *_: runs.append(1))
    hidden_layers(model, flat())
    assert len(runs) == 2


def test_inside_inference_mode():
    model, x = nn.Sequential(fc(), nn.Tanh(), fc(D, 2)), flat()
    with torch.inference_mode():
        assert hidden_layers(model, x) == ["1"]
        assert [one.name for one in inspect_model(model, x, N) if not one.reason] == ["1"]
        inside = flat()
        assert [one.name for one in inspect_model(nn.Sequential(fc(), nn.Tanh(), fc(D, 2)), inside, N)
                if not one.reason] == ["1"]  # fmt: skip


def test_splitting_a_model_that_survives_exceptions():
    def run(m, x):
        h = m.a(x)
        try:
            h = m.act(h)
        except Exception:
            h = h * 2
        return m.head(h) if x.sum() > -1e9 else h

    model, x = Net(run, a=fc(), act=nn.Tanh(), head=fc(D, 2)), flat()
    before, after = split(model, "act", x)
    assert torch.equal(after(before(x)), model(x))
