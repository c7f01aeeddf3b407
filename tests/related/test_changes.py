"""What a jump changed: closed forms on a grid, chance, and the control of random steps."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerfreq import Run
from layerfreq.related import output_change, run_change
from layerfreq.runs.weights import keep_weights
from tests.helpers.refusals import Code, refuses

T = np.arange(64) / 64
LOW, HIGH = np.sin(2 * np.pi * T), np.cos(2 * np.pi * 20 * T)


@given(st.floats(0.01, 10), st.floats(-10, 10), st.floats(-3, 3))
def test_share_of_two_waves_is_that_of_their_squared_amplitudes(a, b, constant):
    found = output_change(T, LOW + HIGH, (1 + a) * LOW + (1 + b) * HIGH + constant, cutoff=2 * np.pi * 10, shuffles=1)
    assert found.share == pytest.approx(a * a / (a * a + b * b), abs=1e-9)
    assert found.shift == pytest.approx(constant**2 / (constant**2 + (a * a + b * b) / 2), abs=1e-9)
    assert found.size == pytest.approx(np.sqrt((a * a + b * b) / 2), rel=1e-9)
    assert found.share_before == pytest.approx(0.5)


def test_low_is_what_holds_half_of_the_function_before():
    found = output_change(T, 2 * LOW + HIGH, LOW)
    assert found.cutoff == pytest.approx(2 * np.pi)
    assert found.share == pytest.approx(0.5)
    assert found.share_before == pytest.approx(0.8)


def test_chance_is_the_share_of_the_modes_that_lie_below():
    # Of 63 modes but the mean, those of 1 .. 8 cycles, twice each: every one is expected to hold as much.
    found = output_change(T, LOW + HIGH, LOW, cutoff=2 * np.pi * 8, shuffles=400)
    mean, least, most = found.chance
    assert mean == pytest.approx(16 / 63, abs=5 * np.sqrt(2 / 63 * 16 / 63 / 400))
    assert least < mean < most


def test_order_of_points_and_units_of_outputs_do_not_matter():
    order = np.random.default_rng(0).permutation(64)
    one = output_change(T, LOW + HIGH, 2 * LOW)
    other = output_change(T[order], 1e6 * (LOW + HIGH)[order], 2e6 * LOW[order])
    assert other.share == pytest.approx(one.share, abs=1e-9)
    assert other.size == pytest.approx(one.size, rel=1e-9)


def test_filters_agree_in_any_dimension():
    # In many dimensions: a change that is one number per far cluster is low, one that alternates inside them is high.
    rng = np.random.default_rng(0)
    centre = rng.choice([-50.0, 50.0], size=(200, 1))
    x = np.concatenate([centre, rng.normal(size=(200, 5))], axis=1)
    before, noise = np.sign(centre) + 0.1 * rng.normal(size=(200, 1)), rng.normal(size=(200, 1))
    low = output_change(x, before, before + np.sign(centre), cutoff=0.1)
    high = output_change(x, before, before + noise, cutoff=0.1)
    assert low.method == "filter"
    assert low.share > 0.9
    assert high.share < 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(0)
    run = Run.create(tmp_path_factory.mktemp("run"))
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 2))
    keep_weights(run.path, 0, model)
    with torch.no_grad():
        model[2].weight += 0.3 * torch.randn(2, 16)
    keep_weights(run.path, 7, model)
    return run, model


def test_a_run_is_compared_with_random_steps_of_the_same_size_and_the_model_stays(trained):
    run, model = trained
    kept, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    x = torch.linspace(-2, 2, 100)[:, None]
    found = run_change(run, 0, 7, model, x, controls=3)
    again = run_change(str(run.path), 0, 7, model, x, controls=3)
    assert model.training
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert found.random.shape == (3, len(found.k))
    np.testing.assert_array_equal(found.random, again.random)
    # Only the last weights moved: the controls move those alone, as far, and not in the same direction.
    back = run_change(run, 7, 0, model, x, controls=0)
    assert back.random is None
    assert back.size > 0
    np.testing.assert_allclose(back.change, found.change, rtol=1e-6, atol=1e-12)
    assert abs(found.random - found.change).max() > 1e-3 * found.change.max()
    assert "control" in repr(found)
    assert list(found.to_frame()) == ["k", "before", "change", "shuffled", "random"]
    assert len(found.plot().lines) == 5


def test_controls_go_exactly_as_far(trained):
    # A linear network with the weight alone: |after - before| scales with the step, so the energies must agree.
    run, _ = trained
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    keep_weights(run.path, 100, model)
    with torch.no_grad():
        model.weight.fill_(1.5)
    keep_weights(run.path, 101, model)
    found = run_change(run, 100, 101, model, torch.linspace(-1, 1, 50)[:, None], controls=4)
    for one in found.random:
        np.testing.assert_allclose(one, found.change, rtol=1e-5)
    assert found.size == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((T, LOW, LOW), {}, ("after", Code.CONSTANT)),
        ((T, LOW, LOW + 3), {}, ("after", Code.CONSTANT)),
        ((T, np.float32(LOW), np.float32(LOW) + np.float32(1)), {}, ("after", Code.CONSTANT)),  # up to its rounding
        ((T, LOW, LOW[:9]), {}, ("after", Code.SHAPE)),
        ((T, np.full(64, np.nan), LOW), {}, ("before", Code.NOT_FINITE)),
        ((T, np.ones(64), LOW), {}, ("before", Code.CONSTANT)),
        ((T, LOW, HIGH, -1.0), {}, ("cutoff", Code.VALUE)),
        ((T, LOW, HIGH), {"shuffles": 0}, ("shuffles", Code.VALUE)),
        ((T, LOW, HIGH), {"method": "fourier"}, ("method", Code.UNKNOWN)),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments, options, words):
    with refuses(*words):
        output_change(*arguments, **options)


def test_steps_without_weights_are_named(trained):
    run, model = trained
    with refuses("step", Code.MISSING):
        run_change(run, 3, 7, model, torch.ones(4, 1))
    with refuses("run", Code.CONFLICT):
        run_change(run, 0, 7, nn.Linear(1, 2), torch.ones(4, 1))
