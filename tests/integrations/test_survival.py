"""A training is what it is without a measurement, whatever this meets: at its beginning, on its way, at its end."""

import shutil
import warnings
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import Monitor, Run
from layerfreq.errors import InputError
from tests.helpers.ranks import begun_of, world
from tests.helpers.refusals import Code, refuses
from tests.integrations.training import GRID, X, Y

STEPS, AT = 4, 2  # of a training, and the step before which something happens to its model


class Net(nn.Module):
    """An MLP with batch norm and dropout, which returns a loss where it is given labels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2))
        self.second = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.last = nn.Linear(8, 2)

    def forward(self, x, labels=None):
        logits = self.last(self.second(self.first(x)))
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def loader():
    return DataLoader(TensorDataset(X, Y), 8, shuffle=True, generator=torch.Generator().manual_seed(2))


def lightning(options, spoil, _):
    package = pytest.importorskip("lightning.pytorch")
    from layerfreq.integrations.lightning import LayerSpectraCallback

    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return self.net(*batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Spoil(package.Callback):
        def on_train_batch_start(self, trainer, module, batch, at):
            if at == AT:
                spoil(module.net)

    callbacks = [Spoil()] if options is None else [LayerSpectraCallback(**options, module="net"), Spoil()]
    quiet = dict.fromkeys(
        ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger", "barebones"), False
    )
    module = Module()
    torch.manual_seed(1)
    package.Trainer(max_steps=STEPS, accelerator="cpu", callbacks=callbacks, **quiet).fit(module, loader())
    return module.net


def transformers(options, spoil, folder):
    package = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from layerfreq.integrations.transformers import LayerSpectraCallback

    class Spoil(package.TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            if state.global_step == AT:
                spoil(model)

    asked = {"max_steps": STEPS, "per_device_train_batch_size": 8, "save_strategy": "no", "report_to": []}
    settings = package.TrainingArguments(str(folder), **asked, use_cpu=True, disable_tqdm=True, logging_steps=1)
    callbacks = [Spoil()] if options is None else [LayerSpectraCallback(**options), Spoil()]
    data, model = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)], Net()
    package.Trainer(model, settings, train_dataset=data, callbacks=callbacks).train()
    return model


def skorch(options, spoil, _):
    package = pytest.importorskip("skorch")

    class Watch(package.callbacks.Callback):
        def on_train_begin(self, net, **_):
            self.seen = 0
            self.monitor = None if options is None else Monitor(net.module_, **options)

        def on_batch_begin(self, net, batch=None, training=False, **_):
            if self.monitor is not None:
                self.monitor.measure(self.seen)
            if self.seen == AT:
                spoil(net.module_)
            self.seen += 1

        def on_train_end(self, net, **_):
            if self.monitor is not None:
                self.monitor.close()

    class Own(package.NeuralNet):
        def get_loss(self, y_pred, y_true, *_, **__):
            return nn.functional.cross_entropy(y_pred["logits"], y_true)

    asked = {"max_epochs": 1, "batch_size": 12, "train_split": None, "verbose": 0, "criterion": nn.CrossEntropyLoss}
    trained = Own(Net, callbacks=[Watch()], **asked)
    torch.manual_seed(1)
    trained.fit(X.numpy(), Y.numpy())
    return trained.module_


def loop(options, spoil, _):
    model, batches = Net(), loader()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = None if options is None else Monitor(model, **options)
    torch.manual_seed(1)
    for step, (x, y) in zip(range(STEPS), batches, strict=False):
        if monitor is not None:
            monitor.measure(step)
        if step == AT:
            spoil(model)
        optimizer.zero_grad()
        model(x, y)["loss"].backward()
        optimizer.step()
    if monitor is not None:
        monitor.close()
    return model


CALLBACKS, LOOPS = (lightning, transformers), (skorch, loop)
callbacks = pytest.mark.parametrize("train", CALLBACKS, ids=lambda one: one.__name__)
everywhere = pytest.mark.parametrize("train", [*CALLBACKS, *LOOPS], ids=lambda one: one.__name__)


def points(train, x=X):
    return {"x": x} if train is transformers else x


def asked(train, folder, **options):
    return {"inputs": points(train), "targets": Y, "run": folder / "run", "when": 1, "inv_delta": GRID, **options}


def nothing(model):
    pass


@contextmanager
def told():
    """The warnings that say that the training continues."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(one.message) for one in caught if "the training continues" in str(one.message)]


