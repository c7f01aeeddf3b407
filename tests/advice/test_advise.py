"""Advice on networks whose answer is known, made by hand; costs and depth in closed form; bad input in one line."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import layerfreq
from layerfreq import advise
from layerfreq.advice import heads
from layerfreq.advice.costs import costs
from layerfreq.advice.depth import judge_depth
from layerfreq.advice.result import Advice, Gap
from tests.helpers.refusals import Code, refuses

X = torch.randn(240, 2, generator=torch.Generator().manual_seed(0))
XOR = (X[:, 0] * X[:, 1] > 0).long()


def by_hand():
    """XOR as |x + y| - |x - y|: the four halves of both in the first layer, which the second hands on, doubled."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.bias.zero_()
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]))
        model[2].weight.copy_(2 * torch.eye(4))
        model[4].weight.copy_(torch.tensor([[-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]]))
    return model


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Short training will do: the features here are clean."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "STEPS", 50)
        patch.setattr(heads, "RATES", (0.03, 0.1))
        yield


@pytest.fixture(scope="module")
def found(quick):
    return advise(by_hand(), X, XOR, transfer=(X, (X[:, 0] > 0).long() * 5 + 2), tolerance=0.05)


def test_the_first_layer_that_has_it_all_is_the_place_to_cut(found):
    assert found.network == 1
    assert found.exit == "1"
    linear = found.table.set_index("layer")["linear"]
    assert linear["inputs"] < 0.7
    assert linear["1"] == pytest.approx(linear["3"], abs=1e-9)  # the same features: the same folds, the same heads
    assert found.table["layer"].tolist() == ["inputs", "1", "3"]
    assert "Cut at '1'" in found.sentences[0]


def test_features_for_other_data_are_taken_where_these_can_be_told(found):
    assert found.table["transfer"].min() > 0.9
    assert found.features in ("inputs", "1", "3")
    assert found.transfer_measure == "accuracy"
    best = found.table["transfer_gap"].idxmax()
    assert found.table["transfer_gap"][best] == found.table["transfer_low"][best] == 0
    assert found.features not in found.as_good


def test_the_last_layer_changes_no_frequency_and_another_would_not(found):
    assert found.depth.octaves == pytest.approx(0, abs=1e-6)
    assert found.depth.answer == "enough"
    rms = found.table.set_index("layer")["rms"]
    assert rms["1"] == pytest.approx(rms["3"])
    assert rms["1"] < rms["inputs"]


def test_what_it_prints_and_returns(found):
    assert isinstance(found, layerfreq.Advice)
    frame = found.to_frame()
    frame["linear"] = 0
    assert found.table["linear"].iloc[1] > 0
    assert "Depth, by frequency: enough" in repr(found)
    assert "<table" in found._repr_html_()


def test_of_one_hidden_layer_it_says_why_depth_is_unknown():
    said = advise(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)), X[:40], XOR[:40]).sentences
    assert any("two hidden layers" in sentence for sentence in said)


def test_features_that_tell_nothing_of_other_data_are_not_advised():
    noise = torch.randn(240, 1, generator=torch.Generator().manual_seed(1))
    found = advise(by_hand(), X, XOR, layers=["1"], transfer=[X, noise])
    assert found.transfer_measure == "R2"
    assert found.table["transfer"].max() <= 0
    assert any("no features help" in sentence for sentence in found.sentences)


def trained(advised):
    """A network with batch norm and dropout after three steps, and random numbers that come after them."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the state of the caller's
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))
    model[1].eval()
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[:60]), XOR[:60]).backward()
        if advised and step == 1:
            other = DataLoader(TensorDataset(X[:40], XOR[:40]), 20, shuffle=True)
            advise(model, list(zip(X[:60].split(30), XOR[:60].split(30), strict=True)), transfer=other)
        optimizer.step()
    left = [torch.rand(2), torch.from_numpy(np.random.rand(2))]  # noqa: NPY002 - Python's go to the tests' shape checks
    modes = torch.tensor([module.training for module in model.modules()])
    return [*model.state_dict().values(), *(p.grad for p in model.parameters()), modes, *left]


def test_a_training_in_which_it_is_called_ends_as_without_it():
    assert all(torch.equal(a, b) for a, b in zip(trained(False), trained(True), strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_whatever_the_caller_has(mode):
    model = by_hand()
    with mode():
        found, other = advise(model, X.clone(), XOR.clone(), layers=["1"]), by_hand()
    assert found.table["parameters"].tolist() == [0, 12]
    if mode is torch.inference_mode:
        with refuses("model", Code.VALUE, "torch.inference_mode"):
            advise(other, X, XOR)
        advise(copy.deepcopy(other), X, XOR, layers=["1"])


def test_points_that_only_rounding_tells_apart_are_one_point():
    """A product's last bits depend on the row, and would tell odd rows from even ones."""
    x = X[:1] + torch.tensor([0.0, 1e-7]).repeat(30)[:, None]
    found = advise(by_hand(), x, torch.arange(60) % 2, tolerance=0.5).table
    assert found["linear"].max() < 0.7
    assert found["rms"].isna().all()


