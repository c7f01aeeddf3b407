"""What the reference shows has an example that runs; a class's examples call each of its public methods."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import layerfreq

PAGES = Path(__file__).parents[2] / "docs" / "api"
PUBLIC = [path for page in sorted(PAGES.glob("*.md")) for path in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
HOOKS = ("on_", "state_dict", "load_state_dict")  # what a framework calls, and nobody else
NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "lightning": "lightning"}
NEEDS |= {"transformers": "transformers", "report": "plotly", "deepxde": "deepxde"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def found(path):
    module, name = path.rsplit(".", 1)
    home = importlib.import_module(module)
    return getattr(home, name), home


def setting(path, monkeypatch):
    """What the examples of some objects take for granted, besides the library's names and the usual imports."""
    if path.endswith((".Monitor", ".Run")):
        x = torch.linspace(0, 1, 50)[:, None]
        model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        monitor = layerfreq.Monitor(model, x, torch.sin(9 * x[:, 0]), run="a run")
        if path.endswith(".Run"):
            monitor.measure(0)
        return {"monitor": monitor, "run": monitor.run}
    if "lightning" in path:
        from lightning.pytorch import LightningModule, Trainer
        from torch.utils.data import DataLoader, TensorDataset

        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        names = {"LightningModule": LightningModule, "Trainer": Trainer, "QUIET": quiet}
        return {**names, "DataLoader": DataLoader, "TensorDataset": TensorDataset}
    if "transformers" in path:
        from transformers import Trainer, TrainingArguments

        return {"Trainer": Trainer, "TrainingArguments": TrainingArguments}
    if "mlflow" in path:
        import mlflow

        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        return {"client": mlflow.MlflowClient(Path("mlruns").resolve().as_uri())}
    return {}


def examples(path):
    """The examples of an object and of its public methods, each with its own setting."""
    thing, home = found(path)
    names = {**vars(layerfreq), **vars(home), "torch": torch, "nn": nn, "np": np, "pd": pd, "plt": plt, "Path": Path}
    names |= {"layerfreq": layerfreq}
    return thing, [test for test in doctest.DocTestFinder(recurse=True).find(thing, globs=names) if test.examples]


def needs(path):
    """Marks of the packages whose names are in a path."""
    return [pytest.mark.needs(NEEDS[word]) for word in path.split(".") if word in NEEDS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [pytest.param(path, marks=needs(path)) for path in PUBLIC])
def test_every_public_name_has_an_example_that_runs(path, tmp_path, monkeypatch):
    torch.manual_seed(0)
    thing, tests = examples(path)
    assert tests, "no example"
    text = "".join(example.source for test in tests for example in test.examples)
    if inspect.isclass(thing):
        methods = [
            name
            for name, value in vars(thing).items()
            if (inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)))
            and not name.startswith(("_", *HOOKS))
        ]
        missing = [name for name in methods if f".{name}(" not in text and f"def {name}(" not in text]
        assert not missing, f"no example calls {', '.join(missing)}"
    said = []
    for number, test in enumerate(tests):
        home = tmp_path / str(number)
        home.mkdir()
        monkeypatch.chdir(home)
        test.globs.update(setting(path, monkeypatch))
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert not said, "".join(said)
