"""Points pass by filter centres in pieces: distances are those of the features, whatever the pieces."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfreq.data.source import InMemory
from layerfreq.engines import read_points
from layerfreq.engines.coincidence import bits_of, fingerprints, weights
from layerfreq.engines.cpu import kernels
from layerfreq.engines.passing import Passing


def points(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def brute(x, index):
    """Squared distances of some points to all, by differences in float64."""
    return (x.double()[index, None] - x.double()[None]).square().sum(-1).numpy()


def passed(x, index, size, again=0):
    """Let points pass by in pieces of a size, the first centre again with the last of them, moved by so much."""
    n, rest = len(x), torch.ones(len(x), dtype=torch.bool)
    rest[index] = False
    order, passing = torch.cat([index, torch.nonzero(rest)[:, 0]]), Passing(index, n)
    pieces = list(order.split(size))
    for number, piece in enumerate(pieces):
        block = x[piece]
        if number == len(pieces) - 1 and len(pieces) > 1:
            piece, block = torch.cat([piece, index[:1]]), torch.cat([block, x[index[:1]] + again])
        passing.see(piece, block)
    return passing


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(3, 9),
    d=st.integers(1, 40),
    spread=st.sampled_from([1.0, 1e-3, 1e-6]),
    offset=st.sampled_from([0.0, 3.0, 1e3]),
    size=st.sampled_from([1.0, 1e-9, 1e9]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    piece=st.integers(2, 10),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_distances_are_those_of_the_features_in_whatever_pieces(n, d, spread, offset, size, dtype, piece, seed, data):
    x = ((points(n, d, seed, dtype) + offset) * size).contiguous()
    x[n // 2] = x[0] + spread * size * points(1, d, seed + 1, dtype)[0]
    if data.draw(st.booleans()):
        x[-1] = x[0]
    index = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=2, max_size=n - 1))))
    found = passed(x, index, piece)
    distances, exact = found.distances(), brute(x, index)
    if distances is None:  # the others far away from the centres, in one place
        others = torch.tensor([i for i in range(n) if i not in index.tolist()])
        assert brute(x[others], torch.arange(len(others))).max() < 1e-4 * exact.max()
        return
    if not exact.any():
        assert not distances.squared.any()
        return
    gain = float(distances.points.gain[0])
    assert math.frexp(gain)[0] == 0.5
    np.testing.assert_allclose(
        distances.squared / gain**2, exact, rtol=1e-9 if dtype == torch.float64 else 1e-4, atol=0
    )
    assert np.array_equal(distances.squared == 0, exact == 0)
    whole = read_points(InMemory(x))
    assert distances.points.coincident == pytest.approx(whole.coincident)
    spread = whole.spread / float(whole.gain[0]) ** 2
    assert distances.points.spread / gain**2 == pytest.approx(spread, rel=1e-6)
    torch.testing.assert_close(distances.points.shift, x.double().mean(0), rtol=1e-9, atol=1e-9 * size)
    assert found.drift == 0


def test_a_point_that_comes_again_elsewhere_is_noticed():
    x, index = points(20, 30), torch.arange(0, 20, 4)
    typical = float((x[index] - x[index].mean(0)).square().sum(1).mean().sqrt())
    for away in (1e-3, 10.0):
        drift = passed(x, index, 7, again=away * torch.eye(30)[0]).drift
        assert drift == pytest.approx(away / typical, rel=1e-3)


def test_what_is_not_finite_or_out_of_range_is_left_to_others():
    index = torch.arange(4)
    for size in (1e30, 1e-30):
        assert passed(points(9, 30) * size, index, 5).distances() is None
    nothing = passed(points(9, 30) * 0, index, 5).distances()
    assert nothing is not None
    assert not nothing.squared.any()
    assert (nothing.points.spread, nothing.points.coincident) == (0.0, 9.0)
    for at in (1, 7):
        x = points(9, 30)
        x[at, 3] = math.nan
        assert passed(x, index, 5).distances() is None
    passing = passed(points(9, 30), index, 5)
    with pytest.raises(ValueError, match="width"):
        passing.see(torch.tensor([8]), points(1, 31))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_fingerprints_are_the_others(dtype):
    x = points(30, 50, dtype=dtype)
    x[3], x[4, :20], x[5] = x[7], 0.0, 2.0
    x[6] = x[4]
    x[6, :20] = -0.0
    found = np.zeros(30, np.int64)
    for at in (slice(0, 20), slice(20, 50)):
        kernels.fingerprints(bits_of(x), at.start, weights(50)[at].numpy(), found)
    assert np.array_equal(found, fingerprints(x).numpy())
    assert len(np.unique(found)) == 28


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("where", [0, 4])
def test_what_is_not_finite_or_overflows_is_no_warning(value, where, recwarn):
    x = points(6, 40, dtype=torch.float64)
    x[where, 3] = value
    assert passed(x, torch.tensor([0, 1]), 3).distances() is None
    assert not recwarn.list
