"""Reports of runs that are unfinished, short, uneven or hostile: what is there is shown, as text."""

import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("plotly")

from layerfreq import Run
from layerfreq.data.scales import NAMES, SENTENCES, TITLES, explained
from layerfreq.data.validation import SCALES
from layerfreq.report import write_report
from tests.helpers.refusals import Code, refuses
from tests.helpers.rows import CASES

from .conftest import FACTOR, OTHER, at_step, frequency, make, measure, spectrum, until

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><b onmouseover=\'alert(3)\'>%{x}</b> <a href="javascript:alert(4)">go</a>',
    "<!-- <script> {{made}} \u2028 & &amp; $x$",
    "=HYPERLINK(1) " + "long " * 80,
    "\u202eقلب \u05d0\u05d1\u05d2 layer",
]


def plotted(page, name):
    """All text that a figure shows."""
    page.locator(f"#{name}").scroll_into_view_if_needed()
    until(page, f"document.getElementById('{name}').data")
    return page.locator(f"#{name} text").all_text_contents()


@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_names_render_as_text(see, tmp_path, width):
    folder = tmp_path / '<b>run<b> "quoted" & \u05d0\u05d1 <title><script>alert(5)'
    config = {"name": "<i>n</i></pre><script>alert(6)</script>", "seeds": ["<u>"], "environment": {"command": "<s>x"}}
    run = make(
        folder, HOSTILE, (0, 10), metrics=False, config=config, refused={"<em>r</em>": "<script>alert(7)</script>"}
    )
    run.log(0, **{"loss<script>alert(8)</script>": 1.0})
    run.log(10, **{"loss<script>alert(8)</script>": 0.5})
    run.flush()
    page = see(run.report(tmp_path / "report.html"), width)
    for part in ("map", "history"):
        plotted(page, part)
    forbidden = "img, [onmouseover], [onerror], a[href^='javascript'], svg a, em, u, s"
    assert page.locator(forbidden).count() == 0
    assert page.locator("script:not([type])").count() == 2  # the page's own, and Plotly
    assert folder.name in page.locator(".kicker").inner_text()
    assert page.title().startswith('<b>run<b> "quoted"')
    names = page.locator("#legend bdi").all_text_contents()
    assert names == HOSTILE
    assert page.locator("#focus option").nth(1).inner_text() == f"1 · {HOSTILE[0]}"
    shown = plotted(page, "map")
    assert [text for text in shown if text.startswith(("\u2068<img", '\u2068"><b ', "\u2068</scr", "\u2068<!--"))] != []
    isolated = [text for text in shown if text[0] == "\u2068" and text[-1] == "\u2069"]
    assert len(isolated) == len(HOSTILE)
    assert max(map(len, isolated)) <= 24
    assert "<script>alert(7)</script>" in page.locator(".refused").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cells = page.evaluate("columns().find((c) => c.name === 'layer').value(0)")
    assert cells == HOSTILE[0]
    assert page.evaluate("cell(runs[0].layers[4])").startswith("'=HYPERLINK")
    assert page.evaluate("cell('say \"a\", b')") == '"say ""a"", b"'


def test_a_run_that_is_still_written(see, tmp_path):
    run = make(tmp_path / "run", steps=(0, 10))
    (run.path / ".partial-1.parquet").write_bytes(b"half a measurement")
    page = see(run.report())
    at_step(page, "step 10")
    measure(run, 20, "abc")
    run.log(20, loss=0.1)
    run.flush()
    page = see(run.report())
    at_step(page, "step 20 3/3")
    assert "3 steps (0 .. 20)" in page.locator("#part-made").inner_text()


def test_a_single_measurement_and_no_metrics(see, tmp_path):
    page = see(make(tmp_path / "run", steps=(7,), metrics=False).report())
    assert page.locator("#play").is_disabled()
    assert page.locator("#step").is_disabled()
    assert "Only one measurement" in page.locator("#status").inner_text()
    assert plotted(page, "history")
    assert page.locator("#page").inner_text() == "6 rows, page 1 of 1"


