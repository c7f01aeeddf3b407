"""A run on disk: whole measurements through failures, kills and concurrent reading."""

import pickle
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfreq import Run
from layerfreq.files import write_whole
from layerfreq.trackers.csv import CSV
from tests.helpers.forked import context
from tests.helpers.refusals import Code, refuses

COLUMNS = ["step", "layer", "depth", "scale", "inv_delta", "lfr", "rdf", "chance", "neighbours", "stderr"]
LAYERS, SCALES, GRID = [f"layer{i}" for i in range(5)], ["raw", "rms"], np.geomspace(1e-3, 1e3, 200)
ROWS = len(LAYERS) * len(SCALES) * len(GRID)


def measurement(mark):
    """A frame of a whole measurement; `mark` in every row tells a torn one."""
    frame = pd.MultiIndex.from_product([LAYERS, SCALES, GRID], names=["layer", "scale", "inv_delta"]).to_frame(False)
    frame[["rdf", "chance", "neighbours", "stderr"]] = np.random.default_rng(0).random((ROWS, 4))
    return frame.assign(depth=np.repeat(np.arange(1, 6), ROWS // 5), lfr=float(mark))


def write_many(path, first, last, steps):
    run = Run(path)
    for mark in range(first, last):
        run.write_spectra(mark % steps, measurement(mark))


def assert_only_whole(frame):
    groups = frame.groupby("step")
    assert (groups.size() == ROWS).all()
    assert (groups["lfr"].min() == groups["lfr"].max()).all()


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def writing(*args):
    process = context.Process(target=write_many, args=args)
    process.start()
    return process


def assert_one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_columns_are_the_contracts_and_values_survive(tmp_path):
    run = Run.create(tmp_path / "run", {"seed": 3})
    assert list(run.spectra.columns) == COLUMNS
    assert len(run.spectra) == len(run.metrics) == len(run.steps()) == 0
    run.write_spectra(7, measurement(9))
    run.write_spectra(7, measurement(0.5).assign(extra=1))  # the same step again replaces it
    expected = measurement(0.5).assign(step=7)[COLUMNS]
    for read in (run.spectra, Run(run.path).spectra, pd.read_parquet(run.path / "spectra")):
        pd.testing.assert_frame_equal(read, expected, check_exact=True, check_dtype=False)
    assert Run(run.path).config == {"seed": 3}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_failing_half_way_changes_nothing(tmp_path, monkeypatch, error):
    run = Run.create(tmp_path / "run")
    run.write_spectra(0, measurement(0))
    run.log(2, loss=0.5)
    before = files(run.path)

    def half(self, at, **_):
        Path(at).write_bytes(b"PAR1 and half of the rest")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", half)
        for step in (0, 1):
            with pytest.raises(type(error)):
                run.write_spectra(step, measurement(9))
        with pytest.raises(type(error)):
            run.flush()
    assert files(run.path) == before
    run.flush()  # what could not be written is not forgotten
    assert run.metrics["loss"].tolist() == [0.5]


def test_write_whole_replaces_in_one_step(tmp_path):
    at = tmp_path / "file.txt"
    at.write_text("old")
    seen = []
    write_whole(at, lambda partial: (partial.write_text("new"), seen.append(at.read_text())))
    assert (seen, at.read_text()) == (["old"], "new")
    with pytest.raises(ZeroDivisionError):
        write_whole(at, lambda partial: partial.write_text("half") and 1 / 0)
    assert at.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_only_a_new_or_empty_directory_takes_a_run(tmp_path):
    Run.create(tmp_path / "run")
    Run.create(tmp_path / "full" / "inner")
    before = files(tmp_path)
    for name, why in (("run", "another run"), ("full", "not an empty directory")):
        with refuses("run", Code.EXISTS) as caught:
            Run.create(tmp_path / name)
        assert_one_line(caught, "run:", name, why, "choose another")
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty").steps() == []


def test_no_run_is_one_line(tmp_path):
    with refuses("run", Code.MISSING) as caught:
        Run(tmp_path / "none")
    assert_one_line(caught, "run:", "none", "check the path")


def test_a_refused_directory_is_left_as_it_was(tmp_path):
    half_written = Run.create(tmp_path / "runs" / "a").path / ".partial-x.parquet"  # by another process, just now
    half_written.write_bytes(b"PAR1")
    with refuses("run", Code.EXISTS):
        Run.create(tmp_path / "runs")
    assert half_written.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 40, used=1 << 40, free=0))
    (tmp_path / "empty").mkdir()
    for name in ("new/deep/run", "empty"):
        with refuses("run", Code.FAILED) as caught:
            Run.create(tmp_path / name)
        assert_one_line(caught, "run:", name, "free", "choose another place")
    assert [p.name for p in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.slow
def test_reading_while_another_process_writes_sees_only_whole_measurements(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_spectra(0, measurement(0))
    writer = writing(run.path, 1, 80, 10)
    seen = [1]
    while writer.is_alive():
        for frame in (pd.read_parquet(run.path / "spectra"), run.spectra):
            assert_only_whole(frame)
            seen.append(frame["step"].nunique())
    writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)  # what was there stays there
    assert len(run.steps()) == 10


@pytest.mark.kill
def test_killed_writers_leave_only_whole_measurements(tmp_path):
    run, rng = Run.create(tmp_path / "run"), np.random.default_rng(0)
    for first in range(0, 5 * 10**6, 10**6):
        before = len(run.steps())
        writer = writing(run.path, first, first + 10**6, 10**9)
        while len(run.steps()) == before:
            assert writer.is_alive()
            time.sleep(0.005)
        time.sleep(rng.uniform(0.05, 0.3))
        writer.kill()
        writer.join()
        for frame in (pd.read_parquet(run.path / "spectra"), Run(run.path).spectra):
            assert_only_whole(frame)
            assert frame["step"].nunique() == len(run.steps()) > before


@given(st.dictionaries(st.integers(0, 10**6), st.booleans(), max_size=8))
def test_logged_metrics_are_there_once_flushed_in_order(logged):
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run")
        for step, flush in logged.items():
            run.log(step, loss=step / 7)
            if flush:
                run.flush()
        run.flush()
        read = Run(run.path).metrics
    assert list(map(tuple, read.to_numpy())) == [(step, step / 7) for step in sorted(logged)]


def test_metrics_of_one_step_flushed_apart_are_both_there(tmp_path):
    run = Run.create(tmp_path / "run")
    run.log(0, loss=0.5)
    run.flush()
    run.log(0, accuracy=0.9)
    run.flush()
    assert run.metrics["loss"].dropna().tolist() == [0.5]
    assert run.metrics["accuracy"].dropna().tolist() == [0.9]


@pytest.mark.parametrize("every", [1, 10])
def test_rewinding_forgets_what_comes_after_a_step_and_nothing_else(tmp_path, every):
    run = Run.create(tmp_path / "run")
    for step in range(21):
        run.log(step, loss=1.0)
        if step % 5 == 0:
            run.write_spectra(step, measurement(step))
        if step % every == every - 1:
            run.flush()
    run.rewind(5)
    run.flush()
    assert run.metrics["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert run.steps() == [0, 5]
    assert_only_whole(run.spectra)


def test_a_config_with_parts_of_its_own_is_no_run_of_several_parts(tmp_path):
    run = Run.create(tmp_path / "a", {"parts": {"folder": "study"}})
    assert run.config["parts"] == {"folder": "study"}
    assert run.parts == {}
    assert run.steps() == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_stays_where_it_is_when_the_working_directory_changes(tmp_path, monkeypatch, gone):
    """As in notebooks and under Hydra; also where the new directory is removed."""
    monkeypatch.chdir(tmp_path)
    run, tracker = Run.create("here"), CSV("numbers.csv")
    assert (run.path, tracker.path) == (Path("here"), Path("numbers.csv"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    if gone:
        (tmp_path / "other").rmdir()
    assert (run.path, tracker.path) == (tmp_path / "here", tmp_path / "numbers.csv")
    run.log(3, loss=0.5)
    run.flush()
    tracker.log(3, {"loss": 0.5}, lambda: None)
    monkeypatch.chdir(tmp_path)
    assert list(Run("here").metrics["loss"]) == [0.5]
    assert (tmp_path / "numbers.csv").read_text() == "step,name,value\n3,loss,0.5\n"
    assert pickle.loads(pickle.dumps(run)).path == Path("here")
