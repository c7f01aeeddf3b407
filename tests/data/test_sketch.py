"""Wide targets: random-sign sums estimate what all columns give, without bias, and say how well."""

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.data.targets import as_targets
from layerfreq.inspection.benchmark import added_memory
from tests.helpers.devices import ENGINES, device_of
from tests.helpers.refusals import Code, refuses

N, WIDE, SEEDS = 120, 250, 150
U = np.geomspace(0.05, 50, 6)


def data(kind):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(N, 3, generator=random, dtype=torch.float64)
    if kind == "one-hot":
        labels = ((x[:, 0] * 40).long() * 7 + torch.randint(0, 3, (N,), generator=random)) % WIDE
        return x, torch.eye(WIDE)[labels]
    noise = torch.randn(N, WIDE, generator=random, dtype=torch.float64)
    smooth = torch.stack([torch.sin(k * x[:, k % 3]) for k in range(1, 6)], dim=1)
    mixed = smooth @ torch.randn(5, WIDE, generator=random, dtype=torch.float64)
    return x, {"smooth": mixed + 3, "noise": noise + x[:, :1], "far": mixed + noise + 100}[kind]


@pytest.fixture
def exact(monkeypatch):
    def measure(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr("layerfreq.data.targets.EXACT", 10**9)
            return spectrum(*args, **options)

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one-hot", "smooth", "noise", "far"])
def test_unbiased_and_covered(kind, exact):
    x, y = data(kind)
    one = exact(x, y, U)
    assert one.sketch is None
    found = [spectrum(x, y, U, seed=seed) for seed in range(SEEDS)]
    assert found[0].sketch == 64
    for name in ("lfr", "rdf"):
        errors = np.array([getattr(s, name) - getattr(one, name) for s in found])
        mean, spread = errors.mean(axis=0), errors.std(axis=0, ddof=1)
        assert np.all(np.abs(mean) < 4 * spread / np.sqrt(SEEDS) + 1e-12), name
    covered = np.mean([np.abs(s.lfr - one.lfr) <= 1.96 * s.stderr + 1e-13 for s in found])
    assert 0.88 < covered < 0.99
    for name in ("chance", "neighbours", "floor"):  # what no sketch is needed for
        np.testing.assert_allclose(getattr(found[0], name), getattr(one, name), rtol=1e-10)


@pytest.mark.slow
def test_sketch_and_rows_add_their_errors(exact):
    x, y = data("noise")
    one = exact(x, y, U, center=True)
    found = [spectrum(x, y, U, rows=60, center=True, seed=seed) for seed in range(SEEDS)]
    covered = np.mean([np.abs(s.lfr - one.lfr) <= 1.96 * s.stderr for s in found])
    assert 0.88 < covered < 0.995
    assert found[0].rows == 60


def test_an_error_that_no_row_mends_is_told():
    x, y = data("noise")
    with pytest.warns(UserWarning, match="sketched target columns leave"):
        s = spectrum(x, y, U, rtol=0.01)
    assert (s.stderr / s.lfr).max() > 0.01


def test_the_mean_costs_no_accuracy(exact):
    """It is the one thing that a plain sketch of 100 + noise would err most in."""
    x, y = data("far")
    s, one = spectrum(x, y, U, center=False), exact(x, y, U, center=False)
    assert one.floor > 0.999
    assert np.abs(s.lfr - one.lfr).max() < 0.1 * (1 - one.floor)


def test_nothing_is_left_uncertain_at_the_ends():
    """Without a filter, and where it leaves nothing but the mean, the energy is known."""
    x, y = data("noise")
    s = spectrum(x, y, [1e-9, 1e9])
    np.testing.assert_allclose(s.lfr, [s.floor, 1], atol=1e-6)
    assert np.all(s.stderr < 1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_tell_columns_apart(engine):
    device = device_of(engine)
    x, y = data("smooth")
    one, other = spectrum(x, y, U, engine="reference"), spectrum(x, y, U, engine=engine, device=device)
    np.testing.assert_allclose(other.lfr, one.lfr, atol=1e-5)
    np.testing.assert_allclose(other.rdf, one.rdf, atol=1e-4 * one.rdf.max())
    np.testing.assert_allclose(other.stderr, one.stderr, atol=1e-5)


def test_seed_and_global_state():
    x, y = data("noise")
    state = torch.get_rng_state()
    one, again, other = (spectrum(x, y, U, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(one.lfr, again.lfr)
    assert not np.array_equal(one.lfr, other.lfr)
    assert "all rows, target columns sketched to 64" in repr(one)
    assert "60 rows, target columns sketched to 64" in repr(spectrum(x, y, U, rows=60))
    assert one.to_frame()["stderr"].max() > 0
    assert one.at([1.0]).sketch == 64


def test_what_is_narrow_or_ids_stays_exact():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    assert spectrum(x, torch.randn(300, 128), [1.0]).stderr is None
    assert spectrum(x, torch.arange(300), [1.0]).stderr is None


@pytest.mark.parametrize("y", [torch.zeros(9, 300), torch.ones(9, 300)])
def test_targets_without_variation(y):
    x = torch.arange(9.0)
    with refuses("targets", Code.CONSTANT):
        spectrum(x, y, U, center=True)
    if y.any():
        np.testing.assert_allclose(spectrum(x, y, U, center=False).lfr, 1)


def test_fifty_thousand_columns_in_bounded_memory(monkeypatch):
    n, width = 400, 50_000
    labels = torch.randint(0, width, (n,), generator=torch.Generator().manual_seed(0)) // 2500 * 2500
    y = torch.zeros(n, width, dtype=torch.float16)
    y[torch.arange(n), labels] = 1
    largest, double = 0, torch.Tensor.double

    def watched(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return double(tensor)

    monkeypatch.setattr(torch.Tensor, "double", watched)
    got = as_targets(y, n, center=False)
    assert largest <= max(1 << 22, 64 * width)  # never the (n, c) whole in float64
    assert got.width == 65
    assert got.floor == pytest.approx(as_targets(labels, n).floor, rel=1e-9)
    np.testing.assert_allclose(got.energy, 0.25, rtol=1e-9)  # targets are halved, to below 1


def tokens(n, vocabulary, seed=0):
    """Class ids as tokens come: few often, most of them once or never."""
    random = torch.Generator().manual_seed(seed)
    return (vocabulary ** torch.rand(n, generator=random, dtype=torch.float64)).long() - 1


@pytest.fixture
def few_classes(monkeypatch):
    monkeypatch.setattr("layerfreq.data.targets.CLASSES", 8)


@pytest.mark.parametrize("center", [False, True])
def test_class_ids_are_sketched_as_their_one_hot_vectors_are(center, few_classes):
    labels = tokens(300, 500)
    ids, labels = labels.unique(return_inverse=True)
    assert len(ids) > 128
    got, dense = (as_targets(y, 300, center=center, seed=3) for y in (labels, torch.eye(len(ids))[labels]))
    unit = dense.energy[0] / got.energy[0]  # vectors are scaled by a power of two
    for name in ("energy", "rest", "vectors", "offset", "mean_energy"):
        factor = unit.sqrt() if name in ("vectors", "offset") else unit
        expected = torch.as_tensor(getattr(dense, name), dtype=torch.float64)
        torch.testing.assert_close(
            torch.as_tensor(getattr(got, name), dtype=torch.float64) * factor, expected, rtol=1e-9, atol=1e-12
        )


@pytest.mark.slow
def test_sketched_class_ids_are_unbiased_and_covered(monkeypatch):
    x, _ = data("noise")
    labels = tokens(N, 300) // 4 + (x[:, 0] > 0) * 100
    one = spectrum(x, labels, U)
    monkeypatch.setattr("layerfreq.data.targets.CLASSES", 8)
    for options in ({}, {"rows": 60}, {"rtol": 0.05}):
        found = [spectrum(x, labels, U, seed=seed, **options) for seed in range(SEEDS // 2)]
        assert found[0].sketch == 64
        errors = np.array([s.lfr - one.lfr for s in found])
        assert np.all(np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0) / np.sqrt(len(found)) + 1e-4)
        covered = np.mean([np.abs(s.lfr - one.lfr) <= 1.96 * s.stderr + 1e-13 for s in found])
        assert 0.88 < covered <= 1, options
        np.testing.assert_allclose(found[0].floor, one.floor, rtol=1e-10)


def test_a_vocabulary_of_fifty_thousand_in_bounded_memory():
    """20,000 tokens: one-hot they would be 2 GB, in float32."""
    n = 20_000
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    labels = tokens(n, 50_000)
    assert len(labels.unique()) > 5_000
    spectrum(x[:600], labels[:600], U, rows=50)  # compile, load
    added, s = added_memory(lambda: spectrum(x, labels, U, rows=100))
    assert s.sketch == 64
    assert s.floor == pytest.approx(float((labels.bincount() / n).square().sum()), rel=1e-6)
    assert added is None or added < 300 << 20
