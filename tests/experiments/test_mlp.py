"""The fully connected network, as the authors' code trains it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric")

from layerfreq import Run
from layerfreq.experiments import Request, mlp
from tests.helpers.refusals import Code, refuses


def test_the_published_network():
    torch.manual_seed(0)
    model = mlp.network(784, 500, 5, 10, mlp.glorot_normal)
    linear = [m for m in model if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(784, 500), *[(500, 500)] * 4, (500, 10)]
    for m in linear:
        assert not m.bias.any()
        n = m.weight.numel()
        variance = 2 / (m.in_features + m.out_features)
        assert abs(float(m.weight.detach().var()) / variance - 1) < 6 * np.sqrt(
            2 / n
        )  # six standard errors of a variance
    assert isinstance(model[-1], torch.nn.Linear)


def test_the_error_is_a_mean_over_points_and_outputs():
    outputs, labels = torch.randn(7, 10, dtype=torch.float64), torch.arange(7)
    by_hand = sum((float(outputs[i, k]) - (labels[i] == k).item()) ** 2 for i in range(7) for k in range(10)) / 70
    assert float(mlp.squared_error(outputs, labels)) == pytest.approx(by_hand, rel=1e-12)


def test_presets_follow_the_published_code():
    paper, recipe = mlp.PRESETS["paper"], mlp.RECIPES["code"]
    assert all(preset.recipe == "code" and preset.rate is None for preset in mlp.PRESETS.values())
    assert (paper.images, paper.width, paper.hidden, paper.rows) == (30_000, 500, 5, None)
    assert paper.epochs == (0, 200, 400, 600, 800)
    assert (recipe.rate, recipe.decay, recipe.batch, recipe.stop_below) == (5e-5, 2e-5, None, 0.01)
    readme = mlp.RECIPES["readme"]
    assert (readme.rate, readme.decay, readme.batch, readme.stop_below) == (1e-5, 0, 256, 0.01)


@pytest.mark.parametrize("recipe", mlp.RECIPES)
def test_every_recipe_trains_and_is_measured_at_three_scales(tmp_path, recipe):
    config = mlp.Config(data="digits", images=60, width=16, hidden=2, epochs=(0, 3), recipe=recipe)
    mlp.run(config, Request(out=tmp_path / "e", seeds=[5]))
    run = Run(tmp_path / "e" / "seed-5")
    assert set(run.spectra["scale"]) == {"raw", "rms", "maxabs"}
    assert run.steps() == [0, 3]
    loss = run.metrics["loss"]
    assert loss.iloc[-1] < loss.iloc[0]
    with refuses("recipe", Code.UNKNOWN, "'coed'"):
        mlp.run(replace(config, recipe="coed"), Request(out=tmp_path / "f", seeds=[0]))
    assert not (tmp_path / "f").exists()


def test_a_training_ends_below_the_error(tmp_path):
    config = mlp.Config(data="digits", images=40, width=64, hidden=2, epochs=(0, 3000), rate=1e-3)
    mlp.run(config, Request(out=tmp_path / "e", seeds=[0]))
    run = Run(tmp_path / "e" / "seed-0")
    assert run.metrics["loss"].iloc[-1] < 0.01
    assert run.steps()[-1] == run.metrics["step"].iloc[-1] < 3000
