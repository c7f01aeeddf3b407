"""Spark lines: what stands where, at 80 columns, without colour, and in ASCII."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from layerfreq import Run, error_spectrum
from layerfreq.measure.result import Spectrum
from layerfreq.report import terminal
from layerfreq.runs.errors import frame_of
from tests.helpers.rows import CASES


def wave(k, inv_delta=None, resolved=np.inf):
    """The spectrum of sin(kx) in closed form: LFR = exp(-k^2 / u), whose density per octave is highest at u = k^2."""
    u = np.geomspace(1e-3, 1e6, 400) if inv_delta is None else inv_delta
    lfr = np.exp(-(k**2) / u)
    neighbours = np.where(u <= resolved, 100.0, 1.0)
    curves = {"lfr": lfr, "rdf": k**2 / u**2 * lfr, "chance": 0 * u, "neighbours": neighbours}
    rest = {"stderr": None, "n": 9, "d": 1, "rows": 9, "scale": "raw", "floor": 0.0, "spread": 1.0, "engine": ""}
    return Spectrum(inv_delta=u.copy(), **curves, **rest)


def frame(layers, steps=(0, 10), scales=("raw", "rms")):
    """A run's `spectra` of sin(kx), k = layers[name][step]; at maxabs scale of sin(3kx)."""
    parts = []
    for depth, (name, ks) in enumerate(layers.items(), start=1):
        for step, k in zip(steps, ks, strict=True):
            for scale in scales:
                own = 3 * k if scale == "maxabs" else k
                parts.append(wave(own).to_frame().assign(step=step, layer=name, depth=depth, scale=scale))
    whole = pd.concat(parts, ignore_index=True)
    whole.attrs = {"n": 9, "rows": 9, "floor": 0.0}
    return whole


@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_median_and_the_top_are_where_the_closed_form_has_them(k):
    low, high, cells = -9.0, 19.0, 28  # a cell an octave
    line = terminal.spark(wave(k), low, high, cells)
    assert len(line) == cells
    assert line.index("│") == int(np.log2(k**2 / np.log(2)) - low)
    top = int(np.log2(k**2) - low)
    assert "█" in line[max(0, top - 1) : top + 2] or line[top] == "│"


def test_a_taller_block_is_a_higher_density():
    cells = terminal.spark(wave(1), -6.0, 10.0, 32)
    x = np.linspace(-6, 10, 33)[:-1] + 0.25
    density = 2.0**-x * np.exp(-(2.0**-x))
    levels = [(terminal.BLOCKS.index(c), d) for c, d in zip(cells, density, strict=True) if c != "│"]
    for (one, a), (other, b) in zip(levels, levels[1:], strict=False):
        assert (one - other) * (a - b) >= 0


def test_what_is_not_resolved_is_dotted():
    line = terminal.spark(wave(1, resolved=16.0), -6.0, 10.0, 16)
    assert set(line[10:]) == {"·"}
    assert "·" not in line[:10]


def test_unresolved_medians_have_a_star():
    """Windows of these hold a second point below 1/delta = 16: a median of k^2 / ln 2 is resolved up to k = 3."""
    parts = [
        wave(k, resolved=16.0).to_frame().assign(step=0, layer=f"k{k}", depth=k, scale="raw") for k in (1, 3, 4, 200)
    ]
    whole = pd.concat(parts, ignore_index=True)
    whole.attrs = {"n": 9, "rows": 9, "floor": 0.0}
    lines = terminal.view({"": whole}).splitlines()
    assert [line.endswith("*") for line in lines if line.startswith("k")] == [False, False, True, True]
    assert "* unresolved" in lines[-1]
    assert max(map(len, lines)) <= 80


def test_two_steps_stand_side_by_side_within_80_columns():
    names = {"conv": (30, 2), "a.very.long.name.of.a.block.17": (60, 1)}
    lines = terminal.view({"": frame(names)}, "epoch").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 * 4 + 2 + 1
    assert "epoch 0" in lines[1]
    assert "epoch 10" in lines[1]
    for line, (first, last) in zip(lines[2:4], names.values(), strict=True):
        medians = [float(word) for word in re.findall(r"(?<=\s)[\d.e+]+(?=\s|$)", line)]
        np.testing.assert_allclose(medians, np.array([first, last]) ** 2 / np.log(2), rtol=5e-3)


