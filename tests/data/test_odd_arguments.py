"""Anything in the place of any argument: a right answer, or one line, never an error of somebody else's."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from layerfreq import (
    Monitor,
    Run,
    Spectrum,
    compare,
    error_spectrum,
    hidden_layers,
    layer_features,
    layer_spectra,
    split,
)
from layerfreq.errors import InputError
from layerfreq.measure.measure import spectrum
from layerfreq.relearn import Design, relearn
from layerfreq.report import write_report
from layerfreq.trackers.trackers import CSV, MLflow, TensorBoard, Trackers, WandB
from layerfreq.verdict.depth import verdict

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
MODEL = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
GRID = {"inv_delta": [1.0, 2.0], "engine": "reference"}
ODD = [None, 3, -1, "x", "", b"x", [], {}, [3], ["x"], object(), float("nan"), True, np.array([1.0]), torch.tensor(2.0)]
ODD += [(1, 2), lambda: 3, {1: 2}, range(3), 1j, 10**400, {"x"}, np.int8(3)]


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the tests' own check of types, and deaf to warnings of measurements that are no error."""
    config.update("jaxtyping_disable", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def run(tmp_path):
    with Monitor(MODEL, X, Y, run=tmp_path / "run", checkpoints=True, **GRID) as monitor:
        monitor.measure(0, loss=1.0)
    return Run(tmp_path / "run")


def strict(**options):
    return Monitor(MODEL, X, Y, on_error="raise", **GRID, **options)


def lightning(**options):
    """Train one step with the callback of Lightning, whose trainer is played."""
    module = pytest.importorskip("layerfreq.integrations.lightning")
    callback = module.LayerSpectraCallback(X, Y, on_error="raise", **{**GRID, **options})
    precision = SimpleNamespace(convert_input=lambda x: x)
    numbers = {"fast_dev_run": False, "global_step": 0, "log_every_n_steps": 1, "loggers": [], "callback_metrics": {}}
    trainer = SimpleNamespace(precision_plugin=precision, **numbers)
    callback.on_train_start(trainer, MODEL)
    callback.on_train_batch_end(trainer, MODEL, {"loss": 1.0}, None, 0)
    callback.on_train_end(trainer, MODEL)


def transformers(**options):
    """Train one step with the callback of Hugging Face, whose trainer is played."""
    module = pytest.importorskip("layerfreq.integrations.transformers")
    callback = module.LayerSpectraCallback(X, Y, on_error="raise", **{**GRID, **options})
    state, control = SimpleNamespace(global_step=0, stateful_callbacks={}), SimpleNamespace(should_save=False)
    callback.on_train_begin(None, state, control, model=MODEL)
    callback.on_step_end(None, state, control)
    callback.on_train_end(None, state, control)


def learn(run, **options):
    design = Design(heads=(), scales=())  # nothing is trained
    return relearn(run, **{"model": MODEL, "inputs": X, "targets": Y, "design": design, **options})


def error_of(**options):
    wave = np.sin(X[:, :1].numpy())
    return error_spectrum(**{"inputs": X.numpy(), "targets": wave, "outputs": 0.9 * wave, **options})


def written():
    return Monitor(MODEL, X, Y, run="written", overwrite=True, on_error="raise", **GRID)


PLACES = {
    "verdict": lambda run, odd: verdict(odd),
    "verdict, error": lambda run, odd: verdict(run, error=odd),
    "Run": lambda run, odd: Run(odd),
    "Run.create, config": lambda run, odd: Run.create(run.path.with_name("other"), odd, overwrite=True),
    "Run.log": lambda run, odd: run.log(odd, loss=1.0),
    "Run.log, a metric": lambda run, odd: run.log(1, loss=odd),
    "Run.rewind": lambda run, odd: run.rewind(odd),
    "Run.write_spectra": lambda run, odd: run.write_spectra(0, odd),
    "Run.write_spectra, step": lambda run, odd: run.write_spectra(odd, run.spectra.iloc[:0]),
    "run[step]": lambda run, odd: run[odd],
    "run[step, scale]": lambda run, odd: run[0, odd],
    "Run.plot, steps": lambda run, odd: run.plot(steps=odd),
    "Run.plot, layers": lambda run, odd: run.plot(layers=odd),
    "Run.plot, scale": lambda run, odd: run.plot(scale=odd),
    "compare": lambda run, odd: compare(run, odd),
    "compare, step": lambda run, odd: compare(run, run, odd),
    "Spectrum.save": lambda run, odd: spectrum(X, Y, **GRID).save(odd),
    "Spectrum.load": lambda run, odd: Spectrum.load(odd),
    "Spectrum.from_frame": lambda run, odd: Spectrum.from_frame(odd),
    "Run.note": lambda run, odd: run.note(odd),
    "write_report": lambda run, odd: write_report(odd),
    "Spectrum.at": lambda run, odd: spectrum(X, Y, **GRID).at(odd),
    "Spectrum.to_scale": lambda run, odd: spectrum(X, Y, **GRID).to_scale(odd),
    "hidden_layers, model": lambda run, odd: hidden_layers(odd, X),
    "hidden_layers": lambda run, odd: hidden_layers(MODEL, odd),
    "layer_features, layers": lambda run, odd: layer_features(MODEL, X, odd),
    "layer_features, reading": lambda run, odd: layer_features(MODEL, X, reading=odd),
    "layer_features, memory": lambda run, odd: layer_features(MODEL, X, stream=True, memory=odd),
    "layer_spectra, layers": lambda run, odd: layer_spectra(MODEL, X, Y, odd, **GRID),
    "layer_spectra, targets": lambda run, odd: layer_spectra(MODEL, X, odd, **GRID),
    "split, layer": lambda run, odd: split(MODEL, odd, X),
    "split, model": lambda run, odd: split(odd, "1", X),
    "split, inputs": lambda run, odd: split(MODEL, "1", odd),
    "Monitor.measure": lambda run, odd: strict().measure(odd),
    "Monitor.write_to": lambda run, odd: strict().write_to(odd),
    "Monitor.finish": lambda run, odd: strict().finish(odd),
    "Monitor.note": lambda run, odd: written().note(odd, {"loss": 1.0}),
    "Monitor.note, metrics": lambda run, odd: written().note(1, odd),
    "Monitor, trackers": lambda run, odd: strict(trackers=odd),
    "Monitor, scale": lambda run, odd: strict(scale=odd),
    "Monitor.keep": lambda run, odd: written().keep(),
    "Monitor, when": lambda run, odd: strict(when=odd).measure(0),
    "Monitor, memory": lambda run, odd: strict(memory=odd).measure(0),
    "Trackers": lambda run, odd: Trackers(odd),
    "CSV": lambda run, odd: CSV(odd),
    "TensorBoard": lambda run, odd: TensorBoard(odd),
    "WandB": lambda run, odd: WandB(odd),
    "MLflow": lambda run, odd: MLflow(odd),
    **{
        f"{name}, {argument}": lambda run, odd, call=call, argument=argument: call(**{argument: odd})
        for name, call, arguments in (
            ("Lightning", lightning, ("module", "run", "when", "trackers", "layers", "memory")),
            ("Hugging Face", transformers, ("run", "when", "trackers", "layers", "memory")),
            ("error_spectrum", error_of, ("inputs", "targets", "outputs", "frequencies", "method", "engine")),
        )
        for argument in arguments
    },
    "relearn": lambda run, odd: relearn(odd, MODEL, X, Y),
    **{
        f"relearn, {argument}": lambda run, odd, argument=argument: learn(run, **{argument: odd})
        for argument in ("design", "steps", "cuts", "tell")
    },
    "Design, heads": lambda run, odd: Design(heads=odd),
    "Design, seeds": lambda run, odd: Design(seeds=odd),
}


@pytest.mark.parametrize("place", PLACES)
def test_anything_in_any_place(place, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for odd in ODD if place != "relearn, design" else [odd for odd in ODD if odd is not None]:  # which trains
        try:
            PLACES[place](run, odd)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017  some are right
