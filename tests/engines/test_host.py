"""The host's part of a spectrum on a GPU, on a device that is only pretended: where tensors meet, and what waits."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from layerfreq import error_spectrum, spectrum
from layerfreq.measure.measure import measure_several
from tests.helpers.pretend import Pretended

cuda = sys.modules["layerfreq.engines.cuda.engine"]
N, CUTOFFS = 120, np.geomspace(0.1, 4, 5)
random = torch.Generator().manual_seed(0)
TARGETS = {
    "classes": torch.arange(N) % 3,
    "vectors": torch.randn(N, 4, generator=random),
    "sketched": torch.randn(N, 200, generator=random),
    "small classes": torch.arange(N) % 70,
}


def add_exponentials(engine, rows, columns):
    """Do what the kernel does."""
    x, y = ((part.x.double() + part.rest).T for part in (rows, columns))
    squared = torch.cdist(x[: len(rows.index)], y, compute_mode="donot_use_mm_for_euclid_dist").square()
    label = columns.label.long().repeat_interleave(columns.block)
    used = torch.arange(len(y)) % columns.block < columns.filled.repeat_interleave(columns.block)
    weight = columns.y.double().T if len(columns.y) else torch.eye(engine._width, dtype=torch.float64)[label]
    weight = weight * used[:, None]
    own = torch.nonzero(torch.isin(rows.index, torch.arange(columns.first, columns.first + len(columns.place))))[:, 0]
    squared[own, columns.place[rows.index[own] - columns.first]] = torch.inf
    for k, rate in enumerate(engine._ladder.rates):
        rows.sums[:, k] += (torch.exp2(-rate * squared) @ weight).T


@pytest.fixture
def pretended(monkeypatch):
    """Without Triton, whose interpreter would not follow the pretence and is slow."""
    mode = Pretended()

    def launch(engine, rows, columns, *_):
        with mode.real():
            add_exponentials(engine, rows, columns)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(cuda, "needs", lambda *_: None)
    monkeypatch.setitem(sys.modules, "layerfreq.engines.cuda.triton_kernels", SimpleNamespace(add_exponentials=None))
    monkeypatch.setattr(cuda.Cuda, "_launch", launch)
    return mode


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("options", [{}, {"rows": 60}, {"scale": "maxabs"}, {"inv_delta": None}], ids=str)
def test_no_tensor_meets_one_of_another_device(pretended, kind, options):
    x, y = torch.randn(N, 20, generator=random), TARGETS[kind]
    x[90:] = x[:30]
    options = {"inv_delta": CUTOFFS, **options}
    expected = spectrum(x, y, engine="reference", **options)
    with pretended:
        found = spectrum(pretended.bring(x), y, engine="cuda", **options)
    np.testing.assert_allclose(found.lfr, expected.lfr, atol=1e-6)
    np.testing.assert_allclose(found.neighbours, expected.neighbours, rtol=1e-4)
    assert pretended.launches


@pytest.mark.parametrize("engine", ["blocked", "cuda"])
def test_neither_does_one_of_several_targets_or_of_an_error(pretended, engine):
    x, y = torch.randn(N, 6, generator=random), TARGETS["vectors"]
    with pretended:
        there = pretended.bring(x)
        several = measure_several(there, {"first": y[:, :1], "rest": y[:, 1:]}, CUTOFFS, engine=engine)
        error = error_spectrum(there, y, y + 1 + y.roll(1, 0), CUTOFFS**0.5, method="filter")
    np.testing.assert_allclose(several["rest"].lfr, spectrum(x, y[:, 1:], CUTOFFS).lfr, atol=1e-6)
    expected = error_spectrum(x, y, y + 1 + y.roll(1, 0), CUTOFFS**0.5, method="filter")
    np.testing.assert_allclose(error.low, expected.low, atol=1e-5)


@pytest.mark.parametrize("engine", ["blocked", "cuda"])
def test_a_spectrum_waits_as_often_whatever_the_number_of_points(pretended, engine, monkeypatch):
    waits = []
    for n in (60, 120):
        x, y = torch.randn(n, 20, generator=random), torch.arange(n) % 3
        pretended.waits.clear()
        with pretended:
            spectrum(pretended.bring(x), y, CUTOFFS, engine=engine)
        waits.append(pretended.waits.total())
    assert waits[0] == waits[1]
    assert engine == "blocked" or waits[0] <= 12


def test_wide_features_take_few_launches(pretended):
    """A piece of the features is many bytes, so that a dozen launches for each cost nothing beside them."""
    launches = []
    for d in (32, 1 << 15):
        pretended.launches = 0
        with pretended:
            spectrum(pretended.bring(torch.randn(100, d, generator=random)), torch.arange(100) % 2, [1e-4], rows=20)
        launches.append(pretended.launches)
    assert launches[1] <= launches[0] + 5
