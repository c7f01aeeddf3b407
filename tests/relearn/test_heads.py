"""Heads trained together against heads trained one by one with torch.optim."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq.relearn.heads import fixed_head, point_losses, reached, train_heads

N, D, C = 60, 12, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, D, generator=GENERATOR)
LABELS = torch.randint(0, C, (N,), generator=GENERATOR)
VECTORS = torch.randn(N, 2, generator=GENERATOR)


def one_by_one(head, x, y, rate, optimizer, steps):
    """Full-batch losses of steps 0 .. `steps`."""
    head = copy.deepcopy(head)
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    optim = make(head.parameters(), lr=rate)
    losses = []
    for _ in range(steps + 1):
        loss = point_losses(head(x), y).mean()
        losses.append(float(loss.detach()))
        optim.zero_grad()
        loss.backward()
        optim.step()
    return losses


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("targets", [LABELS, VECTORS])
@pytest.mark.parametrize("kind", ["linear", "hidden-1", "hidden-2"])
def test_together_as_one_by_one(kind, targets, optimizer):
    outputs = 2 if targets.is_floating_point() else C
    heads = [fixed_head(kind, D, outputs, seed, D**-0.5) for seed in (0, 1)]
    before = copy.deepcopy(heads)
    rates = [0.01, 0.1]
    options = {"optimizer": optimizer, "steps": 25, "batch": None}
    curves = train_heads(heads, X, targets, rates, [1e-9], **options)
    for s, head in enumerate(heads):
        for r, rate in enumerate(rates):
            expected = one_by_one(head, X, targets, rate, optimizer, 25)
            np.testing.assert_allclose(curves.losses[:, s, r], expected, rtol=2e-5)
    for a, b in zip(heads, before, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_any_module_is_a_head_and_leaves_no_trace_on_another():
    torch.manual_seed(0)
    heads = [
        nn.Sequential(
            nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, C)
        )
        for _ in range(3)
    ]
    curves = train_heads(heads, X, LABELS, [0.1], [1e-9], steps=10, batch=None)
    for s, head in enumerate(heads):
        np.testing.assert_allclose(curves.losses[:, s, 0], one_by_one(head, X, LABELS, 0.1, "sgd", 10), rtol=2e-5)


def test_batch_norm_takes_its_batch():
    torch.manual_seed(0)
    heads = [nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C)) for _ in range(2)]
    curves = train_heads(heads, X, LABELS, [0.1], [1e-9], steps=10, batch=None)
    for s, head in enumerate(heads):
        np.testing.assert_allclose(curves.losses[:, s, 0], one_by_one(head, X, LABELS, 0.1, "sgd", 10), rtol=2e-5)


def test_heads_that_leave_the_batch_change_no_other():
    heads = [fixed_head("hidden-1", D, C, seed, D**-0.5) for seed in range(3)]
    rates = [1e-3, 0.1, 1.0, 1e12]
    errors = [0.8, 0.5, 0.2]
    every = train_heads(heads, X, LABELS, rates, [*errors, 1e-9], steps=300, batch=None)
    some = train_heads(heads, X, LABELS, rates, errors, steps=300, batch=None, keep=0)
    both = np.isfinite(some.losses)
    np.testing.assert_allclose(some.losses[both], every.losses[: len(some.losses)][both], rtol=1e-3)
    assert np.isnan(some.losses[-1, :, 2]).all()  # arrived, and left
    assert np.isfinite(some.losses[-1, :, 0]).all()  # kept to the end
    assert np.isinf(some.reached[:, 3]).all()  # diverged
    # the best of the grid is the same: the rate whose slowest seed arrives first
    np.testing.assert_allclose(
        some.reached.max(axis=0).min(axis=0), every.reached.max(axis=0).min(axis=0)[:3], rtol=1e-3
    )


@pytest.mark.parametrize("batch", [None, 16])
def test_gradient_descent_is_blind_to_a_rotation(batch):
    """The same numbers in rotated coordinates with rotated weights, and with Gaussian ones the same law."""
    q, _ = torch.linalg.qr(torch.randn(D, D, generator=GENERATOR, dtype=torch.float64))
    heads = [fixed_head("hidden-1", D, C, 0, 1.0).double()]
    turned = copy.deepcopy(heads)
    with torch.no_grad():
        turned[0].linear1.weight.copy_(heads[0].linear1.weight @ q)
    a = train_heads(heads, X.double(), LABELS, [0.3], [1e-9], steps=50, batch=batch)
    b = train_heads(turned, X.double() @ q, LABELS, [0.3], [1e-9], steps=50, batch=batch)
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-9)


def test_minibatches_evaluate_the_whole_loss():
    head = fixed_head("linear", D, C, 0, D**-0.5)
    curves = train_heads([head], X, LABELS, [0.1], [1e-9], steps=64, batch=16)
    assert curves.steps.tolist()[:5] == [0, 1, 2, 3, 4]
    assert curves.steps[-1] == 64
    assert len(curves.steps) < 30
    assert curves.losses[0, 0, 0] == pytest.approx(float(point_losses(head(X), LABELS).mean().detach()), rel=1e-5)
    longer = train_heads([head], X, LABELS, [0.1], [1e-9], steps=80, batch=16)
    np.testing.assert_allclose(curves.losses[:-1, 0, 0], longer.losses[: len(curves.losses) - 1, 0, 0])


def test_steps_are_read_off_the_curve():
    losses = np.array([[1.0, 0.25], [0.5, math.nan], [0.125, math.nan]])
    found = reached(np.array([0, 1, 3]), losses, [1.0, 0.5, 0.25, 0.1])
    np.testing.assert_allclose(found[0], [0, 1, 2, math.inf])
    np.testing.assert_allclose(found[1], [0, 0, 0, math.inf])


def test_fixed_heads_come_from_their_seed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a, b = (fixed_head("hidden-2", D, C, 5, D**-0.5) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    wide = fixed_head("hidden-1", 4000, C, 0, 4000**-0.5)
    assert float(wide.linear1.weight.detach().std()) == pytest.approx(4000**-0.5, rel=0.01)
    assert float(fixed_head("hidden-1", 4000, C, 0, 1.0).linear1.weight.detach().std()) == pytest.approx(1, rel=0.01)
    assert torch.equal(state, torch.get_rng_state())
