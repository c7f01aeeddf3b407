"""Targets that are functions of what the model returns, and several at once: one forward pass, and each as if alone."""

import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import layerfreq.measure.measure
from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from layerfreq.data.targets import lots
from layerfreq.network.outputs import ONE
from layerfreq.probe import Probe
from tests.helpers.refusals import Code, refuses

X = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 1).long()
WAVE = torch.sin(3 * X[:, :2])
GRID = np.geomspace(1e-2, 100, 9)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def residual(x, y, output):
    return y - output


def what_it_says(x, y, output):
    return output.argmax(1)


def in_batches(y, size=40):
    return list(zip(X.split(size), y.split(size), strict=True))


def same(found, expected, tolerance=0.0):
    assert list(found) == list(expected)
    for layer, one in found.items():
        other = expected[layer]
        for name in ("inv_delta", "neighbours"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=tolerance)
        for name in ("lfr", "chance", "density"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance)
        assert (one.n, one.d, one.rows, one.center, one.engine) == (
            other.n,
            other.d,
            other.rows,
            other.center,
            other.engine,
        )
        assert one.floor == other.floor


def by_hand(model, y, **options):
    return {name: spectrum(one, y, GRID, **options) for name, one in layer_features(model, X).items()}


def test_a_function_is_what_a_user_would_compute_by_hand():
    model = net()
    with torch.no_grad():
        out = model(X)
    same(layer_spectra(model, in_batches(WAVE), residual, inv_delta=GRID), by_hand(model, WAVE - out), 1e-6)
    same(layer_spectra(model, X, what_it_says, inv_delta=GRID), by_hand(model, out.argmax(1)))
    assert {one.center for one in layer_spectra(model, X, what_it_says, inv_delta=GRID).values()} == {False}


def test_several_are_each_as_if_alone_from_one_forward_pass():
    def error(x, y, output):
        return F.one_hot(y)[:, :2] - output

    model, seen = net(), []
    each = {"labels": Y, "wave": WAVE.numpy(), 3: what_it_says, "error": error}
    alone = {name: layer_spectra(model, in_batches(Y), {name: one}, inv_delta=GRID)[name] for name, one in each.items()}
    probe = Probe.of(model, X, each, None, {"inv_delta": GRID})
    with model[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a hook that counts
        measured = probe.measure(model)
    assert seen == [90]
    assert list(measured) == list(each)
    for name, one in measured.items():
        same(one.spectra[0], alone[name], 1e-6)
    same(layer_spectra(model, X, Y, inv_delta=GRID), alone["labels"])
    own = layer_spectra(model, in_batches(WAVE), {"labels": None, "residual": residual}, inv_delta=GRID)
    same(own["labels"], by_hand(model, WAVE), 1e-6)


@pytest.mark.parametrize("engine", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("center", [None, False])
@pytest.mark.parametrize("memory", [None, 6000])
def test_columns_side_by_side_in_one_run_of_an_engine_are_as_alone(engine, center, memory, monkeypatch):
    runs, make = [], layerfreq.measure.measure.Meeting
    monkeypatch.setattr(layerfreq.measure.measure, "Meeting", lambda *a, **k: runs.append(1) or make(*a, **k))
    each = {k: (k == Y).float() for k in range(3)}
    each |= {"wave": 1e5 + WAVE.double(), "tiny": 1e-9 * WAVE[:, 0], "ids": Y}
    options = {"engine": engine, "center": center, "inv_delta": GRID, "scale": "maxabs", "memory": memory}
    found = layer_spectra(net(), X, each, "1", **options)
    assert len(runs) == 2  # that of the ids is another
    for name, y in each.items():
        same(found[name], layer_spectra(net(), X, y, "1", **options), 2e-6)
    own = layer_spectra(net(), X, {"a": WAVE, "b": Y.float()}, "1", engine=engine)  # with a grid of its own
    same({"1": own["a"]["1"]}, {"1": layer_spectra(net(), X, WAVE, "1", engine=engine)["1"]}, 1e-4)


def test_many_columns_are_cut_into_lots():
    each = {"ids": Y, "wide": torch.zeros(5, 129), **{k: torch.zeros(5, 60) for k in range(5)}}
    assert [list(lot) for lot in lots(each)] == [[0, 1], [2, 3]]


def test_features_too_large_to_be_held_have_the_same_targets():
    model = net()
    each = {"labels": WAVE, "residual": residual}
    held = layer_spectra(model, X, each, inv_delta=GRID, engine="blocked")
    streamed = layer_spectra(model, X, each, inv_delta=GRID, engine="blocked", memory=2500)
    for name in each:
        for layer, one in streamed[name].items():
            np.testing.assert_allclose(one.lfr, held[name][layer].lfr, atol=1e-6)


def test_what_a_function_does_to_its_arguments_and_to_random_numbers_is_put_back():
    model, x, y = net(), X.clone(), WAVE.clone()

    def wild(x, y, output):
        found = y - output + torch.rand_like(output)
        for one in (x, y, output):
            one.zero_()
        return found

    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = layer_spectra(model, x, {"labels": y, "wild": wild}, inv_delta=GRID)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, X)
    assert torch.equal(y, WAVE)
    same(found["labels"], by_hand(model, WAVE), 1e-6)


def test_the_scale_and_the_size_of_a_residual_do_not_matter():
    """LFR is a ratio of energies: a residual that shrinks as a whole keeps its spectrum."""
    shrunk = {k: lambda x, y, output, k=k: 2.0**-k * (y - output) for k in (0, 10, 60)}
    found = layer_spectra(net(), X, {"labels": WAVE, **shrunk}, inv_delta=GRID)
    for k in (10, 60):
        same(found[k], found[0], 1e-6)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({}, ("targets", Code.EMPTY)),
        ({"labels": None}, ("targets", Code.EMPTY)),
        (residual, ("targets", Code.FAILED)),
        ({"a": Y, "b": residual}, ("targets", Code.FAILED)),
        ({"a": Y[:50]}, ("targets", Code.SHAPE)),
        ({"a": Y, "b": Y[:50]}, ("targets", Code.SHAPE)),
        ({"a": Y, "b": 0 * WAVE}, ("targets", Code.CONSTANT)),
        (lambda x, y, output: output[:4], ("targets", Code.SHAPE)),
        (lambda x, y, output: output.mean(), ("targets", Code.SHAPE)),
        (lambda x, y, output: output * torch.nan, ("targets", Code.NOT_FINITE)),
        (lambda x, y, output: sys.exit(3), ("targets", Code.FAILED)),
        (lambda x, y, output: "much", ("targets", Code.VALUE)),
        (lambda x, y, output: output.long(), ("targets", Code.SHAPE)),
    ],
)
def test_bad_ones_are_one_line(targets, said):
    with refuses(*said):
        layer_spectra(net(), X, targets)


