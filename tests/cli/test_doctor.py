"""`layerfreq doctor`: every module with the reason why it is measured or not, and what measuring it will take."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerfreq import Monitor, hidden_layers, layer_features, layer_spectra
from layerfreq.errors import Refusal
from layerfreq.inspection.modules import REPEATS, inspect_model
from layerfreq.loading.example_inputs import example_inputs
from layerfreq.loading.models import Source
from layerfreq.measure import costs
from tests.helpers.refusals import Code, refuses


class Kinds(nn.Module):
    """One layer for each reason."""

    def __init__(self):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 1))])
        self.spread, self.unused = nn.Flatten(0, 1), nn.Linear(2, 2)
        self.pool, self.arg, self.head = nn.AdaptiveAvgPool2d(1), Argmax(), nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.stem(x))
        for block in self.blocks:
            x = F.gelu(x + block(x))
        self.spread(x), self.arg(x)
        return F.softplus(self.head(self.pool(x).flatten(1)))


class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(1)


EXPECTED = {
    "stem": ("no activation", (4, 6, 6)),
    "act": ("", (4, 6, 6)),
    "blocks.0.0": ("no activation", (4, 6, 6)),
    "blocks.0.1": ("way around", (4, 6, 6)),
    "blocks.0.2": ("no activation", (4, 6, 6)),
    "blocks.0": ("same as blocks.0.2", (4, 6, 6)),
    "blocks.0.gelu": ("", (4, 6, 6)),
    "spread": ("no sample axis", None),
    "arg": ("no floats", None),
    "pool": ("no activation", (4, 1, 1)),
    "head": ("nothing above", (5,)),
    "head.softplus": ("nothing above", (5,)),
    "blocks": ("container", None),
    "unused": ("not called", None),
}


def test_every_module_has_its_reason():
    torch.manual_seed(0)
    model, x = Kinds(), torch.randn(9, 3, 8, 8)
    reports = {one.name: one for one in inspect_model(model, x, 100)}
    assert {name for name, _ in model.named_modules() if name} <= set(reports)
    found = {name: (one.reason, one.shape) for name, one in reports.items()}
    wrong = {name: (found.get(name), expected) for name, expected in EXPECTED.items() if found.get(name) != expected}
    assert not wrong
    assert set(found) == set(EXPECTED)
    assert [name for name, one in reports.items() if not one.reason] == hidden_layers(model, x)
    for name, one in reports.items():
        if one.shape is not None:
            features = layer_features(model, x, name)[name]
            assert (one.d, one.memory) == (features.shape[1], 100 * features.shape[1] * 4)
            assert one.seconds > 0


def test_calls_are_told_apart_and_a_model_without_cuts_is_shown():
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    named = [one.name for one in inspect_model(model, torch.randn(5, 4), 10) if not one.reason]
    assert named == hidden_layers(model, torch.randn(5, 4))
    flat = inspect_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(5, 4), 10)
    assert [one.reason for one in flat] == ["no activation", "nothing above"]


def test_reports_name_what_they_are_the_same_as():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.inner(x))

    reasons = {one.name: one.reason for one in inspect_model(Wrapped(), torch.randn(5, 4), 10)}
    assert sorted(reasons.values()) == ["", "no activation", "nothing above", "same as inner.1"]


class Odd(nn.Module):
    """Of whose layers each returns something that cannot be measured."""

    def __init__(self):
        super().__init__()
        self.turned, self.sparse, self.pairs = Turned(), Sparse(), Pairs()
        self.act, self.head = nn.Tanh(), nn.Linear(1, 2)

    def forward(self, x):
        self.turned(x), self.sparse(x)
        return self.head(self.act(self.pairs(x))[..., None])


class Turned(nn.Module):
    def forward(self, x):
        return x.T


class Sparse(nn.Module):
    def forward(self, x):
        return x.to_sparse()


class Pairs(nn.Module):
    def forward(self, x):
        return x @ x.T


def test_every_refusal_has_its_words():
    found = {one.name: one.reason for one in inspect_model(Odd(), torch.randn(9, 5), 9)}
    assert (found["turned"], found["sparse"], found["act"]) == ("other axis", "not dense", "pairs of points")
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 1))
    found = {one.name: one.reason for one in inspect_model(Slope(net), torch.randn(9, 3), 9)}
    assert found["net.1"] == "derivatives"
    tokens = {one.name: one.refusal for one in inspect_model(Kinds(), torch.randn(9, 3, 8, 8), 9, reading="cls")}
    assert tokens["act"] is Refusal.NO_TOKENS
    assert len({refusal.short for refusal in Refusal}) == len(Refusal)


class Slope(nn.Module):
    """Whose output is a derivative."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        x = x.requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