@pytest.mark.parametrize("scales", CASES, ids="+".join)
def test_every_measured_scale_is_shown_the_papers_first_and_explained(scales):
    given = frame({"a": (1, 2), "b": (3, 4)}, scales=scales)
    text = terminal.view({"": given})
    lines = text.splitlines()
    blocks = [line.split()[0] for line in lines if ", 1/δ from " in line]
    assert blocks == [scale for scale in ("maxabs", "raw", "rms") if scale in scales]
    assert [line.split(":")[0] for line in lines if ": " in line] == blocks
    assert ("the paper's" in text) == ("maxabs" in scales)
    assert max(map(len, lines)) <= 80
    for i, scale in enumerate(blocks):
        medians = [
            float(word) for word in re.findall(r"(?<=\s)[\d.e+]+(?=\s|$)", " ".join(lines[4 * i + 2 : 4 * i + 4]))
        ]
        k = np.array([1, 2, 3, 4]) * (3 if scale == "maxabs" else 1)
        np.testing.assert_allclose(medians, k**2 / np.log(2), rtol=5e-3)
    shuffled = given.sample(frac=1, random_state=0)
    assert terminal.view({"": shuffled}) == text


def test_several_runs_are_shown_at_the_first_scale_that_all_have():
    layers = {"a": (1, 2)}
    for others, expected in ((("raw", "rms"), ["raw", "raw"]), (("maxabs",), ["maxabs", "maxabs"])):
        runs = {"one": frame(layers, scales=("raw", "rms", "maxabs")), "two": frame(layers, scales=others)}
        shown = re.findall(r"^\w+, (\w+) scale", terminal.view(runs), re.MULTILINE)
        assert shown == expected
    apart = {"one": frame(layers), "two": frame(layers, scales=("maxabs",))}
    assert re.findall(r"^\w+, (\w+) scale", terminal.view(apart), re.MULTILINE) == ["raw", "maxabs"]


def test_without_block_characters_it_is_ascii_and_otherwise_the_same():
    layers = {"größe\x1b[31m": (3, 1), "b": (9, 1)}
    blocks, plain = (terminal.view({"": frame(layers)}, encoding=e) for e in ("utf-8", "ascii"))
    assert plain.isascii()
    assert plain.isprintable() or set(c for c in plain if not c.isprintable()) == {"\n"}
    assert "\x1b" not in blocks
    assert [line.count("|") for line in plain.splitlines()] == [line.count("│") for line in blocks.splitlines()]
    assert terminal.view({"": frame(layers)}, encoding=None) == plain


def test_many_layers_are_thinned_one_step_stands_alone_and_nothing_is_nothing():
    many = terminal.view({"": frame({f"l{i}": (i + 1,) for i in range(100)}, steps=(5,))})
    assert "8 of 100 layers" in many
    assert len(many.splitlines()) == 2 * (2 + 8) + 2 + 1
    assert max(map(len, many.splitlines())) <= 80
    assert terminal.view({"": pd.DataFrame()}) == ""


def test_an_experiment_shows_the_first_seed_of_each_case(tmp_path):
    Run.create(tmp_path / "e", {"experiment": "x"})
    for case, k in (("variant-2", 5), ("variant-10", 7)):
        for seed in (0, 1):
            run = Run.create(tmp_path / "e" / f"{case}-seed-{seed}")
            run.write_spectra(0, frame({"a": (k + seed,)}, steps=(0,)))
    text = terminal.view_of(tmp_path / "e", "step", "utf-8")
    assert [line.split(",")[0] for line in text.splitlines() if "scale" in line] == ["variant-2", "variant-10"]
    for k in (5, 7):
        assert f"{k**2 / np.log(2):.3g}" in text
    assert f"{6**2 / np.log(2):.3g}" not in text


