"""One tester holds every engine to brute force, on the same inputs."""

from itertools import product

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.engines import ENGINES as NAMES
from tests.helpers.brute import brute, one_hot
from tests.helpers.devices import ENGINES, GPU, case, device_of

LFR_ERROR = {
    ("reference", "float32"): 1e-12,
    ("reference", "float64"): 1e-12,
    ("cpu", "float32"): 1e-5,
    ("cpu", "float64"): 1e-5,
    ("cuda", "float32"): 1e-6,
    ("cuda", "float64"): 1e-6,
}
LIMIT = {"float64": 1e-6, "float32": 2e-5}

INTERPRETED = {(1, "float32", False), (7, "float64", True), (512, "float32", False)}  # slow: seconds a case


def cases():
    """Every engine on every kind of features and targets; "cuda" on fewer where Triton interprets its kernels."""
    kinds = ("random", "clustered", "duplicates", "far")
    for values in product(NAMES, ("float32", "float64"), kinds, (1, 7, 512, 3072), (False, True)):
        engine, dtype, _, d, vectors = values
        if engine != "cuda" or GPU or (d, dtype, vectors) in INTERPRETED:
            yield case(*values)


def clouds(kind, d, rng):
    n = 90
    labels = rng.integers(0, 4, n)
    labels[:4] = range(4)
    centres = rng.normal(size=(4, d)) / np.sqrt(d)
    x = {
        "random": rng.normal(size=(n, d)),
        "clustered": centres[labels] + 1e-4 * rng.normal(size=(n, d)) / np.sqrt(d),
        "duplicates": centres[labels],
        "far": 1000 + rng.normal(size=(n, d)),
    }[kind]
    return x, labels


@pytest.mark.parametrize(("engine", "dtype", "kind", "d", "vectors"), cases())
def test_engine_agrees_with_brute_force(engine, dtype, kind, d, vectors):
    device = device_of(engine)
    rng = np.random.default_rng(d)
    x, labels = clouds(kind, d, rng)
    x = x.astype(dtype)
    y = rng.normal(size=(len(x), 3)) + 5 if vectors else labels
    s = spectrum(x, y, center=False, engine=engine, device=device)
    if kind == "duplicates":  # only the whole-cluster distances are there
        assert s.neighbours[-1] > 10
    lfr, rdf, neighbours, weight = brute(x, y if vectors else one_hot(labels), s.inv_delta)
    limit = LFR_ERROR.get((engine, dtype), LIMIT[dtype])
    assert np.abs(s.lfr - lfr).max() <= limit
    assert np.abs(s.rdf - rdf).max() <= 1e-4 * rdf.max()
    np.testing.assert_allclose(s.neighbours, neighbours, rtol=1e-3)
    e, m = (1.0, (one_hot(labels).mean(axis=0) ** 2).sum())
    if vectors:
        e, m = (y**2).sum(axis=1).mean(), (y.mean(axis=0) ** 2).sum()
    n = len(x)
    np.testing.assert_allclose(s.chance, (m + n / (n - 1) * (e - m) * (weight - 1 / n)) / e, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_add_up_to_the_whole(engine):
    device = device_of(engine)
    rng = np.random.default_rng(0)
    x, labels = clouds("random", 5, rng)
    s = spectrum(x, labels, engine=engine, device=device)
    some = spectrum(x, labels, s.inv_delta, rows=len(x), engine=engine, device=device)
    np.testing.assert_allclose(some.lfr, s.lfr, rtol=1e-10)
    assert some.stderr is None


def test_blocks_do_not_show(monkeypatch):
    import sys

    module = sys.modules["layerfreq.engines.blocked"]
    x = torch.randn(150, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(150) % 7
    whole = spectrum(x, y, engine="blocked")
    monkeypatch.setattr(module, "TILE", 64)
    monkeypatch.setattr(module, "HEIGHT", 11)
    np.testing.assert_allclose(spectrum(x, y, whole.inv_delta, engine="blocked").lfr, whole.lfr, rtol=1e-12)
