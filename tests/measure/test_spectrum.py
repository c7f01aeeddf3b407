import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerfreq import spectrum
from tests.helpers.refusals import Code, refuses

EXTREME = [1e-300, 1e-100, 1e-9, 1.0, 1e9, 1e100, 1e300]


@pytest.mark.parametrize("k", [1, 5, 9, 13])
def test_sine_has_the_closed_form(k):
    x = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    u = np.geomspace(400, 20000, 12)
    s = spectrum(x, torch.sin(k * math.pi * x), u, rows=1500)
    assert np.all(np.abs(s.lfr - np.exp(-((k * math.pi) ** 2) / u)) < 5e-3 + 4 * s.stderr)


@pytest.mark.parametrize(("k", "half"), [(1, 100), (5, 20), (9, 10), (13, 10)])
def test_sine_peaks_where_the_closed_form_does(k, half):
    # What is left is the ends: they hold a share of the points that falls with k and with the interval.
    x = torch.linspace(-half, half, 5001, dtype=torch.float64)
    peak = (k * math.pi) ** 2 / 2
    s = spectrum(x, torch.sin(k * math.pi * x), np.geomspace(peak / 1.6, peak * 1.6, 9))
    assert s.peak == pytest.approx(peak, rel=0.01)


def test_the_ends_matter_less_on_a_longer_interval():
    u, k = [500.0], 5
    errors = []
    for half in (1, 2, 4, 8):
        x = torch.linspace(-half, half, 500 * half + 1, dtype=torch.float64)
        lfr = spectrum(x, torch.sin(k * math.pi * x), u).lfr[0]
        errors.append(abs(lfr - math.exp(-((k * math.pi) ** 2) / u[0])))
    assert all(b < 0.7 * a for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.slow
def test_chance_is_the_mean_over_shuffled_labels():
    rng = np.random.default_rng(0)
    u = np.geomspace(0.05, 20, 6)
    for labels in ([0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 1, 1, 1, 1]):
        x = rng.normal(size=(len(labels), 3))
        orders = set(itertools.permutations(labels))  # all that there are: the mean is exact
        lfr = [spectrum(x, np.array(order), u).lfr for order in orders]
        np.testing.assert_allclose(spectrum(x, labels, u).chance, np.mean(lfr, axis=0), rtol=1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), d=st.integers(1, 6), c=st.floats(1e-3, 1e3))
def test_invariances_and_limits(seed, n, d, c):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.integers(0, 3, n)
    u = np.geomspace(1e-2, 1e2, 9)
    s = spectrum(x, y, u)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    order = rng.permutation(n)
    for other in (
        spectrum(x[order], y[order], u),
        spectrum(x + rng.normal(size=d) * 10, y, u),
        spectrum(x @ turn, y, u),
        spectrum(x * c, y, u / c**2),
    ):
        np.testing.assert_allclose(other.lfr, s.lfr, atol=1e-9)
        np.testing.assert_allclose(other.chance, s.chance, atol=1e-9)
    ends = spectrum(x, y, [1e-12, 1e14])
    assert ends.lfr[0] == pytest.approx(s.floor, abs=1e-6)
    assert ends.lfr[1] == pytest.approx(1, abs=1e-6)
    assert np.all(s.lfr <= 1 + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["one", "two", "constant", "duplicates", "offset", "tiny", "huge"])
@pytest.mark.parametrize("classes", [1, 2])
def test_nothing_makes_a_nan(dtype, kind, classes):
    x = {
        "one": torch.ones(1, 3),
        "two": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        "constant": torch.full((9, 2), 0.1),
        "duplicates": torch.arange(4.0).repeat(3)[:, None],
        "offset": 30000 + torch.arange(12.0)[:, None] * 64,
        "tiny": torch.arange(8.0)[:, None] * 6e-8,
        "huge": torch.arange(8.0)[:, None] * 8000,
    }[kind].to(dtype)
    for u in (EXTREME, None):
        for scale in ("raw", "rms"):
            s = spectrum(x, torch.arange(len(x)) % classes, u, scale=scale)
            for curve in (s.lfr, s.rdf, s.chance, s.neighbours):
                assert np.isfinite(curve).all()
            assert repr(s)


