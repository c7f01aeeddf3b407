"""`layerfreq analyze` as a user meets it: factories, checkpoints, data; a run out."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import Run, layer_spectra
from layerfreq.errors import Refusal
from layerfreq.inspection.analysis import analyze
from layerfreq.loading.datasets import load_data
from layerfreq.loading.models import Source, find_model, make
from tests.helpers.refusals import Code, refuses

HOME = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))

class Wider(nn.Sequential):
    def __init__(self, width=9):
        super().__init__(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))

ready = net()

def sized(width):
    return net()

def broken():
    raise RuntimeError("no such file: weights")

def number():
    return 3

def points():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 5, generator=generator), torch.arange(40) % 3

def several():
    inputs, targets = points()
    return inputs, {"first": targets, "second": inputs[:, 0]}

def loader():
    return DataLoader(TensorDataset(*points()), 7)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a module of factories, and the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    name = f"nets_{abs(hash(tmp_path))}"  # a module is imported once
    (tmp_path / f"{name}.py").write_text(HOME)
    return name


@pytest.fixture
def undrawn(monkeypatch):
    """No figures, which take longer than all the rest."""
    monkeypatch.setattr("layerfreq.inspection.analysis.Run.plot", lambda run: None)
    monkeypatch.setattr("layerfreq.plots.figure_medians", lambda summary: None)
    monkeypatch.setattr("layerfreq.plots.save", lambda figure, folder, name: [])


def assert_one_line(result, *words):
    status, out, error = result
    assert status == 2, (out, error)
    assert len(error.strip().splitlines()) == 1
    assert all(word in error for word in words), error


@pytest.mark.slow
def test_checkpoints_become_the_steps_of_a_run(cli, home, tmp_path):
    expected = {}
    for step in (20, 3, 100):
        torch.manual_seed(step)
        model = make(f"{home}:net", "model")
        torch.save({"state_dict": model.state_dict()}, f"step-{step:06d}.pt")
        expected[step] = layer_spectra(model, *make(f"{home}:points", "data"))
    files = sorted(tmp_path.glob("*.pt"), reverse=True)
    arguments = ("analyze", f"{home}:net", *files, "--data", f"{home}:points", "--batch", 16)
    status, out, error = cli(*arguments, "--out", "run")
    assert (status, error) == (0, "")
    assert "in each name" in out
    run = Run("run")
    assert run.steps() == [3, 20, 100]
    for step, spectra in expected.items():
        for name, one in spectra.items():
            mine = run.spectra.query(f"step == {step} and layer == '{name}' and scale == 'raw'")
            np.testing.assert_allclose(mine["lfr"], one.lfr, rtol=1e-6)
            np.testing.assert_allclose(mine["inv_delta"], one.inv_delta, rtol=1e-6)
    assert [c["step"] for c in run.config["checkpoints"]] == [100, 20, 3]
    assert all(len(c["sha256"]) == 64 for c in run.config["checkpoints"])
    for figure in ("densities", "medians"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "run" / "figures" / f"{figure}.pdf").exists()
        assert f"{figure}.pdf" in out.replace("\n", "")
    assert_one_line(cli(*arguments, "--out", "run"), "holds another run; pass another --out")


def test_without_checkpoints_the_model_is_measured_as_it_is(cli, home, undrawn):
    options = ("--data", f"{home}:loader", "--points", 30, "--rows", 20, "--layers", "1", "--scale", "rms")
    status, out, error = cli("analyze", f"{home}:ready", *options, "--out", "run")
    assert (status, error) == (0, "")
    assert "rms" in out
    run = Run("run")
    assert (run.steps(), run.config["points"], set(run.spectra["layer"])) == ([0], 30, {"1"})
    x, y = make(f"{home}:points", "data")
    expected = layer_spectra(make(f"{home}:ready", "model"), x[:30], y[:30], "1", rows=20)["1"]
    np.testing.assert_allclose(run.spectra.query("scale == 'raw'")["lfr"], expected.lfr, rtol=1e-6)


def test_a_model_is_traced_once_and_tried_in_another_order_once(tmp_path):
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(torch.relu(x + self.inner(x)))

    runs, model = [], Skip()
    model.register_forward_pre_hook(lambda *_: runs.append(0))
    np.savez(tmp_path / "data.npz", inputs=torch.randn(40, 5).numpy(), targets=np.arange(40) % 3)
    found = analyze(Source(model, "skip"), [], str(tmp_path / "data.npz"), tmp_path / "run", name="skip")
    assert len(runs) == 3  # the last measures
    assert {name: reason.why for name, reason in found.refused.items()} == {"inner.1": Refusal.AROUND}
    # What is no cut is in the run, for its report.
    assert found.run.spectra.attrs["refused"] == {"inner.1": Refusal.AROUND.long}


@pytest.mark.parametrize("asked", [("maxabs",), ("rms", "maxabs")], ids="+".join)
def test_the_papers_scale_is_measured_on_demand(cli, home, undrawn, asked):
    options = [word for scale in asked for word in ("--scale", scale)]
    status, out, error = cli("analyze", f"{home}:ready", "--data", f"{home}:points", *options, "--out", "run")
    assert (status, error) == (0, "")
    run, expected = Run("run"), {"maxabs"} if asked == ("maxabs",) else {"raw", "rms", "maxabs"}
    assert (run.config["scales"], set(run.spectra["scale"])) == (list(asked), expected)
    head = next(line for line in out.splitlines() if "layer" in line)
    assert head.split()[2:] == [scale for scale in ("maxabs", "rms") if scale in asked for _ in range(3)]
    assert "maxabs: the paper's;" in out
    spectra = layer_spectra(make(f"{home}:ready", "model"), *make(f"{home}:points", "data"), scale="maxabs")
    for name, one in spectra.items():
        kept = run.spectra.query(f"layer == '{name}' and scale == 'maxabs'")
        np.testing.assert_allclose(kept["lfr"], one.lfr, rtol=1e-6)
        assert f"{one.median:.3g}" in out
    wrong = cli("analyze", f"{home}:ready", "--data", f"{home}:points", "--scale", "max", "--out", "none")
    assert_one_line(wrong, "scale: unknown 'max'")


def test_a_factory_draws_the_same_weights_each_time(home):
    before = torch.get_rng_state()
    first, second, other = (find_model(f"{home}:net", seed).model[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(find_model(f"{home}:Wider").model, nn.Sequential)


def test_bad_models_are_one_line_and_nothing_is_written(cli, home, tmp_path):
    for name, words in (
        (f"{home}:nut", ["no 'nut'", "did you mean 'net'"]),
        (f"{home}:sized", ["failed", "width"]),
        (f"{home}:broken", ["no such file: weights"]),
        (f"{home}:number", ["int", "not a torch.nn.Module"]),
        (f"no_{home}:net", ["no module", f"no_{home}"]),
        (f"{home}.py:net", [f"{home}:net"]),
    ):
        assert_one_line(cli("analyze", name, "--data", f"{home}:points"), "model: ", *words)
    (tmp_path / "faulty_net.py").write_text("def net(:")
    assert_one_line(cli("analyze", "faulty_net:net", "--data", "digits"), "importing 'faulty_net' failed")
    assert not (tmp_path / "runs").exists()


def test_bad_checkpoints_are_one_line_and_nothing_is_written(cli, home, tmp_path):
    data = ("--data", f"{home}:points")
    torch.save(make(f"{home}:Wider", "model").state_dict(), "step-2.pt")
    torch.save(make(f"{home}:net", "model").state_dict(), "step-1.pt")
    torch.save(make(f"{home}:net", "model").state_dict(), "other-1.pt")
    torch.save(make(f"{home}:net", "model"), "whole.pt")
    for files, words in (
        (["step-1.pt", "step-2.pt"], ["step-2.pt", "does not fit Sequential", "4.weight"]),
        (["step-1.pt", "other-1.pt"], ["both step 1"]),
        (["whole.pt"], ["wants code", "torch.nn.modules", "safetensors"]),
        (["none.pt"], ["no file"]),
    ):
        assert_one_line(cli("analyze", f"{home}:net", *files, *data), "checkpoint: ", *words)
    assert not (tmp_path / "runs").exists()


def test_bad_data_is_one_line_and_nothing_is_written(cli, home, tmp_path):
    np.savez("no-targets.npz", inputs=np.ones((4, 5)))
    np.savez("uneven.npz", inputs=np.ones((4, 5)), targets=np.arange(3))
    (tmp_path / "broken.npz").write_text("no archive")
    for data, words in (
        ("no-targets.npz", ["arrays inputs", "targets"]),
        ("uneven.npz", ["3 targets for 4 inputs"]),
        ("broken.npz", ["damaged"]),
        ("none.npz", ["no file"]),
        ("./none", ["no folder"]),
        (f"{home}:number", ["int", "(inputs, targets)"]),
        (f"{home}:nothing", ["no 'nothing'"]),
        (f"{home}:several", ["names several targets, ['first', 'second']; give one"]),
    ):
        assert_one_line(cli("analyze", f"{home}:net", "--data", data), "data: ", *words)
    assert_one_line(cli("analyze", f"{home}:net", "--data", f"{home}:points", "--device", "tpu"), "unknown 'tpu'")
    assert_one_line(cli("analyze", f"{home}:net", "--data", f"{home}:points", "--layers", "9"), "no layer '9'")
    assert cli("analyze", f"{home}:net")[0] == 2
    assert not (tmp_path / "runs").exists()


class Named(nn.Module):
    def forward(self, left, right):
        return left + right


def test_arrays_by_the_names_of_forwards_arguments(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(
        {"left": torch.ones(4, 2), "right": torch.zeros(4, 2), "targets": torch.arange(4)}, tmp_path / "a.safetensors"
    )
    inputs, targets = load_data(str(tmp_path / "a.safetensors"), Source(Named(), "named"), 3)
    assert {key: len(value) for key, value in inputs.items()} == {"left": 3, "right": 3}
    assert targets.tolist() == [0, 1, 2]


@pytest.fixture
def tables(monkeypatch, tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def png(pixels):
    stream = io.BytesIO()
    pytest.importorskip("PIL.Image").fromarray(pixels).save(stream, "png")
    return {"bytes": stream.getvalue(), "path": None}


def test_images_of_a_folder_come_channels_first(tables, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    frame = pd.DataFrame({"image": [png(one) for one in pixels], "label": [2, 1, 0, 1, 2, 0]})
    frame.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    inputs, targets = load_data(str(tmp_path), Source(Named(), "named"), 5)
    assert torch.equal(inputs, torch.from_numpy(pixels[:5] / np.float32(255)).permute(0, 3, 1, 2))
    assert targets.tolist() == [2, 1, 0, 1, 2]


WORDS = ["[UNK]", "[PAD]", *["the", "cat", "dog", "sat", "on", "mat", "and", "ran"]]


@pytest.fixture
def texts(tables, tmp_path):
    """A folder with texts and labels, and a way to save a model beside a tokenizer of whole words."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = np.array(WORDS[2:])[np.random.default_rng(0).integers(0, 8, (12, 9))]
    frame = pd.DataFrame({"text": [" ".join(line) for line in words], "label": np.arange(12) % 2})
    (tmp_path / "texts").mkdir()
    frame.to_parquet(tmp_path / "texts" / "train-00000-of-00001.parquet")

    def save(model):
        made = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
        )
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")
        fast.save_pretrained(tmp_path / "model")
        model.save_pretrained(tmp_path / "model")
        return find_model(str(tmp_path / "model"))

    return save, str(tmp_path / "texts"), np.vectorize(WORDS.index)(words)


