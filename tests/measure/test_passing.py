"""Several batches pass by drawn filter centres that are run first: the spectra of held features, in one pass."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from layerfreq.network.extract import Buffer
from layerfreq.network.pieces import Pieces, _spread
from tests.helpers.refusals import Code, refuses

N, SIZE, ROWS = 150, 32, 40
RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, 8, 8, generator=RANDOM)
Y = (X.mean(dim=(1, 2, 3)) > 0).long() + 2 * (X[:, 0, 0, 0] > 0).long()
TOKENS = torch.randint(50, (N, 40), generator=RANDOM)
GRID = np.geomspace(1e-4, 10, 9)
LONG = 10**9


class Convolutions(nn.Module):
    """Layers of 4,096, 4,096 and 20 numbers, the first a function that writes into its argument."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()
        self.third, self.last, self.out = nn.Linear(4096, 20), nn.Tanh(), nn.Linear(20, 4)

    def forward(self, x):
        x = torch.relu_(self.first(x))
        return self.out(self.last(self.third(self.act(self.second(x)).flatten(1))))


class Recurrent(nn.Module):
    """States of 40 steps."""

    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.out = nn.Embedding(50, 8), nn.GRU(8, 64, batch_first=True), nn.Linear(2560, 4)

    def forward(self, tokens):
        return self.out(self.cell(self.embed(tokens))[0].flatten(1))


class Encoder(nn.Module):
    """Two blocks of attention over 40 tokens, called by name, with a mask."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(50, 64), nn.Linear(2560, 4)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(64, 2, 64, 0.1, batch_first=True) for _ in range(2))

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        return self.out(x.flatten(1))


def made(kind):
    torch.manual_seed(0)
    if kind == "linear":
        layers = [nn.Flatten(), nn.Linear(192, 2100), nn.ReLU(), nn.Linear(2100, 2100), nn.Tanh(), nn.Linear(2100, 4)]
        return nn.Sequential(*layers), X
    if kind == "convolutions":
        return Convolutions(), X
    if kind == "recurrent":
        return Recurrent(), TOKENS
    mask = (torch.arange(40) < 20 + torch.arange(N)[:, None] % 20).long()
    return Encoder(), {"input_ids": TOKENS, "attention_mask": mask}


def in_batches(x, y=Y, size=SIZE):
    """A list of batches, the last one smaller."""
    cut = {k: v.split(size) for k, v in x.items()} if isinstance(x, dict) else x.split(size)
    parts = (
        [dict(zip(cut, some, strict=True)) for some in zip(*cut.values(), strict=True)] if isinstance(x, dict) else cut
    )
    return list(zip(parts, y.split(size), strict=True))


@pytest.fixture
def held(monkeypatch):
    """Widths of features that are held, batch by batch."""
    seen, put = [], Buffer.put
    monkeypatch.setattr(Buffer, "put", lambda self, part, n: seen.append(part.shape[1]) or put(self, part, n))
    return seen


def runs(model):
    """Points of each run of a model."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, named: seen.append(len([*args, *named.values()][0])), with_kwargs=True
    )
    return seen


def as_held(model, x, **options):
    """Spectra of features that are held, computed in the batches that the data come in."""
    features = layer_features(model, in_batches(x))
    return {name: spectrum(one, Y, engine="cpu", **options) for name, one in features.items()}