def test_scales():
    x, y = torch.randn(80, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3, torch.arange(80) % 4
    s = spectrum(x, y)
    rms = spectrum((x - x.mean(0)) / (x - x.mean(0)).square().sum(1).mean().sqrt(), y, s.to_scale("rms").inv_delta)
    np.testing.assert_allclose(s.to_scale("rms").lfr, rms.lfr, atol=1e-5)
    np.testing.assert_allclose(spectrum(x, y, rms.inv_delta, scale="rms").rdf, rms.rdf, atol=1e-5)
    np.testing.assert_allclose(s.to_scale("rms").to_scale("raw").inv_delta, s.inv_delta, rtol=1e-12)


def test_centring_starts_at_zero():
    x, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 3
    s = spectrum(x, y, [1e-9, 1.0], center=True)
    assert s.floor == 0
    assert s.lfr[0] == pytest.approx(0, abs=1e-9)
    vectors = spectrum(x, torch.eye(3)[y], [1e-9, 1.0], center=True)
    np.testing.assert_allclose(vectors.lfr, s.lfr, atol=1e-6)


def test_at_passes_through_its_points_and_between_them():
    x, y = torch.randn(200, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64), torch.arange(200) % 5
    s = spectrum(x, y, np.geomspace(0.01, 100, 60))
    same = s.at(s.inv_delta)
    np.testing.assert_allclose(same.lfr, s.lfr, atol=1e-12)
    np.testing.assert_allclose(same.rdf, s.rdf, atol=1e-12)
    between = np.sqrt(s.inv_delta[1:] * s.inv_delta[:-1])
    exact = spectrum(x, y, between)
    np.testing.assert_allclose(s.at(between).lfr, exact.lfr, atol=1e-5)
    np.testing.assert_allclose(s.at(between).rdf, exact.rdf, atol=2e-3 * exact.rdf.max())
    with refuses("inv_delta", Code.VALUE):
        s.at([1e-3])


@pytest.mark.slow
def test_sampled_rows_cover_the_exact_value():
    x, y = torch.randn(600, 3, generator=torch.Generator().manual_seed(3)), torch.arange(600) % 6
    u = [0.3, 3.0]
    exact = spectrum(x, y, u).lfr
    draws = [spectrum(x, y, u, rows=150, seed=seed) for seed in range(200)]
    covered = np.mean([np.abs(s.lfr - exact) <= 1.96 * s.stderr for s in draws])
    assert 0.90 < covered < 0.99
    near = spectrum(x, y, u, rtol=0.03)
    assert near.rows < 600
    assert (near.stderr / near.lfr).max() <= 0.03


def test_nothing_of_the_users_is_touched():
    x, y = torch.randn(50, 3, dtype=torch.float64) + 5, torch.arange(50) % 2
    before, state = x.clone(), torch.get_rng_state()
    spectrum(x, y, rows=20)
    assert torch.equal(before, x)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "argument", "code"),
    [
        ({"features": torch.full((4, 2), math.nan)}, "features", Code.NOT_FINITE),
        ({"features": torch.ones(0, 2)}, "features", Code.EMPTY),
        ({"targets": [0, 1, 2]}, "targets", Code.SHAPE),
        ({"targets": [0, -1, 2, 0]}, "targets", Code.VALUE),
        ({"targets": [0.0, math.inf, 0, 0]}, "targets", Code.NOT_FINITE),
        ({"targets": [0.0] * 4}, "targets", Code.CONSTANT),
        ({"inv_delta": [1.0, 0.5]}, "inv_delta", Code.VALUE),
        ({"inv_delta": [0.0, 0.5]}, "inv_delta", Code.VALUE),
        ({"inv_delta": []}, "inv_delta", Code.EMPTY),
        ({"engine": "referense"}, "engine", Code.UNKNOWN),
        ({"rows": 5}, "rows", Code.VALUE),
        ({"rows": 2, "rtol": 0.1}, "rows", Code.CONFLICT),
        ({"rtol": -1.0}, "rtol", Code.VALUE),
        ({"targets": [1, 1, 1, 1], "center": True}, "targets", Code.CONSTANT),
    ],
)
def test_bad_input_is_one_clear_line(change, argument, code):
    good = {"features": torch.arange(8.0).reshape(4, 2), "targets": [0, 1, 0, 1]}
    with refuses(argument, code):
        spectrum(**{**good, **change})


def test_density_holds_what_lfr_gains():
    x = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    one = spectrum(x, torch.sin(20 * x[:, 0]), np.geomspace(0.01, 1e6, 800), engine="reference")
    gained = np.trapezoid(one.density, np.log2(one.inv_delta))
    assert gained == pytest.approx(one.lfr[-1] - one.lfr[0], abs=1e-4)
