"""Readings of texts with padding, of one token, and by a function, against plain indexing."""

import sys
import warnings

import pytest
import torch
from torch import nn

from layerfreq import hidden_layers, layer_features, layer_spectra
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import D, N, Net, fc
from tests.helpers.styles_text import LENGTHS, T, encoder, sequence, there

LEFT = there().flip(1)


class Encoder(nn.Module):
    def __init__(self, read=None):
        super().__init__()
        self.body, self.head, self.read = encoder(), fc(D, 2), read or (lambda h: h.mean(1))

    def forward(self, x, attention_mask=None, padding_mask=None):
        padding = padding_mask if attention_mask is None else attention_mask == 0
        return self.head(self.read(self.body(x, src_key_padding_mask=padding)))


def value_of(model, inputs):
    found = []
    handle = model.body.layers[1].register_forward_hook(lambda m, a, out: found.append(out))
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        model.eval()(**inputs)
    torch.backends.mha.set_fastpath_enabled(before)
    handle.remove()
    return found[0]


def one_by_one(value, mask, reading):
    """By the definitions, a text at a time, from the tokens that are there."""
    rows = []
    for h, kept in zip(value, mask.bool(), strict=True):
        tokens = h[kept]
        rows.append({"mean": tokens.mean(0), "max": tokens.max(0).values, "last": tokens[-1], "cls": h[0]}[reading])
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reading", ["mean", "max", "cls", "last"])
@pytest.mark.parametrize(
    "masks",
    [{"attention_mask": there()}, {"attention_mask": LEFT}, {"attention_mask": there().bool()},
     {"attention_mask": there().float()}, {"padding_mask": there() == 0}],
    ids=["right", "left", "truth", "floats", "padding"],
)  # fmt: skip
def test_padding_is_left_out(reading, masks):
    torch.manual_seed(0)
    model, inputs = Encoder(), {"x": sequence(), **masks}
    mask = next(iter(masks.values())) if "attention_mask" in masks else ~masks["padding_mask"]
    expected = one_by_one(value_of(model, inputs), mask, reading)
    name = "body.layers.1"
    got = layer_features(model, inputs, name, reading=reading)[name]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    if "attention_mask" in masks:  # by position too: forward's own names say what is a mask
        torch.testing.assert_close(layer_features(model, tuple(inputs.values()), name, reading=reading)[name], got)
    batches = [({key: x[at : at + 4] for key, x in inputs.items()}, torch.zeros(len(x[at : at + 4])))
               for x in [inputs["x"]] for at in range(0, N, 4)]  # fmt: skip
    torch.testing.assert_close(layer_features(model, batches, name, reading={name: reading})[name], got)


@pytest.mark.filterwarnings("ignore")
def test_what_padding_holds_changes_no_mean():
    torch.manual_seed(0)
    model, x, name = Encoder(), sequence(), "body.layers.1"
    other = torch.where(there().bool()[..., None], x, torch.full(x.shape, 7.0))
    got = [layer_features(model, {"x": z, "attention_mask": there()}, name, reading="mean")[name] for z in (x, other)]
    torch.testing.assert_close(*got, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_function_reads():
    torch.manual_seed(0)
    model, x, name = Encoder(), sequence(), "body.layers.1"
    value = value_of(model, {"x": x})

    def first_two(h):
        return h[:, :2]

    torch.testing.assert_close(layer_features(model, x, name, reading=first_two)[name], value[:, :2].flatten(1))
    spectra = layer_spectra(model, x, torch.arange(N) % 3, reading={name: first_two}, inv_delta=[0.1])
    assert (spectra[name].d, spectra["body.layers.0"].d) == (2 * D, T * D)
    for bad in (lambda h: h.mean(), lambda h: h.argmax(-1)):
        with refuses("reading", Code.SHAPE, f"layer {name!r}"):
            layer_features(model, x, name, reading=bad)
    for bad in (lambda h: h.no, lambda h: sys.exit(3)):
        with refuses("reading", Code.FAILED, f"layer {name!r}"):
            layer_features(model, x, name, reading=bad)


def test_a_head_that_reads_one_token_is_told_of():
    x = sequence()
    with pytest.warns(UserWarning, match=r"layer 'body.layers.1': what is above reads a part of it"):
        hidden_layers(Encoder(lambda h: h[:, 0]), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hidden_layers(Encoder(), x)


@pytest.mark.parametrize(
    ("inputs", "reading", "words"),
    [
        (
            {"x": torch.randn(N, T, D), "attention_mask": there() * (LENGTHS != 2).long()[:, None]},
            "last",
            ("reading", Code.EMPTY),
        ),
        (torch.randn(N, T, D), "middle", ("reading", Code.UNKNOWN)),
    ],
)
def test_what_cannot_be_read(inputs, reading, words):
    with refuses(*words):
        layer_features(Encoder(), inputs, "body.layers.1", reading=reading)


def test_one_token_of_pixels_is_refused():
    model = Net(lambda m, x: m.head(torch.relu(m.conv(x)).flatten(1)), conv=nn.Conv2d(3, 4, 3), head=nn.LazyLinear(2))
    model(torch.randn(N, 3, 6, 6))
    with refuses("reading", Code.UNSUPPORTED, "layer 'conv.relu'", "'cls'"):
        layer_features(model, torch.randn(N, 3, 6, 6), reading="cls")