@pytest.mark.filterwarnings("ignore:layer 'mean' cannot be measured")
def test_a_refused_layer_is_shown_with_its_reason(see, tmp_path):
    import torch
    from torch import nn

    from layerfreq import Monitor

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.mean, self.b = nn.Linear(3, 4), nn.ReLU(), nn.Sigmoid(), nn.Linear(4, 1)

        def forward(self, x):
            x = self.act(self.a(x))
            return self.b(x + self.mean(x.mean()))

    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    monitor = Monitor(Odd(), x, x[:, 0], run=tmp_path / "run")
    refused = monitor.measure(0).refused
    assert list(refused) == ["mean"]
    assert monitor.run.spectra.attrs["refused"] == refused
    page = see(monitor.run.report())
    said = page.locator(".refused").inner_text()
    assert "mean" in said
    assert refused["mean"] in said


def test_two_runs_with_different_layers_stand_side_by_side(see, tmp_path):
    runs = [make(tmp_path / "two", ("x", "y"), (0, 10)), make(tmp_path / "four", "pqrs", (0, 5, 20))]
    page = see(write_report(runs))
    assert (tmp_path / "two" / "report.html").exists()
    assert page.locator("#run option").all_inner_texts() == ["two", "four"]
    page.locator("#run").select_option("1")
    assert page.locator("#legend bdi").all_inner_texts() == list("pqrs")
    at_step(page, "step 5 2/3", "step 20 3/3")
    text = plotted(page, "compare")
    assert "depth" in text
    page.locator("#threshold").fill("0.5")
    page.locator("#threshold").press("Tab")
    steps = "document.getElementById('compare').data.find((d) => d.xaxis === 'x2')"
    assert page.evaluate(f"[{steps}.x, {steps}.y]") == [[2, 4], [10, 14]]  # 2 x 0.9^step: not by 10, at 14
    assert page.evaluate(f"{steps}.marker.symbol") == ["triangle-up-open", "circle"]
    page.locator("#metric").select_option("accuracy")
    page.locator("#threshold").fill("0.5")
    page.locator("#threshold").press("Tab")
    assert page.evaluate(f"{steps}.y") == [6, 6]
    assert page.locator("#table th").first.inner_text().startswith("run")


def test_an_experiment_brings_its_seeds_and_one_verdict(see, tmp_path):
    top = Run.create(tmp_path / "e", {"experiment": "mlp", "seeds": [0, 1, 10]})
    for seed in (0, 10, 1):
        make(top.path / f"seed-{seed}", steps=(0, 10))
    page = see(top.report())
    assert page.locator("#run option").all_inner_texts() == ["seed-0", "seed-1", "seed-10"]
    assert page.locator("h1").inner_text() == "The deep frequency principle holds at raw and rms scale"
    assert page.locator(".card.yes").count() == 2
    at_step(page, "epoch 10")


def test_trainings_without_spectra_are_compared_by_their_steps(see, tmp_path):
    top = Run.create(tmp_path / "e", {"experiment": "depth"})
    for layers in (3, 10):
        run = Run.create(top.path / f"layers-{layers}-seed-0")
        for step in range(5):
            run.log(step, loss=1.0 / (1 + layers * step))
        run.flush()
    page = see(top.report())
    assert page.locator("#part-spectra").is_hidden()
    assert "only training curves" in page.locator("#status").inner_text()
    assert "depth" in plotted(page, "compare")
    assert page.evaluate("document.getElementById('compare').data[0].x") == [3, 10]
    assert "Does depth shorten training" in page.locator(".lede").last.inner_text()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scales", [("rms",), *CASES], ids="+".join)
