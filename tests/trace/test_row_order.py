"""Each point has a row of its own in a layer's output, or the refusal or warning says what is wrong in one line."""

import warnings

import pytest
import torch
from torch import nn

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra
from tests.helpers.kinds import D, N, T, check, flat, kind, sequence
from tests.helpers.refusals import Code, refuses
from tests.helpers.styles import Net


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@kind(
    "recurrent modules without batch_first",
    "refused",
    "its output has n samples on axis 1, but the first dimension must be the batch; pass batch_first=True",
)
@pytest.mark.parametrize("t", [T, N, 4])
def test_recurrent_modules_without_batch_first(t):
    model = Net(lambda m, x: m.head(torch.relu(m.fc(m.rnn(x.transpose(0, 1))[0][-1]))),
                rnn=nn.LSTM(D, 6), fc=nn.Linear(6, 6), head=nn.Linear(6, 2))  # fmt: skip
    x = torch.randn(N, t, D)
    with refuses("layer", Code.UNSUPPORTED, "layer 'rnn'") as caught:
        layer_features(model, x, "rnn")
    assert "batch_first=True" in str(caught.value) or t == 4
    check(model, x, "fc")


@kind(
    "packed sequences",
    "works with a limit",
    "what a recurrent module returns packed is refused; measure its last state, or layers after unpacking",
)
def test_packed_sequences():
    def run(m, two):
        x, lengths = two.split([D, 1], dim=-1)
        lengths = lengths[:, 0, 0].long()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        z, _ = nn.utils.rnn.pad_packed_sequence(m.rnn(packed)[0], batch_first=True, total_length=T)
        return m.head(torch.relu(m.fc(z[torch.arange(len(z)), lengths - 1])))

    model = Net(run, rnn=nn.GRU(D, 6, batch_first=True), fc=nn.Linear(6, 6), head=nn.Linear(6, 2))
    x = torch.cat([sequence(), torch.randint(2, T + 1, (N, 1, 1)).expand(-1, T, 1)], dim=-1)
    check(model, x, "fc")
    for length in (2, 1):  # with one token each there are as many as points
        short = torch.cat([x[..., :D], torch.full((N, T, 1), float(length))], dim=-1)
        with refuses("layer", Code.UNSUPPORTED, "layer 'rnn'", "packed sequence"):
            layer_features(model, short, "rnn")


def test_a_packed_sequence_is_told_once_and_sorting_its_points_is_reading_no_part():
    """In words of the model, not of the points that were tried: the same whatever these are."""

    class Packed(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.embed, self.rnn = nn.Linear(D, 5), nn.LSTM(5, 6, batch_first=batch_first)
            self.head, self.first = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)), batch_first

        def forward(self, x, lengths):
            x = torch.tanh(self.embed(x))
            x = x if self.first else x.transpose(0, 1)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=False)
            return self.head(self.rnn(packed)[1][0][-1])

    lines = set()
    for batch_first in (True, False):
        for lengths in (torch.randint(1, T + 1, (N,)), torch.arange(N) % T + 1):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                monitor = Monitor(Packed(batch_first), (sequence(), lengths), torch.arange(N) % 3, inv_delta=[0.1, 1.0])
                for step in range(3):
                    assert list(monitor.measure(step)) == ["embed.tanh", "rnn.h_n", "head.1"]
            assert len(said) == 1
            lines.add(str(said[0].message))
    (line,) = lines
    assert "packed sequence" in line
    assert not any(sign.isdigit() for sign in line)


@kind("nested and sparse tensors", "refused", "it returns a nested or sparse tensor; make it dense in the model")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make", [torch.Tensor.to_sparse, lambda x: torch.nested.nested_tensor(list(x))], ids=["sparse", "nested"]
)
def test_tensors_that_are_not_dense(make):
    def run(m, x):
        m.odd(x)
        return m.head(x)

    model = Net(run, odd=Net(lambda m, x: make(x)), head=nn.Linear(D, 2))
    with refuses("layer", Code.UNSUPPORTED, "layer 'odd'"):
        layer_features(model, flat(), "odd")


def sorted_inside(m, x):
    x = x[x[:, 0].argsort()]
    return m.head(torch.relu(m.fc(x)))


def shuffled_inside(m, x):
    return m.head(torch.relu(m.fc(x[torch.randperm(len(x))])))


