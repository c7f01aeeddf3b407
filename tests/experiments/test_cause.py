"""The study of the cause on tiny networks: the same table from every back end and after a kill, and what stops it."""

import os
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("lightning_fabric")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
pytest.importorskip("joblib")

from benchmarks.cause_page import contests

from layerfreq.errors import InputError
from layerfreq.experiments import Progress, Request, cause, mlp
from layerfreq.experiments.figures import cause_figures, cause_tables
from layerfreq.experiments.sweep import pool
from layerfreq.relearn import Design
from layerfreq.runs.run import Run
from layerfreq.verdict.ranking import PREDICTORS
from tests.helpers.forked import context
from tests.helpers.refusals import Code, refuses

TINY = cause.Config(
    mlps=(mlp.Config(data="digits", images=60, width=8, hidden=0, epochs=(0, 3), recipe="sgd", rate=0.5),),
    layers=(1, 2),
    resnet=replace(cause.PRESETS["smoke"].resnet, images=80, validation=20, batch=20, measure=(0,), variants=(4,)),
    design=Design(
        optimizers=("sgd",), seeds=1, points=60, budget=8, batch=20, shares=(0.95, 0.9), rates={"sgd": (0.1, 3.0)}
    ),
    workers=1,
)
SEEDS = [0, 1]


def study(out, config=TINY, resume=False, progress=None):
    request = Request(out=out, seeds=SEEDS, preset="smoke", resume=resume, progress=progress or Progress())
    cause.run(config, request)
    return cause_tables.packed(cause.gather(out, SEEDS))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("cause") / "alone"
    return out, study(out)


def test_the_table_has_every_cut_and_the_inputs_everywhere(alone):
    _, table = alone
    rows = cause_tables.unpacked(table)
    cuts = rows.groupby(["run", "step"])["cut"].agg(lambda cut: sorted(set(cut)))
    for (run, _), found in cuts.items():
        assert found == list(range({"1/": 2, "2/": 3}.get(run.partition("hidden-")[2][:2], 3)))
    assert set(cuts.index.get_level_values("run")) == {
        *(f"digits-mlp-hidden-{n}/seed-{s}" for n in (1, 2) for s in SEEDS),
        *(f"digits-resnet-4/variant-4-seed-{s}" for s in SEEDS),
    }
    assert rows.groupby(["run", "step", "cut"]).size().eq(2 * 2 * 2).all()  # scales, rules, errors
    inputs = rows[(rows["cut"] == 0) & (rows["study"] == "digits-mlp")]
    assert inputs.groupby(["scale", "rule", "share"])["steps"].nunique().eq(1).all()
    assert rows.groupby("study")["seed"].nunique().eq(2).all()


def test_a_study_of_a_version_that_called_its_folders_parts_is_read_and_resumed(alone, tmp_path):
    out = tmp_path / "older"
    shutil.copytree(alone[0], out)
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("studies:", "parts:"))
    assert Run(out).config == Run(alone[0]).config
    Request(out=out, seeds=SEEDS, preset="smoke", resume=True).open(
        "cause", cause.UNIT, TINY, without=("backend", "workers"), studies=Run(out).config["studies"]
    )
    pd.testing.assert_frame_equal(cause_tables.packed(cause.gather(out, SEEDS)), alone[1])


def test_heads_on_the_inputs_are_the_same_wherever_they_are_trained(alone):
    """They are trained once, and stand for all; here they are trained again for another depth and seed."""
    out, table = alone
    part = out / "digits-mlp-hidden-2" / "seed-1"
    cause.relearn_step(str(part), TINY.design, 3, [0])
    again = pd.concat(pd.read_parquet(file) for file in (part / "relearn" / "cells").glob("*cut-000-*"))
    rows = cause_tables.unpacked(table)
    first = rows[(rows["cut"] == 0) & (rows["run"] == "digits-mlp-hidden-1/seed-0") & (rows["step"] == 0)]
    keys = ["scale", "rule", "share"]
    a, b = (one.sort_values(keys)[["steps", "rms_median", "probe_loss"]].to_numpy("float32") for one in (again, first))
    np.testing.assert_array_equal(a, b)
    for file in (part / "relearn" / "cells").glob("*cut-000-*"):
        file.unlink()