def assert_as_without(train, options, spoil, folder):
    """The training ends, with the weights that it has without a measurement, bit for bit; returns what was told."""
    with told() as lines:
        watched = train(options, spoil, folder).state_dict()
    bare = train(None, spoil, folder).state_dict()
    assert list(watched) == list(bare)
    for name, value in bare.items():
        assert torch.equal(watched[name].nan_to_num(7), value.nan_to_num(7)), name
    assert all("\n" not in line for line in lines)
    return lines


WRONG = {  # typed wrong: whatever the model, and before there is one
    "when": "never",
    "on_error": "ignore",
    "budget": 3,
    "layers": 2.5,
    "scale": "log",
    "reading": "middle",
    "memory": "much",
    "error": "magic",
    "rows": "ten",
    "trackers": [3],
    "run": "s3://bucket/run",
    "targets": Y[:3],
    "probes": {},
}


@callbacks
@pytest.mark.parametrize("name", WRONG)
def test_what_is_typed_wrong_is_an_error_at_once(train, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = pytest.importorskip(f"layerfreq.integrations.{train.__name__}")
    options = asked(train, tmp_path, **{name: WRONG[name]})
    if name == "probes":
        del options["inputs"], options["targets"]
    with pytest.raises(InputError) as caught:
        module.LayerSpectraCallback(**options)
    assert caught.value.argument == name
    assert not list(tmp_path.iterdir())


def unlabelled(train):
    return {"inputs": DataLoader([{"x": x} for x in X], 16), "targets": None}


BEGINNINGS = {  # what shows when training begins -> the argument that is named
    "no such layer": ("layers", lambda _: {"layers": "second.7"}),
    "the model does not run": ("inputs", lambda train: {"inputs": points(train, X[:, :3])}),
    "no labels in the loader": ("inputs", unlabelled),
    "NaN in the targets": ("targets", lambda _: {"targets": X[:, 0] * float("nan")}),
    "more rows than points": ("rows", lambda _: {"rows": 100}),
    "an empty loader": ("inputs", lambda _: {"inputs": DataLoader(TensorDataset(X[:0], Y[:0])), "targets": None}),
    "no such part of an output": ("reading", lambda _: {"reading": {"second.1": "positions"}}),
}


@callbacks
@pytest.mark.parametrize("name", BEGINNINGS)
def test_what_shows_when_training_begins_is_one_line_and_the_training_is_not_measured(train, name, tmp_path):
    argument, made = BEGINNINGS[name]
    options = asked(train, tmp_path, **made(train))
    lines = assert_as_without(train, options, nothing, tmp_path)
    assert len(lines) == 1, lines
    assert "none of it is measured" in lines[0]
    assert "LayerSpectraCallback: " in lines[0]
    assert f"{argument}: " in lines[0]
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError) as caught:
        train({**options, "on_error": "raise"}, nothing, tmp_path)
    assert caught.value.argument == argument


