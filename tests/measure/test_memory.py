"""Features within a budget: grouped, streamed and let go of, with the same spectra as if all were held."""

import gc
import itertools
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from layerfreq import Monitor, layer_features, layer_spectra, spectrum
from layerfreq.engines import read_points
from layerfreq.isolation.memory import free_memory, group_by_memory, read_memory
from layerfreq.measure.measure import measure, measure_source
from layerfreq.probe import Probe
from tests.helpers.points import InBlocks, points_of
from tests.helpers.refusals import Code, refuses

X = torch.randn(120, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = (X.mean(dim=(1, 2, 3)) > 0).long() + 2 * (X[:, 0, 0, 0] > 0).long()
VECTORS = torch.stack([X[:, 0, 0, 0], X.mean(dim=(1, 2, 3))], dim=1)
GRID = np.geomspace(1e-4, 10, 12)


class Convolutions(nn.Module):
    """Features of 2048, 1024 and 16 numbers; the second by a function."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1)
        self.third, self.last, self.out = nn.Linear(1024, 16), nn.Tanh(), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.second(self.act(self.first(x))))
        return self.out(self.last(self.third(x.flatten(1))))


def net():
    torch.manual_seed(0)
    return Convolutions()


def passes(model, module):
    """Count the points that go through a module."""
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def close(a, b, tolerance):
    np.testing.assert_allclose(a.inv_delta, b.inv_delta, rtol=tolerance)
    for name in ("lfr", "chance"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.neighbours, b.neighbours, rtol=10 * tolerance)
    np.testing.assert_allclose(a.rdf * a.inv_delta, b.rdf * b.inv_delta, atol=tolerance)
    assert (a.n, a.d, a.rows, a.engine) == (b.n, b.d, b.rows, b.engine)
    assert a.spread == pytest.approx(b.spread, rel=1e-9)


def test_amounts_of_memory():
    assert read_memory(5) == read_memory("5") == read_memory("5 B") == 5
    assert (read_memory("2GB"), read_memory("1.5 MiB"), read_memory("3k")) == (2 * 10**9, 3 << 19, 3000)
    assert 0 < read_memory() <= min(free_memory() / 3, 4 << 30)
    said = ("memory", Code.VALUE)
    for bad in ("two", "", "iB", "-5", 0, -1, True, float("nan"), float("inf")):
        with refuses(*said):
            read_memory(bad)
    for call in (layer_spectra, Monitor):
        with refuses(*said):
            call(net(), X, Y, memory="much")


def test_groups_fill_the_budget_from_the_output_and_leave_nothing_out():
    sizes = [("a", 40, 40), ("b", 10, 5), ("c", 90, 90), ("d", 30, 30), ("e", 20, 20)]
    assert group_by_memory(sizes, 100) == [(["a", "b"], True), (["c"], False), (["d", "e"], True)]
    assert group_by_memory(sizes, 1000) == [(["a", "b", "c", "d", "e"], True)]
    assert [held for _, held in group_by_memory(sizes, 1)] == [False] * 5
    assert group_by_memory([], 1) == []


def test_layers_that_fit_share_one_forward_pass():
    model = net()
    size = 4 * len(X)  # bytes of one feature of all points
    seen = passes(model, model.first)
    names = ["act", "second.relu", "last"]
    # with 30 of 120 centres, work on features takes two thirds of them
    for memory, expected in ((None, 1), (size * 4500, 1), (size * 3600, 2), (size * 2800, 2), (size * 2200, 3)):
        probe = Probe.of(model, X, Y, names, {"inv_delta": GRID, "rows": 30}, memory=memory)
        seen.clear()
        probe.measure(model)
        assert sum(seen) == expected * len(X)
    seen.clear()
    held = dict(layer_features(model, X, stream=True, memory=size * 1500))
    assert sum(n for n in seen if n > 4) == 2 * len(X)  # beside looks at four points
    for name, features in layer_features(model, X).items():
        torch.testing.assert_close(held[name], features, rtol=0, atol=0)
    with refuses("memory", Code.CONFLICT):
        layer_features(model, X, memory=10**9)


# With every point a centre the slow reference takes the same path as the others.
@pytest.mark.parametrize(
    ("engine", "rows"), [("reference", 30), ("blocked", None), ("blocked", 30), ("cpu", None), ("cpu", 30)]
)
@pytest.mark.parametrize("targets", [Y, VECTORS], ids=["labels", "vectors"])
@pytest.mark.parametrize("given", [GRID, None], ids=["grid", "own"])
def test_streamed_equals_held(engine, targets, rows, given):
    model = net()
    options = {"engine": engine, "rows": rows, "inv_delta": given, "scale": "rms"}
    held = layer_spectra(model, X, targets, ["act", "second.relu"], memory="1GB", **options)
    seen = passes(model, model.first)
    streamed = layer_spectra(model, X, targets, ["act", "second.relu"], memory=400_000, **options)
    assert sum(seen) > 4 * len(X)
    for name, one in streamed.items():
        close(one, held[name], 1e-6)
        if rows:
            np.testing.assert_allclose(one.stderr, held[name].stderr, rtol=1e-3, atol=1e-6)
    assert list(streamed) == ["act", "second.relu"]


def test_streamed_float64_is_as_exact_as_held():
    model, x = net().double(), X.double()
    held, streamed = (
        layer_spectra(model, x, Y, "act", inv_delta=GRID, memory=m, engine="blocked") for m in ("1GB", 500_000)
    )
    close(streamed["act"], held["act"], 1e-12)


def test_streamed_reaches_rtol_with_the_same_centres():
    options = {"rtol": 0.02, "inv_delta": GRID, "engine": "cpu"}
    x = torch.randn(600, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0, 0, 0] > 0).long()
    held, streamed = (layer_spectra(net(), x, y, "act", memory=m, **options)["act"] for m in ("1GB", 10**6))
    assert held.rows == streamed.rows
    close(streamed, held, 1e-6)


def test_held_features_without_room_for_copies():
    x = X.flatten(1)
    for rows in (None, 50):
        whole = spectrum(x, Y, GRID, rows=rows, engine="cpu")
        close(measure(x, Y, GRID, rows=rows, engine="cpu", room=100_000), whole, 1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("size", [1.0, 1e100, 1e-100])
def test_what_one_pass_finds_is_what_features_in_memory_show(offset, size):
    x = (torch.randn(70, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + offset) * size
    points, whole = read_points(InBlocks(x, 16)), points_of(x)
    torch.testing.assert_close(points.shift, whole.shift, rtol=1e-12, atol=0)
    assert torch.equal(points.gain, whole.gain)
    assert points.spread == pytest.approx(whole.spread, rel=1e-10)
    assert whole.radius <= points.radius * (1 + 1e-12) <= 4 * whole.radius


def test_features_that_are_computed_anew_pass_by_as_often_as_the_room_makes_them():
    x = X[:, 0].flatten(1)
    whole = measure(x, Y, GRID, engine="blocked")
    sums = 2 * len(GRID) * (4 + 2)  # of 4 classes
    for centres, lots in ((120, 1), (60, 2), (44, 3)):
        source = InBlocks(x, 32)
        found = measure_source(source, Y, GRID, engine="blocked", room=int(centres * (64 * 12 + 8 * sums) / 0.75) + 9)
        # Once to look and to gather the first centres, once for these; then to gather the next, and for them.
        assert source.passes == 1 + 1 + 2 * (lots - 1)
        close(found, whole, 1e-6)


def test_batches_without_a_labelled_position_pass_by():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 60), nn.Tanh(), nn.Linear(60, 2))
    x, y = torch.randn(60, 5, 4), torch.randint(0, 2, (60, 5))
    y[:20] = -100
    batches = list(zip(x.split(20), y.split(20), strict=True))
    options = {"layers": "1", "reading": "positions", "inv_delta": GRID, "rows": 20}
    held, streamed = (layer_spectra(model, batches, memory=m, **options)["1"] for m in ("1GB", 20_000))
    close(streamed, held, 1e-6)


def test_a_layer_that_is_streamed_takes_a_device():
    options = {"layers": "act", "inv_delta": GRID, "rows": 30}
    held, streamed = (layer_spectra(net(), X, Y, memory=m, device="cpu", **options) for m in ("1GB", 400_000))
    close(streamed["act"], held["act"], 1e-6)


class Numbers(IterableDataset):
    def __iter__(self):
        return iter(list(zip(X, Y, strict=True)))


@pytest.mark.parametrize("memory", ["1GB", 400_000])
def test_every_kind_of_loader_is_counted_and_streamed(memory):
    expected = layer_spectra(net(), X, Y, "act", inv_delta=GRID)["act"]
    data = TensorDataset(X, Y)
    loaders = {
        "plain": DataLoader(data, batch_size=64),
        "shuffling": DataLoader(data, batch_size=64, shuffle=True),
        "by batches": DataLoader(data, batch_sampler=[range(50), range(50, 57), range(57, 120)]),
        "iterable": DataLoader(Numbers(), batch_size=50),
        "drawing more": DataLoader(data, batch_size=32, sampler=list(range(120))),
        "list": [(X[:30], Y[:30]), (X[30:], Y[30:])],
    }
    for name, loader in loaders.items():
        close(layer_spectra(net(), loader, layers="act", inv_delta=GRID, memory=memory)["act"], expected, 1e-6), name


def test_points_that_change_between_passes_are_refused():
    class Noise(nn.Module):
        def forward(self, x):
            return F.relu(x) + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(next(seeds)))

    seeds = itertools.count()  # of a kind that cannot be put back
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), Noise(), nn.Flatten(), nn.Linear(2048, 2))
    with (
        pytest.warns(UserWarning, match="a count when it runs"),
        refuses("inputs", Code.CONFLICT, "layer '1'"),
    ):
        layer_spectra(model, X, Y, "1", memory=400_000)
    layer_spectra(model, X, Y, "1", inv_delta=GRID, memory="1GB")


def test_features_are_off_the_graph_and_hooks_go_also_when_the_model_raises():
    model = net()
    for features in layer_features(model, X.requires_grad_()).values():
        assert features.grad_fn is None
        assert not features.requires_grad
    X.requires_grad_(False)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    def fail(*_):
        raise RuntimeError("the model's own")

    for memory in ("1GB", 400_000):
        for names in (["act"], ["act", "second.relu"]):
            monitor = Monitor(model, X, Y, layers=names, memory=memory, inv_delta=GRID, rows=30, on_error="raise")
            model.train()
            handle = model.second.register_forward_pre_hook(fail)
            late = model.first.register_forward_pre_hook(fail)
            with pytest.raises(RuntimeError, match="the model's own"):
                monitor.measure(0)
            handle.remove(), late.remove()
            assert hooks() == 0
            assert model.training
            assert monitor.measure(1) is not None
            assert hooks() == 0


def test_nothing_is_alive_after_close_and_measuring_is_an_error(tmp_path):
    features = []
    model, x, y = net(), X.clone(), Y.clone()
    model.act.register_forward_hook(lambda *_: features.append(weakref.ref(_[-1])))
    for memory in (None, 400_000):
        with Monitor(model, x, y, run=tmp_path / str(memory), memory=memory, inv_delta=GRID, rows=30) as monitor:
            spectra = monitor.measure(0, loss=1.0)
            monitor.measure(1, loss=0.5)
        assert monitor.run.metrics["loss"].tolist() == [1.0, 0.5]
    monitor.close()  # again: nothing
    assert monitor.closed
    assert monitor.layers == ["act", "second.relu", "last"]
    with refuses("monitor", Code.CONFLICT):
        monitor.measure(2)
    left = [weakref.ref(thing) for thing in (model, model.first, x, y)]
    del model, x, y
    gc.collect()
    assert [ref() for ref in left + features if ref() is not None] == []
    assert len(spectra) == 3


THOUSAND = """
import gc, resource, torch
from torch import nn
from layerfreq import Monitor

model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
monitor = Monitor(model, torch.randn(20, 4), torch.arange(20) % 2, inv_delta=[1.0])
for step in range(1001):
    monitor.measure(step)
    if step in (100, 1000):
        gc.collect()
        print(len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_thousand_measurements_leave_memory_flat():
    said = subprocess.run([sys.executable, "-c", THOUSAND], capture_output=True, text=True, check=True).stdout
    (objects, memory), (objects_after, memory_after) = (map(int, line.split()) for line in said.splitlines())
    assert objects_after - objects < 100
    assert memory_after - memory < 4 << 10  # KiB


def test_metrics_of_unmeasured_steps_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr("layerfreq.monitor.record.NOTES", 10)
    with Monitor(net(), X, Y, run=tmp_path / "run", when=[]) as monitor:
        for step in range(95):
            monitor.measure(step, loss=float(step))
            assert len(monitor.run._pending) < 10
    assert monitor.run.metrics["loss"].tolist() == list(range(95))


def test_a_probe_set_that_changes_size_is_one_line():
    def shrinking():
        x, y = X[:60].clone(), Y[:60].clone()
        yield x, y
        x.resize_(50, 3, 8, 8)
        yield x, y

    class Growing:
        def __iter__(self):
            n = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            return iter([(X[:n], Y[:n])])

    sizes, loader = [60], Growing()  # what the loader itself holds is put back after every pass
    options = {"inv_delta": GRID, "layers": ["second.relu", "last"], "on_error": "raise"}
    monitor, streaming = (Monitor(net(), loader, memory=memory, **options) for memory in ("1GB", 100_000))
    monitor.measure(0)
    sizes[:] = [50]
    with refuses("inputs", Code.CONFLICT):
        monitor.measure(1)
    sizes[:] = [60, 60, 50]  # one to count, one for the targets, then the features
    with refuses("inputs", Code.CONFLICT, "layer 'second.relu'"):
        streaming.measure(0)
    states = shrinking()
    x, y = next(states)
    monitor = Monitor(net(), x, y, inv_delta=GRID, on_error="raise")
    monitor.measure(0)
    next(states)
    with refuses("targets", Code.SHAPE):
        monitor.measure(1)


def test_a_layer_that_vanished_is_one_line():
    model = net()
    monitor = Monitor(model, X, Y, layers=["act", "last"], inv_delta=GRID, on_error="raise")
    monitor.measure(0)
    del model.act
    with refuses("layer", Code.CONFLICT, "layer 'act'"):
        monitor.measure(1)
