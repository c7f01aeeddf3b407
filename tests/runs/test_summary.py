"""The table of layers: what of each measured scale stands where, and within a terminal's width."""

import io

import numpy as np
import pandas as pd
import pytest

from layerfreq import Run
from layerfreq.measure.result import Spectrum
from layerfreq.runs.summary import layer_table, summarise
from tests.helpers.rows import CASES

GRID = np.geomspace(1e-3, 1e4, 300)
WAVES = {"raw": 1.0, "rms": 2.0, "maxabs": 5.0}  # k of the first layer; the others' are its multiples


def wave(k, resolved):
    """The spectrum of sin(kx) in closed form: the RDF peaks at k^2 / 2, LFR is half at k^2 / ln 2."""
    lfr = np.exp(-(k**2) / GRID)
    curves = {"lfr": lfr, "rdf": k**2 / GRID**2 * lfr, "chance": 0 * GRID, "neighbours": 4 / (1 + GRID / resolved)}
    rest = {"stderr": None, "n": 9, "d": 1, "rows": 9, "scale": "raw", "floor": 0.0, "spread": 1.0, "engine": ""}
    return Spectrum(inv_delta=GRID.copy(), **curves, **rest)


def run_of(path, scales, steps=(0, 3, 800), layers=5, resolved=1e3):
    run, rng = Run.create(path), np.random.default_rng(0)
    for step in steps:
        parts = [
            wave(WAVES[scale] * depth, resolved)
            .to_frame()
            .assign(step=step, layer=f"hidden{depth}", depth=depth, scale=scale)
            for depth in range(1, layers + 1)
            for scale in scales
        ]
        frame = pd.concat(parts, ignore_index=True)
        frame = frame.iloc[rng.permutation(len(frame))]
        frame.attrs = {"n": 9, "rows": 9, "floor": 0.0}
        run.write_spectra(step, frame)
    return run


@pytest.mark.parametrize("scales", CASES, ids="+".join)
def test_the_numbers_are_those_of_the_closed_form_the_papers_scale_first(tmp_path, scales):
    head, rows = layer_table(summarise({7: run_of(tmp_path / "run", scales)}), "epoch")
    shown = [scale for scale in ("maxabs", "raw", "rms") if scale in scales]
    numbers = ["peak", "median", "limit"] if len(scales) < 3 else ["peak", "median"]
    assert head == ["seed", "epoch", "layer", *(f"{number}\n{scale}" for scale in shown for number in numbers)]
    assert [row[:3] for row in rows] == [["7", str(e), f"hidden{k}"] for e in (0, 800) for k in range(1, 6)]
    for row in rows:
        for title, cell in zip(head[3:], row[3:], strict=True):
            number, _, scale = title.partition("\n")
            k = WAVES[scale] * int(row[2][-1])
            expected = {"peak": k**2 / 2, "median": k**2 / np.log(2), "limit": 1e3}[number]
            assert float(cell) == pytest.approx(expected, rel=6e-3)


def test_three_scales_fit_into_80_columns(tmp_path):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    head, rows = layer_table(summarise({0: run_of(tmp_path / "run", CASES[2], resolved=1e-2)}), "epoch")
    assert all(cell.endswith("*") for row in rows for title, cell in zip(head, row, strict=True) if "peak" in title)
    stream = io.StringIO()
    table = Table(*head, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)  # as the command line prints it
    for row in rows:
        table.add_row(*row)
    Console(file=stream, width=80).print(table)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if "hidden" in line]) == len(rows)
    assert "…" not in stream.getvalue()


def test_a_scale_that_a_step_lacks_and_numbers_that_there_are_not_are_dashes(tmp_path):
    summary = summarise({0: run_of(tmp_path / "run", CASES[2], steps=(0, 1), layers=1)})
    partly = summary[(summary["step"] == 0) | (summary["scale"] == "raw")].astype({"median": object})
    partly.loc[(partly["step"] == 0) & (partly["scale"] == "rms"), "median"] = None
    first, last = layer_table(partly, "step")[1]
    assert first[-2:] == ["2", "-"]
    assert (last[3:5], last[7:]) == (["-", "-"], ["-", "-"])
