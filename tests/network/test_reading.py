"""Readings: what each makes of an output is checked against plain indexing, and what fits no reading is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from layerfreq.network.reading import NAMES, Reading, features_axis
from tests.helpers.ranks import world
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import Net

N = 12
U = np.geomspace(0.01, 10, 5)


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 6), nn.GRU(6, 5, batch_first=True)
        self.norm, self.fc, self.act, self.head = nn.LayerNorm(5), nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 20)

    def forward(self, ids):
        return self.head(self.act(self.fc(self.norm(self.rnn(self.embed(ids))[0]))))


@pytest.fixture
def pixels():
    torch.manual_seed(0)
    return Pixels(), torch.randn(N, 3, 6, 5)


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return Tokens(), torch.randint(0, 20, (N, 4))


def value_of(model, layer, inputs):
    """A layer's output, from a hook of our own."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: found.append(out))
    with torch.no_grad():
        model.eval()(inputs)
    handle.remove()
    return found[0][0] if isinstance(found[0], tuple) else found[0]


def plain(value, reading):
    """The readings of (n, *positions, d), by their definitions."""
    flat = value.reshape(len(value), -1, value.shape[-1])
    return {"mean": flat.mean(1), "max": flat.max(1).values, "positions": flat.reshape(-1, value.shape[-1])}[reading]


@pytest.mark.compatibility("layer kind", "images and sequences read by mean, max or positions", "works")
@pytest.mark.parametrize("reading", NAMES[1:])
def test_readings_of_images_and_sequences(reading, pixels, tokens):
    for (model, x), layer, move in [(pixels, "act", True), (tokens, "rnn", False), (tokens, "act", False)]:
        value = value_of(model, layer, x)
        expected = plain(value.movedim(1, -1) if move else value, reading)
        assert torch.equal(layer_features(model, x, [layer], reading=reading)[layer], expected)
        assert torch.equal(layer_features(model, x, [layer], reading={layer: reading})[layer], expected)
        assert torch.equal(layer_features(model, x, [layer])[layer], value.flatten(1))
        for axis in (1, -1):
            said = layer_features(model, x, [layer], reading=f"{reading}:{axis}")[layer]
            assert torch.equal(said, plain(value.movedim(axis, -1), reading))


def test_a_mapping_leaves_other_layers_flat_and_one_name_leaves_flat_layers_as_they_are(pixels):
    model, x = pixels
    found = layer_features(model, x, ["conv", "act", "head"], reading={"act": "mean"})
    assert {name: tuple(f.shape) for name, f in found.items()} == {"conv": (N, 120), "act": (N, 4), "head": (N, 2)}
    found = layer_features(model, x, ["act", "head"], reading="positions")
    assert {name: tuple(f.shape) for name, f in found.items()} == {"act": (N * 30, 4), "head": (N, 2)}
    for _, streamed in layer_features(model, x, ["act"], reading="max", stream=True):
        assert streamed.shape == (N, 4)


def test_positions_share_their_samples_target(pixels):
    model, x = pixels
    rows = layer_features(model, x, ["act"], reading="positions")["act"]
    ids, vectors = torch.arange(N) % 3, torch.randn(N, 2)
    for y in (ids, ids.float(), vectors):
        got = layer_spectra(model, x, y, ["act"], reading="positions", inv_delta=U)["act"]
        assert got.n == N * 30
        np.testing.assert_allclose(got.lfr, spectrum(rows, y.repeat_interleave(30, dim=0), U).lfr, rtol=1e-6)


def test_positions_have_targets_of_their_own(pixels, tokens):
    model, x = pixels
    rows, labels = layer_features(model, x, ["act"], reading="positions")["act"], torch.randint(0, 3, (N, 6, 5))
    got = layer_spectra(model, x, labels, ["act"], reading="positions", inv_delta=U)["act"]
    np.testing.assert_allclose(got.lfr, spectrum(rows, labels.flatten(), U).lfr, rtol=1e-6)
    vectors = torch.randn(N, 2, 6, 5)  # laid out as the convolution is
    got = layer_spectra(model, x, vectors, ["act"], reading="positions", inv_delta=U)["act"]
    np.testing.assert_allclose(got.lfr, spectrum(rows, vectors.movedim(1, -1).reshape(-1, 2), U).lfr, rtol=1e-6)
    model, ids = tokens
    rows, vectors = layer_features(model, ids, ["rnn"], reading="positions")["rnn"], torch.randn(N, 4, 2)
    got = layer_spectra(model, ids, vectors, ["rnn"], reading="positions", inv_delta=U)["rnn"]
    np.testing.assert_allclose(got.lfr, spectrum(rows, vectors.reshape(-1, 2), U).lfr, rtol=1e-6)