def close(one, exact):
    np.testing.assert_allclose(one.inv_delta, exact.inv_delta, rtol=1e-5)
    for curve in ("lfr", "chance"):
        np.testing.assert_allclose(getattr(one, curve), getattr(exact, curve), atol=1e-6)
    np.testing.assert_allclose(one.stderr, exact.stderr, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(one.rdf * one.inv_delta, exact.rdf * exact.inv_delta, atol=2e-6)
    assert (one.n, one.d, one.rows, one.scale, one.engine) == (exact.n, exact.d, exact.rows, exact.scale, exact.engine)
    assert one.spread == pytest.approx(exact.spread, rel=1e-6)
    assert one.coincident == exact.coincident


@pytest.mark.parametrize("kind", ["linear", "convolutions", "recurrent", "encoder"])
@pytest.mark.parametrize(
    "options", [{"rows": ROWS}, {"rows": 7, "inv_delta": GRID, "scale": "rms"}], ids=["own", "grid"]
)
@pytest.mark.filterwarnings("ignore:rows=7", "ignore:.*changes a (list|count)")
def test_spectra_are_those_of_held_features_in_one_pass_that_holds_nothing_wide(kind, options, held):
    model, x = made(kind)
    seen = runs(model)
    found = layer_spectra(model, in_batches(x), engine="cpu", **options)
    assert {width for width in held if width >= 2048} == set()
    assert 0 < sum(n for n in seen if n > 4) - N <= 3  # beside looks at four points: every point once, a few again
    exact = as_held(model, x, **options)
    assert list(found) == list(exact)
    for name in exact:
        close(found[name], exact[name])


class Numbers(IterableDataset):
    def __iter__(self):
        return iter(list(zip(X, Y, strict=True)))


def test_every_kind_of_loader_and_points_in_one_piece_pass_by(held, monkeypatch):
    model = made("convolutions")[0]
    exact, data = as_held(model, X, rows=ROWS), TensorDataset(X, Y)
    del held[:]
    loaders = {
        "loader": DataLoader(data, batch_size=SIZE),
        "shuffling": DataLoader(data, batch_size=SIZE, shuffle=True),
        "iterable": DataLoader(Numbers(), batch_size=SIZE),
        "tuples": [((x,), y) for x, y in in_batches(X)],
        "more at a time": DataLoader(data, batch_size=70),
    }
    monkeypatch.setattr("layerfreq.network.pieces.BATCH", SIZE)
    found = {name: layer_spectra(model, loader, rows=ROWS, engine="cpu") for name, loader in loaders.items()}
    found["one piece"] = layer_spectra(model, X, Y, rows=ROWS, engine="cpu")
    assert set(held) == {20}
    for name in exact:
        for kind, spectra in found.items():
            assert spectra[name].n == N
            if kind != "shuffling":  # whose centres are others
                close(spectra[name], exact[name])


@pytest.mark.parametrize("inv_delta", [None, GRID], ids=["own", "grid"])
@pytest.mark.parametrize("brought", ["one piece", "batches"])
def test_several_targets_pass_by_centres_of_their_own(inv_delta, brought, held, monkeypatch):
    model = made("convolutions")[0]
    each = {"labels": Y, "mean": X.mean(dim=(1, 2, 3)), "sine": torch.sin(X[:, :2, 3, 4])}
    options = {"rows": 20, "inv_delta": inv_delta, "engine": "cpu"}
    features = layer_features(model, in_batches(X))
    del held[:]
    monkeypatch.setattr("layerfreq.network.pieces.BATCH", SIZE)
    seen = runs(model)
    found = layer_spectra(model, X if brought == "one piece" else in_batches(X), each, **options)
    assert set(held) == {20}
    assert 0 < sum(n for n in seen if n > 4) - N <= 3
    assert list(found) == list(each)
    for target, spectra in found.items():
        assert list(spectra) == list(features)
        for name, one in spectra.items():
            close(one, spectrum(features[name], each[target], **options))
    del held[:]
    with refuses("targets", Code.SHAPE, "'short'"):
        layer_spectra(model, in_batches(X), {**each, "short": Y[:-1]}, **options)


def test_it_takes_one_pass_where_features_have_no_room_and_their_centres_do():
    model = made("convolutions")[0]
    seen = runs(model)
    wide = 4 * 4096 * N  # bytes of one layer
    options = {"layers": "act", "rows": 20, "engine": "cpu", "inv_delta": GRID}
    found = layer_spectra(model, in_batches(X), memory=wide // 2, **options)
    assert 0 < sum(n for n in seen if n > 4) - N <= 3
    close(found["act"], as_held(model, X, rows=20, inv_delta=GRID)["act"])
    seen.clear()
    streamed = layer_spectra(model, in_batches(X), memory=wide // 8, **options)
    assert sum(n for n in seen if n > 4) > 2 * N
    close(streamed["act"], found["act"])


def test_batches_are_cut_where_layers_are_wide(monkeypatch, held):
    model = made("convolutions")[0]
    exact = as_held(model, X, rows=ROWS)
    del held[:]
    monkeypatch.setattr("layerfreq.measure.known.PIECE", 4 * 4096 * 20)
    seen = runs(model)
    for given in ((X, Y), (in_batches(X),)):
        found = layer_spectra(model, *given, rows=ROWS, engine="cpu")
        assert max(seen) == 20
        for name in exact:
            close(found[name], exact[name])
    assert set(held) == {20}


class ByBatch(nn.Module):
    """Takes the mean of the batch away: what a point's features are depends on the others in it."""

    def __init__(self):
        super().__init__()
        self.layer, self.act, self.out = nn.Linear(192, 2100), nn.Tanh(), nn.Linear(2100, 4)

    def forward(self, x):
        x = self.layer(x.flatten(1))
        return self.out(self.act(x - x.mean(dim=0)))


class Whole(ByBatch):
    """Does not run on a last batch with one point more."""

    def forward(self, x):
        if len(x) == N % SIZE + 2:
            raise RuntimeError("more than ever")
        return self.out(self.act(self.layer(x.flatten(1))))


@pytest.mark.parametrize("kind", [ByBatch, Whole])
def test_where_features_depend_on_the_batch_they_are_held_as_the_batches_come(kind, held):
    torch.manual_seed(0)
    model = kind()
    seen = runs(model)
    monitor = Monitor(model, in_batches(X), layers="act", rows=ROWS, engine="cpu", inv_delta=GRID)
    exact = as_held(model, X, rows=ROWS, inv_delta=GRID)["act"]
    del held[:], seen[:]
    close(monitor.measure(0)["act"], exact)
    assert held == [2100] * 5
    if kind is ByBatch:  # which the first point that comes again tells, after the centres
        assert seen == [32] * 3 + [32, 32, 32, 32, 22]
    seen.clear()
    close(monitor.measure(1)["act"], exact)  # which is known by now
    assert seen == [32, 32, 32, 32, 22]


def test_what_cannot_pass_by_is_measured_as_ever(held):
    model, batches = made("convolutions")[0], in_batches(X)
    common = {"layers": "act", "engine": "cpu", "inv_delta": GRID}
    wide = [4096] * 5
    for options in ({}, {"rows": 100}, {"rows": ROWS, "scale": "maxabs"}, {"rtol": 0.5}, {"rows": ROWS, "whole": True}):
        layer_spectra(model, batches, **common, **options)
        assert held == wide, options
        del held[:]
    layer_spectra(model, batches, **{**common, "engine": "blocked"}, rows=ROWS)
    layer_spectra(model, batches, {"said": lambda x, y, output: output}, **common, rows=ROWS)
    assert held == wide * 2
    del held[:]
    layer_spectra(model, X, Y, **common, rows=ROWS)  # one batch
    assert held == []
    monitor = Monitor(model, batches, rows=ROWS, error={"frequencies": [1.0], "method": "filter"}, **common)
    assert monitor.measure(0)["act"].rows == ROWS
    assert held == wide


def test_bad_features_and_targets_are_told_as_ever():
    model, batches = made("convolutions")[0], in_batches(X)
    broken = [(x.clone(), y) for x, y in batches]
    broken[-1][0][3] = float("nan")
    with refuses("features", Code.NOT_FINITE, "layer 'act'", "1 of 150"):
        layer_spectra(model, broken, layers="act", rows=ROWS, engine="cpu")
    with refuses("rows", Code.VALUE, "151"):
        layer_spectra(model, batches, layers="act", rows=151, engine="cpu")
    with torch.no_grad():
        model.second.weight.zero_(), model.second.bias.fill_(-1)
    seen = runs(model)
    found = layer_spectra(model, batches, layers="act", rows=ROWS, engine="cpu")["act"]
    assert sum(n for n in seen if n > 4) <= N + 3
    assert found.coincident == N


def test_half_precision_passes_by_too(held):
    model = made("convolutions")[0]
    options = {"layers": "act", "rows": ROWS, "engine": "cpu", "inv_delta": GRID}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer_spectra(model, in_batches(X), **options)["act"]
        exact = layer_spectra(model, X, Y, **options)["act"]
    assert set(held) == {4096}  # of the last, where one batch has all points
    assert len(held) == 1
    np.testing.assert_allclose(found.lfr, exact.lfr, atol=1e-4)


def test_a_monitor_leaves_training_as_it_was():
    def trained(measured):
        torch.manual_seed(1)
        model = made("convolutions")[0]
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        loader = DataLoader(TensorDataset(X, Y), batch_size=SIZE, shuffle=True)
        monitor = Monitor(model, loader, rows=ROWS, engine="cpu", inv_delta=GRID) if measured else None
        for step, (x, y) in enumerate(loader):
            if monitor is not None:
                monitor.measure(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(trained(True), trained(False), strict=True))


@pytest.mark.parametrize(
    ("n", "size", "first"),
    [(10, 4, [2, 7]), (100, 3, [5]), (9, 4, [0, 1, 2, 3, 4, 5, 8]), (200, 70, list(range(90))), (3000, 32, [3, 9, 11])]
    + [(3000, size, list(range(1, 3000, 7))) for size in (1, 16, 64, 200, 1024)],
)
def test_pieces_have_every_point_once_after_those_that_come_first_and_as_many_different_ones_again(n, size, first):
    pieces = Pieces(torch.arange(n), torch.zeros(n), n, size)
    batches = list(pieces.beginning_with(torch.tensor(first)))
    for x, numbers in batches:
        assert torch.equal(x, numbers)
        assert len(x) <= max(2, size)
        assert len(set(x.tolist())) == len(x)  # none meets itself
    order = torch.cat([numbers for _, numbers in batches]).tolist()
    again = [i for at, i in enumerate(order) if i in order[:at]]
    assert order[: len(first)] == first
    assert sorted(set(order)) == list(range(n))
    assert len(order) == n + len(again)
    assert set(again) <= set(first)
    assert len(set(again)) == min(len(first), len(again))
    assert n // 64 <= len(again) <= n // 64 + 2
    assert batches[-1][1][-1] == again[-1]
    places = np.sort([first.index(i) for i in again[: len(first)]])
    assert np.diff(places, prepend=-1, append=len(first)).max() <= 3 * len(first) / len(set(again)) + 1  # spread evenly


def test_few_points_that_depend_on_the_batch_are_found(held):
    """One point in 20 does, by its own numbers; of 10 that come again none would in 60 % of draws, of 63 in 4 %."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4000, 192, generator=generator)
    y = (x[:, 0] > 0).long()

    class Rarely(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(192, 2100), nn.Tanh()

        def forward(self, x):
            touched = (x[:, 0] > 1.645).float()[:, None]
            return self.act(self.layer(x) + touched * x.mean())

    batches = in_batches(x, y, 400)
    with pytest.warns(
        UserWarning, match="layer 'act': its features of a point change .* batches are taken as they come"
    ):
        layer_spectra(Rarely(), batches, layers="act", rows=200, engine="cpu", inv_delta=GRID)
    assert held == [2100] * 10


def test_other_points_come_again_in_the_next_pass_until_all_have():
    pieces, first = Pieces(torch.arange(640), torch.zeros(640), 640, 64), torch.arange(0, 640, 8)
    again = []
    for turn in range(8):
        order = torch.cat([numbers for _, numbers in pieces.beginning_with(first, turn)]).tolist()
        again += [i for at, i in enumerate(order) if i in order[:at]]
    assert set(again) == set(first.tolist())


@pytest.mark.filterwarnings("ignore:.*changes a count")
def test_a_monitor_finds_at_later_steps_what_it_has_missed(held):
    """The ninth in line depends on the batch, and two come again at each step, counted from 0."""

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(192, 2100), nn.Tanh()

        def forward(self, x):
            x = x.flatten(1)
            return self.act(self.layer(x) + (x == special).all(dim=1)[:, None].float() * x.mean())

    drawn, seen = [], Pieces.beginning_with

    def watched(self, first, turn=0):
        drawn.append(first)
        return seen(self, first, turn)

    special = torch.zeros(192)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pieces, "beginning_with", watched)
        monitor = Monitor(Once(), in_batches(X), layers="act", rows=ROWS, engine="cpu", inv_delta=GRID)
        monitor.measure(0)
        special = X[drawn[0][_spread(ROWS)[8]]].flatten()
        for step in range(1, 5):
            with pytest.warns(UserWarning, match="layer 'act'") if step == 4 else nullcontext():
                monitor.measure(step)
            assert bool(held) == (step == 4)
