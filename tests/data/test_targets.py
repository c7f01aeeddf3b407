"""Targets: what an engine sums stands for the same function, whatever form the targets came in."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerfreq.data.targets import as_targets
from tests.helpers.refusals import Code, refuses

ids = st.lists(st.integers(0, 7), min_size=2, max_size=40)
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
vectors = st.integers(2, 20).flatmap(lambda n: arrays(np.float64, (n, 3), elements=numbers))


def dense(targets):
    """The targets as a matrix, offset included."""
    return targets.block(slice(None), torch.float64, torch.device("cpu")) + targets.offset


@given(ids, st.booleans())
def test_class_ids_are_one_hot_vectors(labels, center):
    assume(not center or len(set(labels)) > 1)
    got = as_targets(labels, len(labels), center=center)
    onehot = np.eye(len(set(labels)))[np.unique(labels, return_inverse=True)[1]]
    expected = onehot - onehot.mean(axis=0) if center else onehot
    np.testing.assert_allclose(dense(got), expected, atol=1e-15)
    np.testing.assert_allclose(got.energy, (expected**2).sum(axis=1), atol=1e-14)
    assert got.mean_energy == pytest.approx((expected.mean(axis=0) ** 2).sum(), abs=1e-14)
    assert got.floor == pytest.approx(got.mean_energy / (expected**2).sum(axis=1).mean(), abs=1e-14)


@given(vectors, st.booleans())
def test_vectors_keep_their_ratios(y, center):
    expected = y - y.mean(axis=0) if center else y
    size = np.abs(y).max()
    assume(size > 0)
    assume(np.abs(y - y.mean(axis=0)).max() >= 1e-9 * size)
    got = as_targets(y, len(y), center=center)
    # The ratio of energies does not depend on the targets' unit, which is some power of two.
    unit = 2.0 ** np.round(np.log2(float(dense(got).abs().max())) - np.log2(np.abs(expected).max()))
    np.testing.assert_allclose(dense(got), expected * unit, atol=1e-14)
    np.testing.assert_allclose(got.energy, ((expected * unit) ** 2).sum(axis=1), atol=1e-13)
    np.testing.assert_allclose(got.vectors.mean(dim=0), 0, atol=1e-14)


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_the_unit_of_the_targets_does_not_matter(unit):
    y = np.random.default_rng(0).standard_normal((50, 2)) + 3
    assert as_targets(y * unit, 50).floor == pytest.approx(as_targets(y, 50).floor, rel=1e-12)


def test_one_column_may_come_flat_and_ids_of_any_integer_kind():
    y = torch.linspace(-1, 1, 9)
    assert torch.equal(dense(as_targets(y, 9)), dense(as_targets(y[:, None], 9)))
    labels = torch.tensor([0, 1, 1, 0])
    for dtype in (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64):
        assert torch.equal(as_targets(labels.to(dtype), 4).labels, labels)


def test_chance_at_its_ends():
    """One point in a window: everything is kept; all of them: the floor is."""
    targets = as_targets([0, 0, 1, 2, 2, 2], 6)
    assert targets.chance(1.0) == pytest.approx(1.0)
    assert targets.chance(1 / 6) == pytest.approx(targets.floor)
    assert as_targets([4], 1).chance(1.0) == 1.0


@pytest.mark.parametrize(
    ("targets", "n", "center", "words"),
    [
        ([0, 1, 2], 4, False, ("targets", Code.SHAPE)),
        (3, 4, False, ("targets", Code.SHAPE)),
        ([0, -1], 2, False, ("targets", Code.VALUE)),
        ([[0, 1], [1, 0]], 2, False, ("targets", Code.SHAPE)),
        ([[0], [1], [1]], 3, None, ("targets", Code.SHAPE)),
        (np.ma.array([0, 1, 1], mask=[0, 1, 0]), 3, None, ("targets", Code.VALUE)),
        (np.ma.array([[0.5], [1.0]], mask=[[True], [False]]), 2, None, ("targets", Code.VALUE)),
        ([1e15, 1e15], 2, None, ("targets", Code.CONSTANT)),
        ([1.0, float("nan")], 2, False, ("targets", Code.NOT_FINITE)),
        ([1.0, float("inf")], 2, False, ("targets", Code.NOT_FINITE)),
        ([0.0, 0.0], 2, False, ("targets", Code.CONSTANT)),
        ([2, 2], 2, True, ("targets", Code.CONSTANT)),
        ([0.1, 0.1], 2, True, ("targets", Code.CONSTANT)),
        (np.zeros((2, 0)), 2, False, ("targets", Code.SHAPE)),
        (["cat", "dog"], 2, False, ("targets", Code.VALUE)),
        (torch.ones(2, dtype=torch.complex64), 2, False, ("targets", Code.UNSUPPORTED)),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(targets, n, center, words):
    with refuses(*words):
        as_targets(targets, n, center=center)