def test_a_page_has_the_measured_scales_and_opens_with_the_papers(see, tmp_path, scales, width):
    page = see(make(tmp_path / "run", scales=scales).report(), width)
    shown = [scale for scale in SENTENCES if scale in scales]
    assert page.locator('#controls label:has([name="scale"])').all_inner_texts() == [NAMES[scale] for scale in shown]
    assert page.locator('[name="scale"]').first.is_checked()
    for i, scale in enumerate(shown):
        if i:
            page.keyboard.press("ArrowRight")
        else:
            page.locator('[name="scale"]').first.focus()
        assert page.locator("#scale-says").inner_text() == explained(scale)
        page.locator("#spectra").scroll_into_view_if_needed()
        until(page, f"state.scale === {SCALES.index(scale)} && document.getElementById('spectra').data?.length > 3")
        for figure in ("map", "history"):
            plotted(page, figure)
            assert page.evaluate(f"document.getElementById('{figure}').data.some((d) => d.y.some((v) => v > 0))")
        median = page.evaluate("document.getElementById('history').data[0].y[3]")
        k = frequency(30, 1) * (OTHER if scale == "maxabs" else 1)
        assert median == pytest.approx(k**2 / np.log(2) * (FACTOR if scale == "rms" else 1), rel=1e-2)
    for scale in SENTENCES:  # all are explained, measured or not
        assert explained(scale) in page.locator("#part-read").inner_text()
    cards = page.locator(".card h2").all_inner_texts()
    assert cards == [TITLES[scale] for scale in shown]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#page").inner_text().startswith(f"{12 * len(scales)} rows")


def test_runs_of_different_scales_stand_side_by_side(see, tmp_path):
    runs = [make(tmp_path / name, "vwxyz", scales=scales) for name, scales in zip("abc", CASES, strict=True)]
    page = see(write_report(runs))
    said = "2 of 2 at maxabs scale, the paper's, 2 of 2 at raw scale, 2 of 2 at rms scale"
    assert page.locator("h1").inner_text().endswith(said)
    assert page.locator(".verdicts td.quiet").count() == 1 + 2  # a has no maxabs, b neither raw nor rms
    at_step(page, "step 30")
    lines = "document.getElementById('compare').data.filter((d) => d.xaxis === 'x').length"
    for run, without in ((0, "b"), (1, "a"), (2, "a")):
        page.locator("#run").select_option(str(run))
        plotted(page, "compare")
        assert page.evaluate(lines) == 2
        until(page, f"document.getElementById('compare-without').textContent.endsWith('scale: {without}')")
        plotted(page, "spectra")
        assert page.evaluate("document.getElementById('spectra').data.length") > 3


@pytest.mark.parametrize("width", [390, 420])
def test_verdicts_of_many_kinds_are_read_on_a_narrow_screen_without_scrolling(see, tmp_path, width):
    runs = [make(tmp_path / name, "vwxyz", scales=scales) for name, scales in zip("abc", CASES, strict=True)]
    page = see(write_report(runs), width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".verdicts").evaluate("(e) => e.getBoundingClientRect().right <= innerWidth")
    named = page.locator(".verdicts td").evaluate_all(
        "(all) => all.map((e) => getComputedStyle(e, '::before').content)"
    )
    assert set(named) == {f'"{title}"' for title in TITLES.values()}


def test_many_layers_are_thinned_until_all_are_asked_for(see, tmp_path):
    page = see(make(tmp_path / "run", [f"l{i}" for i in range(30)], (0, 10)).report())
    assert page.locator("#legend button").count() == 12
    page.locator("#all").press("Space")
    assert page.locator("#legend button").count() == 0
    until(page, "document.getElementById('spectra').data.at(-1).x.length === 30")
    page.locator("#focus").select_option("7")
    assert (
        page.evaluate(
            "document.getElementById('spectra').data.filter((d) => d.line?.width === 3 && d.yaxis === 'y').length"
        )
        == 1
    )


