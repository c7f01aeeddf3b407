"""Sums of many small weights beside a large one, which float32 rounds all alike."""

import numpy as np
import pytest

from layerfreq import spectrum

N = 400


def places(kind):
    """Points in two places: those of a few, and one for all others; the targets are largest at the few."""
    few = {"one": 1, "two": 2, "five": 5}[kind]
    x, y = np.zeros((N, 2), np.float32), np.random.default_rng(0).normal(size=N)
    x[:few, 0], y[:few] = 1, 1e3
    return x, y, few


@pytest.mark.parametrize("kind", ["one", "two", "five"])
@pytest.mark.parametrize(("engine", "bound"), [("reference", 1e-12), ("blocked", 1e-5), ("cpu", 1e-5)])
@pytest.mark.parametrize("side", [1.0, 1.013])
def test_a_large_weight_takes_no_digits_of_many_small_ones(kind, engine, bound, side):
    x, y, few = places(kind)
    x *= np.float32(side)
    u = np.geomspace(1, 40, 40)
    y = y - y.mean()
    far = np.exp(-u * float(x[0, 0]) ** 2 / 2)[:, None]
    ours, others = y[:few].sum(), y[few:].sum()
    low = [(ours + far * others) / (few + far * (N - few)), (far * ours + others) / (far * few + N - few)]
    lfr = (few * low[0] ** 2 + (N - few) * low[1] ** 2)[:, 0] / (y**2).sum()
    np.testing.assert_allclose(spectrum(x, y, u, engine=engine).lfr, lfr, rtol=0, atol=bound)


@pytest.mark.parametrize("engine", ["blocked", "cpu"])
def test_points_that_all_keep_one_distance(engine):
    """Corners of a simplex, one of which has a large target: no other distance makes up for an error of the one."""
    u, y = np.geomspace(0.5, 20, 40), np.random.default_rng(0).normal(size=N)
    y[0] = 1e3
    y -= y.mean()
    other = np.exp(-u)[:, None]
    lfr = np.square((y + other * (y.sum() - y)) / (1 + other * (N - 1))).sum(axis=1) / np.square(y).sum()
    found = spectrum(np.eye(N, dtype=np.float32), y, u, engine=engine)
    np.testing.assert_allclose(found.lfr, lfr, rtol=0, atol=1e-5)