T = np.arange(64) / 64
WAVES = {cycles: np.sin(2 * np.pi * cycles * T) for cycles in (1, 4)}


def errors(path, shares):
    """A run that has learned a share of waves of 1 and 4 cycles at each step, and measures no layers."""
    run = Run.create(path, {"layers": []})
    for step, (slow, fast) in shares.items():
        run.write_errors(step, error_spectrum(T, sum(WAVES.values()), slow * WAVES[1] + fast * WAVES[4], method="grid"))
    return run


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_are_lines_over_steps_within_80_columns(tmp_path, encoding):
    run = errors(tmp_path / "a", {0: (0, 0), 50: (0.5, 0), 100: (1, 0.5), 1000: (1, 2)})
    full, half, dot = ("█", "▄", "·") if encoding == "utf-8" else ("@", "=", "'")
    lines = terminal.view_of(run.path, "step", encoding).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "error by frequency (grid), k from 6.28 to 25.1"
    drawn = {line[:9].strip(): line[11:69] for line in lines[2:6]}
    ends = {step: (cells[0], cells[len(cells) // 2], cells[-1]) for step, cells in drawn.items()}
    assert ends == {
        "step 0": (full, dot, full),
        "step 50": (half, dot, full),
        "step 100": (" ", dot, half),
        "step 1000": (" ", dot, full),
    }
    assert [line.split()[-1] for line in lines[2:6]] == ["nowhere", "nowhere", "6.28", "6.28"]
    assert encoding == "utf-8" or "\n".join(lines).isascii()


def test_bands_of_one_cell_are_pooled_and_one_band_is_a_line():
    columns = {"k": [1.0, 1.01, 100.0], "target_energy": [1.0, 3.0, 1.0], "error_energy": [1.0, 0.0, 0.0]}
    rest = {"step": 0, "output": "all", "method": "grid", "relative": [1.0, 0.0, 0.0], "chance": 1.0, "stderr": 0.0}
    lines = terminal.view_errors({"": pd.DataFrame({**columns, **rest})}, width=len("step 0") + 10 + 13).splitlines()
    assert lines[2][8:18] == "▄         "  # sqrt(1 / 4) in the first cell; then the nearest band's, 1.01's and 100's
    one = terminal.view_errors({"": frame_of(0, error_spectrum(T, WAVES[4], 0 * T, method="grid"))})
    assert "k from 25.1 to 25.1" in one
    assert terminal.view_errors({"": frame_of(0, error_spectrum(T, 0 * T, WAVES[4], method="grid"))}) == ""
    assert terminal.view_errors({"": pd.DataFrame()}) == ""


def test_errors_of_several_runs_are_few_lines_each(tmp_path):
    Run.create(tmp_path / "e", {"experiment": "x"})
    for case in ("one", "two"):
        errors(tmp_path / "e" / f"{case}-seed-0", {step: (1, 0) for step in range(20)})
    lines = terminal.view_of(tmp_path / "e", "epoch", "utf-8").splitlines()
    assert [line for line in lines if "error by" in line] == [
        f"{case}, error by frequency (grid), k from 6.28 to 25.1" for case in ("one", "two")
    ]
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["0", "10", "19"] * 2


@pytest.mark.slow
def test_reproduce_ends_with_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning_fabric")
    from layerfreq import cli

    out = tmp_path / "o"
    monkeypatch.setattr("sys.argv", ["layerfreq", "reproduce", "sine", "--preset", "smoke", "--out", str(out)])
    with pytest.raises(SystemExit):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("RDF per octave")
    assert "sin(13πx)" in lines[-3]
    assert lines[-2].startswith("raw: ")
    assert all("\x1b" not in line and len(line) <= 80 for line in lines[-7:])


def test_a_plain_stream_gets_it_without_escape_codes():
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream).print(terminal.view({"": frame({"a[b]": (3, 1)})}), highlight=False, markup=False)
    assert "\x1b" not in stream.getvalue()
    assert "a[b]" in stream.getvalue()
