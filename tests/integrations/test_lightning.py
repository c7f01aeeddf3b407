"""The Lightning callback: nothing changes, what is kept, and resumed checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import Run, layer_spectra
from tests.integrations.training import GRID, X, Y, assert_same_run

pytest.importorskip("lightning")
import lightning.pytorch as lightning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from layerfreq.integrations.lightning import LayerSpectraCallback
from tests.helpers.refusals import Code, refuses

QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "log_every_n_steps": 2,
}
works = pytest.mark.compatibility("framework", "Lightning", "works")


def module_of(package):
    class Module(package.LightningModule):
        """An MLP with batch norm and dropout."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(4, 8),
                nn.BatchNorm1d(8),
                nn.Tanh(),
                nn.Dropout(0.2),
                nn.Linear(8, 8),
                nn.Tanh(),
                nn.Linear(8, 2),
            )
            self.losses, self.seeded = [], False

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            if self.seeded:
                torch.manual_seed(self.global_step)
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            self.losses.append(loss.item())
            return {"loss": loss, "half": loss.detach() / 2}

        def validation_step(self, batch, _):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    return Module


Module = module_of(lightning)


class Shuffled(torch.utils.data.Sampler):
    """An order of its own for each epoch, told by the trainer: the same when a checkpoint is resumed."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(len(X), generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return len(X)


class Stop(lightning.Callback):
    """Ends a process, as it were, after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("killed")


def fit(callbacks=(), *, steps=12, ckpt_path=None, validate=False, package=lightning, seeded=False, **options):
    """Train for some steps of 8 of 48 points; returns the module.

    Lightning's checkpoints hold no random state; `seeded` makes what is drawn depend on epoch and step alone.
    """
    torch.manual_seed(1)
    module = (Module if package is lightning else module_of(package))()
    module.seeded = seeded
    order = {"sampler": Shuffled()} if seeded else {"shuffle": True, "generator": torch.Generator().manual_seed(2)}
    loader = DataLoader(TensorDataset(X, Y), 8, **order)
    callbacks = list(callbacks)
    options.setdefault("enable_checkpointing", any(isinstance(one, ModelCheckpoint) for one in callbacks))
    trainer = package.Trainer(max_steps=steps, callbacks=callbacks, **{**QUIET, **options})
    validation = DataLoader(TensorDataset(X, Y), 16) if validate else None
    trainer.fit(module, loader, validation, ckpt_path=ckpt_path)
    return module


@works
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_training_is_bit_identical_with_the_callback(tmp_path, package):
    package = pytest.importorskip(package)
    bare = fit(package=package, validate=True)
    callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=3, inv_delta=GRID, error="filter")
    watched = fit([callback], package=package, validate=True)
    assert len(bare.losses) == 12
    assert watched.losses == bare.losses
    for name, value in bare.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 3, 6, 9, 12] == sorted(set(run.errors["step"]))
    assert callback.monitor is None


@works
def test_what_is_kept_is_what_the_model_has_and_what_the_trainer_logs(tmp_path):
    module = fit([LayerSpectraCallback(X, Y, run=tmp_path / "run", when=[0, 3, 12], inv_delta=GRID)], validate=True)
    run = Run(tmp_path / "run")
    last = layer_spectra(module, X, Y, inv_delta=GRID)
    assert list(last) == list(run.spectra["layer"].unique()) == ["net.2", "net.5"]
    for name, one in last.items():
        of_layer = run.spectra[run.spectra["layer"] == name]
        kept = of_layer.query("step == 12 and scale == 'raw'")
        np.testing.assert_array_equal(kept["lfr"], one.lfr)
    metrics = run.metrics
    losses = metrics.dropna(subset="loss").set_index("step")["loss"]
    assert losses.to_dict() == {step: module.losses[step - 1] for step in (2, 3, 4, 6, 8, 10, 12)}
    assert (metrics["half"].dropna() * 2).tolist() == losses.tolist()
    for name in ("val_loss", "train_loss"):
        assert metrics.dropna(subset=name)["step"].tolist() == [6, 12]
    np.testing.assert_allclose(metrics["train_loss"].dropna().iloc[0], np.mean(module.losses[:6]), rtol=1e-6)


