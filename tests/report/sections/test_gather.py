"""Which sections a report has, and how it says which ones it has not: none of them ends it."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("plotly")
pytest.importorskip("safetensors")

from layerfreq.errors import InputError
from layerfreq.report import write_report
from layerfreq.report.sections import gather
from layerfreq.runs.weights import keep_weights, weights_at

from ..conftest import make, until
from .conftest import in_time, keep, of_images, waves


def text_of(path):
    return path.read_text(encoding="utf-8")


def missing(path):
    """What the page says is not shown."""
    said = text_of(path).partition('id="missing">')[2].partition("<")[0]
    return said.replace("&#x27;", "'")


def kinds(path):
    return [kind for kind in gather.SECTIONS if f'data-kind="{kind}"' in text_of(path)]


def test_a_network_its_points_and_kept_weights_make_the_sections(tmp_path):
    run, model, (x, y) = keep(tmp_path / "run", in_time()), in_time().train(), waves()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    told = []
    page = write_report(run, model=model, inputs=x, targets=y, tell=lambda *one: told.append(one))
    assert kinds(page) == ["changes", "axis", "suspects"]
    assert missing(page) == "Not shown: image frequency (inputs are not images)."
    assert [one[:2] for one in told] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    batches = [(x[:40].numpy(), y[:40].numpy()), (x[40:].numpy(), y[40:].numpy())]
    assert kinds(write_report(run, model=model, inputs=batches)) == ["changes", "axis", "suspects"]
    page = write_report(run, model=model, inputs=x)
    assert kinds(page) == ["changes", "axis"]
    assert "suspects (no targets, one per point)" in missing(page)


def test_without_weights_or_a_network_one_line_says_so(tmp_path):
    said = "Not shown: changes of the outputs, frequencies along an axis, image frequency and suspects "
    assert missing(make(tmp_path / "bare").report()) == said + f"({gather.NO_WEIGHTS})."
    run = keep(tmp_path / "run", in_time())
    page = run.report()
    assert missing(page) == said + f"({gather.NO_NETWORK})."
    assert kinds(page) == []

    def rebuild(_):
        raise InputError("data: nowhere; name another")

    assert missing(write_report(run, rebuild=rebuild)) == said + "(data: nowhere; name another)."


def test_a_section_that_fails_is_named_and_the_others_are_there(tmp_path, monkeypatch):
    def fail(trained):
        raise RuntimeError("a <b>fault</b>\nof somebody's")

    monkeypatch.setitem(gather.SECTIONS, "axis", fail)
    run, (x, y) = keep(tmp_path / "run", in_time()), waves()
    page = write_report(run, model=in_time(), inputs=x, targets=y)
    assert kinds(page) == ["changes", "suspects"]
    assert "axis (RuntimeError: a &lt;b&gt;fault&lt;/b&gt;); " in text_of(page)


def test_damaged_weights_end_no_report(tmp_path):
    run, (x, y) = keep(tmp_path / "run", in_time()), waves()
    weights_at(run.path, 10).write_bytes(b"half")
    with pytest.warns(UserWarning, match="the report leaves out the weights"):
        page = write_report(run, model=in_time(), inputs=x, targets=y)
    assert kinds(page) == ["changes", "suspects"]
    assert "step-000000000010.safetensors' is damaged" in missing(page)
    weights_at(run.path, 20).write_bytes(b"half")
    with pytest.warns(UserWarning, match="the report leaves out the weights"):
        assert kinds(write_report(run, model=in_time(), inputs=x, targets=y)) == []
    diverged = in_time()
    diverged[0].bias.data[0] = torch.nan
    keep_weights(run.path, 30, diverged)
    with pytest.warns(UserWarning, match="the report leaves out the weights"):
        page = write_report(run, model=in_time(), inputs=x, targets=y)
    assert "(run: '0.bias' is NaN or infinite in the weights" in missing(page)


def test_a_network_that_is_not_the_runs_or_takes_other_inputs_is_refused(tmp_path):
    run, (x, y) = keep(tmp_path / "run", in_time()), waves()
    for options, words in (
        ({"model": nn.Linear(3, 2), "inputs": x}, "another model"),
        ({"model": in_time(), "inputs": x[:, 0, :3]}, "does not run on"),
        ({"model": in_time(), "inputs": x, "targets": y[:5]}, "targets: 5 entries for 60 inputs"),
        ({"model": in_time()}, "model: given without inputs"),
        ({"targets": y}, "model: given without inputs"),
        ({"model": in_time(), "inputs": x, "targets": ["a"] * 60}, "targets: "),
        ({"model": in_time(), "inputs": x, "rebuild": print}, "rebuild: .* together with a model"),
        ({"rebuild": 3}, "rebuild: 3"),
    ):
        with pytest.raises(InputError, match=words):
            write_report(run, **options)
    assert not (run.path / "report.html").exists()


def test_of_many_trainings_the_first_of_each_kind_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "TRAININGS", 2)
    runs = [keep(tmp_path / name, in_time()) for name in ("a-seed-0", "a-seed-1", "b-seed-0")]
    x, y = waves()
    page = write_report(runs, model=in_time(), inputs=x, targets=y)
    said = text_of(page).partition('data-kind="suspects"')[2].partition("</section>")[0]
    assert ['data-run="0"' in said, 'data-run="1"' in said, 'data-run="2"' in said] == [True, False, True]
    assert "suspects of a-seed-1 (limited to 2 trainings" in missing(page)


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1440, "light")])
def test_the_page_draws_them_for_the_run_that_is_chosen(see, tmp_path, images, width, theme):
    runs = [keep(tmp_path / "one", of_images()), keep(tmp_path / "two", of_images(), (0,))]
    x, y = images
    own = SimpleNamespace(inputs=x, targets=y, fresh=lambda seed: of_images())
    page = see(write_report(runs, rebuild=lambda run: own), width, color_scheme=theme)
    for kind in ("axis", "images", "suspects"):
        page.locator(f"#{kind}").scroll_into_view_if_needed()
        until(page, f"document.getElementById('{kind}').data")
    drawn = page.evaluate(
        "['axis', 'images', 'suspects'].map((id) => document.getElementById(id).data.map((d) => d.type))"
    )
    assert drawn == [["scatter"] * 4, ["heatmap"] * 3, ["scatter"] * 2]
    assert page.locator("#part-changes tbody tr").count() == 2
    assert page.locator("#images-key li").inner_text().endswith("rise of the loss")
    assert page.locator("#suspects-key li").count() == 2
    assert page.locator("[data-kind] .scroll:not([tabindex='0'])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("choose(1)")  # which kept the weights of one step: no changes, and layers along the axis
    assert not page.locator("#part-changes").is_visible()
    assert page.locator("#part-axis").is_visible()
    assert page.locator("[data-run='0']:visible").count() == 0
    page.locator("#axis").scroll_into_view_if_needed()
    until(page, "document.getElementById('axis').data[0].x.length === 1")
    assert "changes of the outputs of two (weights of one step only)" in page.locator("#missing").inner_text()
