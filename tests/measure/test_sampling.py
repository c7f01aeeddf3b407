"""Sampled filter centres: who is drawn, and whether the standard error keeps its word."""

import numpy as np
import pytest
import torch

from layerfreq import spectrum
from layerfreq.data.targets import as_targets
from layerfreq.measure.sampling import LEAST, draw

N, SEEDS = 500, 200
U = np.geomspace(0.1, 30, 5)
KINDS = ["balanced", "unbalanced", "vectors", "heavy-tailed"]


def data(kind):
    random = torch.Generator().manual_seed(4)
    x = torch.randn(N, 3, generator=random, dtype=torch.float64)
    if kind == "vectors":
        noise = torch.randn(N, generator=random)
        return x, torch.stack([torch.sin(2 * x[:, 0]), x[:, 1] + 0.3 * noise, x[:, 2] ** 2], dim=1)
    if kind == "heavy-tailed":  # a tenth of the points has most of the energy
        return x, torch.exp(torch.randn(N, 1, generator=random, dtype=torch.float64)) * torch.sin(x)
    y = torch.arange(N) % 6
    if kind == "unbalanced":
        y = torch.bucketize(torch.rand(N, generator=random), torch.tensor([0.6, 0.85, 0.95, 0.98, 0.99]))
    x[:, 0] += y
    return x, y


def covered(kind, **options):
    """How often the 95% interval holds the exact value, over cutoffs and draws, and the rows that it took."""
    x, y = data(kind)
    exact = spectrum(x, y, U, engine="blocked", center=options.get("center")).lfr
    found = [spectrum(x, y, U, engine="blocked", seed=seed, **options) for seed in range(SEEDS)]
    given = [s for s in found if s.stderr is not None]  # a tolerance may take all rows, and is exact then
    assert len(given) > 0.8 * SEEDS
    return np.mean([np.abs(s.lfr - exact) <= 1.96 * s.stderr for s in given]), np.mean([s.rows for s in found])


def test_intervals_of_sampled_rows_cover():
    share = {kind: covered(kind, rows=150)[0] for kind in KINDS}
    assert 0.93 <= np.mean(list(share.values())) <= 0.97, share
    assert all(0.91 <= one <= 0.985 for one in share.values()), share  # 200 draws, and cutoffs that err alike


def test_intervals_cover_where_the_error_says_when_to_stop(monkeypatch):
    monkeypatch.setattr("layerfreq.measure.sampling.FIRST_BATCH", 64)
    share, rows = zip(*(covered(kind, rtol=0.05) for kind in KINDS), strict=True)
    assert 0.92 <= np.mean(share) <= 0.97, share
    assert max(rows) < 0.7 * N


def test_the_error_shrinks_where_energy_is_stratified(monkeypatch):
    """Few points hold most of the energy: the same rows tell more than without strata."""
    x, y = data("heavy-tailed")
    good = np.mean([spectrum(x, y, U, rows=100, seed=seed).stderr for seed in range(5)])
    monkeypatch.setattr("layerfreq.measure.sampling.MOST", 1)
    plain = np.mean([spectrum(x, y, U, rows=100, seed=seed).stderr for seed in range(5)])
    assert good < 0.7 * plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [2, 17, 64, 300])
def test_every_beginning_holds_each_stratum(kind, rows):
    _, y = data(kind)
    drawn = draw(as_targets(y, N), N, rows, None, 0)
    assert len(drawn.order) == len(set(drawn.order.tolist())) == rows
    assert torch.equal(torch.bincount(drawn.stratum), drawn.sizes)
    had = torch.bincount(drawn.stratum[drawn.order], minlength=len(drawn.sizes))
    assert bool((had >= torch.minimum(drawn.sizes, torch.tensor(LEAST * 0.7 if rows > 2 else 0))).all())


def test_draws_repeat_and_leave_the_global_state():
    _, y = data("unbalanced")
    state = torch.get_rng_state()
    one, same, other = (draw(as_targets(y, N), N, 60, None, seed).order for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_large_energies_are_all_taken():
    y = torch.ones(N, 1)
    y[:3] = 1000
    drawn = draw(as_targets(y, N), N, 64, None, 0)
    assert set(drawn.order.tolist()) >= {0, 1, 2}
    s = spectrum(torch.randn(N, 2, generator=torch.Generator().manual_seed(0)), y, [1e9], rows=64)
    np.testing.assert_allclose(s.lfr, 1, rtol=1e-6)


def test_batches_double_and_end():
    drawn = draw(as_targets(torch.arange(3000) % 3, 3000), 3000, None, 0.01, 0)
    assert [len(batch) for batch in drawn.batches()] == [256, 256, 512, 1024, 952]
