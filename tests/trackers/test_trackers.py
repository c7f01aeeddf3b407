"""Trackers: what is read back is what was measured, and a tracker that fails takes nothing with it."""

import contextlib
import json
import random
import struct
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from layerfreq import Monitor, Run, layer_spectra
from layerfreq.trackers.trackers import CSV, MLflow, TensorBoard, Trackers, WandB, figure_of, scalars_of
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
GRID = [0.01, 0.1, 1.0, 10.0]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def measured(*trackers, steps=(0, 3), **options):
    """Measure at some steps; returns step -> scalars, as they should be found."""
    model = net()
    monitor = Monitor(model, X, Y, trackers=trackers, inv_delta=GRID, **options)
    expected = {}
    for step in steps:
        with torch.no_grad():
            model[0].weight.mul_(1.5)
        expected[step] = scalars_of(monitor.measure(step))
    monitor.close()
    return expected


def assert_found(frame, expected, rtol=0):
    """A frame of step, name and value holds exactly the expected numbers."""
    found = {(step, name): value for step, name, value in frame.itertuples(index=False)}
    wanted = {(step, name): value for step, numbers in expected.items() for name, value in numbers.items()}
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[key] for key in wanted], list(wanted.values()), rtol=rtol)


class Told:
    """A tracker that remembers."""

    def __init__(self):
        self.logged, self.closed = {}, 0

    def log(self, step, scalars, figure):
        self.logged[step] = scalars, figure

    def close(self):
        self.closed += 1


class Broken(Told):
    def log(self, step, scalars, figure):
        scalars.clear()
        raise OSError(28, "No space left\non device")


def test_scalars_are_the_layers_numbers_at_raw_and_rms_scale_and_nothing_that_is_none():
    told = Told()
    model = net()
    monitor = Monitor(model, X, Y, trackers=[told], inv_delta=[1.0, 2.0], scale="rms")
    spectra = monitor.measure(5)
    scalars = told.logged[5][0]
    for layer, one in spectra.items():
        for scale in ("raw", "rms"):
            for what in ("median", "peak", "resolution"):
                value = getattr(one.to_scale(scale), what)
                assert scalars.pop(f"layerfreq/{scale}/{what}/{layer}", None) == value
        assert scalars.pop(f"layerfreq/floor/{layer}") == one.floor
    assert scalars == {}
    constant = Monitor(model, X, torch.zeros(30, dtype=torch.long), trackers=[told], inv_delta=GRID).measure(6)
    assert constant["1"].median is constant["1"].peak is None
    assert not any("median" in name or "peak" in name for name in told.logged[6][0])
    assert np.isfinite(list(told.logged[6][0].values())).all()


@pytest.mark.parametrize("scale", ["raw", "maxabs", ("maxabs", "rms")], ids=str)
def test_scalars_and_panels_are_of_the_scales_that_were_measured(scale):
    told, model = Told(), net()
    Monitor(model, X, Y, trackers=[told], scale=scale).measure(0)
    scalars, figure = told.logged[0]
    measured = {one.split("/")[1] for one in scalars} - {"floor"}
    expected = {"raw": {"raw", "rms"}, "maxabs": {"maxabs"}}.get(scale, {"raw", "rms", "maxabs"})
    assert measured == expected
    for one in expected:
        for layer, alone in layer_spectra(model, X, Y, scale=one).items():
            assert scalars[f"layerfreq/{one}/median/{layer}"] == pytest.approx(alone.median, rel=1e-6)
    assert len(figure().axes) == len(expected)
    assert all(len(ax.get_lines()) > 3 for ax in figure().axes)


def test_the_figure_is_drawn_once_only_if_wanted_and_apart_from_pyplot():
    before = plt.get_fignums()
    one, other = Told(), Told()
    measured(one, other, steps=[0])
    assert one.logged[0][1]() is other.logged[0][1]()
    labels = [line.get_label() for line in one.logged[0][1]().axes[0].get_lines()]
    assert {"1", "3"} <= set(labels)
    assert plt.get_fignums() == before
    assert one.closed == other.closed == 1


@pytest.mark.compatibility("tracker", "CSV", "works")
def test_csv(tmp_path):
    for steps in ((0, 3), (4,)):  # a second monitor appends
        expected = measured(CSV(tmp_path / "new" / "spectra.csv"), steps=steps)
        frame = pd.read_csv(tmp_path / "new" / "spectra.csv")
        assert list(frame.columns) == ["step", "name", "value"]
        assert_found(frame[frame["step"].isin(steps)], expected)
    assert set(frame["step"]) == {0, 3, 4}


@pytest.mark.compatibility("tracker", "TensorBoard", "works")
@pytest.mark.parametrize("given", [False, True])
def test_tensorboard(tmp_path, given):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path)) if given else tmp_path
    expected = measured(TensorBoard(writer))
    if given:
        writer.add_scalar("mine", 1.0, 0)  # it was left open
        writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "scalars": 0}).Reload()
    names = set(events.Tags()["scalars"]) - {"mine"}
    rows = [(event.step, name, event.value) for name in names for event in events.Scalars(name)]
    assert_found(pd.DataFrame(rows), expected, rtol=1e-6)
    assert [image.step for image in events.Images("layerfreq/layers")] == [0, 3]
    assert min(image.width for image in events.Images("layerfreq/layers")) > 500


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(tmp_path)), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield
    wandb = pytest.importorskip("wandb")
    if wandb.run is not None:
        wandb.run.finish()