def test_two_kinds_of_run_are_compared_layer_by_layer(see, tmp_path):
    """Two seeds a side; the second side's waves have twice the frequency, which is two octaves of 1/delta."""
    for case, factor in (("slow", 1.0), ("<b>fast", 2.0)):
        for seed, off in ((0, 1.0), (1, 1.01)):
            run = Run.create(tmp_path / f"{case}-seed-{seed}")
            frame = spectrum(2 * factor * off).to_frame().assign(layer="<i>a", depth=1, scale="raw")
            frame.attrs = {"n": 500, "rows": 200, "floor": 0.1}
            run.write_spectra(5, frame)
    runs = sorted(tmp_path.iterdir(), key=lambda path: path.name.startswith("<"))
    page = see(write_report(runs, tmp_path / "report.html"))
    page.locator("#part-compare summary").click()
    assert "step 5: <b>fast compared with slow" in page.locator("#part-compare summary").inner_text()
    cells = page.locator(".compared tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[:2] == ["<i>a", "raw"]
    assert float(cells[2]) == pytest.approx(4 * 1.01 / np.log(2), rel=1e-2)
    assert (cells[4], cells[6]) == ("+2.00", "higher")
    low, high = (float(one.replace("−", "-")) for one in cells[5].split(" to "))
    assert 1.9 < low < 2 < high < 2.1
    one = see(write_report(runs[:2], tmp_path / "report.html"))
    assert one.locator(".compared").count() == 0  # two seeds of one kind


def test_unresolved_medians_are_marked_in_table_and_figures(see, tmp_path):
    """Windows hold a second point below 1/delta = 20: the medians, k^2 / ln 2, come below it as training goes on."""
    for name in ("one", "two"):
        run = Run.create(tmp_path / name)
        for step in (0, 10, 20, 30):
            one = spectrum(frequency(step, 1))
            one = replace(one, neighbours=1 + 20 / one.inv_delta)
            frame = one.to_frame().assign(layer="a", depth=1, scale="raw")
            frame.attrs = {"n": 500, "rows": 200, "floor": 0.1}
            run.write_spectra(step, frame)
    page = see(write_report([Run(tmp_path / "one"), Run(tmp_path / "two")], tmp_path / "report.html"))
    expected = [frequency(step, 1) ** 2 / np.log(2) > 20 for step in (0, 10, 20, 30)]
    assert sorted(set(expected)) == [False, True]
    plotted(page, "history")
    drawn = page.evaluate("document.getElementById('history').data[0].marker.symbol")
    assert [symbol.endswith("-open") for symbol in drawn] == expected
    plotted(page, "compare")
    drawn = page.evaluate("document.getElementById('compare').data[0].marker.symbol")
    assert [symbol.endswith("-open") for symbol in drawn] == expected[-1:]
    place = page.locator("#table th").all_inner_texts().index("median")
    cells = [row.locator("td").nth(place).inner_text() for row in page.locator("#table tbody tr").all()]
    assert [cell.endswith("*") for cell in cells[:4]] == expected


def test_nothing_to_report_is_one_line(tmp_path, monkeypatch):
    empty = Run.create(tmp_path / "empty")
    only = Run.create(tmp_path / "only")
    only.log(0, loss=1.0)
    only.flush()
    for run in (empty, only):
        with refuses("run", Code.MISSING):
            run.report()
        assert not (run.path / "report.html").exists()
    run = make(tmp_path / "run", steps=(0,))
    with refuses("out", Code.EXISTS):
        run.report(tmp_path)
    with refuses("out", Code.MISSING):
        run.report(tmp_path / "none" / "report.html")
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with refuses("report", Code.PACKAGE):
        run.report()


def test_the_command_prints_where_the_page_is(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning_fabric")
    from layerfreq.cli.program import main

    make(tmp_path / "run", steps=(0,))
    out = tmp_path / "page.html"
    monkeypatch.setattr("sys.argv", ["layerfreq", "report", str(tmp_path / "run"), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("raw scale, 1/δ from")
    assert said[-1] == str(out)
    monkeypatch.setattr("sys.argv", ["layerfreq", "report", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