@kind("models that put points in another order", "refused", "it returns points in another order than they came in")
@pytest.mark.parametrize("run", [sorted_inside, shuffled_inside])
def test_another_order(run):
    model = Net(run, fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    with refuses("layer", Code.UNSUPPORTED, "layer 'fc'"):
        layer_spectra(model, flat(), torch.arange(N), "fc")
    with (
        pytest.warns(UserWarning, match="another order"),
        refuses("model", Code.UNSUPPORTED, "'fc.relu'"),
    ):
        hidden_layers(model, flat())


def test_an_order_that_is_put_right_again():
    """As of packed sequences: only what is sorted is refused."""

    def run(m, x):
        order = x[:, 0].argsort()
        return m.head(torch.relu(m.fc(m.inner(x[order])[order.argsort()])))

    model = Net(run, inner=nn.Linear(D, D), fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    check(model, flat(), "fc", ["fc.relu"])
    with refuses("layer", Code.UNSUPPORTED, "layer 'inner'"):
        layer_features(model, flat(), "inner")


@kind(
    "similarities of all points of a batch with all (two towers)",
    "refused",
    "its columns are the points of a batch as its rows are, so that it has no features of one point",
)
def test_columns_that_are_points_too():
    def run(m, x):
        left, right = m.left(torch.relu(m.first(x[:, :4]))), m.right(torch.relu(m.second(x[:, 4:])))
        return m.head((left @ right.T)[..., None])

    first, second, left, right = (nn.Linear(4, 4) for _ in range(4))
    model = Net(run, first=first, second=second, left=left, right=right, head=nn.Linear(1, 1))
    with refuses("model", Code.UNSUPPORTED):
        hidden_layers(model, flat())
    with refuses("layer", Code.UNSUPPORTED, "layer 'right.matmul'"):
        layer_features(model, flat(), "right.matmul")
    assert list(layer_features(model, flat(), ["first.relu", "second.relu"])) == ["first.relu", "second.relu"]


@kind(
    "attention or statistics over the batch, noise",
    "works with a limit",
    "a warning: what is measured depends on the batches, too",
)
@pytest.mark.parametrize("how", ["attention", "batch norm", "noise"])
def test_features_that_depend_on_the_batch(how):
    def run(m, x):
        z = {
            "attention": lambda: torch.softmax(x @ x.T, -1) @ x,
            "batch norm": lambda: m.norm(x),
            "noise": lambda: x + torch.randn_like(x),
        }[how]()
        return m.head(torch.relu(m.fc(z)))

    norm = nn.BatchNorm1d(D, track_running_stats=False)
    model = Net(run, norm=norm, fc=nn.Linear(D, D), head=nn.Linear(D, 2))
    for measure in (hidden_layers, lambda m, x: layer_features(m, x, "fc")):
        with pytest.warns(UserWarning, match=r"layer 'fc.*: its features of a point change with the other points"):
            measure(model, flat())


def test_statistics_that_are_kept_warn_of_nothing():
    check(nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D), nn.ReLU(), nn.Linear(D, 2)), flat(), "2", ["2"])
    half = nn.Sequential(*[nn.Linear(D, D), nn.ReLU()] * 3, nn.Linear(D, 2)).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(hidden_layers(half, flat().bfloat16())) == 3


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda m, x: m.head(x.mean(0)), ["on 4 points it returns", "not a row for each"]),  # no sample axis
        (lambda m, x: m.head(x.sum()[None, None].expand(1, D)[0]), ["on 4 points it returns", "not a row for each"]),
        (lambda m, x: m.head(x[None].expand(3, -1, -1)), ["on axis 1", "the first dimension must be the batch"]),
        (lambda m, x: m.head(x.repeat(2, 1)), ["on 4 points it returns", "not a row for each"]),
    ],
    ids=["mean", "number", "elsewhere", "twice"],
)
def test_no_sample_axis_is_one_clear_line(run, words):
    model = Net(run, head=nn.Linear(D, 2))
    with refuses("layer", Code.UNSUPPORTED) as caught:
        layer_spectra(model, flat(), torch.arange(N), "head")
    message = str(caught.value)
    assert message.startswith("layer 'head': run on")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_model_that_wants_whole_batches_is_measured_and_what_is_not_known_is_said():
    def run(m, x):
        assert len(x) in (4, N)
        return m.head(torch.relu(m.fc(x)))

    model, x = Net(run, fc=nn.Linear(D, D), head=nn.Linear(D, 2)), flat()
    with pytest.warns(UserWarning, match="does not run on some of the points in another order .AssertionError") as said:
        assert hidden_layers(model, x) == ["fc.relu"]
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = layer_features(model, x, whole=True)
    torch.testing.assert_close(features, {"fc.relu": torch.relu(model.fc(x))})


def test_finding_cuts_runs_the_model_seldom_and_on_few_points():
    sizes = []

    def run(m, x):
        sizes.append(len(x))
        return m.body(x)

    model = Net(
        run, body=nn.Sequential(*[nn.Sequential(nn.Linear(D, D), nn.ReLU()) for _ in range(5)], nn.Linear(D, 2))
    )
    x = flat()
    assert len(hidden_layers(model, x)) == 5
    assert len(sizes) == 2
    assert max(sizes) == 4