@pytest.mark.cluster
@pytest.mark.parametrize(
    "backend",
    [
        "loky",
        pytest.param(
            "dask",
            marks=[
                pytest.mark.compatibility("set-up", "reproduce cause on Dask, local cluster of two workers", "works"),
                pytest.mark.needs("distributed"),
            ],
        ),
        pytest.param(
            "ray",
            marks=[
                pytest.mark.compatibility("set-up", "reproduce cause on Ray, local cluster of two workers", "works"),
                pytest.mark.needs("ray"),
            ],
        ),
    ],
)
def test_two_workers_give_the_numbers_of_one_process(alone, tmp_path, backend):
    heads = "relearn", "figures", "results.parquet", "league.parquet"
    if backend != "loky":  # what is slow there is to begin: the trainings are taken over
        shutil.copytree(alone[0], tmp_path / "two", ignore=shutil.ignore_patterns(*heads))
    try:
        table = study(tmp_path / "two", replace(TINY, backend=backend, workers=2), resume=True)
    except InputError as error:
        if "does not start" not in str(error):
            raise
        pytest.skip(str(error))
    pd.testing.assert_frame_equal(table, alone[1], check_exact=True)


class Killing(Progress):
    """Kills its process when so many jobs of the second stage are done."""

    def __init__(self, stage, jobs):
        self.left, self.jobs = stage, jobs

    def start(self, name, total, done):
        self.left -= 1

    def step(self, step, loss=None):
        if self.left == 0 and step == self.jobs:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(out, stage, jobs):
    torch.set_num_threads(1)
    study(out, resume=True, progress=Killing(stage, jobs))


@pytest.mark.kill
def test_killed_and_gone_on_with_it_is_the_same_table(alone, tmp_path):
    out = tmp_path / "killed"
    for stage, jobs in ((1, 2), (2, 3)):
        child = context.Process(target=killed, args=(out, stage, jobs))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    done = {file: file.stat().st_mtime_ns for file in out.glob("*/*/relearn/cells/*.parquet")}
    assert len(done) > 0
    with refuses("run", Code.EXISTS):
        study(out)
    with refuses("out", Code.EXISTS):
        study(out, replace(TINY, layers=(1,)), resume=True)
    (next(iter(done)).parent.parent / ".partial-x.parquet").write_bytes(b"PAR1")
    table = study(out, resume=True)
    pd.testing.assert_frame_equal(table, alone[1], check_exact=True)
    assert all(file.stat().st_mtime_ns == when for file, when in done.items())  # nothing was trained twice
    assert not list(out.rglob(".partial-*"))


def test_tables_figures_and_verdict(alone):
    from layerfreq.verdict.depth import verdict

    out, _ = alone
    head, rows, files, _ = cause.present(out, SEEDS)
    assert len(rows) == 2 * 2 * 2  # studies, pairs, rules
    assert all(len(row) == len(head) for row in rows)
    assert all(file.is_file() for file in files)
    league = pd.read_parquet(out / "league.parquet")
    assert league.groupby(["study", "scale", "rule", "pairs_of"]).size().eq(12).all()
    assert verdict(out / "digits-mlp-hidden-2").seeds == 2
    assert Run(out).config["experiment"] == "cause"


