"""Features that differ by the rounding of their dtype alone are told, at every way to measure, and no others are."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerfreq import Monitor, layer_spectra, spectrum
from layerfreq.related.suspects import suspects
from tests.helpers.refusals import Code, refuses

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
GRID = np.geomspace(1e-3, 1e16, 40)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(x, **options):
    """The spectrum, and whether a warning says that features differ by rounding."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = spectrum(x, torch.arange(len(x)) % 3, **options)
    told = [str(one.message) for one in said if "rounding" in str(one.message)]
    assert len(told) <= 1
    if told:
        assert (found.resolved, found.median, found.peak, found.resolution) == (False, None, None, 0.0)
        assert str(x.dtype).removeprefix("torch.") in told[0]
        assert np.isfinite(found.lfr).all()
        assert "target or features do not vary" in repr(found)
        assert "outside" not in repr(found)
        assert not found.to_scale(found.scale).resolved
    return found, bool(told)


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    power=st.integers(-10, 10),
    units=st.sampled_from([0.7, 1.0, 4.0, 30.0]),
    d=st.sampled_from([1, 3, 20]),
    sign=st.sampled_from([-1, 1]),
    scale=st.sampled_from(["raw", "rms", "maxabs"]),
    rows=st.sampled_from([None, 40]),
    seed=st.integers(0, 1000),
)
def test_told_by_units_of_rounding_whatever_dtype_and_size(dtype, power, units, d, sign, scale, rows, seed):
    offset = sign * 2.0**power  # whose spacing is eps times itself, so that nothing else decides
    x = (offset * (1 + units * torch.finfo(dtype).eps * noise(60, d, seed=seed))).to(dtype)
    assert measured(x, scale=scale, rows=rows, inv_delta=GRID)[1] == (units < 2)


@pytest.mark.parametrize("engine", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize(("n", "d"), [(40, 2), (500, 3), (30, 2500)])
def test_every_engine_says_so(engine, n, d):
    x = 1 + 1e-7 * noise(n, d)
    assert measured(x.float(), engine=engine)[1]
    assert not measured((x - 1).float(), engine=engine)[1]
    assert not measured(x, engine=engine)[1]


def test_a_spectrum_of_rounding_converts_as_any_other():
    found, told = measured((1 + 1e-7 * noise(80, 3)).float())
    assert told
    there = found.to_scale("rms")
    np.testing.assert_allclose(there.inv_delta, found.inv_delta * found.spread)
    assert not there.resolved
    assert type(found).from_frame(found.to_frame()).median is None


def images():
    pixels = torch.randint(0, 256, (90, 784), generator=torch.Generator().manual_seed(0)) / 255
    return (pixels * (torch.arange(784) % 28 > 3) - 0.1307) / 0.3081


ORDINARY = {
    "images, some pixels always black": images(),
    "one large constant column": torch.cat([torch.full((90, 1), 1e7), noise(90, 4).float() * 1e-3], dim=1),
    "large columns, better resolved": torch.cat([1e3 + 0.1 * noise(90, 2), 1e-3 * noise(90, 3)], dim=1).float(),
    "one-hot": torch.eye(30).repeat(3, 1),
    "one-hot in half precision": torch.eye(30).repeat(3, 1).half(),
    "bytes": torch.randint(250, 256, (90, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    "integers": 10**9 + torch.arange(90)[:, None],
    "times in float64": 1.7e9 + torch.arange(90, dtype=torch.float64)[:, None] / 1e3,
    "all equal": torch.full((90, 3), 0.1),
    "rectified": noise(90, 50).float().relu(),
    "one point elsewhere": torch.cat([torch.full((89, 2), 5.0), torch.zeros(1, 2)]),
    "smallest numbers": noise(90, 3) * 1e-100,
}


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("scale", ["raw", "maxabs"])
def test_no_false_alarm(kind, scale):
    assert not measured(ORDINARY[kind], scale=scale)[1]


def test_it_counts_what_distances_are_made_of():
    far, fine = (1e6 * (1 + 1e-7 * noise(90, 1))).float(), noise(90, 3).float()
    assert measured(torch.cat([far, 1e-3 * fine], dim=1))[1]  # whose distances are those of the first column
    assert not measured(torch.cat([far, fine], dim=1))[1]
    assert not measured(torch.cat([far, 1e-3 * fine], dim=1), scale="maxabs")[1]  # where three of four columns are fine


class Near(nn.Module):
    def forward(self, x):
        return (1 + torch.finfo(x.dtype).eps * torch.tanh(x)).to(x.dtype)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.lift, self.act, self.near = nn.Linear(6, width), nn.Tanh(), Near()
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.near(self.act(self.lift(x))))


N = 120
X, Y = noise(N, 6).float(), torch.arange(N) % 3
BATCHES = list(zip(X.split(40), Y.split(40), strict=True))
WAYS = {
    "held": (16, X, Y, {}),
    "looked at": (2100, X, Y, {}),
    "drawn": (2100, X, Y, {"rows": 40}),
    "passing by": (2100, BATCHES, None, {"rows": 40}),
    "streamed": (8, BATCHES[:1], None, {"memory": 1}),
    "several": (16, X, {"a": X[:, 0], "b": X[:, :2]}, {}),
    "several, drawn": (16, X, {"a": X[:, 0], "b": X[:, :2]}, {"rows": 40}),
    "several, streamed": (8, X[:40], {"a": X[:40, 0], "b": X[:40, 1]}, {"memory": 1}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:rows=")
def test_the_layer_is_named_once_at_every_way_to_measure(way):
    width, x, y, options = WAYS[way]
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="rounding") as said:
        found = layer_spectra(Net(width), x, y, ["act", "near"], inv_delta=GRID, **options)
    told = [str(one.message) for one in said if "rounding" in str(one.message)]
    assert len(told) == 1
    assert told[0].startswith("layer 'near': features: they differ by little more than the rounding of float32")
    for one in found.values() if isinstance(y, dict) else [found]:
        assert (one["near"].resolved, one["near"].median, one["act"].coincident) == (False, None, 1.0)
        assert one["act"].median is not None


@pytest.mark.parametrize("rows", [None, 40])
@pytest.mark.filterwarnings("ignore:rows=")
def test_half_precision_keeps_its_name_where_features_are_widened(rows):
    torch.manual_seed(0)
    x = [(one.bfloat16(), y) for one, y in BATCHES]
    with pytest.warns(UserWarning, match="layer 'near'.*rounding of bfloat16"):
        found = layer_spectra(Net(2100).bfloat16(), x, layers="near", rows=rows)
    assert not found["near"].resolved


def test_a_monitor_says_so_once_and_goes_on(tmp_path):
    torch.manual_seed(0)
    model = Net(16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Monitor(model, X, Y, layers=["act", "near"], run=tmp_path / "run", scale=["raw", "maxabs"]) as monitor:
            found = [monitor.measure(step) for step in range(3)]
    assert all(one["near"].median is None and one["act"].resolved for one in found)
    assert [str(one.message)[:13] for one in said if "rounding" in str(one.message)] == ["layer 'near':"]


def test_suspects_are_not_sought_in_rounding():
    x, y = 1 + 1e-7 * noise(60, 2), Y[:60]
    with refuses("features", Code.CONSTANT, "rounding of float32"):
        suspects(x.float(), y)
    assert len(suspects(x, y).score) == 60
