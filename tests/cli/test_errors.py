"""`layerfreq errors FILE` as a user meets it."""

import json

import numpy as np
import pandas as pd
import pytest

from layerfreq import error_spectrum

T = np.arange(64) / 64
Y = np.sin(2 * np.pi * T) + np.sin(2 * np.pi * 7 * T)
OUT = np.sin(2 * np.pi * T)


@pytest.fixture
def cli(cli):
    return lambda *args: cli("errors", *args)


def saved(folder, **arrays):
    path = folder / "net.npz"
    np.savez(path, **arrays)
    return path


def test_errors_of_a_file(cli, tmp_path):
    status, out, said = cli(saved(tmp_path, inputs=T, targets=Y, outputs=OUT), "--out", tmp_path / "o")
    assert (status, said) == (0, "")
    assert "ErrorSpectrum of 64 points in 1 dimensions (grid)" in out
    frame = pd.read_csv(tmp_path / "o" / "errors.csv")
    np.testing.assert_allclose(frame["error_energy"], error_spectrum(T, Y, OUT).error_energy, atol=1e-15)
    assert (tmp_path / "o" / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "o" / "errors.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("method", ["auto", "grid", "scattered", "filter", "projection"])
def test_json_is_for_programs(cli, tmp_path, method):
    path = saved(tmp_path, inputs=T, targets=Y, outputs=OUT)
    status, out, said = cli(path, "--json", "--method", method, "--out", tmp_path / "o")
    assert (status, said) == (0, "")
    found, expected = json.loads(out), error_spectrum(T, Y, OUT, method=method)
    assert found["method"] == expected.method
    assert found["learned"] == expected.learned()
    assert len(found["k"]) == len(found["relative"]) == len(expected.k)
    assert [one is None for one in found["relative"]] == np.isnan(expected.relative).tolist()


def test_rows_are_those_of_the_filter(cli, tmp_path):
    path = saved(tmp_path, inputs=T, targets=Y, outputs=OUT)
    status, out, _ = cli(path, "--json", "--method", "filter", "--rows", 20)
    assert status == 0
    stderr = np.array(json.loads(out)["stderr"], dtype=float)
    np.testing.assert_allclose(stderr, error_spectrum(T, Y, OUT, method="filter", rows=20).stderr)
    status, _, said = cli(path, "--method", "grid", "--rows", 20)
    assert status == 2
    assert "rows: not an option of method 'grid'" in said


def test_safetensors_too(cli, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    arrays = {"inputs": T, "targets": Y, "outputs": OUT}
    save_file({name: torch.from_numpy(value) for name, value in arrays.items()}, tmp_path / "net.safetensors")
    status, out, _ = cli(tmp_path / "net.safetensors", "--json")
    assert status == 0
    assert json.loads(out)["mse"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"outputs": None}, (), "no array 'outputs'"),
        ({"inputs": None}, (), "no array 'inputs'"),
        ({"targets": np.where(T > 0.5, np.nan, Y)}, (), "targets: NaN"),
        ({"outputs": OUT[1:]}, (), "outputs: 63 entries for 64 points"),
        ({"inputs": T**2}, ("--method", "grid"), "inputs: no regular grid"),
        ({}, ("--window", "hamster"), "window: 'hamster'"),
        ({}, ("--method", "fft"), "'fft'"),
    ],
)
def test_bad_input_is_one_line_and_status_two(cli, tmp_path, change, options, said):
    arrays = {
        name: value
        for name, value in {"inputs": T, "targets": Y, "outputs": OUT, **change}.items()
        if value is not None
    }
    status, out, error = cli(saved(tmp_path, **arrays), *options)
    assert (status, out) == (2, "")
    assert error.count("\n") == 1
    assert said in error
    assert "Traceback" not in error


def test_files_that_are_none(cli, tmp_path):
    assert cli(tmp_path / "none.npz")[0] == 2
    (tmp_path / "folder.npz").mkdir()
    for folder in (tmp_path, tmp_path / "folder.npz"):
        status, _, error = cli(folder)
        assert status == 2
        assert "it is a folder" in error
    (tmp_path / "net.csv").write_text("1,2\n")
    status, _, error = cli(tmp_path / "net.csv")
    assert status == 2
    assert "neither .npz nor .safetensors" in error


def test_a_file_in_the_way_of_the_results_is_told_before_anything_is_measured(cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
        status, said, error = cli(tmp_path / "none.npz", "--out", out)
        assert (status, said) == (2, "")
        assert "out: " in error
        assert "taken' is not a folder" in error
    assert (tmp_path / "taken").read_text() == "mine"