def test_the_model_runs_once_to_be_traced_once_turned_and_then_for_the_clock():
    runs, model = [], Kinds()
    model.register_forward_hook(lambda *_: runs.append(0))
    inspect_model(model, torch.randn(9, 3, 8, 8), 9)
    assert len(runs) == 2 + 1 + REPEATS


@pytest.mark.parametrize(
    ("n", "d", "rows"), [(200, 16, None), (5000, 256, None), (60000, 1024, 500), (3000, 8192, 100)]
)
def test_times_are_carried_on_from_points_and_pairs(monkeypatch, n, d, rows):
    """On a machine that takes 2 us a point and 3 ns a pair and coordinate."""
    monkeypatch.setattr(costs, "_small", costs._small.__wrapped__)

    def seconds(x, y, rows):
        return 2e-6 * len(x) + 3e-9 * len(x) * (rows or len(x)) * x.shape[1]

    monkeypatch.setattr(costs, "_seconds", seconds)
    wide = max(1, d / costs.WIDTHS[-1])
    expected = wide * (2e-6 * n + 3e-9 * n * (rows or n) * min(d, costs.WIDTHS[-1]))
    assert costs.engine_seconds(n, d, rows) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (12,)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 32, 32)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), (2, 32)),
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)), (16,)),
        (nn.LSTM(5, 4, batch_first=True), (16, 5)),
    ],
)
def test_inputs_are_made_up_from_the_first_layer(model, shape):
    assert example_inputs(Source(model, "model"), 3).shape == (3, *shape)


def test_inputs_that_cannot_be_made_up():
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 3))
    with refuses("input-shape", Code.FAILED):
        example_inputs(Source(flat, "flat"), 3)
    assert example_inputs(Source(flat, "flat"), 3, (1, 28, 28)).shape == (3, 1, 28, 28)
    with refuses("input-shape", Code.EMPTY):
        example_inputs(Source(nn.Sequential(nn.Bilinear(2, 2, 2)), "pair"), 3)


@pytest.mark.parametrize(
    "family",
    ["bert", "gpt2", "llama", "t5", "vit", "resnet", "convnext", "wav2vec2", "ast", "clip", "mixtral", "mamba", "rwkv"],
)
def test_inputs_are_made_up_for_pretrained_models(family):
    pytest.importorskip("transformers")
    from tests.cli import test_families

    model, inputs = getattr(test_families, family)()
    made = example_inputs(Source(model, family, "folder"), 2)
    assert set(made) == set(inputs)


@pytest.mark.parametrize("scales", [("raw",), ("rms", "raw"), ("maxabs",), ("raw", "maxabs", "rms")], ids="+".join)
def test_raw_and_rms_are_one_measurement_and_maxabs_is_another(monkeypatch, scales):
    monkeypatch.setattr(sys.modules["layerfreq.inspection.modules"], "engine_seconds", lambda *_: 1e6)
    measured = [one for one in inspect_model(Kinds(), torch.randn(9, 3, 8, 8), 300, scales=scales) if not one.reason]
    for one in measured:
        assert one.seconds == pytest.approx(2e6 if len(scales) == 3 else 1e6, rel=1e-3)
        assert one.passes == 1  # both from one run of the model