def records(data):
    """The records of a W&B file: 7 bytes, then chunks (checksum, length, whole/first/middle/last) in 32 KiB blocks."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def history(folder):
    """What a W&B run wrote to its local file: a dict for each call of `log`."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.rglob("*.wandb")
    found, until = [], time.monotonic() + 60
    while not any(record.WhichOneof("record_type") == "exit" for record in found):  # another process writes the file
        assert time.monotonic() < until, "the run did not end"
        time.sleep(0.05)
        found = []
        for data in records(path.read_bytes()):
            with contextlib.suppress(DecodeError):
                found.append(Record.FromString(data))
    rows = [record.history.item for record in found if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


@pytest.mark.slow
@pytest.mark.compatibility("tracker", "Weights & Biases", "works")
@pytest.mark.parametrize("whose", ["given", "active", "own"])
def test_wandb_offline(tmp_path, offline, whose):
    wandb = pytest.importorskip("wandb")
    run = None if whose == "own" else wandb.init(project="layers", dir=str(tmp_path))
    if run is not None:
        for count in range(9):  # its own count of steps runs ahead of ours
            run.log({"mine": count})
    tracker = WandB(run) if whose == "given" else WandB(project="layers", dir=str(tmp_path), mode="offline")
    expected = measured(tracker)
    assert (wandb.run is None) == (whose == "own")
    if run is not None:
        run.finish()
    rows = [row for row in history(tmp_path) if "layerfreq/step" in row]
    found = [
        (row["layerfreq/step"], name, value)
        for row in rows
        for name, value in row.items()
        if name.startswith("layerfreq/") and name not in ("layerfreq/step", "layerfreq/layers")
        if not name.startswith("layerfreq/layers/")
    ]
    assert_found(pd.DataFrame(found), expected)
    assert len(list(tmp_path.rglob("layers_*.png"))) == 2
    if whose == "given":  # and is finished now
        with pytest.warns(UserWarning, match="trackers: WandB failed"):
            measured(tracker, run=tmp_path / "run")
        assert Run(tmp_path / "run").steps() == [0, 3]


@pytest.mark.slow
@pytest.mark.compatibility("tracker", "MLflow", "works")
@pytest.mark.parametrize("whose", ["given", "active", "own"])
def test_mlflow(tmp_path, monkeypatch, whose):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    try:
        client = mlflow.MlflowClient()
        tracker = MLflow(client.create_run("0").info.run_id, client) if whose == "given" else MLflow()
        if whose == "active":
            mlflow.start_run()
        expected = measured(tracker)
        assert (mlflow.active_run() is None) == (whose != "active")
        mlflow.end_run()
        (run,) = client.search_runs(["0"])
        assert run.info.status == ("RUNNING" if whose == "given" else "FINISHED")
        found = [
            (metric.step, name, metric.value)
            for name in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, name)
        ]
        assert_found(pd.DataFrame(found), expected)
        files = [file.path for file in client.list_artifacts(run.info.run_id, "layerfreq")]
        assert files == [f"layerfreq/step-{step:012d}.png" for step in (0, 3)]
    finally:
        mlflow.set_tracking_uri(before)


def test_a_tracker_that_fails_is_one_warning_and_everything_else_goes_on(tmp_path):
    told = Told()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        expected = measured(Broken(), told, steps=(0, 1, 2), run=tmp_path / "run")
    mine = [str(one.message) for one in said if "trackers" in str(one.message)]
    assert mine == ["trackers: Broken failed ([Errno 28] No space left); the training continues without it"]
    assert {step: scalars for step, (scalars, _) in told.logged.items()} == expected
    assert Run(tmp_path / "run").steps() == [0, 1, 2]


def test_what_is_no_tracker_is_one_line(tmp_path):
    for bad in (3, "csv", CSV, print):
        with refuses("trackers", Code.VALUE):
            Monitor(net(), X, Y, trackers=[bad], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def random_state():
    numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_logging_leaves_the_random_state_alone():
    class Draws(Told):
        def log(self, step, scalars, figure):
            super().log(step, (random.random(), np.random.rand(), torch.rand(1)), figure)  # noqa: NPY002

    spectra = Monitor(net(), X, Y, inv_delta=GRID).measure(0)
    after = []
    for tracker in (Told(), Draws()):  # what run-time checks of types draw in tests is the same in both
        seed_everything(0)
        Trackers([tracker]).log(0, {"": ([spectra], None)})
        assert tracker.logged
        after.append(random_state())
    assert after[0] == after[1]


def test_a_figure_has_a_panel_for_each_scale():
    spectra = Monitor(net(), X, Y, inv_delta=GRID).measure(0)
    assert [ax.get_xlabel() for ax in figure_of(spectra).axes] == ["1/δ", "1/δ (unit RMS features)"]