def test_labels_without_a_column_less_an_output_with_one_are_told_not_taken_for_many_columns():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    with refuses("targets", Code.SHAPE):
        layer_spectra(model, X, {"labels": X[:, 0], "residual": residual})


def test_other_shapes_in_other_batches_and_positions_are_refused():
    with refuses("targets", Code.SHAPE):
        layer_spectra(net(), in_batches(WAVE), lambda x, y, output: output @ output.T)
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 5))
    ids = torch.randint(5, (20, 6))
    with refuses("targets", Code.UNSUPPORTED):
        layer_spectra(tokens, ids, {"a": ids[:, 0], "b": ids}, reading="positions")


def test_one_that_fails_leaves_the_others():
    sick = {"labels": Y, "sick": residual}
    measured = Probe.of(net(), X, sick, None, {"inv_delta": GRID}).measure(net(), strict=False)
    assert list(measured["labels"].spectra[0]) == ["1", "3"]
    assert measured["sick"].spectra == [{}]
    assert "residual fails" in str(measured["sick"].failed["targets"])


def test_a_single_one_has_no_name():
    assert list(Probe.of(net(), X, Y, None, {}).measure(net())) == [ONE]


def test_a_function_may_return_the_same_memory_for_every_batch():
    kept = torch.zeros(30, 2)
    each = {"new": lambda x, y, o: o, "again": lambda x, y, o: kept.copy_(o), "numpy": lambda x, y, o: kept.numpy()}
    found = layer_spectra(net(), in_batches(WAVE, 30), each, inv_delta=GRID)
    same(found["again"], found["new"])
    same(found["numpy"], found["new"])


def test_class_ids_in_some_batches_and_floats_in_others_are_refused():
    def mixed(x, y, output):
        return output.argmax(1) if torch.equal(x, X[:40]) else output[:, 0]

    with refuses("targets", Code.CONFLICT, "'mixed'"):
        layer_spectra(net(), in_batches(WAVE), {"mixed": mixed})


@pytest.mark.parametrize("shuffle", [True, False])
def test_targets_in_the_order_of_points_do_not_go_with_a_loader_that_shuffles(shuffle):
    loader = DataLoader(TensorDataset(X, WAVE), 40, shuffle=shuffle)
    if shuffle:
        with refuses("targets", Code.CONFLICT, "'own'"):
            layer_spectra(net(), loader, {"labels": None, "own": WAVE})
        layer_spectra(net(), loader, {"labels": None, "residual": residual}, inv_delta=GRID)
    else:
        found = layer_spectra(net(), loader, {"labels": None, "own": WAVE}, inv_delta=GRID)
        same(found["own"], found["labels"])


WAYS = [{}, {"reading": "mean"}, {"rows": 5}, {"memory": 1}, {"error": {"method": "filter"}}]


@pytest.mark.parametrize("targets", [None, {"labels": None, "said": what_it_says}], ids=["labels", "several"])
@pytest.mark.parametrize("options", WAYS)
def test_a_batch_with_fewer_labels_than_points_is_refused_also_if_another_has_more(targets, options):
    batches = list(zip(X.split([40, 40, 10]), Y.split([39, 41, 10]), strict=True))
    with refuses("targets", Code.SHAPE, "(39,) for 40 inputs"):
        if "error" in options:
            Monitor(net(), batches, targets, on_error="raise", **options).measure(0)
        else:
            layer_spectra(net(), batches, targets, inv_delta=GRID, **options)
