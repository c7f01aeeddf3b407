"""Error by frequency while a network trains: from the pass that reads the layers, whole on disk, harmless."""

import copy
import os
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run, error_spectrum, layer_spectra
from layerfreq.integrations.shell import Shell, Start
from layerfreq.runs.errors import ERRORS_COLUMNS, read_errors
from tests.helpers.forked import context
from tests.helpers.refusals import Code, refuses

T = (torch.arange(64) / 64)[:, None]
Y = torch.sin(2 * torch.pi * T) + 0.5 * torch.sin(2 * torch.pi * 6 * T)
GRID = [0.1, 1.0, 10.0]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))


def train(model, steps, monitor=None, first=0):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(first, steps):
        if monitor is not None:
            monitor.measure(step, loss=float(step))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(T), Y).backward()
        optimizer.step()


def same(found, expected):
    for name in ("k", "target_energy", "error_energy", "relative", "chance", "low", "high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_it_comes_from_the_pass_that_reads_the_layers(tmp_path):
    model = net()
    monitor = Monitor(model, T, Y, run=tmp_path / "run", error="auto", inv_delta=GRID)
    passes = []
    model[0].register_forward_hook(lambda *_: passes.append(1))
    found = monitor.measure(0)
    assert len(passes) == 1
    expected = error_spectrum(T, Y, model(T).detach())
    same(monitor.error, expected)
    assert monitor.error.method == "grid"
    for name, one in layer_spectra(model, T, Y, inv_delta=GRID).items():
        np.testing.assert_array_equal(found[name].lfr, one.lfr)
    kept = monitor.run.errors
    assert list(kept) == ERRORS_COLUMNS
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "errors"), kept)
    ((step, again),) = read_errors(kept)
    assert step == 0
    same(again, expected)
    assert (again.learned(), again.bias, again.mse) == (expected.learned(), expected.bias, pytest.approx(expected.mse))


@pytest.mark.parametrize("memory", ["1MB", 2000], ids=["held", "streamed"])
def test_layers_that_do_not_fit_into_memory_change_nothing(memory):
    x = torch.randn(300, 30, generator=torch.Generator().manual_seed(0))
    y, model = x[:, :1].sin(), nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 1))
    monitor = Monitor(model, x, y, memory=memory, error={"method": "filter", "engine": "blocked"}, inv_delta=GRID)
    assert len(monitor.measure(0)) == 1
    same(monitor.error, error_spectrum(x, y, model(x).detach(), method="filter", engine="blocked"))


class Reusing:
    """A loader whose batches all lie in the same memory."""

    def __init__(self):
        self.x, self.y = torch.empty(32, 1), torch.empty(32, 1)

    def __iter__(self):
        for at in (slice(0, 32), slice(32, 64)):
            yield self.x.copy_(T[at]), self.y.copy_(Y[at])


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray, Reusing])
def test_held_inputs_are_read_where_they_lie_and_those_of_a_loader_are_copied(kind):
    model, inputs = net(), {torch.Tensor: T, np.ndarray: T.numpy(), Reusing: Reusing()}[kind]
    targets = None if kind is Reusing else Y
    with patch("layerfreq.probe.error_spectrum", wraps=error_spectrum) as measuring:
        Monitor(model, inputs, targets, error="grid", layers=[], on_error="raise").measure(0)
    seen = measuring.call_args.args
    assert (seen[0].data_ptr() == T.data_ptr()) == (kind is not Reusing)
    for one, other in zip(seen, (T, Y, model(T).detach()), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("memory", ["1MB", 1], ids=["held", "streamed"])
def test_a_loader_that_uses_its_memory_again_gives_layers_the_same_labels(memory):
    found, expected = (
        layer_spectra(net(), *given, inv_delta=GRID, engine="reference", memory=memory)
        for given in ((Reusing(),), (T, Y))
    )
    for name, one in expected.items():
        np.testing.assert_allclose(found[name].lfr, one.lfr, rtol=1e-6)


def test_batches_of_class_ids_and_a_records_logits():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, 2)

        def forward(self, x):
            inner = self.inner(x)
            return {"inner": inner, "logits": self.head(inner)}

    model = Classifier()
    batches = [(x[:25], y[:25]), (x[25:], y[25:])]
    monitor = Monitor(model, batches, error="filter", inv_delta=GRID)
    monitor.measure(0)
    expected = error_spectrum(x, y, model(x)["logits"].detach(), method="filter")
    np.testing.assert_allclose(monitor.error.error_energy, expected.error_energy, rtol=1e-5, atol=1e-8)