def test_where_a_constant_does_as_well_it_says_so():
    rare = (torch.arange(240) % 30 == 0).long()
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([100.0, 0.0]))  # always the first class
    found = advise(model, X, rare, layers=["1"])
    assert found.network == found.constant == 232 / 240
    assert any("A constant prediction reaches 0.967" in sentence for sentence in found.sentences)
    opposite = advise(by_hand(), X, 1 - XOR)
    assert opposite.network == 0
    assert any("more than the network; check weights and targets" in sentence for sentence in opposite.sentences)


def test_costs_count_the_parameters_below():
    cost, whole = costs(by_hand(), X, ["1", "3"])
    assert (cost["1"].parameters, cost["3"].parameters, whole) == (12, 32, 42)
    assert all(0 < one.time <= 1 for one in cost.values())


class Differentiating(nn.Module):
    """A network that takes a derivative inside forward, and runs with gradients alone."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Sequential(nn.Linear(2, 4), nn.Tanh()), nn.Linear(4, 2)

    def forward(self, x):
        value = self.inner(x)
        found = self.last(value)
        torch.autograd.grad(found.sum(), value, create_graph=True)
        return found


def test_a_network_that_runs_with_gradients_alone_has_a_cost():
    assert advise(Differentiating(), X, XOR, layers=["inner"]).table["parameters"].tolist() == [0, 12]


class Masked(nn.Module):
    """A transformer whose mask goes into every layer, around the cuts between them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.last = nn.Linear(8, 3)

    def forward(self, ids, mask):
        return self.last(self.layers(self.embed(ids), src_key_padding_mask=~mask)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_layers_that_a_mask_goes_around_have_a_cost():
    inputs = {"ids": torch.randint(0, 9, (40, 7)), "mask": torch.arange(7).repeat(40, 1) < 5}
    cost, whole = costs(Masked(), inputs, ["layers.layers.0", "layers.layers.1"])
    assert [one.parameters for one in cost.values()] == [672, 1272]
    assert whole == 1299
    assert all(0 < one.time <= 1 for one in cost.values())


class Branching(nn.Module):
    """Eight equal layers, in a forward that cannot be traced as a graph."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(300, 300), nn.ReLU()) for _ in range(8))
        self.last = nn.Linear(300, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) if float(x.detach().sum()) < float("inf") else x
        return self.last(x)


def test_times_of_parts_that_are_no_graph_are_shares_of_the_network_watched_alike():
    names = [f"layers.{i}.1" for i in range(8)]
    cost, _ = costs(Branching(), torch.randn(64, 300), names)
    assert 0.02 < cost[names[0]].time < 0.6
    assert cost[names[0]].time < cost[names[-1]].time
    assert [one.parameters for one in cost.values()] == [90300 * (i + 1) for i in range(8)]


def test_floats_are_judged_by_r2():
    x = torch.linspace(-1, 1, 200)[:, None]
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    found = advise(model, x, 2 * x[:, 0] + 3)
    assert (found.measure, found.exit) == ("R2", "inputs")
    assert found.sentences[0].startswith("The inputs do")


@pytest.mark.parametrize(
    ("octaves", "answer"),
    [
        ([[3, 2, 1], [3.1, 2, 1.1], [3, 2.1, 1]], "more"),
        ([[3, 1, 2], [3.1, 1, 2.1], [3, 1.1, 2]], "too much"),
        ([[3, 1, 1.1], [3.1, 1.1, 1], [3, 1.05, 1.04]], "enough"),
        ([[3, np.nan, 1]] * 3, "unknown"),
        ([[3]] * 3, "unknown"),
        ([[3, 2, 1]], "unknown"),
    ],
)
def test_depth_by_the_medians_of_parts(octaves, answer):
    medians = 2.0 ** np.array(octaves, dtype=float)
    found = judge_depth([str(i) for i in range(medians.shape[1])], medians)
    assert found.answer == answer
    if answer == "more":
        assert found.octaves == pytest.approx(-1, abs=0.1)
        assert found.low < found.octaves < found.high < 0


def test_gaps_are_paired_by_point():
    one = np.array([1.0, 0, 1, 1])
    assert Gap.of(one, one) == Gap(0.0, 0.0, 0.0)
    gap = Gap.of(one, np.array([1.0, 1, 1, 1]))
    assert gap.value == -0.25
    assert gap.high - gap.value == pytest.approx(
        3.1824 * 0.5 / 2, rel=1e-4
    )  # of Student's t with three degrees of freedom


def made(linear_gap, low):
    """Advice of which only the heads' gaps count."""
    layers = [str(i) for i in range(len(linear_gap))]
    table = pd.DataFrame({"layer": layers, "linear": 0.9, "linear_gap": linear_gap, "linear_low": low})
    table = table.assign(linear_high=0.1, rms=1.0, time=0.5)
    depth = judge_depth(layers, np.empty((0, 0)))
    return Advice(table, "accuracy", 0.9, 0.5, 10, 100, 100, 0.02, depth)


def test_a_cut_is_advised_within_the_tolerance_and_sure_where_its_interval_is():
    found = made([-0.1, -0.015, -0.01], [-0.2, -0.03, -0.02])
    assert (found.exit, found.sure_exit) == ("1", "2")
    assert "for sure only at '2'" in found.sentences[0]
    none = made([-0.1, -0.05, -0.03], [-0.2, -0.1, -0.04])
    assert (none.exit, none.sure_exit) == (None, None)
    assert none.sentences[0].startswith("Do not cut")
    assert "no cut is within it for sure" in made([-0.1, -0.01], [-0.2, -0.1]).sentences[0]


@pytest.mark.parametrize(
    ("model", "inputs", "targets", "options", "words"),
    [
        (by_hand(), X, XOR, {"tolerance": 1.0}, ("tolerance", Code.VALUE)),
        (by_hand(), X, XOR, {"tolerance": -0.1}, ("tolerance", Code.VALUE)),
        (by_hand(), X, None, {}, ("targets", Code.EMPTY)),
        (by_hand(), X[:20], XOR[:20], {}, ("inputs", Code.EMPTY)),
        (by_hand(), X, torch.zeros(240).long(), {}, ("targets", Code.CONSTANT)),
        (by_hand(), X, XOR - 1, {}, ("targets", Code.VALUE)),
        (by_hand(), X, XOR * 1j, {}, ("targets", Code.UNSUPPORTED)),
        (by_hand(), X, XOR + 1, {}, ("targets", Code.SHAPE)),
        (by_hand(), X, (X > 0).float(), {}, ("targets", Code.VALUE, "pass nn.Sequential(model, nn.Sigmoid())")),
        (nn.Sequential(by_hand(), nn.Linear(2, 1)), X, XOR, {}, ("targets", Code.SHAPE)),
        (by_hand(), X, X[:, 0], {}, ("targets", Code.SHAPE)),
        (by_hand(), X, X * torch.nan, {}, ("targets", Code.NOT_FINITE)),
        (by_hand(), X, XOR, {"transfer": (X[:20], XOR[:20])}, ("inputs", Code.EMPTY)),
        (by_hand(), X, XOR, {"transfer": (torch.ones(240, 3), XOR)}, ("inputs", Code.FAILED)),
        (by_hand(), torch.where(X[7, 0] == X, torch.nan, X), XOR, {}, ("inputs", Code.NOT_FINITE)),
        (by_hand(), X, XOR, {"transfer": (X / 0, XOR)}, ("inputs", Code.NOT_FINITE)),
        (nn.Linear(2, 2), X, XOR, {}, ("model", Code.UNSUPPORTED)),
        (by_hand(), X, XOR, {"layers": ["nothing"]}, ("layers", Code.UNKNOWN)),
    ],
)
def test_what_cannot_be_advised_is_one_line(model, inputs, targets, options, words):
    with refuses(*words):
        advise(model, inputs, targets, **options)