SMALL = {"vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def test_texts_and_labels_for_a_classifier(texts):
    save, folder, ids = texts
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**SMALL, max_position_embeddings=6)
    inputs, targets = load_data(folder, save(transformers.BertForSequenceClassification(config)), 7)
    assert inputs["input_ids"].tolist() == ids[:7, :6].tolist()
    assert inputs["attention_mask"].shape == (7, 6)
    assert targets.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_windows_and_following_tokens_for_a_language_model(texts, cli, undrawn):
    save, folder, ids = texts
    transformers = pytest.importorskip("transformers")
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(**SMALL, **tokens, max_position_embeddings=6)
    source = save(transformers.LlamaForCausalLM(config))
    running = ids.reshape(-1).tolist()
    inputs, following = load_data(folder, source, 12, "positions")
    assert inputs["input_ids"].reshape(-1).tolist() == running[: 12 * 6]
    assert following.reshape(-1).tolist() == running[1 : 12 * 6 + 1]
    assert torch.equal(load_data(folder, source, 12)[1], following[:, -1])
    status, _, error = cli("analyze", source.pretrained, "--data", folder, "--out", f"{folder}-run")
    assert (status, error) == (0, "")
    assert Run(f"{folder}-run").config["layers"] == ["model.layers.0", "model"]
    options = ("--reading", "positions", "--out", f"{folder}-positions")
    status, _, error = cli("analyze", source.pretrained, "--data", folder, *options)
    assert (status, error) == (0, "")
    assert Run(f"{folder}-positions").spectra.attrs["n"] == 17 * 6  # 108 tokens


