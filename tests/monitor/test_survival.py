"""A training goes on whatever a measurement meets, and bad arguments are said before anything is written."""

# ruff: noqa: PT031  a loop that goes on after each step

import itertools
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import config
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.errors import InputError
from layerfreq.measure.measure import spectrum
from layerfreq.measure.options import OPTIONS
from layerfreq.monitor.schedules import Schedule
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
GRID = [0.1, 1.0, 10.0]


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the tests' own check of types."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def monitor(model=None, **options):
    return Monitor(net() if model is None else model, X, Y, **{"inv_delta": GRID, "engine": "reference", **options})


def broken(layer):
    def spoil(model):
        with torch.no_grad():
            model[layer].weight.fill_(float("nan"))

    return spoil


def raising(error):
    def spoil(model):
        def fail(*_):
            raise error

        model[2].register_forward_hook(fail)

    return spoil


def smaller(model):
    model[2] = nn.Identity()
    model[3] = nn.Identity()


FAULTS = {  # what happens to the model -> the layers that are measured nevertheless, and a word of the warning
    "NaN in the first layer": (broken(0), [], "layer '1'.*NaN"),
    "NaN in the second": (broken(2), ["1"], "layer '3'.*NaN"),
    "the model raises": (raising(RuntimeError("out of its mind")), [], "out of its mind"),
    "no memory": (raising(MemoryError()), [], "MemoryError"),
    "a key is missing": (raising(KeyError("x")), [], "KeyError"),
    "another device": (raising(NotImplementedError("meta")), [], "meta"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_once_and_the_rest_is_written(name, tmp_path):
    spoil, left, words = FAULTS[name]
    model = net()
    watched = monitor(model, run=tmp_path / "run")
    watched.measure(0, loss=1.0)
    spoil(model)
    with pytest.warns(UserWarning, match=words) as said:
        for step in (1, 2, 3):
            found = watched.measure(step, loss=0.5)
            assert list(found or ()) == left
    assert len({str(one.message) for one in said}) == len(said) <= 2  # a layer each
    watched.close()
    run = Run(tmp_path / "run")
    assert run.metrics["loss"].tolist() == [1.0, 0.5, 0.5, 0.5]
    assert not run.spectra.isna().to_numpy().any()
    for step in (1, 2, 3):
        assert run.spectra.set_index("step").loc[[step] if left else []]["layer"].unique().tolist() == left
    strict = net()
    ours = monitor(strict, on_error="raise")
    spoil(strict)
    with pytest.raises((ValueError, RuntimeError, MemoryError, KeyError)):
        ours.measure(0)


METRICS = {
    "step": {"step": 3.0},
    "None": {"loss": None},
    "text": {"loss": "low"},
    "a tensor of two": {"loss": torch.ones(2)},
    "an object": {"loss": object()},
    "a complex number": {"loss": 1j},
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_is_no_number_is_told_once_and_the_others_are_kept(name, tmp_path):
    watched = monitor(run=tmp_path / "run", when=[])
    with pytest.warns(UserWarning, match="metric") as said:
        for step in range(3):
            watched.measure(step, **METRICS[name], accuracy=0.5, self=1, name=2)
    assert len(said) == 1
    watched.close()
    kept = Run(tmp_path / "run").metrics
    assert kept[["step", "accuracy", "self", "name"]].to_numpy().tolist() == [[k, 0.5, 1, 2] for k in range(3)]
    with refuses("metric", Code.VALUE):
        monitor(run=tmp_path / "other", on_error="raise").measure(0, **METRICS[name])


@pytest.mark.parametrize("step", [0.5, -1, None, "3", True, torch.ones(2), float("nan"), [1], 10**13])
def test_a_step_that_is_none_is_told_once_and_spoils_nothing(step, tmp_path):
    watched = monitor(run=tmp_path / "run")
    with pytest.warns(UserWarning, match="step: .* is not a whole number") as said:
        assert watched.measure(step, loss=1.0) is watched.measure(step, loss=1.0) is None
    assert len(said) == 1
    watched.measure(1, loss=2.0)
    watched.close()
    assert Run(tmp_path / "run").metrics.to_numpy().tolist() == [[1, 2.0]]
    with refuses("step", Code.VALUE):
        Run(tmp_path / "run").log(step, loss=1.0)


@pytest.mark.parametrize("step", [torch.tensor(3), np.int64(3), np.float32(3), np.array([3]), 3.0])
def test_numbers_of_libraries_are_numbers(step, tmp_path):
    watched = monitor(run=tmp_path / "run", when=np.int64(3), rows=np.int32(10), seed=np.uint8(1))
    assert watched.measure(step, loss=torch.tensor(0.5), more=np.float16(0.25), yes=np.True_) is not None
    assert watched.measure(step=step, loss=0.5, more=0.25, yes=True) is not None  # once more notes once
    watched.close()
    assert Run(tmp_path / "run").metrics.to_numpy().tolist() == [[3, 0.5, 0.25, 1.0]]


BAD = {
    "rows": [0, 1, 31, 2.5, True, "ten", -1, [5]],
    "rtol": [0, -1, "x", float("nan"), True, float("inf")],
    "engine": ["fast", None, 3, "cuda"],
    "scale": ["log", 3, [], None],
    "inv_delta": [[], [0.0], [2.0, 1.0], "x", [float("nan")], object()],
    "seed": ["x", 0.5, -1, None, 2**70],
    "device": ["gpu", 3.5, "cuda:77", object()],
    "center": ["yes", 2],
    "memory": ["much", -1, object()],
    "reading": ["middle", 3, {"nope": "mean"}],
    "when": ["often", 0, True, [0.5], object(), {1: 2}.items()],
    "on_error": ["ignore", None],
    "trackers": [[3], [object()]],
    "layers": ["nope", [3], []],
    "group": [3],
    "row": [3],
    "run": ["s3://bucket/run", 3, b"run", "", "a\0b", "gs:/x"],
    "targets": [Y[:3], Y - 1, Y[:, None], Y * float("nan"), "text", object(), [None] * 30, Y.float() * 0, None, 3],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_arguments_are_one_line_and_leave_nothing(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"targets": Y, "run": tmp_path / "run", "inv_delta": GRID, name: value}
    if name == "engine" and value == "cuda":
        options["device"] = "cpu"
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError) as caught:
        Monitor(net(), X, **options)
    assert caught.value.argument == {"row": "options"}.get(name, name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_options_are_those_of_spectrum():
    import inspect

    assert list(OPTIONS) == [*inspect.signature(spectrum).parameters][2:]


def test_a_full_disk_ends_measuring_and_not_the_training(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    watched = monitor(run=tmp_path / "run")
    watched.measure(0)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="No space left.*disk is full") as said:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        for step in (1, 2, 3):
            watched.measure(step, loss=1.0)
        watched.close()
    assert len(said) == 1
    assert Run(tmp_path / "run").steps() == [0]


class Endless:
    def __iter__(self):
        return itertools.repeat((X[:2], Y[:2]))


def test_a_loader_without_end_is_a_line_and_empty_batches_are_left_out(tmp_path):
    with refuses("inputs", Code.UNSUPPORTED):
        Monitor(net(), Endless(), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    some = [(X[:0], Y[:0]), (X, Y), (X[:0], Y[:0])]
    expected = Monitor(net(), X, Y, inv_delta=GRID).measure(0)
    found = Monitor(net(), some, inv_delta=GRID).measure(0)
    np.testing.assert_array_equal(found["3"].lfr, expected["3"].lfr)
    with refuses("inputs", Code.EMPTY):
        Monitor(net(), some[:1])


def called(when, steps):
    due = Schedule(when)
    return [step for step in steps if due(step)]


@pytest.mark.parametrize(
    "when",
    [
        np.array([3, 8]),
        pd.Series([3, 8]),
        pd.Index([8, 3]),
        torch.tensor([3, 8]),
        (3.0, 8),
        {3, 8},
        iter([np.int8(3), 8]),
    ],
)
def test_named_steps_of_any_kind_that_are_jumped_over_are_measured_at_the_next_call(when):
    assert called(when, range(0, 20, 2)) in ([4, 8], [4])


def test_other_schedules_that_are_jumped_over():
    assert called(np.int64(5), range(0, 24, 2)) == [0, 6, 10, 16, 20]
    assert called(np.array(5), range(1, 12)) == [5, 10]
    assert called([1, 3], [2, 3]) == [2, 3]
    assert called("log", range(0, 70, 7)) == [0, 7, 14, 21, 28, 35, 42, 49, 56, 63]
    assert called("log", [100, 101, 150]) == [100, 150] or called("log", [100, 101, 150]) == [150]


def trained(when, steps, top, **options):
    """Measure at the top of a loop's body or at its end."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with monitor(model, when=when, **options) as watched:
        for step in range(steps):
            if top:
                watched.measure(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            if not top:
                watched.measure(step + 1)
    return model


@pytest.mark.parametrize("top", [True, False])
def test_log_measures_the_last_step_too(top, tmp_path):
    model = trained("log", 45, top, run=tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.steps()[-1] == 45
    last = run.spectra.query("step == 45 and layer == '3' and scale == 'raw'")["lfr"]
    np.testing.assert_array_equal(last, monitor(model).measure(0)["3"].lfr)


def test_named_steps_that_never_came_are_told_at_the_end():
    with pytest.warns(UserWarning, match="when: steps 7, 100 never came; the last one was 3"):
        trained([1, 7, 100], 4, True)


def test_a_second_run_in_one_place_is_told_how(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monitor(run="~/run").measure(0)
    assert Run("~/run").steps() == [0]
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with refuses("run", Code.EXISTS):
        monitor(run="~/run")
    assert Run("~/run").steps() == [0]
    monitor(run=Run("~/run")).measure(5)
    assert Run("~/run").steps() == [0, 5]
    monitor(run="~/run", overwrite=True).measure(7)
    assert Run("~/run").steps() == [7]
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"
    assert not Path("~").exists()


def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o077)
    try:
        monitor(run=tmp_path / "run").measure(0)
    finally:
        os.umask(before)
    modes = {part.stat().st_mode & 0o777 for part in (tmp_path / "run").rglob("*") if part.is_file()}
    assert modes == {0o600}


def test_warnings_are_not_errors_of_healthy_trainings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(2, 3, True, run=tmp_path / "run")
