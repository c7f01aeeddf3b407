"""Whether deeper networks train in fewer steps: runs whose answer is known by construction."""

import numpy as np
import pytest

from layerfreq import Run
from layerfreq.verdict import expand, verdict
from layerfreq.verdict.speedup import judge_speed
from tests.helpers.medians import write_run
from tests.helpers.refusals import Code, refuses


def test_speed_over_depths(tmp_path):
    Run.create(tmp_path / "e", {"experiment": "depth", "error": 0.1})
    rng = np.random.default_rng(0)
    for seed in range(3):
        for layers in (3, 4, 5):
            tau = 400 / 2 ** (layers - 3) * 2 ** (0.05 * rng.standard_normal())
            losses = {step: np.exp(-step / tau) for step in range(0, 3000, 10)}
            write_run(tmp_path / "e" / f"layers-{layers}-seed-{seed}", {}, losses=losses)
        write_run(tmp_path / "e" / f"frequencies-2-seed-{seed}", {}, losses={0: 1.0, 9000: 0.09})
    found = verdict(tmp_path / "e").speed
    assert found.answer == "yes"
    assert found.effect == pytest.approx(-1, abs=0.2)
    assert "steps to a loss of 0.1 change by -5" in found.sentence
    missed = judge_speed(expand([tmp_path / "e"]), 1e-4)
    assert "did not reach it" in missed.sentence
    with refuses("error", Code.VALUE, "-1"):
        verdict(tmp_path / "e", error=-1.0)


def test_a_bound_decides_only_where_it_can(tmp_path):
    """Deeper runs that never arrive cannot show that depth is faster, whatever their last step was."""
    Run.create(tmp_path / "e")
    for seed in range(3):
        for layers, last in ((3, 1000), (4, 500), (5, 250)):
            losses = {0: 1.0, last + seed: 0.5 if layers == 5 else 0.05}
            write_run(tmp_path / "e" / f"layers-{layers}-seed-{seed}", {}, losses=losses)
    assert judge_speed(expand([tmp_path / "e"]), 0.1).answer == "undecided"


def test_depth_is_the_networks_and_not_the_number_of_measured_layers(tmp_path):
    import torch
    from torch import nn

    from layerfreq import Monitor
    from layerfreq.verdict.speedup import depth_of

    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    for hidden in (2, 4):
        layers = [part for _ in range(hidden) for part in (nn.Linear(3, 3), nn.Tanh())]
        model = nn.Sequential(*layers, nn.Linear(3, 1))
        for named in (None, ["1", "3"]):
            run = tmp_path / f"{hidden}-{named is None}"
            Monitor(model, x, x[:, 0] + 1, layers=named, run=run, inv_delta=[1.0, 2.0]).measure(0)
            assert depth_of(Run(run)) == hidden
            assert Run(run).config["points"] == 30
            assert Run(run).config["options"]["center"] is True
    unsaid = write_run(tmp_path / "unsaid", {0: [4, 2, 1]}, losses={0: 1.0})
    assert depth_of(unsaid) is None
    other = write_run(tmp_path / "other", {0: [4, 2]}, losses={0: 1.0})
    said = judge_speed(expand([unsaid, other])).sentence
    assert "none has both a known depth and a logged loss" in said
    assert "`hidden_layers`" in said
