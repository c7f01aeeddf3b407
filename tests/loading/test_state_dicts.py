"""Checkpoints of all kinds, fitted to a model; no code of theirs is ever run."""

import argparse
import copy
import json
import os
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("safetensors")
from safetensors.torch import save_file

from layerfreq.errors import InputError
from layerfreq.loading.state_dicts import Checkpoint, fingerprint, load_into, read_checkpoint, steps_of
from tests.helpers.refusals import Code, refuses


class Net(nn.Module):
    def __init__(self, width=6, tied=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, 3)
        if tied:
            self.other = self.head

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Net()


def saved(packed, path):
    torch.save(packed, path)
    return path


def check(path, model):
    """A model of other weights becomes the saved one by the checkpoint, bit for bit."""
    other = Net()
    load_into(other, read_checkpoint(path))
    pairs = zip(other.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def refused(path, *words, model=None):
    with pytest.raises(InputError) as caught:
        load_into(model or Net(), read_checkpoint(path))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("checkpoint: ", *words)), message


@pytest.mark.compatibility("checkpoint", "safetensors", "works")
def test_safetensors(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", model)


def shards(model, folder, save, index, name):
    state, where = model.state_dict(), {}
    for i, part in enumerate((list(state)[:3], list(state)[3:])):
        where |= dict.fromkeys(part, name.format(i))
        save({key: state[key] for key in part}, folder / name.format(i))
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.compatibility("checkpoint", "folder of safetensors shards with an index", "works")
def test_sharded_safetensors(model, tmp_path):
    shards(model, tmp_path, save_file, "model.safetensors.index.json", "model-0000{}-of-00002.safetensors")
    check(tmp_path, model)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    refused(tmp_path, "index.json", "damaged")


@pytest.mark.compatibility("checkpoint", "folder of torch.save shards with an index", "works")
def test_sharded_pickles(model, tmp_path):
    shards(model, tmp_path, torch.save, "pytorch_model.bin.index.json", "pytorch_model-0000{}-of-00002.bin")
    check(tmp_path, model)


@pytest.mark.compatibility("checkpoint", "torch.save of a state dict (weights only)", "works")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_state_dicts(model, tmp_path, suffix):
    check(saved(model.state_dict(), tmp_path / f"a{suffix}"), model)


@pytest.mark.compatibility("checkpoint", "torch.save of a dict that holds a state dict", "works")
@pytest.mark.parametrize("holder", ["state_dict", "model", "model_state_dict"])
def test_training_states(model, tmp_path, holder):
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    path = saved({"optimizer": optimizer.state_dict(), holder: model.state_dict(), "step": 7}, tmp_path / "a.pt")
    check(path, model)
    assert (read_checkpoint(path).counter, read_checkpoint(path).count) == ("step", 7)


@pytest.mark.compatibility("checkpoint", "Lightning .ckpt", "works")
def test_lightning(model, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.model, self.metric = net, nn.Linear(2, 2)

        def training_step(self, batch):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), 4)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(model), data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    check(tmp_path / "last.ckpt", model)
    assert steps_of([read_checkpoint(tmp_path / "last.ckpt")]) == ([4], "the checkpoints' entry 'global_step'")


@pytest.mark.compatibility("checkpoint", "names with DDP's, torch.compile's or an averaged model's prefixes", "works")
def test_prefixes_of_wrappers(model, tmp_path):
    inner = copy.deepcopy(model)
    inner.body = torch.compile(inner.body)
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.compile(nn.DataParallel(model)), inner):
        state = wrapped.state_dict()
        assert set(state) != set(model.state_dict())
        check(saved(state, tmp_path / "a.pt"), model)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    check(saved({"state_dict": averaged.state_dict()}, tmp_path / "a.pt"), model)


def test_two_sets_of_weights_are_ambiguous(model, tmp_path):
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in model.state_dict().items()}
    refused(saved(both, tmp_path / "a.pt"), "'student.' and 'teacher.'", "Net")


def test_a_tied_tensor_is_needed_once(tmp_path):
    model, other = Net(tied=True), Net(tied=True)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("other.")}
    save_file(state, tmp_path / "a.safetensors")
    load_into(other, read_checkpoint(tmp_path / "a.safetensors"))
    longer = Net(tied=True)
    longer.body.append(nn.Linear(6, 6))
    assert torch.equal(other.other.weight, model.head.weight)
    refused(tmp_path / "a.safetensors", "missing: body.3.weight, body.3.bias", model=longer)