@callbacks
def test_a_folder_that_is_taken_or_full_is_one_line_each_time_and_stays_as_it_is(train, tmp_path, monkeypatch):
    options = asked(train, tmp_path)
    options["run"] = tmp_path / ("long" * 50) / "run"
    train(options, nothing, tmp_path)
    before = {path: path.read_bytes() for path in options["run"].rglob("*") if path.is_file()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # as Python starts: the same is said once at a line
        for _ in range(2):
            train(options, nothing, tmp_path)
    lines = [str(one.message) for one in said if "run: " in str(one.message)]
    assert ["overwrite=True" in line and "none of it is measured" in line for line in lines] == [True, True]
    assert before == {path: path.read_bytes() for path in options["run"].rglob("*") if path.is_file()}
    with refuses("run", Code.EXISTS):
        train({**options, "on_error": "raise"}, nothing, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    (line,) = assert_as_without(train, {**options, "run": tmp_path / "full"}, nothing, tmp_path)
    assert "LayerSpectraCallback: run: cannot write" in line
    assert not (tmp_path / "full").exists()


def raises(model):
    def fail(module, *_):
        if not module.training:
            raise RuntimeError("out of its mind")

    model.first.register_forward_hook(fail)


def renamed(model):
    model.other, model.second = model.second, nn.Identity()
    model.last = nn.Sequential(model.other, model.last)


def spoiled(model):
    with torch.no_grad():
        model.first[0].weight.fill_(float("nan"))


WAYS = {  # what happens to the model before the third step -> words of the lines, one each
    "raises": (raises, ["out of its mind"]),
    "renamed": (renamed, ["layer 'second"]),
    "NaN": (spoiled, ["layer 'first.2': features: NaN", "layer 'second.1': features: NaN"]),
}


@everywhere
@pytest.mark.parametrize("name", WAYS)
def test_what_happens_on_the_way_is_told_once_and_what_was_measured_is_kept(train, name, tmp_path):
    spoil, words = WAYS[name]
    lines = assert_as_without(train, asked(train, tmp_path), spoil, tmp_path)
    assert len(lines) == len(words), lines
    for word in words:
        assert any(word in line for line in lines), lines
    assert Run(tmp_path / "run").steps()[: AT + 1] == list(range(AT + 1))


class UsedUp:
    """A loader of which some batches are left."""

    def __init__(self, train):
        self.train, self.left = train, 6

    def __iter__(self):
        return iter([(points(self.train, x), y) for x, y in zip(X.split(8), Y.split(8), strict=True)][: self.left])


@everywhere
@pytest.mark.parametrize("left", [0, 3])
def test_a_loader_that_is_used_up_is_told_once(train, left, tmp_path):
    given = UsedUp(train)

    def spoil(_):
        given.left = left

    options = asked(train, tmp_path, inputs=given, targets=None)
    (line,) = assert_as_without(train, options, spoil, tmp_path)
    assert "inputs: " in line
    assert Run(tmp_path / "run").steps() == list(range(AT + 1))


@everywhere
def test_a_disk_that_fills_ends_the_measuring_alone(train, tmp_path, monkeypatch):
    written, write = [], pd.DataFrame.to_parquet

    def full(frame, path, **options):
        written.append(path)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        return write(frame, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    (line,) = assert_as_without(train, asked(train, tmp_path), nothing, tmp_path)
    assert "No space left" in line
    assert "nothing more is measured" in line
    monkeypatch.undo()
    assert Run(tmp_path / "run").steps()


class Tracker:
    """One that fails at its end."""

    def log(self, step, scalars, figure):
        pass

    def close(self):
        raise RuntimeError("gone")


@everywhere
def test_the_end_is_survived_too(train, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "flush", full)
    options = asked(train, tmp_path, trackers=[Tracker()], when=[0])
    lines = assert_as_without(train, options, nothing, tmp_path)
    assert len(lines) == 2, lines
    assert any("No space left" in line for line in lines)
    assert any("Tracker failed (gone)" in line for line in lines)


@callbacks
def test_a_run_lands_where_it_was_asked_for_although_the_working_directory_changes(train, tmp_path, monkeypatch):
    module = pytest.importorskip(f"layerfreq.integrations.{train.__name__}")
    made = module.LayerSpectraCallback
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()

    def moving(**options):
        monkeypatch.chdir(tmp_path / "here")
        callback = made(**options)
        monkeypatch.chdir(tmp_path / "there")
        return callback

    monkeypatch.setattr(module, "LayerSpectraCallback", moving)
    train({**asked(train, tmp_path), "run": "run"}, nothing, tmp_path / "trained")
    assert Run(tmp_path / "here" / "run").steps() == list(range(STEPS + 1))
    assert not (tmp_path / "there" / "run").exists()


@pytest.mark.ranks
def test_ranks_go_on_alike_whatever_one_of_them_meets(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    faults = {"layer": "layers: ", "prepare": "of one rank", "forward": "ZeroDivisionError", "taken": "run: "}
    with world(2, tmp_path) as call:
        for fault, word in faults.items():
            for measures, lines, total in call(begun_of, *[(fault, str(tmp_path / fault))] * 2):
                assert not measures
                assert total == 2
                assert [word in line and "none of it is measured" in line for line in lines] == [True], lines
        for measures, lines, _ in call(begun_of, *[("none", str(tmp_path / "run"))] * 2):
            assert (measures, lines) == (True, [])
    assert Run(tmp_path / "run").steps() == [0, 1]
    assert [one.name for one in (tmp_path / "taken").iterdir()] == ["mine.txt"]