class Logged:
    def __init__(self):
        self.seen, self.axes = {}, 0

    def log(self, step, scalars, figure):
        self.seen[step], self.axes = scalars, len(figure().axes)

    def close(self):
        pass


def half(inputs):
    return 0.5 * np.sin(2 * np.pi * inputs.numpy())


@pytest.mark.parametrize("kind", ["function", "no hidden layer", "none of its layers"])
def test_a_run_without_layers(kind, tmp_path):
    model = {"function": half, "no hidden layer": nn.Linear(1, 1), "none of its layers": net()}[kind]
    layers, tracker = [] if kind == "none of its layers" else None, Logged()
    with Monitor(model, T, Y, layers=layers, run=tmp_path / "run", error="grid", when=2, trackers=[tracker]) as monitor:
        assert monitor.layers == []
        found = [monitor.measure(step, loss=1.0) for step in range(3)]
        assert [one is not None for one in found] == [True, False, True]
        assert not found[0]
        assert "2 measurements" in monitor.run._repr_html_()
        error = monitor.error
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2] == sorted(set(run.errors["step"]))
    assert run.spectra.empty
    assert [one.path for one in run.trainings()] == [run.path]
    assert tracker.axes == 1
    expected = {"layerfreq/learned": error.learned(), "layerfreq/bias": error.bias}
    assert tracker.seen[2] == {name: value for name, value in expected.items() if value is not None}
    if kind == "function":
        assert error.relative[[1, 6]] == pytest.approx([0.5, 1])


def test_trackers_get_numbers_and_a_panel_next_to_those_of_the_layers():
    tracker = Logged()
    monitor = Monitor(lambda x: 0.99 * Y if len(x) == 64 else x, T, Y, error="auto", trackers=[tracker])
    monitor.measure(0)
    assert tracker.seen[0]["layerfreq/learned"] == pytest.approx(2 * np.pi * 6)  # no band above it has any target
    monitor = Monitor(net(), T, Y, error="auto", inv_delta=GRID, trackers=[tracker])
    monitor.measure(3)
    assert tracker.axes == 3  # raw, rms, error
    assert {"layerfreq/bias", "layerfreq/raw/resolution/1"} <= set(tracker.seen[3])


def test_training_is_bit_identical(tmp_path):
    plain, watched = net(), net()
    train(plain, 6)
    train(watched, 6, Monitor(watched, T, Y, run=tmp_path / "run", error={"method": "scattered"}, inv_delta=GRID))
    for one, other in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_killed_between_two_files_the_step_is_absent_and_resumed_it_is_that_of_an_unbroken_run(tmp_path):
    options = {"error": "auto", "inv_delta": GRID}
    whole, broken = net(), net()
    train(whole, 4, Monitor(whole, T, Y, run=tmp_path / "whole", **options))
    train(broken, 2, Monitor(broken, T, Y, run=tmp_path / "run", **options))
    run, state = Run(tmp_path / "run"), copy.deepcopy(broken.state_dict())
    late = net()
    late.load_state_dict(state)
    run.write_errors(2, error_spectrum(T, Y, Y))  # and killed before the spectra
    assert run.steps() == [0, 1] == sorted(set(run.errors["step"]))
    run.rewind(0)
    assert run.steps() == [0] == sorted(set(run.errors["step"]))
    assert len(list((run.path / "errors").iterdir())) == 1
    again = net()
    monitor = Monitor(again, T, Y, run=run, **options)
    train(again, 4, monitor)
    unbroken, resumed = Run(tmp_path / "whole").errors, Run(tmp_path / "run").errors
    pd.testing.assert_frame_equal(unbroken, resumed)


OPTIONS = {"error": "auto", "inv_delta": GRID, "engine": "reference"}


def train_until_killed(folder, replaced):
    """Train and measure, until the process kills itself at the move of a file into its place."""
    replace, moved = Path.replace, []

    def move(self, target):
        moved.append(target)
        if len(moved) == replaced:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    with patch.object(Path, "replace", move):
        model = net()
        train(model, 4, Monitor(model, T, Y, run=folder, **OPTIONS))