@works
def test_several_scales_are_measured_and_the_config_says_so(tmp_path):
    module = fit([LayerSpectraCallback(X, Y, run=tmp_path / "run", when=[12], scale=("maxabs", "raw"), inv_delta=GRID)])
    measured = {s: layer_spectra(module, X, Y, inv_delta=GRID, scale=s) for s in ("raw", "maxabs")}
    run = Run(tmp_path / "run")
    assert run.config["options"]["scale"] == ["maxabs", "raw"]
    last = run.spectra[run.spectra["step"] == 12]
    assert set(last["scale"]) == {"raw", "rms", "maxabs"}
    for scale, spectra in measured.items():
        for layer, one in spectra.items():
            kept = last[(last["scale"] == scale) & (last["layer"] == layer)]
            np.testing.assert_array_equal(kept["lfr"], one.lfr)


@works
@pytest.mark.parametrize("validate", [False, True])
def test_a_resumed_checkpoint_resumes_the_run(tmp_path, validate):
    def callbacks(name, *more):
        kept = ModelCheckpoint(tmp_path / name / "at", every_n_train_steps=6, save_top_k=-1, filename="{step}")
        options = {"when": 2, "inv_delta": GRID, "error": "filter"}
        return [LayerSpectraCallback(X, Y, run=tmp_path / name / "run", **options), *more, kept]

    fit(callbacks("whole"), steps=18, validate=validate, seeded=True)
    with pytest.raises(KeyError):
        fit(callbacks("killed", Stop(11)), steps=18, validate=validate, seeded=True)
    run = Run(tmp_path / "killed" / "run")
    assert run.steps() == [0, 2, 4, 6, 8, 10]
    assert run.metrics["step"].max() == 10
    at = tmp_path / "killed" / "at" / "step=6.ckpt"
    fit(callbacks("killed"), steps=18, validate=validate, ckpt_path=at, seeded=True)
    assert_same_run(tmp_path / "whole" / "run", tmp_path / "killed" / "run")


@works
def test_parts_of_several_targets_and_probe_sets_resume_with_a_checkpoint(tmp_path):
    def residual(x, y, output):
        return nn.functional.one_hot(y, 2) - output.softmax(1)

    def callbacks(name, *more):
        kept = ModelCheckpoint(tmp_path / name / "at", every_n_train_steps=6, save_top_k=-1, filename="{step}")
        probes = {
            "train": (X, {"labels": Y, "residual": residual}),
            "test": DataLoader(TensorDataset(X[:20], Y[:20]), 8),
        }
        options = {"probes": probes, "when": 2, "inv_delta": GRID}
        return [LayerSpectraCallback(run=tmp_path / name / "run", **options), *more, kept]

    module = fit(callbacks("whole"), steps=10, seeded=True)
    with pytest.raises(KeyError):
        fit(callbacks("killed", Stop(9)), steps=10, seeded=True)
    fit(callbacks("killed"), steps=10, seeded=True, ckpt_path=tmp_path / "killed" / "at" / "step=6.ckpt")
    whole, killed = (Run(tmp_path / name / "run").parts for name in ("whole", "killed"))
    assert list(whole) == list(killed) == ["train-labels", "train-residual", "test"]
    for name, part in whole.items():
        assert part.steps() == [0, 2, 4, 6, 8, 10]
        assert_same_run(part.path, killed[name].path)
    expected = layer_spectra(module, X, {"labels": Y, "residual": residual}, inv_delta=GRID)["residual"]["net.2"]
    np.testing.assert_array_equal(whole["train-residual"][-1]["net.2"].lfr, expected.lfr)
    found = module.trainer.callback_metrics
    assert found["layerfreq/train-residual/raw/median/net.2"] == torch.tensor(expected.median)