def following(ids):
    """The recipe of `layer_spectra`."""
    following = ids.roll(-1, dims=1)
    following[:, -1] = -100
    return following


@pytest.mark.compatibility("layer kind", "next-token targets of language models (reading='positions')", "works")
@pytest.mark.parametrize("batch", [N, 5])
def test_next_tokens_of_a_language_model(batch, tokens):
    model, ids = tokens
    y = following(ids)
    y[2:4, 1:] = -100  # padding
    kept = (y != -100).flatten()
    rows = layer_features(model, ids, ["act"], reading="positions")["act"][kept]
    loader = [(ids[at : at + batch], y[at : at + batch]) for at in range(0, N, batch)]
    got = layer_spectra(model, loader, layers="act", reading="positions", inv_delta=U)["act"]
    assert got.n == int(kept.sum()) == N * 3 - 4
    assert torch.equal(ids[0, 1:], y[0, :-1])
    np.testing.assert_allclose(got.lfr, spectrum(rows, y.flatten()[kept], U).lfr, rtol=1e-6)


def test_a_monitor_reads_as_told(tokens, tmp_path):
    model, ids = tokens
    options = {"layers": ["rnn", "act"], "reading": {"act": "positions", "rnn": "positions"}, "inv_delta": U}
    monitor = Monitor(model, ids, following(ids), run=tmp_path / "run", **options)
    got = monitor.measure(0)
    one = layer_spectra(model, ids, following(ids), **options)
    assert got["act"].n == N * 3
    assert all(np.array_equal(got[name].lfr, one[name].lfr) for name in one)
    assert set(monitor.run.spectra["layer"]) == {"rnn", "act"}


def read_on_a_rank(ids, y):
    import torch.distributed as dist

    torch.manual_seed(0)
    found = layer_spectra(Tokens(), ids, y, "act", reading="positions", inv_delta=U, group=dist.group.WORLD)
    return found["act"].n, found["act"].lfr


@pytest.mark.ranks
def test_ranks_drop_positions_each_for_itself(tokens, tmp_path):
    model, ids = tokens
    y = following(ids)
    y[1:7, :2] = -100
    y[7:] = -100  # nothing is left on the second rank
    one = layer_spectra(model, ids, y, "act", reading="positions", inv_delta=U)["act"]
    with world(2, tmp_path) as call:
        for n, lfr in call(read_on_a_rank, (ids[:7], y[:7]), (ids[7:], y[7:])):
            assert n == one.n == 3 + 6
            np.testing.assert_allclose(lfr, one.lfr, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "targets", "reading", "words"),
    [
        ("act", torch.zeros(N), "middle", ("reading", Code.UNKNOWN)),
        ("act", torch.zeros(N), "flatten:1", ("reading", Code.VALUE)),
        ("act", torch.zeros(N), "mean:0", ("reading", Code.VALUE)),
        ("act", torch.zeros(N), "mean:x", ("reading", Code.VALUE)),
        ("act", torch.zeros(N), "mean:4", ("reading", Code.UNSUPPORTED)),
        ("act", torch.zeros(N), {"conv": "mean"}, ("reading", Code.UNKNOWN)),
        ("head", torch.zeros(N), {"head": "mean"}, ("reading", Code.UNSUPPORTED)),
        ("head", torch.zeros(N, 6, 5).long(), "positions", ("targets", Code.SHAPE)),
        ("act", torch.zeros(N, 3, 2).long(), "positions", ("targets", Code.SHAPE)),
        ("act", torch.zeros(N, 6, 5).long(), "flatten", ("targets", Code.SHAPE)),
        ("act", torch.full((N, 6, 5), -100), "positions", ("targets", Code.EMPTY)),
        ("act", torch.full((N, 6, 5), -1), "positions", ("targets", Code.VALUE)),
        ("act", ["cat"] * N, "mean", ("targets", Code.VALUE)),
    ],
)
def test_what_fits_no_reading_is_refused_in_one_line(layer, targets, reading, words, pixels):
    model, x = pixels
    with refuses(*words):
        layer_spectra(model, x, targets, [layer], reading=reading)


