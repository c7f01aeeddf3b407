"""Condensation held to directions that are known: parallel, orthogonal, random in d dimensions; and its invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerfreq import Run
from layerfreq.related import neuron_condensation, neuron_similarity, plot_condensation, run_condensation
from layerfreq.runs.weights import keep_weights
from tests.helpers.refusals import Code, refuses


def test_parallel_orthogonal_and_a_case_by_hand():
    parallel = neuron_condensation([[1.0, 2.0], [-2.0, -4.0], [0.5, 1.0]])
    assert (parallel["similarity"], parallel["directions"]) == (pytest.approx(1), pytest.approx(1))
    orthogonal = neuron_condensation(np.eye(4) * [1, 2, 3, 4])
    assert (orthogonal["similarity"], orthogonal["directions"]) == (0, pytest.approx(4))
    # Angles of 60 degrees between all three: |cosine| 1/2, 9 / (3 + 6/4) directions.
    hexagon = neuron_condensation([[1.0, 0.0], [0.5, math.sqrt(0.75)], [-0.5, math.sqrt(0.75)]])
    assert hexagon["similarity"] == pytest.approx(0.5)
    assert hexagon["directions"] == pytest.approx(2)


def test_a_bias_is_an_input_more():
    cosine = neuron_similarity([[1.0], [1.0]], [1.0, -1.0])
    np.testing.assert_allclose(cosine, [[1, 0], [0, 1]], atol=1e-12)
    assert neuron_condensation([[1.0], [1.0]], [1.0, -1.0])["inputs"] == 2


@pytest.mark.parametrize("d", [2, 3, 10, 200])
def test_chance_is_what_random_directions_have(d):
    rows = np.random.default_rng(d).normal(size=(600, d))
    found = neuron_condensation(rows)
    assert found["similarity"] == pytest.approx(found["chance"], rel=0.03)
    assert found["directions"] == pytest.approx(found["chance_directions"], rel=0.05)
    known = {2: 2 / math.pi, 3: 1 / 2}  # mean |cos| over the circle and over the sphere
    assert d not in known or found["chance"] == pytest.approx(known[d], rel=1e-12)


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 5))
def test_sizes_signs_rotations_and_order_do_not_matter(seed, m, d):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(m, d))
    turned = (rows @ np.linalg.qr(rng.normal(size=(d, d)))[0])[rng.permutation(m)]
    turned *= rng.choice([-1, 1], (m, 1)) * 10.0 ** rng.integers(-150, 150, (m, 1))
    one, other = neuron_condensation(rows), neuron_condensation(turned)
    assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert 1 - 1e-9 <= one["directions"] <= min(m, d) + 1e-9


def test_a_run_has_every_layer_with_input_weights_at_every_step(tmp_path):
    run = Run.create(tmp_path / "run")
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(5, 4), nn.Linear(4, 1))
    keep_weights(run.path, 0, model)
    with torch.no_grad():
        model[3].weight[:] = torch.arange(1.0, 5)[:, None]
        model[3].bias[:] = torch.arange(1.0, 5)
    keep_weights(run.path, 10, model)
    frame = run_condensation(run, model)
    assert list(zip(frame["step"], frame["layer"], strict=True)) == [(0, "0"), (0, "3"), (10, "0"), (10, "3")]
    assert frame["inputs"].tolist() == [7, 6, 7, 6]
    assert frame["similarity"].iloc[3] == pytest.approx(1)
    lines = plot_condensation(frame).lines
    assert [line.get_label() for line in lines if not line.get_label().startswith("_")] == ["0", "3", "by chance"]


def test_neurons_without_weights_are_counted_and_left_out():
    found = neuron_condensation([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert (found["silent"], found["neurons"], found["similarity"]) == (1, 3, pytest.approx(1))


def test_what_has_no_directions_is_one_line(tmp_path):
    run = Run.create(tmp_path / "run")
    keep_weights(run.path, 0, nn.BatchNorm1d(3))
    for call, words in (
        (lambda: neuron_condensation(np.zeros((3, 2))), ("weight", Code.EMPTY)),
        (lambda: neuron_condensation([[1.0, np.inf]]), ("weight", Code.NOT_FINITE)),
        (lambda: neuron_similarity(np.eye(2), [1.0]), ("bias", Code.SHAPE)),
        (lambda: run_condensation(run), ("run", Code.MISSING)),
    ):
        with refuses(*words):
            call()
