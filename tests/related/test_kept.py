"""Kept weights that are damaged, of another model, or NaN: one clear line, whichever measure reads them."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from layerfreq import Run
from layerfreq.errors import InputError
from layerfreq.related import layer_convergence, run_axis_frequencies, run_change, run_condensation
from layerfreq.related.kept import KeptWeights
from layerfreq.runs.weights import keep_weights, weights_at

X = torch.linspace(-1, 1, 160).reshape(20, 1, 8)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2))


def keep(path):
    run, model = Run.create(path), net()
    for step in range(4):
        keep_weights(run.path, step, model)
        for p in model.parameters():
            p.data *= 0.5
    return run


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def edited(change):
    def edit(path):
        state = load_file(path)
        change(state)
        save_file(state, path)

    return edit


FAULTS = {
    "truncated": (cut_short, "is damaged"),
    "key gone": (edited(lambda state: state.pop("3.bias")), "weights of another model"),
    "shape": (edited(lambda state: state.update({"3.weight": torch.ones(2, 1)})), "weights of another model"),
    "nan": (edited(lambda state: state["0.weight"].fill_(torch.nan)), "'0.weight' is NaN or infinite"),
    "inf": (edited(lambda state: state["3.bias"][:1].fill_(torch.inf)), "'3.bias' is NaN or infinite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_weights_are_one_line_for_every_measure(tmp_path, fault):
    run, (break_it, words) = keep(tmp_path / "run"), FAULTS[fault]
    break_it(weights_at(run.path, 1))
    for call in (
        lambda: run_change(run, 0, 1, net(), X, controls=1),
        lambda: run_change(run, 1, 2, net(), X, controls=1),
        lambda: layer_convergence(run),
        lambda: layer_convergence(run, net()),
        lambda: run_condensation(run),
        lambda: run_axis_frequencies(run, net(), X),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert words in str(caught.value)
        assert str(run.path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert run_axis_frequencies(run, net(), X, steps=[0, 3])["step"].tolist() == [0, 3]


def test_masks_are_not_weights(tmp_path):
    run, mask = Run.create(tmp_path / "run"), torch.full((3, 3), -torch.inf).triu(1)
    model = nn.Linear(2, 2)
    model.register_buffer("mask", mask)
    keep_weights(run.path, 0, model)
    assert list(KeptWeights(run).at(0)["(model)"]) == ["bias", "weight"]
