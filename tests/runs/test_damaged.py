"""Runs that others have damaged: one line with the file's name, exit 2, and the rest can still be read."""

# ruff: noqa: PT017  some of several reads may fail, and then with one line

import os
import shutil
import sys
import threading

import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.cli.program import main
from layerfreq.errors import InputError
from layerfreq.files import HOST, write_whole
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
STEP = "spectra/step-000000000003.parquet"
LAST = "metrics/from-000000000004.parquet"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    path = tmp_path_factory.mktemp("healthy") / "run"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    with Monitor(model, X, (X[:, 0] > 0).long(), run=path, when=[0, 3], inv_delta=[0.1, 1.0, 10.0]) as monitor:
        for step in range(6):
            monitor.measure(step, loss=1 / (step + 1))
    return path


def frame(name, change):
    def damage(run):
        changed = change(pd.read_parquet(run / name))
        changed.to_parquet(run / name, index=False)

    return name, damage


def content(name, data):
    return name, lambda run: (run / name).write_bytes(data)


def copied(name, to):
    return to, lambda run: shutil.copy(run / name, run / to)


def said(**attrs):
    def change(frame):
        frame.attrs = attrs
        return frame

    return change


DAMAGED = [  # (the file that the line names, what is done to a run)
    content(STEP, b""),
    content(STEP, b"PAR1 and nothing"),
    (STEP, lambda run: os.truncate(run / STEP, 700)),
    content(LAST, b""),
    content(LAST, b"hello"),
    copied(STEP, "spectra/step-0 (1).parquet"),
    copied(STEP, "spectra/step-000000000003-conflict.parquet"),
    copied(LAST, "metrics/from-4 (copy).parquet"),
    ("spectra/step-000000000009.parquet", lambda run: (run / "spectra/step-000000000009.parquet").mkdir()),
    ("spectra/step-000000000009.parquet", lambda run: (run / "spectra/step-000000000009.parquet").symlink_to("/no")),
    frame(STEP, lambda f: f.drop(columns="lfr")),
    frame(LAST, lambda f: f.drop(columns="step")),
    frame(STEP, lambda f: pd.DataFrame({"a": [1]})),
    frame(STEP, lambda f: f.assign(step="three")),
    frame(STEP, lambda f: f.assign(lfr="x")),
    frame(STEP, lambda f: f.assign(layer=3)),
    frame(STEP, lambda f: f.assign(scale="log")),
    content("config.yaml", b"a: [1"),
    content("config.yaml", "name: é".encode("latin-1")),
    content("config.yaml", b"- 1"),
    content("config.yaml", b"hello"),
    content("config.yaml", b"environment: 3"),
    content("config.yaml", b"error: [1]"),
    content("config.yaml", b"a: !!python/object:os.system x"),
    content("config.yaml", bytes(range(128, 256))),
]
HARMLESS = [
    content("spectra/.DS_Store", b"x"),
    content("spectra/._step-000000000003.parquet", b"x"),
    content("spectra/desktop.ini", b"x"),
    content("config.yaml", b""),
    content("config.yaml", b"experiment: [1]\ndepth: x\nlayers: 3"),
    frame(STEP, said(n="many", rows=[], floor="x", refused=3)),
    frame(STEP, lambda f: f.iloc[:0]),
    ("", lambda run: (run / "checkpoints").mkdir() or (run / "checkpoints/step-x (1).safetensors").write_bytes(b"")),
]


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["layerfreq", *map(str, arguments)])
    with pytest.raises(SystemExit) as over:
        main()
    return over.value.code, capsys.readouterr().err.strip()


@pytest.mark.parametrize("case", range(len(DAMAGED)))
def test_a_damaged_file_is_one_line_with_its_name_and_the_rest_is_readable(
    case, healthy, tmp_path, monkeypatch, capsys
):
    name, damage = DAMAGED[case]
    path = tmp_path / "run"
    shutil.copytree(healthy, path)
    damage(path)
    run, readable = Run(path), 0
    for read in (lambda: run.spectra, lambda: run.metrics, lambda: run.config):
        try:
            readable += len(read()) > 0
        except InputError as error:
            assert name in str(error)
            assert "\n" not in str(error)
    assert readable == 2
    assert 0 in run.steps()
    assert repr(run)
    for one in ("report", "verdict"):
        status, line = command(monkeypatch, capsys, one, path)
        assert status == 2
        assert name in line
        assert "\n" not in line


@pytest.mark.parametrize("case", range(len(HARMLESS)))
def test_what_does_no_harm_is_passed_over(case, healthy, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    shutil.copytree(healthy, path)
    HARMLESS[case][1](path)
    assert len(Run(path).spectra) > 0
    assert Run(path).trainings()
    assert command(monkeypatch, capsys, "verdict", path)[0] == 0


def test_a_run_without_measurements_has_no_plot(tmp_path):
    with refuses("run", Code.MISSING):
        Run.create(tmp_path / "run").plot()


def test_reading_while_the_run_is_rewound(healthy, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(healthy, path)
    whole, over, failed = (path / STEP).read_bytes(), threading.Event(), []

    def come_and_go():
        while not over.is_set():
            (path / STEP).unlink()
            write_whole(path / STEP, lambda at: at.write_bytes(whole))

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(30):
            assert len(Run(path).spectra) > 0
    except Exception as error:
        failed.append(error)
    over.set()
    thread.join()
    assert not failed


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        with refuses("out", Code.EXISTS):
            write_whole(place, lambda at: at.write_text("x"))
    assert pipe.is_fifo()


def test_leftovers_of_killed_writers_are_swept_and_those_of_living_ones_stay(tmp_path):
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    names = [f".partial-{HOST}-{dead}-a.html", f".partial-{HOST}-{os.getpid()}-a.html", f".partial-other-{dead}-a.html"]
    for name in names:
        (tmp_path / name).write_text("half")
    write_whole(tmp_path / "report.html", lambda at: at.write_text("whole"))
    assert {one.name for one in tmp_path.iterdir()} == {"report.html", *names[1:]}