def test_a_new_training_does_not_touch_another_ones_run(tmp_path):
    def callback(**options):
        return LayerSpectraCallback(X, Y, run=tmp_path / "run", when=2, inv_delta=GRID, **options)

    one = callback(on_error="raise")
    fit([one], steps=4)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for again in (one, callback(on_error="raise")):
        with refuses("run", Code.EXISTS):
            fit([again], steps=4)
    kept = ModelCheckpoint(tmp_path / "at", every_n_train_steps=2, filename="last")
    fit([LayerSpectraCallback(X, Y, run=tmp_path / "other" / "run", inv_delta=GRID), kept], steps=2)
    with refuses("run", Code.CONFLICT):
        fit([callback(on_error="raise")], steps=4, ckpt_path=tmp_path / "at" / "last.ckpt")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_trainer_that_goes_on_goes_on_with_its_run(tmp_path):
    module = Module()
    callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=1, layers="net.2", inv_delta=GRID)
    trainer = lightning.Trainer(max_epochs=1, callbacks=[callback], enable_checkpointing=False, **QUIET)
    loader = DataLoader(TensorDataset(X, Y), 24)
    trainer.fit(module, loader)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader)
    assert Run(tmp_path / "run").steps() == [0, 1, 2, 3, 4]


def test_accumulated_batches_are_one_step(tmp_path):
    callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=1, layers="net.2", inv_delta=GRID)
    fit([callback], steps=3, accumulate_grad_batches=2)
    assert Run(tmp_path / "run").steps() == [0, 1, 2, 3]


def test_a_named_module_and_a_data_set(tmp_path):
    data = TensorDataset(X, Y)
    runs = {}
    for name, callback in {
        "plain": LayerSpectraCallback(X, Y, run=tmp_path / "plain", when=4, inv_delta=GRID),
        "set": LayerSpectraCallback(data, run=tmp_path / "set", when=4, inv_delta=GRID),
        "loader": LayerSpectraCallback(DataLoader(data, 7), run=tmp_path / "loader", when=4, inv_delta=GRID),
        "net": LayerSpectraCallback(X, Y, module="net", run=tmp_path / "net", when=4, inv_delta=GRID),
    }.items():
        fit([callback], steps=4)
        runs[name] = Run(tmp_path / name).spectra
    assert runs["net"]["layer"].unique().tolist() == ["2", "5"]
    for other in runs.values():
        np.testing.assert_allclose(other["lfr"], runs["plain"]["lfr"], rtol=1e-5)


@pytest.mark.compatibility("tracker", "Lightning's loggers", "works with a limit", "scalars alone, not the figure")
class Seen(lightning.Callback):
    """What other callbacks find in the trainer after each batch."""

    def __init__(self):
        self.found = {}

    def on_train_batch_end(self, trainer, *_):
        self.found[trainer.global_step] = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("layerfreq/")
        }


def test_other_callbacks_find_the_medians_and_the_run_does_not_keep_them_twice(tmp_path):
    seen = Seen()
    fit([LayerSpectraCallback(X, Y, run=tmp_path / "run", when=3), seen], validate=True)
    run = Run(tmp_path / "run")
    for step in (3, 6, 9, 12):
        table = run.medians.query(f"step == {step}").dropna(subset="median")
        expected = {f"layerfreq/{row.scale}/median/{row.layer}": row.median for row in table.itertuples()}
        assert len(expected) == 4
        assert seen.found[step] == pytest.approx(expected, rel=1e-5)
    assert seen.found[4] == seen.found[5] == seen.found[3]
    assert not [name for name in run.metrics.columns if name.startswith("layerfreq/")]