def test_the_command(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "doctored.py").write_text("from tests.cli.test_doctor import Kinds")
    status, out, error = cli("doctor", "doctored:Kinds", "--input-shape", "3,8,8", "--points", 300)
    assert (status, error) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for name, (reason, shape) in EXPECTED.items():
        said = f"no: {reason}" if reason else "yes"
        assert said in lines[name]
        assert ("-" if shape is None else "×".join(map(str, shape))) in lines[name]
    for refusal in Refusal:
        assert (refusal.long[:30] in out) == any(reason.startswith(refusal.short) for reason, _ in EXPECTED.values())
    assert "2 of 14 are measured" in out
    assert "300 points at raw scale" in out
    asked = ("--scale", "raw", "--scale", "maxabs")
    status, out, error = cli("doctor", "doctored:Kinds", "--input-shape", "3,8,8", "--points", 300, *asked)
    assert (status, error) == (0, "")
    assert "300 points at maxabs and raw scale" in " ".join(out.split())
    np.savez("data.npz", inputs=np.zeros((40, 3, 8, 8), np.float32), targets=np.arange(40) % 4)
    assert "40 points, 9 filter centres" in " ".join(
        cli("doctor", "doctored:Kinds", "--data", "data.npz", "--rows", 9)[1].split()
    )


def test_bad_input_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "doctored2.py").write_text("from tests.cli.test_doctor import Kinds")
    for options, words in (
        (["--input-shape", "3,8,-8"], ["input-shape", "'3,8,-8' is not a valid shape"]),
        (["--input-shape", "large"], ["input-shape", "'large' is not a valid shape"]),
        (["--input-shape", "4,8,8"], ["input-shape", "4,8,8"]),
        (["--input-shape", "3,8,8", "--data", "x.npz"], ["leave one out"]),
        (["--data", "x.npz"], ["no file"]),
        (["--device", "tpu"], ["unknown 'tpu'"]),
        (["--memory", "much"], ["memory: 'much'"]),
        (["--reading", "median"], ["unknown 'median'"]),
        (["--scale", "max"], ["scale: unknown 'max'"]),
    ):
        status, _, error = cli("doctor", "doctored2:Kinds", *options)
        assert (status, len(error.strip().splitlines())) == (2, 1)
        assert all(word in error for word in words), error


@pytest.mark.parametrize("scales", [("raw",), ("maxabs",), ("maxabs", "rms")], ids="+".join)
@pytest.mark.parametrize("rows", [None, 100])
@pytest.mark.parametrize("reading", ["flatten", "positions"])
def test_passes_are_as_many_as_measuring_takes(reading, rows, scales):
    model = nn.Sequential(nn.Conv2d(1, 30, 3, padding=1), nn.ReLU(), nn.Conv2d(30, 2, 1), nn.Flatten())
    x, y = torch.randn(40, 1, 5, 5), torch.arange(40) % 3
    runs, rows = [], rows and min(rows, 40 if reading == "flatten" else rows)
    model[1].register_forward_hook(lambda *_: runs.append(0))
    options = {"reading": reading, "rows": rows, "memory": 100_000}
    monitor = Monitor(model, x, y, layers="1", scale=scales, **options)
    runs.clear()
    monitor.measure(0)
    found = len(runs)
    report = next(
        one for one in inspect_model(model, x[:9], 40, classes=3, scales=scales, **options) if one.name == "1"
    )
    assert report.passes > 1
    assert found <= report.passes <= 1.5 * found  # fewer where the grid has fewer cutoffs than it may have


@pytest.mark.parametrize("reading", ["flatten", "mean", "max", "positions", "positions:1"])
def test_sizes_are_of_the_reading(reading):
    model, x = Kinds(), torch.randn(9, 3, 8, 8)
    for one in inspect_model(model, x, 9, reading=reading):
        if one.d is not None:
            features = layer_features(model, x, one.name, reading=reading)[one.name]
            assert (one.d, one.memory) == (features.shape[1], features.nbytes)


def test_an_axis_that_cannot_be_told_is_said():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(4, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            return self.head(F.relu(self.head(self.conv(x)).transpose(1, 2))).mean(1)

    found = {one.name: one for one in inspect_model(Mixed(), torch.randn(5, 4, 4), 10, reading="mean")}
    assert found["head.relu"].reason == "axis unclear"
    with refuses("reading", Code.UNSUPPORTED):
        layer_spectra(Mixed(), torch.randn(5, 4, 4), torch.arange(5), "head.relu", reading="mean")


def test_models_in_half_precision_get_inputs_made_up_in_theirs():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).bfloat16()
    assert example_inputs(Source(model, "half"), 3).dtype == torch.bfloat16