@pytest.mark.compatibility("checkpoint", "of another architecture", "refused", "names of keys or shapes that differ")
def test_another_architecture(model, tmp_path):
    path = saved(model.state_dict(), tmp_path / "a.pt")
    refused(path, "does not fit Net", "body.0.weight is (6, 4) there and (8, 4) in the model", model=Net(8))
    other = nn.ModuleDict({"stem": nn.Linear(4, 9)})
    refused(path, "ModuleDict", "missing: stem.weight, stem.bias; not in the model: body.0.weight", "...", model=other)
    fewer = {key: value for key, value in model.state_dict().items() if "head" not in key}
    refused(saved(fewer, tmp_path / "b.pt"), "(missing: head.weight, head.bias)")
    other = Net()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    refused(saved({**model.state_dict(), "head.weight": torch.ones(9, 9)}, path), "(9, 9)", model=other)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


class Trap:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        return os.system, (f"touch {self.at}",)


@pytest.mark.compatibility(
    "checkpoint", "pickle that runs code", "refused", "a pickle that wants code, which is not run"
)
def test_code_in_a_pickle_is_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    refused(saved({"state_dict": {}, "extra": Trap(sprung)}, tmp_path / "a.pt"), "wants code", "system", "safetensors")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap(sprung)))
    refused(tmp_path / "b.pt", "wants code", "safetensors")
    assert not sprung.exists()
    os.system(f"touch {sprung}")
    assert sprung.exists()  # the trap works


@pytest.mark.compatibility(
    "checkpoint", "pickled whole module", "refused", "a pickle that wants code, which is not run; save the weights"
)
def test_a_whole_module_is_refused(model, tmp_path):
    path = saved(model, tmp_path / "a.pt")
    refused(path, "wants code", "test_state_dicts.Net", "save_file(model.state_dict()", "add_safe_globals")


def test_what_is_allowed_by_name_can_be_read(model, tmp_path):
    path = saved({"state_dict": model.state_dict(), "hyper": argparse.Namespace(rate=0.1)}, tmp_path / "a.pt")
    refused(path, "wants code (argparse.Namespace)", "add_safe_globals([argparse.Namespace])")
    with torch.serialization.safe_globals([argparse.Namespace]):
        check(path, model)


def test_bad_files_are_one_line(model, tmp_path):
    refused(tmp_path / "none.pt", "no file", "none.pt")
    refused(tmp_path, "no weights")
    (tmp_path / "a.txt").write_text("hello")
    refused(tmp_path / "a.txt", "convert it")
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text("hello there, this is no checkpoint")
        refused(tmp_path / name, name, "damaged")
    refused(saved({"optimizer": {}, "note": "x"}, tmp_path / "a.pt"), "no weights", "optimizer, note")
    refused(saved([1, 2], tmp_path / "a.pt"), "no weights", "a list")
    whole = saved(model.state_dict(), tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.pt", "damaged")


@pytest.mark.parametrize(
    ("names", "counts", "expected"),
    [
        (["step-000200.pt", "epoch=3-step=500.ckpt"], [1, 2], [1, 2]),  # the files' own counters first
        (["step-000200.pt", "epoch=3-step=500.ckpt"], [3, 3], [200, 500]),  # unless they are no help
        (["epoch=0-step=10-v1.ckpt", "epoch=1-step=20-v1.ckpt"], [None, None], [10, 20]),
        (["epoch=3-val_loss=0.25.ckpt", "epoch=4-val_loss=0.125.ckpt"], [None, None], [3, 4]),
        (["loss0.91-global_step300.pt", "loss0.45-global_step9.pt"], [None, None], [300, 9]),
        (["resnet18_epoch_7_acc0.93.pth", "resnet18_epoch_12_acc0.99.pth"], [None, None], [7, 12]),
        (["model-7-v1.pt", "model-8.pt"], [None, None], [7, 8]),
        (["loss-0.5.pt", "loss-0.25.pt"], [None, None], [1, 2]),
        (["misstep5-12.pt", "misstep5-13.pt"], [None, None], [12, 13]),
        (["a/last.ckpt", "b/best.ckpt"], [30, 10], [30, 10]),
        (["checkpoint-100/model.safetensors", "checkpoint-50/model.safetensors"], [None, None], [100, 50]),
        (["early.pt", "late.pt"], [None, None], [1, 2]),
        (["step-3.pt", "late.pt"], [None, 5], [1, 2]),
    ],
)
def test_steps(tmp_path, names, counts, expected):
    def made(name, count):
        return Checkpoint(tmp_path / name, {}, "step" if count is not None else None, count)

    checkpoints = [made(name, count) for name, count in zip(names, counts, strict=True)]
    assert steps_of(checkpoints)[0] == expected
    with refuses("checkpoint", Code.CONFLICT):
        steps_of([made("x-3.pt", None), made("y-3.pt", None)])


def test_fingerprints_tell_contents_apart(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    first = fingerprint(tmp_path / "model.safetensors"), fingerprint(tmp_path)
    assert first[0] == first[1]
    save_file(Net().state_dict(), tmp_path / "model.safetensors")
    assert fingerprint(tmp_path) != first[0]
