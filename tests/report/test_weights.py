"""What the report shows of the weights that a run kept, on weights that shrink by a half from step to step."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("plotly")
pytest.importorskip("safetensors")

from layerfreq.related import neuron_condensation, run_change
from layerfreq.report import weights, write_report
from layerfreq.report.weights import weight_map
from layerfreq.runs.weights import keep_weights, weights_at
from tests.helpers.refusals import Code, refuses

from .conftest import make, until

STEPS = (0, 10, 20, 30)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 1))


def keep(path, steps=STEPS):
    run, model = make(path), net()
    for step in steps:
        keep_weights(run.path, step, model)
        for p in model.parameters():
            p.data *= 0.5
    return run


def test_distances_and_similarities_in_closed_form(tmp_path):
    found, first = weight_map(keep(tmp_path / "a")), net()[0]
    assert found.layers == ["0", "2", "3"]
    left = (0.5 ** np.arange(4) - 0.5**3) / (1 - 0.5**3)
    np.testing.assert_allclose(found.distance, np.tile(left, (3, 1)), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.walk**2, [1, 2 / 3, 1 / 3, 0], atol=1e-12)
    expected = neuron_condensation(first.weight, first.bias)
    np.testing.assert_allclose(found.similarity[0], expected["similarity"])  # shrinking turns nothing
    assert found.chance[0] == expected["chance"]
    assert np.isnan(found.similarity[1:]).all()  # batch norm, and a single neuron


def test_few_steps_are_read_of_many_and_wide_layers_are_left_out(tmp_path, monkeypatch):
    run = keep(tmp_path / "a", range(20))
    monkeypatch.setattr(weights, "STEPS", 5)
    assert weight_map(run).steps.tolist() == [0, 5, 10, 14, 19]
    monkeypatch.setattr(weights, "PRODUCTS", 2 * 6 * 6 * 3)
    found = weight_map(run)
    assert np.isfinite(found.similarity[0]).tolist() == [True, False, False, False, True]
    monkeypatch.setattr(weights, "NUMBERS", 1)
    assert weight_map(run).steps.tolist() == [0, 10, 19]
    monkeypatch.setattr(weights, "WIDEST", 5)
    assert np.isnan(weight_map(run).similarity).all()


def test_without_three_steps_or_with_a_damaged_one_there_is_nothing_of_weights(tmp_path):
    assert weight_map(keep(tmp_path / "a", (0, 10))) is None
    run = keep(tmp_path / "b")
    weights_at(run.path, 10).write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"leaves out the weights in .*damaged"):
        assert weight_map(run) is None


def test_what_changed_is_what_run_change_says(tmp_path):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    run, model = keep(tmp_path / "a"), net()
    before = [value.clone() for value in model.state_dict().values()]
    said = write_report(run, model=model, inputs=x).read_text(encoding="utf-8")
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    rows = re.findall(r'<th scope="row">(\d+) to (\d+)</th><td>([^<]*)</td><td>([^<]*)</td>', said)
    cutoff = run_change(run, 30, 0, model, x).cutoff
    for (start, end), row in zip(pairwise(STEPS), rows, strict=True):
        found = run_change(run, start, end, model, x, cutoff)
        assert row == (str(start), str(end), f"{found.size:.3g}", f"{found.share:.2f}")
    assert "part-changes" not in run.report().read_text(encoding="utf-8")
    with refuses("model", Code.CONFLICT):
        write_report(run, model=model)
    with refuses("run", Code.CONFLICT):
        write_report(run, model=nn.Linear(3, 2), inputs=x)


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_draws_them(see, tmp_path, width):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    page = see(write_report(keep(tmp_path / "a"), model=net(), inputs=x), width)
    assert page.locator(".changes tbody tr").count() == 3
    page.locator("#weights").scroll_into_view_if_needed()
    until(page, "document.getElementById('weights').data")
    drawn = page.evaluate("document.getElementById('weights').data.map((d) => [d.yaxis, d.y])")
    left = [1, 3 / 7, 1 / 7, None]
    assert drawn[0] == ["y", [pytest.approx(one) if one else None for one in left]]
    assert [axis for axis, _ in drawn] == ["y", "y2", "y2", "y", "y", "y"]
    assert page.locator("#weights-key li").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
