"""The Hugging Face callback: nothing changes, what is kept, and resumed checkpoints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Run, layer_spectra
from layerfreq.trackers.trackers import TensorBoard
from tests.integrations.training import GRID, X, Y, assert_same_run

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from layerfreq.integrations.transformers import LayerSpectraCallback
from tests.helpers.refusals import Code, refuses

works = pytest.mark.compatibility("framework", "Hugging Face Trainer", "works")


class Classifier(nn.Module):
    """An MLP with dropout that speaks the trainer's language."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
        )

    def forward(self, x, labels=None):
        logits = self.net(x)
        return (
            {} | ({} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}) | {"logits": logits}
        )


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, at):
        return {"x": X[at], "labels": Y[at]}


class Stop(TrainerCallback):
    """Ends a process, as it were, after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyError("killed")


def fit(folder, callbacks=(), *, resume=None, model=None, data=None, **options):
    """Train for 12 steps of 8 of 48 points; returns the trainer."""
    asked = {
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 6,
        "save_strategy": "no",
        "learning_rate": 1e-2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_num_workers": 0,
    }
    data = Rows() if data is None else data
    trainer = Trainer(
        Classifier() if model is None else model,
        TrainingArguments(str(folder), **{**asked, **options}),
        train_dataset=data,
        eval_dataset=data,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def curve(trainer):
    """What the trainer has logged, but for its timings."""
    timings = ("_runtime", "_per_second", "_preparation_time")
    return [{k: v for k, v in one.items() if not k.endswith(timings)} for one in trainer.state.log_history]


@works
def test_training_is_bit_identical_with_the_callback(tmp_path):
    bare = fit(tmp_path / "bare")
    callback = LayerSpectraCallback({"x": X}, Y, run=tmp_path / "run", when=3, inv_delta=GRID, error="filter")
    watched = fit(tmp_path / "watched", [callback])
    assert len(curve(bare)) == 6 + 2 + 1
    assert curve(watched) == curve(bare)
    for name, value in bare.model.state_dict().items():
        assert torch.equal(watched.model.state_dict()[name], value), name
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 3, 6, 9, 12] == sorted(set(run.errors["step"]))
    assert callback.monitor is None


@works
def test_several_targets_are_parts_of_the_run(tmp_path):
    def residual(x, y, output):
        assert list(x) == ["x"]
        return nn.functional.one_hot(y, 2) - output.softmax(1)

    callback = LayerSpectraCallback(
        Rows(), {"labels": None, "residual": residual}, run=tmp_path / "run", when=[0, 2], inv_delta=GRID
    )
    trainer = fit(tmp_path, [callback], max_steps=2)
    parts = Run(tmp_path / "run").parts
    last = layer_spectra(trainer.model, {"x": X}, {"labels": Y, "residual": residual}, inv_delta=GRID)
    assert [part.steps() for part in parts.values()] == [[0, 2]] * 2
    for name, part in parts.items():
        np.testing.assert_allclose(part[-1]["net.2"].lfr, last[name]["net.2"].lfr, atol=1e-6)


@works
def test_what_is_kept_is_what_the_model_has_and_what_the_trainer_logs(tmp_path):
    trainer = fit(tmp_path, [LayerSpectraCallback({"x": X}, Y, run=tmp_path / "run", when=[0, 12], inv_delta=GRID)])
    run = Run(tmp_path / "run")
    last = layer_spectra(trainer.model, {"x": X}, Y, inv_delta=GRID)
    assert list(last) == list(run.spectra["layer"].unique()) == ["net.2", "net.5"]
    for name, one in last.items():
        of_layer = run.spectra[run.spectra["layer"] == name]
        np.testing.assert_array_equal(of_layer.query("step == 12 and scale == 'raw'")["lfr"], one.lfr)
    logged = pd.DataFrame(trainer.state.log_history)
    for name, steps in (("loss", [2, 4, 6, 8, 10, 12]), ("eval_loss", [6, 12])):
        kept = run.metrics.dropna(subset=name)
        assert kept["step"].tolist() == steps
        assert kept[name].tolist() == logged[name].dropna().tolist()
    assert set(run.metrics.columns) == {"step", "loss", "grad_norm", "learning_rate", "epoch", "eval_loss"}


@works
def test_several_scales_are_measured_and_the_config_says_so(tmp_path):
    options = {"when": [12], "scale": ("maxabs", "raw"), "inv_delta": GRID}
    trainer = fit(tmp_path, [LayerSpectraCallback({"x": X}, Y, run=tmp_path / "run", **options)])
    model = trainer.model
    measured = {s: layer_spectra(model, {"x": X}, Y, inv_delta=GRID, scale=s) for s in ("raw", "maxabs")}
    run = Run(tmp_path / "run")
    assert run.config["options"]["scale"] == ["maxabs", "raw"]
    last = run.spectra[run.spectra["step"] == 12]
    assert set(last["scale"]) == {"raw", "rms", "maxabs"}
    for scale, spectra in measured.items():
        for layer, one in spectra.items():
            kept = last[(last["scale"] == scale) & (last["layer"] == layer)]
            np.testing.assert_array_equal(kept["lfr"], one.lfr)


@works
@pytest.mark.parametrize("saved", [4, 8])
def test_a_resumed_checkpoint_resumes_the_run(tmp_path, saved):
    def callback(name):
        options = {"when": 2, "inv_delta": GRID, "error": "filter"}
        return LayerSpectraCallback({"x": X}, Y, run=tmp_path / name / "run", **options)

    options = {"save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": saved == 8}
    fit(tmp_path / "whole", [callback("whole")], **options)
    with pytest.raises(KeyError):
        fit(tmp_path / "killed", [callback("killed"), Stop(11)], **options)
    run = Run(tmp_path / "killed" / "run")
    assert run.steps() == [0, 2, 4, 6, 8, 10]
    at = tmp_path / "killed" / f"checkpoint-{saved}"
    fit(tmp_path / "killed", [callback("killed")], resume=str(at), **options)
    assert_same_run(tmp_path / "whole" / "run", tmp_path / "killed" / "run")


def test_a_new_training_does_not_touch_another_ones_run(tmp_path):
    def callback(folder):
        return LayerSpectraCallback({"x": X}, Y, run=folder / "run", when=2, inv_delta=GRID, on_error="raise")

    one = callback(tmp_path)
    trainer = fit(tmp_path, [one], max_steps=4)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for again in (trainer.train, lambda: fit(tmp_path, [callback(tmp_path)], max_steps=4)):
        with refuses("run", Code.EXISTS):
            again()
    fit(tmp_path / "other", [callback(tmp_path / "other")], max_steps=2, save_strategy="steps", save_steps=2)
    with refuses("run", Code.CONFLICT):
        fit(tmp_path, [callback(tmp_path)], resume=str(tmp_path / "other" / "checkpoint-2"))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@works
def test_a_probe_set_may_be_a_data_set_of_dicts_and_trackers_are_told(tmp_path):
    pytest.importorskip("tensorboard")
    datasets = pytest.importorskip("datasets")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    random = torch.Generator().manual_seed(0)
    data = datasets.Dataset.from_dict(
        {"input_ids": torch.randint(0, 50, (24, 6), generator=random).tolist(), "labels": [0, 1, 2] * 8}
    )
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    callback = LayerSpectraCallback(
        data, run=tmp_path / "run", when=[0, 2], inv_delta=GRID, trackers=[TensorBoard(tmp_path / "board")]
    )
    torch.manual_seed(0)
    fit(tmp_path, [callback], model=BertForSequenceClassification(config), data=data, max_steps=2)
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2]
    assert "bert.encoder.layer.0" in set(run.spectra["layer"])
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Scalars("layerfreq/floor/bert.encoder.layer.0")] == [0, 2]


def test_a_checkpoint_of_an_unmeasured_training_resumes_nobodys_run(tmp_path):
    """The folder is another training's: what this has measured stays there."""

    def callback():
        return LayerSpectraCallback({"x": X}, Y, run=tmp_path / "run", when=2, inv_delta=GRID)

    fit(tmp_path, [callback()], max_steps=6)
    saved = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    with pytest.warns(UserWarning, match="run: .*none of it is measured"):
        fit(tmp_path, [callback()], **saved)
    with pytest.warns(UserWarning, match="run: .*none of it is measured"):
        fit(tmp_path, [callback()], resume=str(tmp_path / "checkpoint-2"), **saved)
    assert Run(tmp_path / "run").steps() == [0, 2, 4, 6]


