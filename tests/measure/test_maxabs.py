"""The paper's scale: every dimension centred and divided by its largest absolute value."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfreq import Monitor, Run, layer_spectra, spectrum
from layerfreq.data.validation import as_scale
from layerfreq.engines import ENGINES, read_points
from layerfreq.measure.measure import measure
from tests.helpers.brute import brute, one_hot
from tests.helpers.devices import GPU, case, device_of
from tests.helpers.points import InBlocks, points_of
from tests.helpers.refusals import Code, refuses

GRID = np.geomspace(0.02, 200, 25)
ERROR = {"reference": 1e-12, "blocked": 2e-5, "cpu": 1e-5, "cuda": 1e-5}


def normalised(x):
    """The definition, in float64; without the published code's 1e-9, which is for constant dimensions."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    x = x - x.mean(axis=0)
    largest = np.abs(x).max(axis=0)
    return np.divide(x, largest, out=np.zeros_like(x), where=largest > 0)


def cloud(n, d, dtype="float32", seed=0):
    """Points whose dimensions differ in size and place, one of them constant and one with an outlier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    x = rng.normal(size=(n, d)) + 0.5 * labels[:, None]
    x = x * 10 ** rng.uniform(-3, 3, d) + rng.normal(size=d)
    x[0, 0] *= 50
    if d > 2:
        x[:, 2] = 0.1
    return x.astype(dtype), labels


def cases():
    for engine, dtype, d, vectors in product(ENGINES, ("float32", "float64"), (1, 7, 512), (False, True)):
        if engine != "cuda" or GPU or (d, vectors) == (7, False):  # Triton's interpreter is slow
            yield case(engine, dtype, d, vectors)


@pytest.mark.parametrize(("engine", "dtype", "d", "vectors"), cases())
def test_every_engine_agrees_with_brute_force(engine, dtype, d, vectors):
    x, labels = cloud(90, d, dtype)
    y = np.random.default_rng(1).normal(size=(90, 3)) if vectors else labels
    s = spectrum(x, y, scale="maxabs", center=False, engine=engine, device=device_of(engine))
    lfr, rdf, neighbours, _ = brute(normalised(x), y if vectors else one_hot(labels), s.inv_delta)
    assert np.abs(s.lfr - lfr).max() <= ERROR[engine]
    assert np.abs(s.rdf - rdf).max() <= 1e-4 * rdf.max()
    np.testing.assert_allclose(s.neighbours, neighbours, rtol=1e-3)
    assert s.scale == "maxabs"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_it_is(dtype):
    x = torch.from_numpy(cloud(60, 9)[0]).clamp(-1000, 1000).to(dtype)
    y = torch.arange(60) % 3
    s = spectrum(x, y, GRID, scale="maxabs", engine="reference")
    np.testing.assert_allclose(s.lfr, brute(normalised(x.double()), one_hot(y.numpy()), GRID)[0], atol=1e-12)


def test_the_widest_features():
    x, labels = cloud(40, 65_536)
    s = spectrum(x, labels, scale="maxabs")
    np.testing.assert_allclose(s.lfr, brute(normalised(x), one_hot(labels), s.inv_delta)[0], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    column=st.integers(0, 4),
    factor=st.floats(1e-6, 1e6),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 9),
)
def test_scaling_and_shifting_a_dimension_changes_nothing(column, factor, shift, seed):
    x = np.random.default_rng(seed).normal(size=(40, 5))
    y = np.arange(40) % 3
    before = spectrum(x, y, GRID, scale="maxabs", engine="reference")
    x[:, column] = x[:, column] * factor + shift * factor
    after = spectrum(x, y, GRID, scale="maxabs", engine="reference")
    np.testing.assert_allclose(after.lfr, before.lfr, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)), signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=6, max_size=6))
def test_order_and_signs_of_dimensions_change_nothing(order, signs):
    x, y = cloud(40, 6, "float64")
    before = spectrum(x, y, GRID, scale="maxabs", engine="reference")
    after = spectrum(x[:, order] * signs, y, GRID, scale="maxabs", engine="reference")
    np.testing.assert_allclose(after.lfr, before.lfr, atol=1e-12)


def test_it_is_the_raw_measurement_of_normalised_features():
    x, y = cloud(80, 12, "float64")
    for rows in (None, 30):
        s = spectrum(x, y, GRID, scale="maxabs", rows=rows)
        raw = spectrum(normalised(x), y, GRID, rows=rows)
        np.testing.assert_allclose(s.lfr, raw.lfr, rtol=1e-6)
        assert (s.stderr is None) == (rows is None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_dimensions_stay_zero(dtype):
    x = torch.full((20, 3), 0.1, dtype=dtype)
    assert torch.equal(points_of(x, scale="maxabs").block(slice(None)), torch.zeros(20, 3, dtype=torch.float64))
    x[:, 1] = torch.arange(20)
    with_constants = spectrum(x, torch.arange(20) % 2, GRID, scale="maxabs")
    alone = spectrum(x[:, 1:2], torch.arange(20) % 2, GRID, scale="maxabs")
    np.testing.assert_allclose(with_constants.lfr, alone.lfr, rtol=1e-15)
    tiny = torch.finfo(dtype).smallest_normal / 8  # its reciprocal would overflow
    assert float(points_of(tiny * x, scale="maxabs").block(slice(None)).abs().max()) <= 1


@pytest.mark.parametrize("size", [1.0, 1e100, 1e-100])
def test_what_one_pass_finds_is_what_features_in_memory_show(size):
    x = torch.from_numpy(cloud(70, 5, "float64")[0]) * size
    points, whole = read_points(InBlocks(x, 16), "maxabs"), points_of(x, "maxabs")
    torch.testing.assert_close(points.shift, whole.shift, rtol=1e-12, atol=0)
    torch.testing.assert_close(points.gain, whole.gain, rtol=1e-12, atol=0)
    assert whole.radius <= points.radius * (1 + 1e-12)


@pytest.mark.parametrize("engine", ["blocked", "cpu"])
@pytest.mark.parametrize("rows", [None, 40])
def test_features_without_room_for_copies(engine, rows):
    x, y = cloud(150, 20)
    whole = spectrum(x, y, GRID, scale="maxabs", engine=engine, rows=rows)
    tight = measure(x, y, GRID, scale="maxabs", engine=engine, rows=rows, room=10_000)
    np.testing.assert_allclose(tight.lfr, whole.lfr, rtol=1e-6)


def network():
    torch.manual_seed(0)
    inner = torch.nn.Linear(6, 40), torch.nn.Tanh(), torch.nn.Linear(40, 30), torch.nn.ReLU()
    return torch.nn.Sequential(*inner, torch.nn.Linear(30, 3))


@pytest.mark.slow
def test_streamed_equals_held():
    x, y = torch.randn(120, 6), torch.arange(120) % 3
    for scale in ("raw", "maxabs"):
        held = layer_spectra(network(), x, y, scale=scale, inv_delta=GRID)
        batches = list(zip(x.split(25), y.split(25), strict=True))
        streamed = layer_spectra(network(), batches, scale=scale, inv_delta=GRID, memory=2000)
        for name in held:
            np.testing.assert_allclose(streamed[name].lfr, held[name].lfr, rtol=1e-6)


def test_a_monitor_measures_at_several_scales(tmp_path):
    x, y = torch.randn(60, 6), torch.arange(60) % 3
    monitor = Monitor(network(), x, y, run=tmp_path / "run", scale=("maxabs", "rms"), inv_delta=GRID)
    found = monitor.measure(0)
    assert {s.scale for s in found.values()} == {"maxabs"}
    frame = Run(tmp_path / "run").spectra
    assert set(frame["scale"]) == {"raw", "rms", "maxabs"}
    for name, one in layer_spectra(network(), x, y, scale="maxabs", inv_delta=GRID).items():
        kept = frame[(frame["layer"] == name) & (frame["scale"] == "maxabs")]
        np.testing.assert_allclose(kept["lfr"], one.lfr, rtol=1e-12)
    alone = Monitor(network(), x, y, run=tmp_path / "alone", scale="maxabs")
    alone.measure(0)
    assert set(Run(tmp_path / "alone").spectra["scale"]) == {"maxabs"}


def test_no_factor_leads_to_the_other_scales():
    x, y = cloud(30, 4)
    own, raw = spectrum(x, y, scale="maxabs"), spectrum(x, y)
    assert own.to_scale("maxabs") is own
    for one, scale in ((own, "raw"), (own, "rms"), (raw, "maxabs")):
        with refuses("scale", Code.UNSUPPORTED, f"scale='{scale}'"):
            one.to_scale(scale)
    with refuses("scale", Code.UNKNOWN, "'max'", "'maxabs'"):
        as_scale("max")
    with refuses("scale", Code.EMPTY):
        Monitor(network(), torch.randn(9, 6), torch.arange(9) % 3, scale=())