def known_table():
    """Four seeds in which, at rms scale, the steps are ordered by the rms median, and against the probe's loss."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(4):
        for scale in ("raw", "rms"):
            for cut in range(6):
                row = dict.fromkeys(PREDICTORS, 1.0) | {"steps": float(rng.permutation(100)[0])}
                row |= {"rms_median": row["steps"] if scale == "rms" else -row["steps"], "probe_loss": -row["steps"]}
                row |= {"raw_median": row["steps"] * (1 if scale == "rms" else -1)}
                row |= {"study": "a-mlp", "run": f"r-{seed}", "seed": f"seed-{seed}", "step": 0, "cut": cut}
                row |= {"scale": scale, "optimizer": "sgd", "head": "linear", "rule": "best", "head_seed": 0}
                rows.append(row | {"share": 0.5, "layer": "", "censored": False, "rate": 1.0, "at_edge": False})
    return cause_tables.packed(pd.DataFrame(rows))


def test_contests_on_a_table_whose_answer_is_known():
    found = contests(known_table())
    found = found[found["pairs_of"] == "within step"].set_index("rival")
    # +1 against -1 at raw scale; +1 against the probe's loss, which has the wrong sign; a tie; +1 against a constant.
    assert found.loc["raw_median at raw scale", "difference"] == pytest.approx(2, abs=1e-9)
    assert found.loc["probe_loss", "difference"] == pytest.approx(2, abs=1e-9)
    assert found.loc["raw_median", "difference"] == pytest.approx(0, abs=1e-9)
    assert found.loc["depth", "difference"] == pytest.approx(1, abs=1e-9)
    answers = found["answer"].to_dict()
    assert (answers["probe_loss"], answers["raw_median"], answers["depth"]) == ("better", "undecided", "better")


def test_a_table_without_the_maxabs_median_loads_as_before(tmp_path):
    older = known_table().drop(columns="maxabs_median")
    found = contests(older)
    assert "maxabs_median" not in set(found["rival"])
    whole = contests(known_table())
    pd.testing.assert_frame_equal(found, whole[whole["rival"] != "maxabs_median"].reset_index(drop=True))
    assert set(cause_tables.league_of(older)["predictor"]) == set(PREDICTORS) - {"maxabs_median"}
    for table, count in ((older, 11), (known_table(), 12)):
        rows = cause_tables.unpacked(table)
        table = cause_tables.packed(pd.concat([rows, rows.assign(rule="fixed")]))
        figure = cause_figures.figure_league(cause_tables.league_of(table))
        assert len(figure.axes[0].get_yticks()) == count
    pd.testing.assert_frame_equal(cause_tables.packed(older)[list(older.columns)], older)


def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    small = replace(cause.PRESETS["small"], data=str(tmp_path / "data"))
    for config, words in (
        (small, ("data", Code.MISSING)),
        (replace(TINY, backend="threads"), ("backend", Code.UNKNOWN)),
        (replace(TINY, workers=0), ("workers", Code.VALUE)),
    ):
        with refuses(*words):
            study(tmp_path / "none", config)
    assert not (tmp_path / "none").exists()
    monkeypatch.setitem(sys.modules, "ray", None)
    with refuses("backend", Code.PACKAGE), pool("ray"):
        pass


def test_a_sweep_yields_every_result_on_one_thread():
    before = torch.get_num_threads()
    with pool(workers=1) as sweep:
        assert list(sweep(torch.get_num_threads, [()] * 3)) == [1, 1, 1]
        assert list(sweep(abs, [])) == []
    assert torch.get_num_threads() == before


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    from layerfreq import cli

    def call(*words):
        monkeypatch.setattr("sys.argv", ["layerfreq", "reproduce", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr()

    monkeypatch.setitem(cause.PRESETS, "smoke", TINY)
    out = str(tmp_path / "cause")
    status, said = call("cause", "--preset", "smoke", "--workers", "1", "--seed", "0", "--out", out)
    assert status == 0, said.err
    assert "within step" in said.out
    assert (tmp_path / "cause" / "figures" / "cause-league.png").is_file()
    for words, message in (
        (("mlp", "--backend", "dask"), "backend: mlp has none; leave --backend out"),
        (("cause", "--data", str(tmp_path / "no")), "data: no folder"),
        (("cause", "--preset", "smoke", "--seed", "0", "--out", out), "holds another run"),
    ):
        status, said = call(*words)
        assert status == 2
        assert message in said.err
        assert said.err.count("\n") == 1