@pytest.mark.kill
def test_a_killed_process_leaves_whole_errors_and_a_resumed_one_ends_as_if_unbroken(tmp_path):
    whole = net()
    train(whole, 4, Monitor(whole, T, Y, run=tmp_path / "whole", **OPTIONS))
    unbroken, moves = (
        Run(tmp_path / "whole"),
        (5, 6, 7),
    )  # of a step: its errors, its spectra, its metrics, in whatever order
    children = [context.Process(target=train_until_killed, args=(tmp_path / str(at), at)) for at in moves]
    for child in children:
        child.start()
    for at, child in zip(moves, children, strict=True):
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        run = Run(tmp_path / str(at))
        left = unbroken.errors
        left = left[left["step"].isin(run.steps())].reset_index(drop=True)
        pd.testing.assert_frame_equal(run.errors, left)
        assert run.steps() == sorted(set(run.errors["step"]))
        last = run.steps()[-1]
        run.rewind(last)
        again = net()  # trained as from a checkpoint of that step, measured from there on
        train(again, 4, Monitor(again, T, Y, run=run, when=list(range(last + 1, 4)), **OPTIONS))
        pd.testing.assert_frame_equal(run.errors, unbroken.errors)
        pd.testing.assert_frame_equal(run.spectra, unbroken.spectra)


def test_an_error_that_cannot_be_measured_is_told_and_the_layers_are_kept(tmp_path):
    model = net()
    monitor = Monitor(model, T, Y, run=tmp_path / "run", error="auto", inv_delta=GRID)
    monitor.measure(0)
    with torch.no_grad():
        model[4].bias.fill_(float("nan"))
    with pytest.warns(UserWarning, match=r"step 1: outputs: NaN or infinite in 64 of 64 points"):
        found = monitor.measure(1)
    assert len(found) == 2
    assert monitor.error is None
    assert (monitor.run.steps(), set(monitor.run.errors["step"])) == ([0, 1], {0})


HOLE = torch.cat([T[:20], T[23:]])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (T, "fft", ("error", Code.UNKNOWN)),
        (T, 3, ("error", Code.VALUE)),
        (T, {"windows": "hann"}, ("error", Code.UNKNOWN)),
        (T, {"method": "filter", "window": "hann"}, ("window", Code.CONFLICT)),
        (T, {"frequencies": [3, 1]}, ("frequencies", Code.VALUE)),
        (T, {"frequencies": [1e6]}, ("frequencies", Code.VALUE)),
        (HOLE, "grid", ("inputs", Code.VALUE)),
        (T[:1].expand(64, 1), "auto", ("inputs", Code.CONSTANT)),
        ((T, T), "auto", ("error", Code.UNSUPPORTED)),
    ],
)
def test_bad_options_are_refused_before_the_training(inputs, error, words, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, *more):
            return self.net(x)

    n = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    with refuses(*words):
        Monitor(Net(), inputs, Y[:n], run=tmp_path / "run", error=error)
    assert not list(tmp_path.iterdir())


def test_what_a_function_cannot_be_asked_for():
    with refuses("layers", Code.CONFLICT, "'1'"):
        Monitor(half, T, Y, layers="1", error="auto")
    with refuses("model", Code.VALUE):
        Monitor(half, T, Y)
    with refuses("error", Code.SHAPE):
        Monitor(lambda x: torch.zeros(1), T, Y, error="auto", on_error="raise").measure(0)
    with refuses("model", Code.UNSUPPORTED):
        Monitor(nn.Linear(1, 1), T, Y)


def test_both_callbacks_share_it(tmp_path):
    with refuses("error", Code.UNKNOWN, "'fft'"):
        Shell(T, Y, None, tmp_path / "bad", 1, (), {"error": "fft"})
    model = net()
    shell = Shell(T, Y, None, tmp_path / "run", 1, (), {"error": "grid", "inv_delta": GRID})
    shell.begin(0, None, lambda: Start(model))
    train(model, 1)
    shell.measure(1)
    expected = error_spectrum(T, Y, model(T).detach(), method="grid")
    shell.close()
    found = dict(read_errors(Run(tmp_path / "run").errors))
    assert list(found) == [0, 1]
    same(found[1], expected)