@works
@pytest.mark.parametrize(("threshold", "steps"), [(1e9, 6), (0.0, 18)])
def test_training_stops_early_at_a_frequency(threshold, steps):
    """A threshold that any median is below ends it after the first epoch; one that none is below, never."""
    probe = LayerSpectraCallback(X, Y, when=3)
    stop = EarlyStopping(
        "layerfreq/rms/median/net.2",
        mode="min",
        patience=100,
        stopping_threshold=threshold,
        check_on_train_epoch_end=True,
    )
    module = fit([stop, probe], steps=18)
    assert len(module.losses) == steps


def test_scalars_go_to_the_trainers_loggers(tmp_path):
    import pandas as pd

    fit(
        [LayerSpectraCallback(X, Y, run=tmp_path / "run", when=2, layers="net.2", inv_delta=GRID)],
        steps=4,
        logger=CSVLogger(tmp_path, "logs"),
    )
    frame = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    column = frame.dropna(subset="layerfreq/floor/net.2")
    assert column["step"].tolist() == [0, 2, 4]


def test_bad_input_is_one_line(tmp_path):
    for options, words in (
        ({"targets": None}, ("targets", Code.EMPTY)),
        ({"module": 3}, ("module", Code.VALUE)),
    ):
        with refuses(*words):
            LayerSpectraCallback(X, **{"targets": Y, "run": tmp_path / "run", **options})
    with refuses("module", Code.UNKNOWN):
        fit([LayerSpectraCallback(X, Y, module="nett", run=tmp_path / "run", on_error="raise")])
    with pytest.warns(UserWarning, match=r"module: unknown 'nett'; did you mean 'net'.*\(none of it is measured\)"):
        assert len(fit([LayerSpectraCallback(X, Y, module="nett", run=tmp_path / "run")], steps=2).losses) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.ranks
@pytest.mark.compatibility("framework", "Lightning with DDP", "works")
def test_ranks_measure_their_parts_of_the_probe_set(tmp_path):
    """Two processes find what one finds with the model that they have trained."""
    script = Path(__file__).with_name("lightning_ddp.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2, 4]
    module = Module()
    module.net[1] = nn.Identity()
    module.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True))
    for name, one in layer_spectra(module, X, Y, inv_delta=GRID).items():
        of_layer = run.spectra[run.spectra["layer"] == name]
        kept = of_layer.query("step == 4 and scale == 'raw'")
        np.testing.assert_allclose(kept["lfr"], one.lfr, rtol=1e-6)
        np.testing.assert_allclose(kept["rdf"], one.rdf, rtol=1e-5)
    assert Run(tmp_path / "loader").spectra.query("step == 4")["lfr"].tolist() == pytest.approx(
        run.spectra.query("step == 4")["lfr"].tolist(), rel=1e-5
    )


@works
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
@pytest.mark.parametrize("kind", ["tensor", "loader"])
def test_probe_points_come_in_the_precision_of_the_training(precision, kind):
    probe = (X, Y) if kind == "tensor" else (DataLoader(TensorDataset(X, Y), 16),)
    callback = LayerSpectraCallback(*probe, when=[3], inv_delta=GRID, memory=1000)
    bare = fit(precision=precision, steps=4).losses
    assert fit([callback], precision=precision, steps=4).losses == bare


@pytest.mark.parametrize("steps", [True, 2])
def test_a_fast_dev_run_writes_nothing_and_the_training_after_it_does(tmp_path, steps):
    """It is a rehearsal: no folder, no measurement, and the place is free for the training itself."""
    data = DataLoader(TensorDataset(X, Y), 8)
    for quick in (steps, False):
        before = set(tmp_path.rglob("*"))
        callback = LayerSpectraCallback(X, Y, run=tmp_path / "run", when=1, inv_delta=GRID, checkpoints=True)
        trainer = lightning.Trainer(
            **QUIET, default_root_dir=tmp_path, callbacks=[callback], fast_dev_run=quick, max_steps=3, max_epochs=-1
        )
        trainer.fit(Module(), data)
        assert callback.monitor is None
        if quick:
            assert set(tmp_path.rglob("*")) == before
    assert Run(tmp_path / "run").steps() == [0, 1, 2, 3]
