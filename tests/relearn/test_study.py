"""Heads above the cuts of a small run: what the table holds, what it does not depend on, and kills."""

import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from layerfreq import Monitor, Run
from layerfreq.experiments import source_of
from layerfreq.relearn import Design, relearn
from layerfreq.relearn.study import principal
from layerfreq.runs.weights import kept_steps, load_weights
from layerfreq.verdict.depth import verdict
from tests.helpers.forked import context
from tests.helpers.refusals import Code, refuses

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
SMALL = Design(optimizers=("sgd",), seeds=2, budget=40, batch=None, rates={"sgd": (0.1, 1.0), "adam": (0.001,)})


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 2))


def write_run(path, seed=0, x=X):
    network = model(seed)
    monitor = Monitor(network, x, Y, run=path, when=[0, 3], checkpoints=True, rows=20)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for step in range(4):
        monitor.measure(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), Y).backward()
        optimizer.step()
    return path


def test_kept_weights_are_the_measured_ones(tmp_path):
    run = Run(write_run(tmp_path / "a"))
    assert kept_steps(run.path) == run.steps() == [0, 3]
    network = model(1)
    load_weights(run.path, 0, network)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), model(0).parameters(), strict=True))
    with refuses("step", Code.MISSING):
        load_weights(run.path, 1, network)
    with refuses("run", Code.CONFLICT):
        load_weights(run.path, 0, nn.Linear(2, 2))


def test_the_table(tmp_path):
    write_run(tmp_path / "a")
    network = model(7)
    before = [p.clone() for p in network.parameters()]
    design = Design(heads=("own", "linear", "hidden-2"), optimizers=("sgd", "adam"), seeds=2, budget=20, batch=16)
    found = relearn(tmp_path / "a", network, X, Y, design=design, steps=[3])
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))
    assert len(found) == 3 * 2 * 2 * 3 * 2 * 2 * 4  # cuts, scales, optimizers, heads, rules, seeds, errors
    assert found.groupby("cut")["layer"].first().tolist() == ["inputs", "1", "3"]
    assert found.groupby("cut")["dimension"].first().tolist() == [6, 8, 7]
    assert ((found["steps"] == 20) | ~found["censored"]).all()
    assert (found.loc[found["rule"] == "fixed", "rate"].isin([0.1, 0.001])).all()
    best = found[found["rule"] == "best"].groupby(["cut", "scale", "optimizer", "head", "share"])
    assert (best["rate"].min() == best["rate"].max()).all()
    fixed = found[found["rule"] == "fixed"].sort_values("share", ascending=False)
    for _, part in fixed.groupby(["cut", "scale", "optimizer", "head", "head_seed"]):
        assert np.all(np.diff(part["steps"]) >= -1e-9)  # a lower error takes longer
    curves = pd.read_parquet(tmp_path / "a" / "relearn" / "curves")
    assert curves.groupby(["cut", "scale", "optimizer", "head"]).ngroups == 36
    assert np.isfinite(curves["loss"]).all()


def test_own_layers_start_as_the_network_does(tmp_path):
    """Above the inputs, the network's own layers initialised anew are the network initialised anew."""
    write_run(tmp_path / "a")
    design = Design(heads=("own",), scales=("raw",), optimizers=("sgd",), seeds=1, budget=3, batch=None)
    relearn(tmp_path / "a", model(), X, Y, design=design, steps=[0], cuts=[0])
    curve = pd.read_parquet(tmp_path / "a" / "relearn" / "curves")
    start = curve.loc[curve["at"] == 0, "loss"].unique()
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(1000)(X), Y))
    assert start == pytest.approx([expected] * len(start), rel=1e-5)


def test_a_rotation_and_a_rescaling_change_nothing_at_rms_scale(tmp_path):
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    tables = []
    for name, x in (("a", X), ("b", 7.5 * X @ q + 2)):
        write_run(tmp_path / name, x=x)
        tables.append(relearn(tmp_path / name, model(), x, Y, design=SMALL, steps=[0], cuts=[0]))
    a, b = (t[t["scale"] == "rms"] for t in tables)
    assert np.isfinite(a["steps"]).all()
    np.testing.assert_allclose(a["steps"], b["steps"], rtol=1e-3)
    np.testing.assert_allclose(a["rms_median"], b["rms_median"], rtol=1e-3)
    a, b = (t[t["scale"] == "raw"] for t in tables)
    assert not np.allclose(a["steps"], b["steps"], rtol=1e-2)


def test_principal_axes_keep_all_distances_and_few_coordinates():
    rng = torch.Generator().manual_seed(0)
    low = torch.randn(40, 3, generator=rng) @ torch.randn(3, 100, generator=rng)
    for x, r in ((low, 3), (X, 6), (torch.randn(5, 30, generator=rng), 5)):
        turned = principal(x)
        assert turned.shape == (len(x), r)
        kept, own = turned.double(), x.double()
        torch.testing.assert_close(torch.cdist(kept, kept), torch.cdist(own, own), rtol=1e-4, atol=1e-4)