class Unclear(nn.Module):
    """(n, 4, 4): nothing of the module says which axis is which."""

    def __init__(self):
        super().__init__()
        self.fc, self.view, self.out = nn.Linear(8, 16), nn.Unflatten(1, (4, 4)), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.view(self.fc(x))))


def test_what_cannot_be_told_has_to_be_said():
    model, x = Unclear(), torch.randn(N, 8)
    with refuses("reading", Code.UNSUPPORTED, "layer 'view'", "'mean:1'"):
        layer_features(model, x, ["view"], reading="mean")
    assert layer_features(model, x, ["view"], reading="mean:1")["view"].shape == (N, 4)


class Own(nn.Module):
    """A module of nobody's kind, with one vector of parameters."""

    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))


conv1, conv2, linear, norm, pool = (
    nn.Conv1d(3, 6, 3),
    nn.Conv2d(3, 6, 3),
    nn.Linear(3, 6),
    nn.LayerNorm(6),
    nn.MaxPool2d(2),
)


@pytest.mark.parametrize(
    ("shape", "made_by", "axis"),
    [
        ((2, 6, 5), [conv1, nn.ReLU()], 1),
        ((2, 6, 6), [conv1, nn.BatchNorm1d(6), nn.Dropout()], 1),
        ((2, 5, 6), [nn.Embedding(9, 6)], 2),
        ((2, 6, 6), [linear, nn.GELU()], 2),
        ((2, 5, 4), [nn.LSTM(3, 2, bidirectional=True)], 2),
        ((2, 6, 3, 3), [conv2, pool], 1),
        ((2, 6, 6, 6), [conv2, nn.GroupNorm(2, 6)], 1),
        ((2, 5, 5, 6), [conv2, norm], 3),  # channels last, as its norm says
        ((2, 6, 6, 6), [conv2, norm], None),  # or not
        ((2, 6, 3, 3), [conv2, norm, linear], 1),  # permuted back: the six features are where they fit
        ((2, 9, 6), [conv2], 2),  # patches
        ((2, 6, 6), [conv2], None),  # as many patches as features
        ((2, 3, 4, 5), [nn.ReLU()], 1),
        ((2, 3, 4), [nn.ReLU()], None),
        ((2, 2, 5, 3), [linear], None),  # heads
        ((2, 6, 5, 5, 5), [nn.Conv3d(3, 6, 3), nn.LayerNorm([6, 5, 5, 5])], 1),
        ((2, 5, 7), [norm, nn.PReLU()], None),
        ((2, 5, 7), [norm, Own(7), nn.GELU()], 2),  # GPT-2's linear layers are its own
        ((2, 6, 4, 4), [conv2, norm, linear, Own(6)], 1),  # ConvNeXt scales channels
        ((2, 5, 6), [linear, Own(12)], 2),  # Mamba has a bias of its inner width
        ((2, 5, 6), [nn.ReLU(), Own(5)], None),
    ],
)
def test_the_modules_before_say_where_features_are(shape, made_by, axis):
    assert features_axis(shape, made_by) == axis


def concatenated(m, x):
    a = F.relu(m.down(x))
    b = F.relu(m.up(F.interpolate(F.relu(m.mid(F.max_pool2d(a, 2))), scale_factor=2)))
    return m.out(torch.sigmoid(torch.cat([a, b, x], 1)))