def test_a_checkpoint_is_written_though_the_run_is_gone(tmp_path):
    class Remove(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 1:
                shutil.rmtree(tmp_path / "run")

    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    bare = fit(tmp_path / "bare", **options)
    callback = LayerSpectraCallback({"x": X}, Y, run=tmp_path / "run", when=2, inv_delta=GRID)
    with pytest.warns(UserWarning, match="the training continues"):
        watched = fit(tmp_path / "watched", [callback, Remove()], **options)
    assert curve(watched) == curve(bare)
    assert (tmp_path / "watched" / "checkpoint-4").is_dir()


def test_bad_input_is_one_line(tmp_path):
    unlabelled = [{"x": x} for x in X]
    for options, words in (
        ({"inputs": torch.utils.data.DataLoader(unlabelled), "targets": None}, ("inputs", Code.MISSING)),
        (
            {"inputs": [{"x": X[0], "labels": 1}, {"x": X[1], "labels": 0}], "targets": None},
            ("inputs", Code.SHAPE),
        ),
    ):
        asked = {"inputs": {"x": X}, "targets": Y, "run": tmp_path / "r", "on_error": "raise", **options}
        with refuses(*words):
            fit(tmp_path, [LayerSpectraCallback(**asked)])
    assert not (tmp_path / "r").exists()


@pytest.mark.ranks
@pytest.mark.compatibility("framework", "Hugging Face Trainer with DDP", "works")
def test_ranks_measure_their_parts_of_the_probe_set(tmp_path):
    """Two processes find what one finds with the model that they have trained."""
    script = Path(__file__).with_name("transformers_ddp.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    model = Classifier()
    model.net[1] = nn.Identity()
    model.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True))
    last = layer_spectra(model, {"x": X}, Y, inv_delta=GRID)
    for run in (Run(tmp_path / "run"), Run(tmp_path / "set")):
        assert run.steps() == [0, 2, 4]
        for name, one in last.items():
            kept = run.spectra[run.spectra["layer"] == name].query("step == 4 and scale == 'raw'")
            np.testing.assert_allclose(kept["lfr"], one.lfr, rtol=1e-5)
