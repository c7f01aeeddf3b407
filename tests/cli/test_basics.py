"""What every command line has: a version, completion, JSON for programs, an end by Ctrl-C, names as they are."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Run, __version__, error_spectrum, layer_spectra, spectrum
from layerfreq.cli.reproduce import _show
from layerfreq.cli.terminal import print_json, show_table
from layerfreq.experiments import Table, mlp

ODD = ("red] [bold", "x[red]y", ":smile:")


class Odd(nn.Module):
    """Layers whose names are markup to some."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleDict({name: nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for name in ODD})
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for part in self.parts.values():
            x = part(x)
        return self.head(x)


def points():
    return torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


@pytest.fixture
def cli(cli, monkeypatch, tmp_path):
    """Run a command in a folder of its own; return its exit status, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("layerfreq.plots.save", lambda figure, folder, name: [])
    monkeypatch.setenv("COLUMNS", "80")
    return cli


def strictly(text):
    """Parse JSON as it is defined: NaN and Infinity are none."""

    def refuse(name):
        pytest.fail(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_version(cli, monkeypatch, capsys):
    assert cli("--version") == (0, f"layerfreq {__version__}\n", "")
    monkeypatch.setattr(sys, "argv", ["python -m layerfreq", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("layerfreq", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"layerfreq {__version__}\n"


@pytest.mark.slow
def test_the_shell_completes_commands():
    code = "import sys; sys.argv[0] = 'layerfreq'; from layerfreq.cli import main; main()"
    env = {**os.environ, "_LAYERFREQ_COMPLETE": "complete_bash", "COMP_WORDS": "layerfreq re", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == {"relearn", "report", "reproduce"}


def test_names_are_printed_as_they_are(cli):
    where = f"{__name__}:Odd", "--data", f"{__name__}:points"
    for command in ("analyze", "doctor"):
        status, out, error = cli(command, *where)
        assert (status, error) == (0, "")
        for name in ODD:
            assert f"parts.{name}" in out
        assert max(map(len, out.splitlines())) <= 80


def test_json_of_a_spectrum_and_of_errors(cli, tmp_path):
    x, y = (one.numpy() for one in points())
    np.savez("features.npz", features=x, targets=y)
    status, out, error = cli("spectrum", "features.npz", "--scale", "rms", "--json")
    found, expected = strictly(out), spectrum(x, y, scale="rms")
    assert (status, error) == (0, "")
    np.testing.assert_allclose(found["lfr"], expected.lfr)
    assert (found["median"], found["resolution"]) == (expected.median, expected.resolution)
    assert found["resolved"] is (expected.median <= expected.resolution)
    assert found["stderr"] is None
    t = np.arange(32) / 32
    np.savez("outputs.npz", inputs=t[:, None], targets=np.sin(2 * np.pi * t), outputs=0 * t)
    status, out, error = cli("errors", "outputs.npz", "--json", "--out", "figures")
    found, expected = strictly(out), error_spectrum(t[:, None], np.sin(2 * np.pi * t), 0 * t)
    assert (status, error) == (0, "")
    shown = [np.nan if value is None else value for value in found["relative"]]
    np.testing.assert_allclose(shown, expected.relative)
    assert (tmp_path / "figures" / "errors.csv").exists()


def test_json_of_a_model(cli):
    where = f"{__name__}:Odd", "--data", f"{__name__}:points", "--json"
    for step in (1, 2):
        torch.save(Odd().state_dict(), f"net_{step}.pth.tar")
    status, out, error = cli("analyze", where[0], "net_2.pth.tar", "net_1.pth.tar", *where[1:], "--out", "run")
    found = strictly(out)
    assert (status, error) == (0, "")
    assert [(row["step"], row["layer"]) for row in found["layers"]] == [
        (step, f"parts.{name}.1") for step in (1, 2) for name in ODD
    ]
    expected = layer_spectra(Odd(), *points())
    for row in found["layers"]:
        one = expected[row["layer"]]
        assert row["median"] == pytest.approx(one.median, rel=1e-6)
        assert row["resolved"] is (one.median <= one.resolution)
    assert found["run"] == "run"
    status, out, error = cli("verdict", "run", "--json")
    found = strictly(out)
    assert (status, error) == (0, "")
    assert (found["runs"], found["seeds"]) == (1, 1)
    assert [row["step"] for row in found["scales"]["raw"]["steps"]] == [1, 2]
    assert len(found["sentences"]) == 2 + len(found["scales"])


def test_json_of_the_doctor_and_its_filter(cli):
    where = f"{__name__}:Odd", "--input-shape", "4"
    status, out, error = cli("doctor", *where, "--json", "--show", "measured", "--layers", "parts.x*")
    found = strictly(out)
    assert (status, error) == (0, "")
    assert [row["name"] for row in found["modules"]] == ["parts.x[red]y.1"]
    assert found["measured"] == [f"parts.{name}.1" for name in ODD]
    assert cli("doctor", *where, "--layers", "nose")[0] == 2


def test_json_of_an_experiment(cli):
    pytest.importorskip("lightning_fabric")
    status, out, _ = cli("reproduce", "sine", "--preset", "smoke", "--json", "--out", "run")
    found = strictly(out)
    assert status == 0
    assert found["run"] == "run"
    assert Run("run").config["experiment"] == "sine"
    assert found["rows"]
    assert all(isinstance(row, dict) for row in found["rows"])
    assert any(isinstance(value, float) for row in found["rows"] for value in row.values())


@pytest.mark.parametrize("command", [("demo",), ("reproduce", "depth", "--preset", "smoke", "--out", "new/place")])
def test_an_experiment_without_its_package_leaves_no_folder(cli, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    status, out, error = cli(*command)
    assert (status, out) == (2, "")
    assert error.startswith("layerfreq: experiments: needs lightning_fabric (")
    assert os.listdir() == []


@pytest.mark.slow
def test_json_of_the_demo(cli, monkeypatch):
    """The demo itself takes half a minute: this is it with fewer images and epochs."""
    pytest.importorskip("sklearn")
    monkeypatch.setitem(mlp.PRESETS, "demo", replace(mlp.PRESETS["demo"], images=60, width=8, epochs=(0, 2), rows=None))
    status, out, _ = cli("demo", "--json", "--out", "run")
    found = strictly(out)
    assert status == 0
    assert Run(f"{found['run']}/seed-0").steps() == [0, 2]
    assert len(found["rows"]) == 10  # five layers, first and last
    assert all(isinstance(row["layer"], str) for row in found["rows"])


def test_tables_that_are_too_wide_break_words_rather_than_cut_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    show_table(
        ["layer", *(f"a long\ntitle {i}" for i in range(6))], [["blocks.0.attention.output.dense" * 2, *"123456"]]
    )
    out = "".join(capsys.readouterr())  # on standard error after a command with --json
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_json_of_a_benchmark(cli):
    status, out, error = cli("bench", "--n", 50, "--d", 2, "--cutoffs", 3, "--repeats", 1, "--json")
    assert (status, error) == (0, "")
    assert {row["way"] for row in strictly(out)["ways"]} >= {"bare matrix product", "layerfreq, cpu"}


def test_json_has_no_nan(capsys):
    print_json({"a": float("nan"), "b": np.float32("inf"), "c": np.array([1.5, np.nan]), 4: (torch.tensor(2), {"δ"})})
    assert strictly(capsys.readouterr().out) == {"a": None, "b": None, "c": [1.5, None], "4": [2, "{'δ'}"]}


@pytest.mark.parametrize(
    ("where", "args", "words"),
    [
        ("layerfreq.verdict.depth.verdict", ("verdict", "run"), "run it again"),
        ("layerfreq.inspection.analysis.analyze", ("analyze", "MODEL", "--data", "X", "--out", "run"), "another --out"),
    ],
)
def test_stopped_it_ends_with_130_and_one_line(cli, monkeypatch, where, args, words):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stop)
    names = {"MODEL": f"{__name__}:Odd", "X": f"{__name__}:points"}
    status, out, error = cli(*(names.get(word, word) for word in args))
    assert (status, out) == (130, "")
    assert error.startswith("layerfreq: stopped; ")
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.slow
def test_the_remedy_of_a_stopped_experiment_resumes_it(cli, monkeypatch):
    pytest.importorskip("lightning_fabric")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr("layerfreq.cli.reproduce.BarProgress.step", stop)
        status, _, error = cli("reproduce", "mlp", "--preset", "smoke", "--seed", 0)
    assert (status, error.count("\n")) == (130, 1)
    command = shlex.split(error.partition("resume with: ")[2])
    assert command[-3:] == ["--resume", "--out", "runs/mlp-smoke"]
    assert cli(*command[1:])[0] == 0
    assert sorted(set(Run("runs/mlp-smoke/seed-0").spectra["step"])) == [0, 10, 20]


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    code = "from layerfreq.cli import main; main()"
    env = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-c", code, "--help"]
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(("title", "said"), [("median\nraw", True), ("raw_median\nheads at raw scale", False)])
def test_only_frequencies_are_said_to_be_in_their_unit(capsys, title, said):
    _show(Table(["layer", title], [["hidden1", "0.5"]], []), None)  # a correlation with a median has no unit
    assert ("In 1/δ" in capsys.readouterr().out) is said