def test_gradients_are_on_whatever_the_caller_has(tmp_path):
    path, network = write_run(tmp_path / "a"), model()
    with torch.inference_mode():
        table = relearn(path, network, X, Y, design=replace(SMALL, seeds=1, budget=5), steps=[0], cuts=[1])
    assert len(table)


def go_on(path, kill_at):
    torch.set_num_threads(1)

    def tell(done, total, what):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    relearn(path, model(), X, Y, design=SMALL, resume=kill_at > 3, tell=tell)


@pytest.mark.kill
def test_killed_and_gone_on_with_it_is_the_same_table(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    whole = relearn(tmp_path / "a", model(), X, Y, design=SMALL)
    for kill_at in (3, 8):
        child = context.Process(target=go_on, args=(tmp_path / "b", kill_at))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert len(list((tmp_path / "b" / "relearn" / "cells").iterdir())) == kill_at
    (tmp_path / "b" / "relearn" / ".partial-x.parquet").write_bytes(b"PAR1")
    with refuses("run", Code.EXISTS):
        relearn(tmp_path / "b", model(), X, Y, design=SMALL)
    with refuses("budget", Code.EXISTS):
        relearn(tmp_path / "b", model(), X, Y, design=replace(SMALL, budget=41), resume=True)
    again = relearn(tmp_path / "b", model(), X, Y, design=SMALL, resume=True)
    pd.testing.assert_frame_equal(
        whole.drop(columns=["run", "seed"]), again.drop(columns=["run", "seed"]), check_exact=False, rtol=1e-6
    )
    assert not list((tmp_path / "b").rglob(".partial-*"))


def test_what_cannot_be_done_is_one_line(tmp_path):
    path = write_run(tmp_path / "a")
    bare = Run.create(tmp_path / "bare").path
    for call, words in (
        (lambda: relearn(path), ("model", Code.EMPTY)),
        (lambda: relearn(path, rebuild=source_of), ("model", Code.VALUE)),
        (lambda: relearn(bare, model(), X, Y), ("run", Code.MISSING)),
        (lambda: relearn(path, model(), X, Y, steps=[2]), ("steps", Code.MISSING)),
        (lambda: relearn(path, model(), X, Y, cuts=[3]), ("cuts", Code.UNKNOWN)),
        (lambda: relearn(path, model(), X), ("targets", Code.EMPTY)),
        (lambda: Design(heads=("deep",)), ("heads", Code.UNKNOWN)),
        (lambda: Design(shares=(1.5,)), ("shares", Code.VALUE)),
        (lambda: Design(seeds=0), ("seeds", Code.VALUE)),
    ):
        with refuses(*words):
            call()


def test_an_experiment_from_training_to_verdict(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning_fabric")
    from layerfreq import cli
    from layerfreq.experiments import Request, mlp

    config = mlp.Config(data="digits", images=60, width=8, hidden=2, epochs=(0, 5))
    mlp.run(config, Request(out=tmp_path / "e", seeds=[0, 1]))
    options = ["--optimizer", "sgd", "--budget", "30", "--batch", "0", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["layerfreq", "relearn", str(tmp_path / "e"), *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert "rms scale, sgd, best rate, hidden-1 head, within step" in out
    assert "Does frequency explain" in out
    cause = verdict(tmp_path / "e").cause
    assert "2 seeds" in cause.sentence or "needs 2 seeds" in cause.sentence


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_an_experiments_network_and_data_are_built_anew(tmp_path, name):
    """What the rebuilt network with the kept weights is measured to be is what the run says."""
    pytest.importorskip("lightning_fabric")
    from layerfreq import layer_spectra
    from layerfreq.experiments import Request, experiment
    from layerfreq.relearn.rebuilt import layers_of

    asked = experiment(name)
    changes = {"epochs": (0, 3)} if name == "mlp" else {"epochs": 1, "measure": (0, 1), "variants": (4,)}
    config = replace(asked.PRESETS["smoke"], images=100, **changes)
    asked.run(config, Request(out=tmp_path / "e", seeds=[3]))
    run = Run(tmp_path / "e" / ("seed-3" if name == "mlp" else "variant-4-seed-3"))
    source = source_of(run)
    network = source.fresh(0)
    last = kept_steps(run.path)[-1]
    assert last == run.steps()[-1] > 0
    load_weights(run.path, last, network)
    expected = run.spectra.query("step == @last and scale == 'raw'")
    layers = layers_of(run, source)
    grids = expected.groupby("layer")["inv_delta"].apply(np.array)
    for layer in layers:
        found = layer_spectra(network, source.inputs, source.targets, [layer], inv_delta=grids[layer])[layer]
        np.testing.assert_allclose(found.lfr, expected.loc[expected["layer"] == layer, "lfr"], atol=1e-4)
