"""Wide features are looked at once: distances, and spectra from them, are those of the features themselves."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfreq import spectrum
from layerfreq.data.source import InMemory
from layerfreq.engines import read_points
from layerfreq.engines.distances import can_look, look

distances = sys.modules["layerfreq.engines.distances"]


def points(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def brute(x, index, gain=1.0):
    """Squared distances of some points to all, by differences in float64."""
    return ((x.double()[index, None] - x.double()[None]) * gain).square().sum(-1).numpy()


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(2, 9),
    d=st.integers(1, 40),
    spread=st.sampled_from([1.0, 1e-3, 1e-6]),
    offset=st.sampled_from([0.0, 3.0, 1e4]),
    size=st.sampled_from([1.0, 1e-9, 1e9]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_distances_are_those_of_the_features_close_pairs_too(n, d, spread, offset, size, dtype, seed, data):
    x = ((points(n, d, seed, dtype) + offset) * size).contiguous()
    x[n // 2] = x[0] + spread * size * points(1, d, seed + 1, dtype)[0]
    if data.draw(st.booleans()):
        x[-1] = x[0]
    index = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    found = look(x, index, "raw")
    exact = brute(x, index)
    if found is None:  # nothing but one place
        assert exact.max() < 1e-20 or size != 1.0
        return
    gain = float(found.points.gain[0])
    assert math.frexp(gain)[0] == 0.5
    error = 1e-9 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(found.squared / gain**2, exact, rtol=error, atol=0)
    assert np.array_equal(found.squared == 0, exact == 0)
    whole = read_points(InMemory(x))
    assert found.points.coincident == pytest.approx(whole.coincident)
    assert found.points.spread / gain**2 == pytest.approx(whole.spread / float(whole.gain[0]) ** 2, rel=1e-6)


def test_columns_are_scaled_by_themselves_at_maxabs_and_constant_ones_stay_zero():
    x = points(7, 30) * torch.logspace(-3, 3, 30)
    x[:, 4] = 5.0
    centred = x.double() - x.double().mean(0)
    largest = centred.abs().amax(0)
    gain = torch.where(largest > 1e-6, 1 / largest, 0.0)
    found = look(x, torch.arange(7), "maxabs")
    np.testing.assert_allclose(found.squared, brute(x, torch.arange(7), gain), rtol=1e-5)
    assert found.points.gain[4] == 0


@pytest.mark.parametrize("size", [1e25, 1e-25, 0.0])
def test_what_float32_has_no_room_for_is_measured_another_way(size):
    x, y = points(60, 2100) * size, torch.arange(60) % 3
    assert look(x, torch.arange(60), "raw") is None
    if size:
        usual = spectrum(points(60, 2100), y, [0.1, 1.0, 10.0], scale="rms", engine="cpu")
        found = spectrum(x, y, [0.1, 1.0, 10.0], scale="rms", engine="cpu")
        np.testing.assert_allclose(found.lfr, usual.lfr, atol=1e-5)


@pytest.mark.parametrize("kind", ["spread", "clustered", "doubled"])
@pytest.mark.parametrize("scale", ["raw", "rms", "maxabs"])
def test_spectra_of_wide_features_are_the_references(kind, scale, monkeypatch):
    n, d = 120, 2100
    x, y = points(n, d).relu(), torch.arange(n) % 4
    if kind == "clustered":
        x = points(4, d, 1)[y] + 0.02 * x
    if kind == "doubled":
        x[n // 2 :] = x[: n // 2].clone()
    for targets in (y, x[:, :2] + 0.1):
        for rows in (None, 40):
            options = {"scale": scale, "rows": rows}
            found = spectrum(x, targets, engine="cpu", **options)
            exact = spectrum(x.double(), targets, found.inv_delta, engine="blocked", **options)
            for name in ("lfr", "chance"):
                np.testing.assert_allclose(getattr(found, name), getattr(exact, name), atol=1e-6)
            np.testing.assert_allclose(found.rdf * found.inv_delta, exact.rdf * found.inv_delta, atol=2e-6)
            assert (found.d, found.rows, found.coincident) == (d, rows or n, exact.coincident)
            assert found.spread == pytest.approx(exact.spread, rel=1e-6)
            with monkeypatch.context() as usual:
                usual.setattr(distances, "WIDE", d + 1)
                before = spectrum(x, targets, engine="cpu", **options)
            np.testing.assert_allclose(found.inv_delta, before.inv_delta, rtol=1e-6)
            np.testing.assert_allclose(found.lfr, before.lfr, atol=1e-6)


def test_points_too_close_for_the_engine_are_refused_as_ever():
    x = points(60, 2100, dtype=torch.float64)
    x[1:] *= 1e-25
    with pytest.raises(ValueError, match="takes points closer than 1e-20 of the farthest for one"):
        spectrum(x, torch.arange(60) % 2, [1e60], engine="cpu")
    assert spectrum(x, torch.arange(60) % 2, [1.0], engine="cpu").lfr[0] < 0.6


def test_it_is_taken_where_features_are_wide_and_pairs_have_room():
    wide, narrow = torch.empty(100, 2048), torch.empty(100, 2047)
    assert can_look(wide, 100, None)
    assert can_look(wide, 50, 40 * 50 * 100)
    assert not can_look(wide, 50, 40 * 50 * 100 - 1)
    assert not can_look(narrow, 100, None)
    assert not can_look(wide.half(), 100, None)
    assert not can_look(wide.T.contiguous().T, 100, None)
    assert not can_look(torch.empty(5000, 2048), 5000, None)
