"""Several targets and several probe sets in one monitor: each a whole run of its own, and a step in all of them."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run, compare, layer_spectra, verdict
from layerfreq.report import write_report
from layerfreq.runs.run import Run as Written
from tests.helpers.refusals import Code, refuses

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = torch.sin(3 * X[:, :2])
TEST = (X[:20] + 1, Y[:20])
GRID = [0.1, 1.0, 10.0]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def residual(x, y, output):
    return y - output


SEVERAL = {"labels": Y, "residual": residual}


def train(model, monitor, steps):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in steps:
        monitor.measure(step, loss=1 / (step + 1))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()


def test_each_target_is_a_whole_run_and_the_first_is_what_measure_returns(tmp_path):
    model = net()
    with Monitor(model, X, SEVERAL, run=tmp_path / "run", when=2, inv_delta=GRID) as monitor:
        train(model, monitor, range(5))
        last = layer_spectra(model, X, SEVERAL, inv_delta=GRID)
        found = monitor.measure(6, loss=0.0)
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2, 4, 6]
    assert list(run.parts) == list(monitor.parts) == ["labels", "residual"]
    assert found is monitor.last is monitor.parts["labels"]
    for name, part in run.parts.items():
        assert part.steps() == run.steps()
        assert part.config["target"] == name
        assert part.config["points"] == 60
        assert part.metrics["loss"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 0]
        for layer, one in part[-1].items():
            np.testing.assert_array_equal(one.lfr, last[name][layer].lfr)
            np.testing.assert_array_equal(one.lfr, monitor.parts[name][layer].lfr)
    assert repr(run).endswith("4 measurements, steps 0 .. 6, parts labels, residual)")


def test_train_and_test_probe_sets_are_each_as_if_alone(tmp_path):
    model = net()
    probes = {"train": (X, SEVERAL), "test": [TEST]}
    monitor = Monitor(model, probes=probes, run=tmp_path / "run", inv_delta=GRID)
    monitor.measure(0)
    parts = Run(tmp_path / "run").parts
    assert list(parts) == ["train-labels", "train-residual", "test"]
    assert [part.config["points"] for part in parts.values()] == [60, 60, 20]
    assert [part.config.get("probe") for part in parts.values()] == ["train", "train", "test"]
    alone = layer_spectra(model, *TEST, inv_delta=GRID)
    for layer, one in parts["test"][0].items():
        np.testing.assert_array_equal(one.lfr, alone[layer].lfr)


def test_training_is_bit_for_bit_what_it_is_without(tmp_path):
    weights = []
    for on in (False, True):
        model = net()
        model.insert(2, nn.Dropout(0.5))
        probes = {"train": (X, {**SEVERAL, "noise": lambda x, y, output: torch.rand_like(output)}), "test": TEST}
        torch.manual_seed(3)
        monitor = Monitor(model, probes=probes, run=tmp_path / "run") if on else Monitor(model, X, Y, when=[])
        train(model, monitor, range(4))
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_one_part_that_fails_leaves_the_others(tmp_path):
    model, sick = net(), []

    def fails(x, y, output):
        return output / (0 if sick else 1)

    class Gone:
        def __iter__(self):
            if sick:
                raise RuntimeError("the disk is gone")
            return iter([TEST])

    probes = {"gone": Gone(), "train": (X, {"fails": fails, "labels": Y})}
    monitor = Monitor(model, probes=probes, run=tmp_path / "run", inv_delta=GRID)
    monitor.measure(0)
    sick.append(1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = monitor.measure(1)
    said = [str(one.message) for one in told]
    assert any("step 1 of gone: " in one and "the disk is gone" in one for one in said), said
    assert any("step 1 of train-fails: " in one for one in said), said
    assert any("NaN or infinite" in one or "infinite" in one for one in said), said
    assert list(found) == []  # the first part's
    assert list(monitor.parts) == ["train-labels"]
    run = Run(tmp_path / "run")
    assert [part.steps() for part in run.parts.values()] == [[0], [0], [0, 1]]
    assert run.steps() == [0, 1]
    assert repr(run).endswith("2 measurements, steps 0 .. 1, parts gone (1 of 2), train-fails (1 of 2), train-labels)")


def test_a_step_that_was_killed_between_parts_is_measured_again(tmp_path, monkeypatch):
    model = net()
    monitor = Monitor(model, X, SEVERAL, run=tmp_path / "run", when=2, inv_delta=GRID)
    monitor.measure(0)
    write = Written.write_spectra

    def killed(self, step, frame):
        if step == 2 and self.path.name == "residual":
            raise KeyboardInterrupt
        write(self, step, frame)

    with monkeypatch.context() as patch:
        patch.setattr(Written, "write_spectra", killed)
        with pytest.raises(KeyboardInterrupt):
            monitor.measure(2)
    run = Run(tmp_path / "run")
    assert [part.steps() for part in run.parts.values()] == [[0, 2], [0]]
    assert run.steps() == [0, 2]
    monitor = Monitor(model, X, SEVERAL, run=run, when=2, inv_delta=GRID)
    for step in (1, 2, 3, 4):
        monitor.measure(step)
    monitor.close()
    assert [part.steps() for part in run.parts.values()] == [[0, 2, 4]] * 2
    run.rewind(2)
    assert [part.steps() for part in run.parts.values()] == [[0, 2]] * 2


def test_what_reads_runs_takes_parts_by_name(tmp_path):
    model, path = net(), tmp_path / "run"
    with Monitor(model, X, SEVERAL, run=path, inv_delta=np.geomspace(1e-2, 100, 9)) as monitor:
        train(model, monitor, range(3))
    run = Run(path)
    for read in (lambda: run.spectra, lambda: run.medians, lambda: run.metrics, lambda: run[0], run.plot):
        with refuses("run", Code.CONFLICT, "'labels'"):
            read()
    for judge in (verdict, lambda one: compare(one, path / "residual")):
        with refuses("runs", Code.CONFLICT):
            judge(path)
    assert verdict(path / "residual").runs == 1
    with refuses("runs", Code.CONFLICT, "'labels'", "'residual'"):
        verdict([path / "labels", path / "residual"])
    assert set(compare(path / "labels", path / "residual")["layer"]) == {"1", "3"}
    assert run.parts["residual"].plot().axes
    for parts in (run.parts, monitor.parts, pickle.loads(pickle.dumps(run.parts))):
        with refuses("part", Code.UNKNOWN, "'residuals'", "did you mean 'residual'?") as caught:
            parts["residuals"]
        assert isinstance(caught.value, KeyError)
        assert parts.get("residuals") is None
    with refuses("layer", Code.UNKNOWN, "'2'", "1, 3") as caught:
        run.parts["labels"][0]["2"]
    assert isinstance(caught.value, KeyError)
    page = write_report(run).read_text()
    assert "The deep frequency principle is undecided in all these runs" in page  # of two layers
    assert "residual" in page
    assert "labels" in page


def test_a_run_with_other_parts_is_refused_and_a_new_one_replaces_it_whole(tmp_path):
    path = tmp_path / "run"
    Monitor(net(), X, SEVERAL, run=path).measure(0)
    for targets in (Y, {"labels": Y, "other": residual}):
        with refuses("run", Code.EXISTS):
            Monitor(net(), X, targets, run=Run(path))
    monitor = Monitor(net(), X, Y, run=path, overwrite=True)
    assert not (path / "residual").exists()
    monitor.measure(0)
    with refuses("run", Code.EXISTS):
        Monitor(net(), X, SEVERAL, run=Run(path))
    Run(path).remove()
    own = Run.create(path, {"by": "hand"})
    monitor = Monitor(net(), X, SEVERAL)
    monitor.write_to(own)
    monitor.measure(0)
    assert own.config == {"by": "hand", "parts": ["labels", "residual"]}
    own.remove()
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"inputs": X, "targets": {"a/b": Y}}, ("targets", Code.VALUE)),
        ({"inputs": X, "targets": {"spectra": Y}}, ("targets", Code.VALUE)),
        ({"inputs": X, "targets": {"a": Y, "A": Y}}, ("targets", Code.VALUE)),
        ({"inputs": X, "targets": Y, "probes": {"a": TEST}}, ("probes", Code.CONFLICT)),
        ({"probes": {}}, ("probes", Code.EMPTY)),
        ({"probes": {"a": (X, Y, X)}}, ("probes", Code.SHAPE)),
        ({}, ("inputs", Code.EMPTY)),
        ({"probes": {"a": (X, Y), "b": (X, Y[:5])}}, ("targets", Code.SHAPE)),
        ({"probes": {"a": (X, Y), "b": (X[:0], Y[:0])}}, ("inputs", Code.EMPTY)),
        ({"probes": {"a": TEST, "b": (X[:9], {"c": Y})}}, ("targets", Code.SHAPE)),
        ({"probes": {0: TEST, "0": TEST}}, ("probes", Code.VALUE)),
        ({"probes": {"": TEST, "b": TEST}}, ("probes", Code.VALUE)),
        ({"probes": {"a/b": TEST}}, ("probes", Code.VALUE)),
        ({"inputs": X, "targets": {"": Y, "b": Y}}, ("targets", Code.VALUE)),
        ({"inputs": X, "targets": [Y, residual]}, ("targets", Code.VALUE)),
        ({"inputs": X, "targets": residual}, ("targets", Code.FAILED)),
    ],
)
def test_bad_parts_are_one_line_and_nothing_is_written(arguments, said, tmp_path):
    with refuses(*said):
        Monitor(net(), **arguments, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trackers_get_the_parts_by_name(tmp_path):
    class Kept:
        def log(self, step, scalars, figure):
            self.scalars, self.axes = scalars, len(figure().axes)

        def close(self):
            pass

    kept = Kept()
    Monitor(net(), X, SEVERAL, trackers=[kept], inv_delta=GRID).measure(0)
    names = pd.Series(list(kept.scalars))
    assert names.str.startswith(("layerfreq/labels/", "layerfreq/residual/")).all()
    assert "layerfreq/residual/rms/resolution/3" in kept.scalars
    assert kept.axes == 2