def test_trainers_folders_are_checkpoints(texts, cli, tmp_path, undrawn):
    save, folder, _ = texts
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**SMALL, max_position_embeddings=9)
    models = [transformers.BertForSequenceClassification(config) for _ in range(2)]
    source = save(models[0])
    for step, model in zip((50, 100), models, strict=True):
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    found = sorted(tmp_path.glob("checkpoint-*"))
    status, _, error = cli("analyze", source.pretrained, *found, "--data", folder, "--out", tmp_path / "run")
    assert status == 0, error
    assert Run(tmp_path / "run").steps() == [50, 100]
    other = transformers.BertForSequenceClassification(transformers.BertConfig(**{**SMALL, "intermediate_size": 9}))
    other.save_pretrained(tmp_path / "checkpoint-150")
    words = ("checkpoint-150", "does not fit BertForSequenceClassification", "intermediate.dense.weight")
    assert_one_line(cli("analyze", source.pretrained, tmp_path / "checkpoint-150", "--data", folder), *words)


def test_bad_pretrained_models_are_one_line(cli, home, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    assert_one_line(cli("analyze", "empty", "--data", "digits"), "no config.json")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "no such thing"}')
    assert_one_line(cli("analyze", "empty", "--data", "digits"), "cannot load 'empty'")
    custom = '{"model_type": "x", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}'
    (tmp_path / "empty" / "config.json").write_text(custom)
    (tmp_path / "empty" / "code.py").write_text("open('ran', 'w')\nclass Config: pass")
    assert_one_line(cli("analyze", "empty", "--data", "digits"), "its own code", "not run")
    assert not (tmp_path / "ran").exists()

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True, raising=False)
    assert_one_line(cli("analyze", "some/model", "--data", "digits"), "model: no local copy", "'some/model'")
    with refuses("model", Code.MISSING):
        find_model("./nowhere/at/all")


