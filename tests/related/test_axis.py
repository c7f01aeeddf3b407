"""Frequencies along an axis: waves whose spectra are known, white noise, and what is no axis."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Run
from layerfreq.related import axis_frequencies, plot_axis_frequencies, run_axis_frequencies
from layerfreq.runs.weights import keep_weights
from tests.helpers.refusals import Code, refuses

T = torch.arange(64.0)


def wave(k):
    return torch.sin(2 * torch.pi * k * T / 64)


class Same(nn.Module):
    """Hands on its input, through a layer with a name."""

    def __init__(self):
        super().__init__()
        self.on = nn.Identity()

    def forward(self, x):
        return self.on(x).flatten(1).sum(dim=1, keepdim=True)


def test_one_wave_and_two_by_hand():
    # 32 frequencies. One wave has all in one: p = sqrt(32), f = k / 64. Two of one size: p = sqrt(16).
    x = torch.stack([wave(4) + 7, wave(8) + wave(24)])[None].repeat(3, 1, 1)
    row = axis_frequencies(Same(), x, ["on"]).iloc[0]
    a, b = math.sqrt(32), math.sqrt(16)
    assert row["peak"] == pytest.approx((a + b) / 2, rel=1e-5)
    assert row["focus"] == pytest.approx(((a - b) / 2) ** 2, rel=1e-4)
    assert row["centroid"] == pytest.approx((4 / 64 + 16 / 64) / 2, rel=1e-5)
    assert (row["channels"], row["length"], row["silent"]) == (2, 64, 0)
    assert math.isnan(row["change"])


def test_white_noise_is_as_shuffled_positions_and_its_centroid_is_in_the_middle():
    row = axis_frequencies(Same(), torch.randn(50, 8, 64, generator=torch.Generator().manual_seed(0)), ["on"]).iloc[0]
    for name in ("peak", "centroid"):
        assert row[name] == pytest.approx(row[f"chance_{name}"], rel=0.03)
    assert row["centroid"] == pytest.approx(np.arange(1, 33).mean() / 64, rel=0.03)


def test_another_axis_other_positions_units_and_constant_channels():
    x = torch.stack([wave(4), wave(8) + wave(24), torch.full((64,), 3.0)])[None].repeat(2, 1, 1)
    one = axis_frequencies(Same(), x[:, :2], ["on"]).iloc[0]
    last = axis_frequencies(Same(), 1e4 * x.movedim(1, 2), ["on"], axis=1, channels=-1).iloc[0]
    picture = axis_frequencies(Same(), x[:, :, :, None].expand(2, 3, 64, 5), ["on"], axis=2).iloc[0]
    for other in (last, picture):
        assert other["silent"] == pytest.approx(1 / 3)
        for name in ("peak", "focus", "centroid"):
            assert other[name] == pytest.approx(one[name], rel=1e-4)


def test_layers_of_a_network_over_a_run(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 3, 5),
        nn.ReLU(),
        nn.Conv1d(3, 6, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(336, 4),
        nn.ReLU(),
        nn.Linear(4, 2),
    )
    x = torch.randn(20, 1, 64)
    run = Run.create(tmp_path / "run")
    keep_weights(run.path, 0, model)
    with torch.no_grad():
        model[0].weight.fill_(0.2)  # a mean of five: lower frequencies
        model[0].bias.fill_(1.0)
    keep_weights(run.path, 5, model)
    random = torch.get_rng_state()
    frame = run_axis_frequencies(run, model, x)
    assert torch.equal(random, torch.get_rng_state())
    assert list(zip(frame["step"], frame["layer"], frame["length"], strict=True)) == [
        (0, "1", 60), (0, "3", 56), (5, "1", 60), (5, "3", 56)
    ]  # fmt: skip
    assert list(frame.attrs["refused"]) == ["6"]
    smooth = frame[frame["step"] == 5].iloc[0]
    assert smooth["centroid"] < 0.7 * smooth["chance_centroid"]
    second = frame[frame["layer"] == "3"]
    first = frame[frame["layer"] == "1"]
    np.testing.assert_allclose(second["change"], second["focus"].to_numpy() - first["focus"].to_numpy())
    assert len(plot_axis_frequencies(frame).axes) == 2


def test_what_has_no_axis_is_one_line():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    for call, words in (
        (
            lambda: axis_frequencies(model, torch.randn(5, 4)),
            ("axis", Code.UNSUPPORTED),
        ),
        (lambda: axis_frequencies(model, torch.randn(5, 4), axis=0), ("axis", Code.VALUE)),
        (lambda: axis_frequencies(Same(), torch.ones(2, 3, 8), ["on"]), ("axis", Code.UNSUPPORTED)),
        (
            lambda: axis_frequencies(Same(), torch.stack([T, T / 0])[:, None], ["on"]),
            ("axis", Code.UNSUPPORTED),
        ),
    ):
        with refuses(*words):
            call()
