"""What the layers above read of tokens, against what the model's code says."""

import warnings

import pytest
import torch
from torch import nn

from layerfreq import layer_features, layer_spectra
from layerfreq.errors import LayerWarning
from layerfreq.network.reading import axis_in
from layerfreq.trace.above import read_above
from layerfreq.trace.trace import trace
from tests.helpers.styles import Net

N, T, D = 12, 5, 6
X, Y = torch.randn(N, T, D), torch.arange(N) % 3


def tokens(head, **more):
    """Tokens behind an activation, and a head that reads them somehow."""
    return Net(
        lambda m, x: m.out(head(m, m.act(m.fc(x)))), fc=nn.Linear(D, D), act=nn.GELU(), out=nn.Linear(D, 2), **more
    )


NORM = {"norm": nn.LayerNorm(D)}
FIRST = {
    "x[:, 0]": tokens(lambda m, x: x[:, 0]),
    "norm, then x[:, 0]": tokens(lambda m, x: m.norm(x)[:, 0], **NORM),
    "x[:, 0], then norm": tokens(lambda m, x: m.norm(x[:, 0]), **NORM),
    "x[:, :1].squeeze(1)": tokens(lambda m, x: x[:, :1].squeeze(1)),
    "tokens first": tokens(lambda m, x: x.transpose(0, 1)[0]),
    "of a part": tokens(lambda m, x: x[:, :3][:, 0]),
    "unbind": tokens(lambda m, x: x.select(1, -T)),
}
LAST = {
    "x[:, -1]": tokens(lambda m, x: x[:, -1]),
    "dropout, then x[:, -1]": tokens(lambda m, x: m.drop(x)[:, -1], drop=nn.Dropout()),
    "scaled, of a part": tokens(lambda m, x: (2 * x)[:, 2:][:, -1]),
}
MEAN = {
    "mean": tokens(lambda m, x: x.mean(1)),
    "mean after a norm": tokens(lambda m, x: m.norm(x).mean(1), **NORM),
    "sum": tokens(lambda m, x: x.sum(dim=1) / T),
    "pooling": tokens(lambda m, x: m.pool(x.transpose(1, 2)).flatten(1), pool=nn.AdaptiveAvgPool1d(1)),
}
MAX = {"amax": tokens(lambda m, x: x.amax(1))}
PATCHES = {"x[:, 1:].mean(1)": tokens(lambda m, x: x[:, 1:].mean(1))}
ALL = {
    "a head for every token": tokens(lambda m, x: x),
    "a token and the mean": tokens(lambda m, x: x[:, 0] + x.mean(1)),
    "a mean over features": tokens(lambda m, x: x + x.mean(-1, keepdim=True)),
    "all by slices": tokens(lambda m, x: x[:, 0:T].reshape(-1, T, D).flip(1).cumsum(1)[:, 0]),
}


def above(model, name="act"):
    found = trace(model, X)
    value = found.by_name[name]
    return read_above(value, found, axis_in(value, found))


@pytest.mark.parametrize(
    ("heads", "read", "pooled"),
    [(FIRST, (0,), ""), (LAST, (T - 1,), ""), (PATCHES, (1, 2, 3, 4), ""), (MEAN, (), "mean"), (MAX, (), "max")],
)
def test_the_tokens_that_a_head_reads(heads, read, pooled):
    for name, model in heads.items():
        got = above(model)
        assert got is not None, name
        assert (got.tokens, got.pooled, got.of) == (read, pooled, T), name


def test_a_head_that_reads_all_tokens_or_what_cannot_be_told():
    for name, model in ALL.items():
        assert above(model) is None, name
    there = torch.tensor([0, 2])
    for head in (lambda m, x: x[:, there].flatten(1)[:, :D], lambda m, x: x[..., : D // 2].flatten(1)[:, :D]):
        assert above(tokens(head)).tokens == ()


@pytest.mark.parametrize(
    ("head", "single"),
    [
        (lambda m, x: x[torch.arange(len(x)), torch.arange(len(x)) % T], True),
        (lambda m, x: x.gather(1, (torch.arange(len(x)) % T)[:, None, None].expand(-1, 1, D)).squeeze(1), True),
        (lambda m, x: x[(torch.arange(T) > 0).expand(len(x), -1)].reshape(len(x), T - 1, D).mean(1), False),
    ],
)
def test_one_token_of_each_point_that_an_index_chooses(head, single):
    model = tokens(head)
    assert above(model).single is single
    for reading in READINGS:
        assert bool(told(model, reading)) is (reading == "flatten" or (single and reading not in ("cls", "last")))


def test_channels_before_positions():
    def run(m, x):
        return m.out(torch.relu(m.conv(x.transpose(1, 2)))[:, :, -1])

    model = Net(run, conv=nn.Conv1d(D, 4, 1), out=nn.Linear(4, 2))
    assert above(model, "conv.relu").tokens == (T - 1,)
    with pytest.warns(LayerWarning, match=r"reading={'conv.relu': 'last'} measures that alone"):
        layer_features(model, X, reading="mean")


def told(model, reading, layers=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer_spectra(model, X, Y, layers, reading=reading, inv_delta=[0.1, 1.0])
    return [str(one.message) for one in caught if one.category is LayerWarning]


READINGS = ("flatten", "mean", "max", "cls", "last", "positions")


@pytest.mark.parametrize(
    ("heads", "silent"),
    [
        (FIRST, {"cls"}),
        (LAST, {"last"}),
        (PATCHES, set()),
        (MEAN, {"mean", "flatten", "positions"}),
        (MAX, {"max", "flatten", "positions"}),
        (ALL, set(READINGS)),
    ],
)
def test_a_reading_of_something_else_than_what_is_read_above_is_told(heads, silent):
    model = next(iter(heads.values()))
    for reading in READINGS:
        hints = told(model, reading)
        assert bool(hints) is (reading not in silent), reading
        assert bool(told(model, reading, ["act"])) is (reading not in {*silent, "flatten"})


@pytest.mark.parametrize("heads", [FIRST, LAST, PATCHES, MEAN, MAX])
def test_the_advice_measures_what_the_head_reads(heads):
    for name, model in heads.items():
        (hint,) = told(model, "last" if heads is not LAST else "cls")
        reading = eval(hint.partition("reading=")[2].rpartition(" measures")[0])
        assert not told(model, reading), name
        with torch.no_grad():
            value = model.act(model.fc(X))
        read = {"first": value[:, 0], "last": value[:, -1], "patches": value[:, 1:], "mean": value.mean(1)}
        kind = {id(FIRST): "first", id(LAST): "last", id(PATCHES): "patches", id(MEAN): "mean"}.get(id(heads))
        expected = value.amax(1) if kind is None else read[kind]
        torch.testing.assert_close(layer_features(model, X, reading=reading)["act"], expected.flatten(1))
