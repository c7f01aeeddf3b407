"""Measuring during anybody's training loop: when, what is kept, and what is said of bad input."""

import gc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run, layer_features, layer_spectra, spectrum
from layerfreq.monitor.monitor import schedule
from tests.helpers.refusals import Code, refuses

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def due(when, last):
    decide = schedule(when)
    return [step for step in range(last + 1) if decide(step)]


def test_schedules():
    assert due(7, 30) == [0, 7, 14, 21, 28]
    assert due([3, 0, 12], 30) == due((step for step in (0, 3, 12)), 30) == [0, 3, 12]
    assert due(lambda step: step in (4, 5), 30) == [4, 5]
    assert due([], 30) == []


def test_the_logarithmic_schedule_has_every_early_step_then_eight_an_octave():
    steps = due("log", 4096)
    assert steps[:9] == list(range(9))
    for octave in range(4, 12):
        inside = [step for step in steps if 2**octave <= step < 2 ** (octave + 1)]
        assert len(inside) == 8
        assert inside[0] == 2**octave
        np.testing.assert_allclose(inside, 2 ** (octave + np.arange(8) / 8), atol=1)


@pytest.mark.parametrize("when", ["often", 0, -1, True])
def test_bad_schedules_are_one_line(when):
    with refuses("when", Code.VALUE) as caught:
        schedule(when)
    assert str(caught.value).startswith(f"when: {when!r} is not a valid schedule; pass")


def test_what_is_measured_is_what_layer_spectra_says_and_metrics_are_kept_at_every_step(tmp_path):
    model = net()
    monitor = Monitor(model, X, Y, run=tmp_path / "run", when=2, scale="rms", inv_delta=[0.1, 1.0, 10.0])
    assert monitor.layers == ["1", "3"]
    told = []
    monitor.on_layer = told.append
    for step in range(4):
        found = monitor.measure(step, loss=1 / (step + 1), accuracy=step / 4)
        assert (found is None) == (step % 2 == 1)
        if found is not None:
            for name, one in layer_spectra(model, X, Y, scale="rms", inv_delta=[0.1, 1.0, 10.0]).items():
                np.testing.assert_array_equal(found[name].lfr, one.lfr)
                kept = monitor.run.spectra.query("layer == @name and step == @step")
                np.testing.assert_array_equal(kept.query("scale == 'rms'")["lfr"], one.lfr)
                raw = one.to_scale("raw")
                np.testing.assert_allclose(kept.query("scale == 'raw'")["inv_delta"], raw.inv_delta, rtol=1e-14)
    assert told == ["1", "3"] * 2
    monitor.run.flush()
    expected = {"step": range(4), "loss": [1, 1 / 2, 1 / 3, 1 / 4], "accuracy": [0, 0.25, 0.5, 0.75]}
    pd.testing.assert_frame_equal(Run(tmp_path / "run").metrics, pd.DataFrame(expected), check_dtype=False)


def test_a_function_of_what_the_model_returns_is_measured_as_training_changes_it(tmp_path):
    """The residual of a model that moves towards its targets by a factor keeps its spectrum; what it says moves."""
    y = torch.sin(3 * X[:, :2])
    model = net()
    with torch.no_grad():
        residual = y - model(X)
    batches = list(zip(X.split(12), y.split(12), strict=True))
    monitor = Monitor(model, batches, lambda x, y, output: y - output, run=tmp_path / "run", scale="rms", seed=1)
    found = monitor.measure(0)
    for name, one in layer_features(model, X).items():
        np.testing.assert_allclose(found[name].lfr, spectrum(one, residual, scale="rms").lfr, atol=1e-6)
    assert monitor.run.config["options"]["center"]
    left = iter([1, 1])  # the constructor tries it, too
    monitor = Monitor(model, X, lambda x, y, output: output * next(left))
    assert monitor.measure(0) is not None
    with pytest.warns(UserWarning, match="step 1: targets: .* fails .*the training continues"):
        assert monitor.measure(1) is None


@pytest.mark.slow
def test_a_run_gets_its_last_metrics_when_the_monitor_is_dropped_and_can_be_gone_on_with(tmp_path):
    for first in (0, 3):
        run = Run(tmp_path / "run") if first else tmp_path / "run"
        monitor = Monitor(net(), X, Y, layers="1", run=run, when=[0, 3])
        for step in range(first, first + 3):
            monitor.measure(step, loss=float(step))
        del monitor
        gc.collect()
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 3]
    assert run.metrics["loss"].tolist() == run.metrics["step"].tolist() == list(range(6))


def test_metrics_that_cannot_be_written_on_dropping_are_a_warning(tmp_path, monkeypatch):
    monitor = Monitor(net(), X, Y, run=tmp_path / "run", when=[])
    monitor.measure(0, loss=1.0)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        del monitor
        gc.collect()
    assert ["metrics of the last steps are lost" in str(one.message) for one in said] == [True]


def test_nothing_is_written_without_a_run_or_for_bad_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Monitor(net(), X, Y).measure(0, loss=1.0) is not None
    for options, words in (
        ({"layers": "11"}, ("layers", Code.UNKNOWN)),
        ({"when": "never"}, ("when", Code.VALUE)),
        ({"targets": None}, ("targets", Code.EMPTY)),
    ):
        with refuses(*words):
            Monitor(net(), X, **{"targets": Y, "run": tmp_path / "run", **options})
    with refuses("inv_delta", Code.VALUE):
        Monitor(net(), X, Y, inv_delta=[1.0, 0.5]).measure(0)
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_said_before_the_training():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    x, y = torch.randn(6, 2), torch.arange(6) % 2
    for measure in (Monitor, layer_spectra):
        with refuses("options", Code.UNKNOWN, "'row'", "'rows'"):
            measure(model, x, y, row=3)


def test_points_that_depend_on_one_another_are_run_at_once_however_many_they_are():
    n = 1100  # more than are run at once elsewhere
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()

    class Graph(nn.Module):
        """Centres all its points, and takes no fewer."""

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            assert len(x) == n
            return self.head(torch.relu(x - x.mean(dim=0)))

    model, options = Graph(), {"inv_delta": [0.5, 2.0], "rows": 20}
    with refuses("inputs", Code.FAILED):
        Monitor(model, x, y, layers="head", **options)
    expected = spectrum(model.head(torch.relu(x - x.mean(dim=0))).detach(), y, **options)
    with Monitor(model, x, y, layers="head", whole=True, **options) as monitor:
        found = monitor.measure(0)["head"]
    spectra = layer_spectra(model, x, y, "head", whole=True, **options)["head"]
    for one in (found, spectra):
        np.testing.assert_allclose(one.lfr, expected.lfr, rtol=1e-5)
    with refuses("targets", Code.SHAPE):
        Monitor(model, x, y[:3], whole=True, **options)
