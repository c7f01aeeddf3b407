"""What an optional package is missing for says so in one line, with the command that installs it."""

import ast
import pickle
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from layerfreq import spectrum
from layerfreq.errors import InputError
from layerfreq.experiments.minibatch import launch
from layerfreq.experiments.sweep import check_backend
from layerfreq.extras import needs
from layerfreq.loading.array_files import read_arrays
from layerfreq.loading.hub_tables import open_table
from layerfreq.loading.images import load_images
from layerfreq.loading.models import find_model
from layerfreq.relearn.predictors import probe_loss
from layerfreq.report.page import _plotly
from layerfreq.runs.weights import check_keeping
from layerfreq.trackers import MLflow, TensorBoard, WandB
from tests.helpers.refusals import Code, refuses

SOURCE = Path(__file__).parents[1] / "src" / "layerfreq"
POINTS, CLASSES = torch.randn(20, 3), torch.arange(20) % 2
# What is hidden, who is blamed, what pip is to install, and a call that needs it.
MISSING = [
    ("safetensors.torch", "features", "safetensors", lambda: read_arrays("x.safetensors", "features")),
    ("datasets", "data", "'layerfreq[experiments]'", lambda: open_table("ylecun/mnist", 3)),
    ("sklearn.datasets", "data", "'layerfreq[experiments]'", lambda: load_images("digits", 3)),
    ("transformers", "model", "'layerfreq[transformers]'", lambda: find_model("gpt2")),
    ("sklearn.linear_model", "probe", "'layerfreq[study]'", lambda: probe_loss(POINTS, CLASSES)),
    ("plotly.offline", "report", "'layerfreq[report]'", _plotly),
    ("safetensors.torch", "checkpoints", "'layerfreq[study]'", lambda: check_keeping(True)),
    ("lightning_fabric", "experiments", "'layerfreq[experiments]'", lambda: launch("cpu")),
    ("ray", "backend 'ray'", "'layerfreq[ray]'", lambda: check_backend("ray", None)),
    ("distributed", "backend 'dask'", "'layerfreq[dask]'", lambda: check_backend("dask", None)),
    ("joblib", "backend 'loky'", "'layerfreq[study]'", lambda: check_backend("loky", None)),
    ("torch.utils.tensorboard", "trackers", "'layerfreq[tensorboard]'", lambda: TensorBoard("x")),
    ("wandb", "trackers", "'layerfreq[wandb]'", WandB),
    ("mlflow", "trackers", "'layerfreq[mlflow]'", MLflow),
    ("triton", "engine", "'layerfreq[cuda]'", lambda: spectrum(POINTS, CLASSES, engine="cuda")),
]


@pytest.mark.parametrize(("module", "argument", "package", "call"), MISSING, ids=[one[0] for one in MISSING])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, module, argument, package, call):
    monkeypatch.chdir(tmp_path)
    Path("x.safetensors").touch()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, module, None)
    with refuses(argument.split()[0], Code.PACKAGE, f"{argument}: needs {module} (", f"; pip install {package}"):
        call()


def test_of_two_missing_packages_the_one_asked_for_is_named(monkeypatch):
    for module in ("ray", "joblib"):
        monkeypatch.setitem(sys.modules, module, None)
    with refuses("backend", Code.PACKAGE, "backend 'ray': needs ray "):
        check_backend("ray", None)


@pytest.mark.parametrize(
    ("name", "hidden", "extra"),
    [
        ("lightning", ("lightning.pytorch", "pytorch_lightning"), "'layerfreq[lightning]'"),
        ("transformers", ("transformers",), "'layerfreq[transformers]'"),
        ("deepxde", ("deepxde", "deepxde.backend"), "deepxde"),
    ],
)
def test_a_callback_without_its_framework_is_an_import_error_of_one_line(monkeypatch, name, hidden, extra):
    for module in hidden:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"layerfreq.integrations.{name}", raising=False)
    with pytest.raises(ImportError) as caught:
        import_module(f"layerfreq.integrations.{name}")
    said = str(caught.value)
    assert isinstance(caught.value, InputError)
    assert said.startswith(f"layerfreq.integrations.{name}: needs ")
    assert said.endswith(f"; pip install {extra}")
    assert "\n" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_what_is_there_is_imported():
    assert needs("json.decoder", "layerfreq[report]", "report").JSONDecodeError


def test_nobody_else_turns_a_missing_package_into_a_message():
    """`raise InputError` under `except ImportError` is `needs`' alone."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
                refuses = any(isinstance(one, ast.Raise) and one.exc for one in ast.walk(node))
                assert node.type.id != "ImportError" or not refuses or file.stem == "extras", file
