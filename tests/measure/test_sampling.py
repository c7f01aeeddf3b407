"""Sampled filter centres: who is drawn, and whether the standard error keeps its word."""

import warnings

import numpy as np
import pytest
import torch

from layerfreq import Monitor, spectrum
from layerfreq.data.targets import as_targets
from layerfreq.measure.intervals import LEAST, Residuals
from layerfreq.measure.sampling import draw

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rows=")
def test_intervals_of_sampled_rows_cover():
    share = {kind: covered(kind, rows=150)[0] for kind in KINDS}
    assert 0.93 <= np.mean(list(share.values())) <= 0.98, share
    # 200 draws, and cutoffs that err alike; tails get room for what was not met
    assert all(0.91 <= one <= (0.995 if kind == "heavy-tailed" else 0.985) for kind, one in share.items()), share


@pytest.mark.slow
def test_intervals_cover_where_the_error_says_when_to_stop(monkeypatch):
    monkeypatch.setattr("layerfreq.measure.sampling.FIRST_BATCH", 64)
    share, rows = zip(*(covered(kind, rtol=0.05) for kind in KINDS), strict=True)
    assert 0.92 <= np.mean(share) <= 0.97, share
    assert max(rows) < 0.7 * N


@pytest.mark.filterwarnings("ignore:rows=")
def test_the_error_shrinks_where_energy_is_stratified(monkeypatch):
    """Few points hold most of the energy: the same rows tell more than without strata."""
    x, y = data("heavy-tailed")
    exact = spectrum(x, y, U).lfr

    def error():
        return np.mean([np.abs(spectrum(x, y, U, rows=100, seed=seed).lfr / exact - 1) for seed in range(20)])

    good = error()
    monkeypatch.setattr("layerfreq.measure.sampling.MOST", 1)
    monkeypatch.setattr(
        "layerfreq.measure.sampling._certain", lambda targets, size, early: torch.zeros(0, dtype=torch.int64)
    )
    assert good < 0.5 * error()


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


TAILS = [  # targets, centred or not, rows
    ("rare", True, 50),
    ("rare", True, 150),
    ("lognormal", None, 16),
    ("lognormal", None, 150),
    ("Cauchy", None, 50),
    ("Cauchy", None, 150),
    ("spikes", None, 50),
    ("exponential", None, 16),
]


def tails(kind):
    """Targets of which few points have most of the energy, over points of a normal distribution."""
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 3))
    if kind == "rare":
        y = (np.arange(400) % 25 == 0).astype(int)
        x[:, 0] += 2 * y
        return x, y
    spikes = np.sin(x[:, 0])
    spikes[:4] = 30
    return x, {
        "lognormal": np.exp(2 * random.normal(size=(400, 1))) * np.sin(x),
        "Cauchy": random.standard_cauchy(400),
        "spikes": spikes,
        "exponential": np.exp(2 * x[:, 0]),
    }[kind]


@pytest.mark.parametrize(("kind", "center", "rows"), TAILS)
@pytest.mark.filterwarnings("ignore:rows=")
def test_intervals_of_few_points_with_most_of_the_energy_cover(kind, center, rows):
    x, y = tails(kind)
    exact = spectrum(x, y, U, engine="blocked", center=center).lfr
    found = [spectrum(x, y, U, engine="blocked", center=center, rows=rows, seed=seed) for seed in range(60)]
    assert np.mean([np.abs(s.lfr - exact) <= 1.96 * s.stderr for s in found]) >= 0.9


def test_points_without_which_nothing_is_known_are_all_taken():
    """Some with most of the energy, of few rows: a draw in proportion to energy would hardly miss one of them."""
    _, y = tails("spikes")
    for seed in range(20):
        drawn = draw(as_targets(y, 400), 400, 16, None, seed)
        assert set(drawn.order.tolist()) >= {0, 1, 2, 3}


def test_too_few_rows_are_warned_of_with_the_rows_it_takes():
    x, y = data("balanced")
    with pytest.warns(
        UserWarning, match=r"rows=2: stderr is mostly of what so few cannot have met; pass rows=\d+ or more"
    ):
        spectrum(x, y, U, rows=2)
    x, y = tails("Cauchy")
    with pytest.warns(UserWarning, match="rows=None, for all 400 points"):
        spectrum(x, y, U, rows=16)


def test_a_monitor_says_once_that_rows_are_too_few():
    x, y = (torch.as_tensor(part) for part in data("balanced"))
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).to(x.dtype)
    torch.nn.init.eye_(model[0].weight)
    torch.nn.init.constant_(model[0].bias, 10)  # so that the features are the points
    monitor = Monitor(model, x, y, inv_delta=U, rows=2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for step in range(3):
            monitor.measure(step)
    assert [str(one.message).partition(":")[0] for one in seen] == ["rows=2"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [150, 500, None])
def test_enough_rows_are_not_warned_of(rows):
    x, y = data("balanced")
    spectrum(x, y, U, rows=rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["balanced", "unbalanced"])
def test_the_rows_that_a_warning_asks_for_are_enough(kind):
    x, y = data(kind)
    with pytest.warns(UserWarning, match="pass rows=") as seen:
        spectrum(x, y, U, rows=2)
    needed = int(str(seen[0].message).split("pass rows=")[1].split()[0])
    spectrum(x, y, U, rows=needed)


def test_a_tolerance_does_not_chase_an_lfr_of_nothing():
    """Centred targets have LFR 0 at the first cutoffs, of which no error is one per cent."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 20))
    y = np.sin(2 * x[:, 0])
    s = spectrum(x, y, rtol=0.1)
    assert s.lfr[0] < 1e-6
    assert s.rows < 1000
    assert np.all(s.stderr <= 0.1 * np.maximum(s.lfr, 0.01))


def test_residuals_have_the_moments_of_their_definition():
    """The variance of a stratified total by hand, and no skewness where residuals are symmetric."""
    random = np.random.default_rng(3)
    parts, sizes = [random.normal(size=(k, 2)) for k in (5, 9)], np.array([20.0, 30.0])

    def left(parts):
        powers = [torch.tensor(np.array([(p**k).sum(0) for p in parts])) for k in (1, 2, 3)]
        count = torch.tensor([[float(len(p))] for p in parts], dtype=torch.float64)
        unseen = torch.zeros(2, 2, dtype=torch.float64)
        return Residuals(torch.from_numpy(sizes)[:, None], count, *powers, unseen)

    by_hand = sum(n**2 * (1 / len(p) - 1 / n) * p.var(0, ddof=1) for p, n in zip(parts, sizes, strict=True))
    np.testing.assert_allclose(left(parts).variance(0.0), by_hand, rtol=1e-12)
    both = [np.concatenate([p, -p]) for p in parts]
    freedom = 2 * (5 + 9) - 2
    np.testing.assert_allclose(left(both).error(), left(both).variance(8 / 28).sqrt() * (1 + 1.21 / freedom), rtol=1e-9)
    skewed = [np.exp(2 * p) for p in parts]
    assert bool((left(skewed).error() > left(skewed).variance(8 / 14).sqrt() * (1 + 1.21 / 12)).all())
