"""The command line as a user meets it; in this process where nothing needs one of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("lightning_fabric")

from layerfreq import spectrum
from layerfreq.cli.program import main
from tests.helpers.forked import context, started_server


@pytest.fixture
def undrawn(monkeypatch):
    """No figures, which take longer than all the rest."""
    monkeypatch.setattr("layerfreq.plots.save", lambda figure, folder, name: plt.close(figure) or [])


def process(*args):
    command = [sys.executable, "-c", "from layerfreq.cli.program import main; main()", *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def assert_one_line(result, *words):
    status, out, error = result
    assert status == 2, (out, error)
    assert len(error.strip().splitlines()) == 1
    for word in words:
        assert word in error


def saved(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_spectrum_of_a_file(cli, tmp_path):
    x = np.linspace(-1, 1, 200)[:, None]
    status, out, _ = cli("spectrum", saved(tmp_path, features=x, targets=np.sin(9 * x[:, 0])), "--out", tmp_path / "o")
    assert status == 0
    assert "median" in out
    frame = pd.read_csv(tmp_path / "o" / "spectrum.csv")
    assert frame["lfr"].iloc[-1] > 0.99
    assert (tmp_path / "o" / "spectrum.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scale", ["raw", "rms", "maxabs"])
def test_spectrum_of_a_file_at_a_scale(cli, tmp_path, scale):
    x = np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 100]
    status, out, _ = cli("spectrum", saved(tmp_path, features=x, targets=np.arange(100) % 3), "--scale", scale)
    assert status == 0
    expected = spectrum(x, np.arange(100) % 3, scale=scale)
    assert f"{scale} scale" in out
    assert f"{expected.median:.4g}" in out


@pytest.mark.parametrize(
    ("features", "targets", "words"),
    [
        (np.full((4, 2), np.nan), np.arange(4), ["features", "NaN"]),
        (np.full((4, 2), np.inf), np.arange(4), ["features", "infinite"]),
        (np.ones((4, 2)), np.arange(5), ["targets", "5 entries for 4"]),
        (np.ones((4, 2)), np.arange(4) - 1, ["targets", "class id -1"]),
        (np.ones((0, 2)), np.arange(0), ["features", "no data"]),
    ],
)
def test_bad_arrays_are_one_line(cli, tmp_path, features, targets, words):
    out = tmp_path / "o"
    assert_one_line(cli("spectrum", saved(tmp_path, features=features, targets=targets), "--out", out), *words)
    assert not out.exists()


def test_bad_files_are_one_line(cli, tmp_path):
    assert_one_line(cli("spectrum", tmp_path / "none.npz"), "no file")
    assert_one_line(cli("spectrum", saved(tmp_path, features=np.ones((3, 1)))), "targets")
    whole = saved(tmp_path, features=np.random.default_rng(0).normal(size=(99, 9)), targets=np.arange(99))
    whole.write_bytes(whole.read_bytes()[:500])
    assert_one_line(cli("spectrum", whole), "damaged")


def test_bad_data_folders_are_one_line_and_nothing_is_written(cli, tmp_path):
    out = tmp_path / "o"
    mlp = ("reproduce", "mlp", "--preset", "smoke", "--out", out, "--data")
    assert_one_line(cli(*mlp, tmp_path / "none"), "data", "no folder")
    folder = tmp_path / "images"
    folder.mkdir()
    assert_one_line(cli(*mlp, folder), "data", "Parquet")
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    assert_one_line(cli(*mlp, folder), "data", "cannot load")
    assert not out.exists()


def test_bad_options_are_one_line_and_nothing_is_written(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    sine = ("reproduce", "sine", "--preset", "smoke", "--out", tmp_path / "o")
    for options, words in (
        (("--device", "cuda"), ["no cuda device"]),
        (("--device", "tpu"), ["unknown 'tpu'"]),
        (("--seed", -1), ["seed"]),
        (("--seed", 3, "--seed", 3), ["seed", "different"]),
        (("--data", "digits"), ["makes its own data"]),
    ):
        assert_one_line(cli(*sine, *options), *words)
    for usage in (("reproduce", "sine", "--preset", "huge"), ("reproduce",), ("no-such-command",), ()):
        status, _, error = cli(*usage)
        assert status == 2
        assert "Value error" not in error
    assert not list(tmp_path.iterdir())


def test_output_folders(cli, tmp_path, undrawn):
    sine = ("reproduce", "sine", "--preset", "smoke", "--out")
    out = tmp_path / "o"
    assert cli(*sine, out)[0] == 0
    before = sorted(p.name for p in out.rglob("*"))
    assert_one_line(cli(*sine, out), "holds another run", "another --out, or --resume")
    assert_one_line(cli(*sine, out, "--resume", "--seed", 5), "holds another run", "seeds")
    assert sorted(p.name for p in out.rglob("*")) == before
    (tmp_path / "file").write_text("")
    assert_one_line(cli(*sine, tmp_path / "file" / "o"), "cannot write")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["sine", "depth", "mlp"])
def test_smoke_presets(cli, tmp_path, experiment):
    status, out, error = cli("reproduce", experiment, "--preset", "smoke", "--seed", 0, "--out", tmp_path / "o")
    assert status == 0, error
    pictures = list((tmp_path / "o" / "figures").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.with_suffix(".pdf").exists()
        assert picture.name in out.replace("\n", "")


def spectra(folder):
    return pd.read_parquet(folder / "seed-0" / "spectra").sort_values(["step", "layer", "scale", "inv_delta"])


def in_a_child(said, *args):
    """Run a command, its output in a file, without figures: what is killed is then at its training."""
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    sys.argv = ["layerfreq", *map(str, args)]
    with patch("layerfreq.plots.save", return_value=[]):
        main()


@pytest.mark.kill
def test_killed_and_resumed_mlp_ends_with_the_same_spectra(tmp_path):
    mlp = ("reproduce", "mlp", "--preset", "smoke", "--seed", 0, "--out")
    started_server()
    started = time.monotonic()
    whole = context.Process(target=in_a_child, args=(tmp_path / "said", *mlp, tmp_path / "whole"))
    whole.start()
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "said").read_text()
    duration = time.monotonic() - started
    rng = np.random.default_rng(0)
    ends = []
    for i in range(2):
        killed = context.Process(target=in_a_child, args=(tmp_path / "said", *mlp, tmp_path / "killed", "--resume"))
        killed.start()
        time.sleep(duration * rng.random())
        killed.kill()
        killed.join()
        ends.append(killed.exitcode)
        for part in Path(tmp_path / "killed").rglob("*.parquet"):
            if not part.name.startswith("."):
                assert len(pd.read_parquet(part)), (i, part)
    assert -signal.SIGKILL in ends
    last = process(*mlp, tmp_path / "killed", "--resume")
    assert last.communicate()[1] == ""
    assert last.returncode == 0
    pd.testing.assert_frame_equal(
        spectra(tmp_path / "whole").reset_index(drop=True), spectra(tmp_path / "killed").reset_index(drop=True)
    )
    assert not list((tmp_path / "killed").rglob(".partial-*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "--n", "x"], "'--n'"),
        (["bench", "--n", "0"], "greater than or equal to 2"),
        (["nonsense"], "No such command 'nonsense'"),
        (["reproduce"], "EXPERIMENT"),
        (["reproduce", "mlp", "--preset", "big"], "'big' is not one of"),
        (["doctor", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(cli, arguments, words):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("layerfreq: ")
    assert words in err
    assert err.rstrip().endswith("--help")
    assert err.count("\n") == 1


def test_without_a_command_it_shows_the_help(cli):
    status, out, err = cli()
    assert status == 2
    assert "analyze" in out + err
    assert cli("--help")[0] == 0


def test_a_warning_is_one_line_without_a_line_of_code(tmp_path):
    noise = 1e-7 * np.random.default_rng(0).standard_normal((50, 3))
    np.savez(tmp_path / "a.npz", features=(1 + noise).astype(np.float32), targets=np.arange(50) % 2)
    command = [sys.executable, "-m", "layerfreq", "spectrum", str(tmp_path / "a.npz")]
    said = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    assert len(said) == 1, said
    assert said[0].startswith("layerfreq: warning: features: they differ by little more than the rounding of float32")
