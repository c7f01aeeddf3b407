"""Layer convergence held to weights whose way is known: exponential, straight, random; and to its refusals."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.related import layer_convergence, plot_convergence
from layerfreq.runs.weights import keep_weights
from tests.helpers.refusals import Code, refuses


def write(path, steps, weights):
    """A run of a network of two layers whose weights are given as functions of the step."""
    run = Run.create(path)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1, bias=False))
    for step in steps:
        with torch.no_grad():
            for layer, make in weights.items():
                model[layer].weight.copy_(make(step) * torch.ones_like(model[layer].weight))
        keep_weights(run.path, step, model)
    return run, model


def test_rate_is_that_of_an_exponential_and_half_of_a_straight_line_is_chance(tmp_path):
    # w(t) = exp(-t / 10) with its end, step 10000, at zero: C = 1/10. The other moves straight: |w - w(T)| ~ T - t.
    steps = [0, 5, 20, 10_000]
    run, model = write(tmp_path / "run", steps, {0: lambda t: math.exp(-t / 10), 2: lambda t: float(t) / 10_000})
    frame = layer_convergence(run, model)
    fast, straight = (frame[frame["layer"] == layer] for layer in ("0", "2"))
    np.testing.assert_allclose(fast["rate"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(fast["distance"], np.sqrt(12) * np.exp([0, -0.5]), rtol=1e-6)
    assert list(zip(fast["start"], fast["end"], strict=True)) == [(0, 5), (5, 20)]
    np.testing.assert_allclose(straight["rate"], 2 * straight["chance"], rtol=1e-3)
    assert set(fast["parameters"]) == {12}
    assert frame.attrs["still"] == ["1"]  # the batch norm's parameters, which nobody moved
    once = layer_convergence(str(run.path), steps=[0, 20])
    assert once[once["layer"] == "0"]["rate"].item() == pytest.approx(0.1, rel=1e-5)
    assert set(frame["depth"]) == {1, 3}


def test_a_random_walk_has_the_rate_of_chance(tmp_path):
    generator, run = torch.Generator().manual_seed(0), Run.create(tmp_path / "run")
    model = nn.Linear(200, 100, bias=False)
    for step in range(11):
        keep_weights(run.path, step, model)
        with torch.no_grad():
            model.weight += torch.randn(100, 200, generator=generator)
    frame = layer_convergence(run)
    assert set(frame["layer"]) == {"(model)"}
    np.testing.assert_allclose(frame["rate"], frame["chance"], rtol=0.1)


def test_units_of_weights_do_not_matter_and_a_layer_that_stops_has_no_rate_afterwards(tmp_path):
    way = {0: 1.0, 1: 0.5, 2: 0.0, 3: 0.0}
    one = write(tmp_path / "one", range(4), {0: way.get, 2: lambda t: 1.0 * t})[0]
    other = write(tmp_path / "other", range(4), {0: lambda t: 1e6 * way[t], 2: lambda t: 1.0 * t})[0]
    a, b = (layer_convergence(run) for run in (one, other))
    np.testing.assert_allclose(a["rate"], b["rate"], rtol=1e-6)
    assert a[a["layer"] == "0"]["end"].tolist() == [1]
    assert a[a["layer"] == "0"]["rate"].item() == pytest.approx(math.log(2))


def test_the_figure_has_the_layers_and_their_frequencies(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(60, 2)
    monitor = Monitor(model, x, (x[:, 0] > 0).long(), run=tmp_path / "run", checkpoints=True)
    for step in range(4):
        monitor.measure(step)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.9)
    figure = plot_convergence(tmp_path / "run", model)
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["0", "2", "4", "a random walk"]
    assert [line.get_label() for line in right.lines] == ["1", "3"]


def test_what_has_no_rate_is_one_line(tmp_path):
    run, model = write(tmp_path / "run", [0, 1, 2], {0: lambda t: 1.0, 2: lambda t: 2.0})
    for call, words in (
        (lambda: layer_convergence(run), ("run", Code.CONSTANT)),
        (lambda: layer_convergence(run, steps=[0, 2]), ("steps", Code.VALUE)),
        (lambda: layer_convergence(run, steps=5), ("steps", Code.VALUE)),
        (lambda: layer_convergence(run, nn.Linear(1, 1)), ("run", Code.CONFLICT, "weight")),
        (lambda: layer_convergence(Run.create(tmp_path / "empty")), ("run", Code.MISSING)),
        (lambda: layer_convergence(write(tmp_path / "two", [0, 1], {0: float})[0]), ("run", Code.MISSING)),
    ):
        with refuses(*words):
            call()
    assert model[0].weight.grad is None