def test_reading_and_memory_are_checked_first_and_written(cli, home, tmp_path, undrawn):
    (tmp_path / "images.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))\n"
        "def data():\n    return torch.randn(20, 1, 8, 8), torch.arange(20) % 2\n"
        "def narrow():\n    return torch.randn(20, 1, 7, 8), torch.arange(20) % 2\n"
        "def words():\n    return ['a'] * 20, torch.arange(20) % 2\n"
    )
    out = tmp_path / "run"
    for option, value, data, *words in (
        ("--reading", "median", "data", "reading: unknown 'median'"),
        ("--reading", "mean:7", "data", "layer '1': reading: axis 7"),
        ("--memory", "much", "data", "memory: 'much'"),
        ("--memory", "1GB", "narrow", "inputs: Sequential does not run on float32 (20, 1, 7, 8)"),
        ("--memory", "1GB", "words", "data: cannot be read as numbers"),
    ):
        assert_one_line(cli("analyze", "images:net", "--data", f"images:{data}", option, value, "--out", out), *words)
        assert not out.exists()
    options = ["--reading", "positions:1", "--memory", "20kB", "--out", out]
    status, _, error = cli("analyze", "images:net", "--data", "images:data", *options)
    assert (status, error) == (0, "")
    assert Run(out).config["reading"] == "positions:1"
    assert Run(out).spectra.attrs["n"] == 20 * 36


def test_a_name_without_a_factory_is_one_line(cli, home):
    for name in (":", f"{home}:", ":net"):
        assert_one_line(cli("analyze", name, "--data", "x.npz"), f"model: {name!r} is not MODULE:FACTORY")


def test_files_that_numpy_would_take_for_pickles_are_damaged(tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}, {}]), targets=np.arange(2))
    for name, words in (("junk", ("data", Code.DAMAGED)), ("objects", ("data", Code.UNSUPPORTED))):
        with refuses(*words) as caught:
            load_data(str(tmp_path / f"{name}.npz"), Source(nn.Identity(), "x"), 5)
        assert "allow_pickle" not in str(caught.value)
