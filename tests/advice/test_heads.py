"""Held-out heads: what can be read off features is found, what cannot is not, whatever the features' size or turn."""

import numpy as np
import pytest
import torch

from layerfreq.advice.heads import coordinates, held_out, point_scores

X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
XOR = (X[:, 0] * X[:, 1] > 0).long()


@pytest.mark.slow
def test_a_line_is_found_by_both_heads_and_xor_by_the_hidden_layer_alone():
    x = coordinates(X)
    assert held_out(x, (X[:, 0] > 0).long(), "linear").scores.mean() > 0.97
    assert 0.35 < held_out(x, XOR, "linear").scores.mean() < 0.65
    found = held_out(x, XOR, "hidden-1")
    assert found.scores.mean() > 0.93
    assert 1 < found.steps < 200


def test_labels_that_are_not_in_the_features_are_not_told_though_they_can_be_learned_by_heart():
    wide = torch.randn(300, 200, generator=torch.Generator().manual_seed(1))
    scores = held_out(coordinates(wide), torch.arange(300) % 2, "hidden-1").scores
    assert scores.mean() == pytest.approx(0.5, abs=0.12)  # four standard errors of 300 coins


def test_r2_of_a_linear_function_is_one_and_of_noise_at_most_zero():
    x = coordinates(X)
    assert held_out(x, 300 * X[:, 0] - 100 * X[:, 1] + 7e3, "linear").scores.mean() > 0.98
    noise = torch.randn(300, generator=torch.Generator().manual_seed(2))
    assert held_out(x, noise, "linear").scores.mean() < 0.05


def test_scores_are_accuracy_and_r2():
    outputs = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
    assert point_scores(outputs, torch.tensor([1, 1, 1]), 1.0).tolist() == [1, 0, 1]
    y = torch.tensor([1.0, 2.0, 3.0])
    variance = float(y.var(unbiased=False))
    assert point_scores(y[:, None], y, variance).mean() == 1
    assert point_scores(torch.full((3, 1), 2.0), y, variance).mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("d", [3, 400])
def test_coordinates_keep_distances_and_know_neither_size_nor_place(d):
    x = torch.randn(50, d, generator=torch.Generator().manual_seed(3)).double()
    one, other = coordinates(x), coordinates(1e4 * x + 5)
    assert one.shape[1] <= min(50, d)
    ratio = torch.cdist(one.double(), one.double())[0, 1:] / torch.cdist(x, x)[0, 1:]
    np.testing.assert_allclose(ratio, float(ratio[0]), rtol=1e-4)
    np.testing.assert_allclose(one, other, atol=1e-3)
