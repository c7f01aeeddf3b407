"""Controls of the study of cause: what mathematics fixes holds in a small run, and the page says what its data say."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("lightning_fabric")
pytest.importorskip("safetensors")

from layerfreq import Run
from layerfreq.experiments import NAMES, Request, controls, experiment
from layerfreq.experiments.figures.controls_summary import as_table, judge_controls
from layerfreq.measure.measure import spectrum
from layerfreq.runs.files import UNITS

DOCS = Path(__file__).parents[2] / "docs"


SMALL = replace(controls.PRESETS["smoke"], images=100, hidden=2, cuts=(0, 2), budget=200, points=200, wave_budget=200)


def run(out, resume=False):
    controls.run(SMALL, Request(out=out, seeds=[1], preset="smoke", resume=resume))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("controls") / "run"
    run(out)
    return out


def test_what_mathematics_fixes_holds_in_a_small_run(smoke):
    frame = controls.read(smoke)
    found = [one for one in judge_controls(frame) if one.control.startswith(("rotated", "rescaled", "shuffled"))]
    found = [one for one in found if "differ by more" not in one.expected]  # heads of both may stop at the budget
    assert len(found) == 8
    assert [one for one in found if not one.holds] == []
    compared = frame[(frame["control"] == "invariance") & (frame["rule"] == "best")]
    assert compared["censored"].mean() < 0.3  # heads that all stop at the budget would agree whatever they did


def test_moved_features_change_nothing_at_rms_scale_and_much_at_raw_scale(smoke):
    """The same from the rows, without the judge."""
    frame = controls.read(smoke)
    own = frame[(frame["control"] == "invariance") & (frame["head"] == "hidden-1")]
    keys = ["cut", "rule", "head_seed"]
    for case in ("rotated", "rescaled", "all"):
        for scale in ("rms", "raw"):
            both = [own[(own["scale"] == scale) & (own["case"] == name)].set_index(keys) for name in ("plain", case)]
            if len(both[1]) == 0:
                assert (scale, case) == ("raw", "all")
                continue
            steps = (both[1]["steps"] / both[0]["steps"]).to_numpy(dtype=float)
            medians = (both[1]["median"] / both[0]["median"]).to_numpy(dtype=float)
            same = scale == "rms" or case == "rotated"
            np.testing.assert_allclose(medians, 1.0 if same else 1 / controls.FACTOR**2, rtol=1e-6)
            assert np.allclose(steps, 1, rtol=1e-3) == same


def test_resumed_it_trains_what_is_missing_and_is_the_same(smoke):
    before = controls.read(smoke)
    (smoke / "cells" / "seed-1-labels.parquet").unlink()
    kept = (smoke / "cells" / "seed-1-waves.parquet").stat().st_mtime_ns
    run(smoke, resume=True)
    assert (smoke / "cells" / "seed-1-waves.parquet").stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(controls.read(smoke), before)
    head, rows, files, _ = controls.present(smoke, [1])
    assert (len(head), len(rows)) == (4, 19)
    assert all(file.is_file() for file in files)
    assert as_table(judge_controls(pd.read_csv(smoke / "controls.csv"))) == (head, rows)
    assert Run(smoke).config["experiment"] == "controls"


@pytest.mark.parametrize("k", [0.7, 2.0, 5.0])
def test_the_closed_form_is_that_of_the_filter(k):
    """By quadrature: over the wave's own axis, a filtered Gaussian density times the wave."""
    u = controls.closed_form(k)
    z = np.linspace(-9, 9, 3001)
    density = np.exp(-(z**2) / 2)
    filters = np.exp(-((z[:, None] - z) ** 2) * u / 2) * density
    low = (filters @ np.sin(k * z)) / filters.sum(axis=1)
    assert density @ low**2 / (density @ np.sin(k * z) ** 2) == pytest.approx(0.5, abs=1e-4)
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    assert abs(math.log2(spectrum(x, torch.sin(k * x)).median / u)) < 0.15


def test_what_a_step_is_called_is_what_the_experiment_says():
    for name in NAMES:
        assert UNITS.get(name, "step") == experiment(name).UNIT


def test_the_page_says_what_its_data_say():
    frame = pd.read_csv(DOCS / "data" / "cause" / "controls.csv")
    text = (DOCS / "cause-controls.md").read_text()
    assert sorted(frame["seed"].unique()) == [0, 1, 2, 3, 4]
    found = judge_controls(frame)
    head, rows = as_table(found)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table == [f"| {' | '.join(row)} |" for row in (head, ["---"] * 4, *rows)]
    holding = sum(one.holds for one in found)
    assert f"{holding} of {len(found)} expectations" in text
    best = frame[frame["rule"] == "best"]
    labels, waves = best[best["control"] == "labels"], best[best["control"] == "waves"]
    late = labels[labels["censored"]].groupby(["network", "case"]).size()
    assert f"{late['trained', 'shuffled']} of {len(labels) // 4} heads" in text
    assert f"{late['random', 'shuffled']} of {len(labels) // 4} above the random one" in text
    assert late.index.get_level_values("case").unique().tolist() == ["shuffled"]
    assert f"{waves['censored'].sum()} of {len(waves)} heads" in text
    true = labels[labels["case"] == "true"]
    assert f"{true['steps'].min():.1f} to {true['steps'].max():.1f} steps" in text
    hidden = frame[(frame["control"] == "labels") & (frame["case"] == "true") & (frame["cut"] > 0)]
    means = hidden.groupby(["rule", "network", "cut", "seed"])["steps"].mean()
    ratio = means.xs("trained", level="network") / means.xs("random", level="network")
    assert f"{ratio['fixed'].min():.2f} to {ratio['fixed'].max():.2f} times" in text
    more = ratio["best"][ratio["best"] >= 1]
    assert more.index.tolist() == [(1, 0), (1, 1), (1, 3)]  # layer 1, seeds 0, 1 and 3, as the page says
    assert waves["resolution"].min() > 3 * waves["median"].max()


def test_a_preset_that_there_is_not_is_one_line(monkeypatch, capsys):
    from layerfreq import cli

    monkeypatch.setattr("sys.argv", ["layerfreq", "reproduce", "controls", "--preset", "paper"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "layerfreq: preset: unknown 'paper'; known are: smoke, small\n"