@pytest.mark.parametrize("side", [8, 16, 6, 11])  # 6 are as many as the last convolution's features, 11 as all
@pytest.mark.parametrize("layer", ["up.cat", "up.sigmoid"])
def test_a_concatenation_has_its_features_where_its_parts_have(side, layer):
    convolutions = {"down": nn.Conv2d(3, 2, 3, 1, 1), "mid": nn.Conv2d(2, 6, 3, 1, 1), "up": nn.Conv2d(6, 6, 3, 1, 1)}
    model = Net(concatenated, **convolutions, out=nn.Conv2d(11, 2, 1))
    x = torch.randn(N, 3, 2 * (side // 2), side)
    model.run = concatenated if side % 2 == 0 else lambda m, x: concatenated(m, F.pad(x, (0, 1)))
    value = layer_features(model, x, [layer])[layer].reshape(N, 11, 2 * (side // 2), -1)
    for reading in NAMES[1:]:
        torch.testing.assert_close(
            layer_features(model, x, [layer], reading=reading)[layer], plain(value.movedim(1, -1), reading)
        )


class ChannelsFirst(nn.LayerNorm):
    """A norm over channels that stand first, as in ConvNeXt: of a known kind, but with the axes of another."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("run", "layer", "axis"),
    [
        (lambda m, x: m.head(F.gelu(m.fc(m.conv(x).mT))).mean(1), "fc.gelu", 2),
        (lambda m, x: m.head((2 * F.gelu(m.fc(m.conv(x).mT))).tanh_()).mean(1), "fc.tanh", 2),
        (lambda m, x: m.head(torch.relu(m.conv(m.fc(x))).mT).mean(1), "conv.relu", 1),
        (lambda m, x: m.head(torch.relu(m.conv(m.fc(x))).mT.mul_(2)).mean(1), "conv.mul", None),  # moved
        (lambda m, x: m.head(m.norm(m.conv(m.fc(x))).sigmoid().mT).mean(1), "norm.sigmoid", None),
    ],
)
def test_the_module_that_made_a_value_decides_where_both_axes_have_its_size(run, layer, axis):
    model = Net(run, conv=nn.Conv1d(6, 6, 1), fc=nn.Linear(6, 6), norm=ChannelsFirst(6), head=nn.Linear(6, 2))
    x = torch.randn(N, 6, 6)
    if axis is None:
        with refuses("reading", Code.UNSUPPORTED, layer):
            layer_features(model, x, layer, reading="mean")
        return
    value = layer_features(model, x, layer)[layer].reshape(N, 6, 6)
    read = layer_features(model, x, layer, reading="mean")[layer]
    torch.testing.assert_close(read, value.movedim(axis, -1).mean(1))


def test_a_concatenation_of_tokens_by_a_convolution_and_a_linear_map():
    def moved(m, x):
        tokens = torch.cat([m.conv(x).flatten(2).transpose(1, 2), m.fc(x.flatten(2).transpose(1, 2))], -1)
        return m.head(torch.tanh(tokens)).mean(1)

    model, x = Net(moved, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(3, 4), head=nn.Linear(8, 2)), torch.randn(N, 3, 2, 4)
    value = layer_features(model, x, ["fc.tanh"])["fc.tanh"].reshape(N, 8, 8)  # as many positions as features
    torch.testing.assert_close(layer_features(model, x, ["fc.tanh"], reading="mean")["fc.tanh"], value.mean(1))


def test_a_mean_of_half_precision_stays_that():
    value = torch.randn(3, 4, 5, dtype=torch.bfloat16)
    rows, layout = Reading("mean").settle(value.shape, axis=1).read(value)
    assert rows.dtype == torch.bfloat16
    assert layout.positions == (5,)


def test_a_layer_without_positions_has_all_its_points_as_centres_where_fewer_than_are_drawn():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
        nn.Tanh(),
        nn.Linear(5, 2),
    )
    x, y = torch.randn(20, 1, 6, 6), torch.arange(20) % 2
    for memory in (None, 3200):
        found = layer_spectra(model, x, y, reading="positions", rows=100, memory=memory)
        assert (found["1"].rows, found["1"].n) == (100, 320)
        assert (found["5"].rows, found["5"].n, found["5"].stderr) == (20, 20, None)
        with refuses("rows", Code.VALUE):
            layer_spectra(model, x, y, rows=100, memory=memory)
