"""The report in a browser: every control does what it says, by mouse and by keyboard, and the numbers are the run's."""

import csv

import numpy as np
import pytest

pytest.importorskip("plotly")


from tests.helpers.rows import spectrum_of

from .conftest import FACTOR, at_step, frequency, make, until

LINES = "document.getElementById('%s').data"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def path(run):
    return run.report()


def drawn(page, name):
    """The RDF that is drawn for a layer: frequencies and densities."""
    return page.evaluate(
        """(name) => { const one = document.getElementById('spectra').data.find(
        (d) => d.yaxis === 'y' && d.hovertemplate && d.hovertemplate.includes(name));
        return [one.x.filter((v) => v !== null), one.y.filter((v) => v !== null)]; }""",
        name,
    )


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def measured(run, step, layer, scale="raw"):
    frame = run.spectra
    part = frame[(frame["step"] == step) & (frame["layer"] == layer) & (frame["scale"] == scale)]
    return spectrum_of(part, frame.attrs)


def test_the_slider_moves_by_keyboard_and_mouse_and_the_curves_are_the_runs(see, path, run):
    page = see(path)
    at_step(page, "step 30")
    for key, step in (("Home", 0), ("ArrowRight", 10), ("End", 30), ("ArrowLeft", 20)):
        page.locator("#step").press(key)
        settle(page)
        at_step(page, f"step {step} ")
        assert page.locator("#step").get_attribute("aria-valuetext") == f"step {step}"
        for layer in "abc":
            one = measured(run, step, layer)
            x, y = (np.array(values) for values in drawn(page, f"{layer}\u2069"))
            resolved = one.inv_delta <= one.resolution
            density = (one.rdf * one.inv_delta * np.log(2))[resolved]
            np.testing.assert_allclose(x, one.inv_delta[resolved], rtol=1e-6)
            np.testing.assert_allclose(y, density, atol=1e-4 * density.max())
    box = page.locator("#step").bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    settle(page)
    at_step(page, "step 0 ")


def test_play_goes_to_the_last_step_and_pause_stops_it(see, path):
    page = see(path, reduced_motion="no-preference")
    page.locator("#play").press("Enter")
    settle(page)
    assert page.locator("#play").inner_text().endswith("Pause")
    at_step(page, "step 0 ")
    until(page, "document.getElementById('now').textContent.startsWith('step 10')")
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-pressed") == "false"
    page.locator("#play").click()
    until(page, "document.getElementById('play').getAttribute('aria-pressed') === 'false'")
    at_step(page, "step 30")


def test_scale_and_axis_switches(see, path, run):
    page = see(path)
    raw = np.array(drawn(page, "b\u2069"))
    page.locator('[name="scale"][value="0"]').focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    rms = np.array(drawn(page, "b\u2069"))
    np.testing.assert_allclose(rms[0], raw[0] * FACTOR, rtol=1e-6)
    np.testing.assert_allclose(rms[1], raw[1], rtol=1e-6)
    page.locator('label:has([name="axis"][value="k"])').click()
    settle(page)
    x, density = np.array(drawn(page, "b\u2069"))
    np.testing.assert_allclose(x, np.sqrt(rms[0]), rtol=1e-6)
    np.testing.assert_allclose(density, 2 * rms[1], rtol=1e-6)
    top = x[np.argmax(density)]  # the wave sin(kx) peaks at k: at unit RMS features shrink by the root of the factor
    assert top == pytest.approx(np.sqrt(FACTOR) * frequency(30, 2), rel=0.12)
    area = np.trapezoid(density, np.log2(x))
    assert area == pytest.approx(0.9, abs=0.02)


def test_chance_floor_and_the_unresolved_range_are_drawn(see, path, run):
    page = see(path)
    found = page.evaluate(
        """() => { const figure = document.getElementById('spectra'),
          lines = figure.data.filter((d) => d.yaxis === 'y2');
        const [dashed, dotted] = ['5px,3px', '1.5px,3px'].map((dash) => lines.find((d) => d.line.dash === dash));
        return { chance: dashed.y, floor: dotted.y[0], shade: figure.layout.shapes[0].x0 }; }"""
    )
    one = measured(run, 30, "a")
    np.testing.assert_allclose(found["chance"][: len(one.chance)], one.chance, atol=1e-4)
    assert found["floor"] == pytest.approx(0.1)
    assert found["shade"] == pytest.approx(one.resolution, rel=1e-6)


def test_a_layer_is_brought_out_by_its_button_and_by_the_list(see, path):
    page = see(path)
    lines = "document.getElementById('spectra').data.filter((d) => d.yaxis === 'y' && d.hovertemplate)"
    opacity = f"{lines}.map((d) => d.opacity)"
    assert page.evaluate(opacity) == [1, 1, 1]
    page.locator("#legend button").nth(1).press("Space")
    assert page.evaluate(opacity) == [0.22, 1, 0.22]
    assert page.locator("#legend button").nth(1).get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.dataset.layer") == "1"
    page.locator("#focus").select_option("2")
    assert page.evaluate(opacity) == [0.22, 0.22, 1]
    page.locator("#legend button").nth(2).click()
    assert page.evaluate(opacity) == [1, 1, 1]


def test_the_map_and_the_history_show_the_medians(see, path, run):
    page = see(path)
    page.locator("#map").scroll_into_view_if_needed()
    page.locator("#history").scroll_into_view_if_needed()
    until(page, "document.getElementById('history').data && document.getElementById('map').data")
    medians = {step: [measured(run, step, layer).median for layer in "abc"] for step in (0, 10, 20, 30)}
    np.testing.assert_allclose(10 ** np.array(page.evaluate(f"{LINES % 'map'}[1].x")), medians[30], rtol=1e-6)
    peaks = page.evaluate("document.getElementById('map').data[0].z.map((row) => row.indexOf(Math.max(...row)))")
    assert peaks == sorted(peaks, reverse=True)
    for i in range(3):
        line = page.evaluate(f"{LINES % 'history'}[{i}].y")
        np.testing.assert_allclose(line, [medians[step][i] for step in (0, 10, 20, 30)], rtol=1e-6)
    loss = page.evaluate(f"{LINES % 'history'}.find((d) => d.name.includes('loss')).y")
    np.testing.assert_allclose(loss, run.metrics["loss"], rtol=1e-6)
    said = page.locator("#readout").inner_text()
    assert f"median {medians[30][0]:.4g} at the first layer" in said
    assert "loss 0.08478" in said


def test_hover_tells_the_step_and_a_press_goes_there(see, path):
    page = see(path)
    page.locator("#history").scroll_into_view_if_needed()
    until(page, "document.getElementById('history').data")
    shift = (
        "(f) => { const a = f._fullLayout.xaxis; return [a._offset + a.d2p(10), f._fullLayout.yaxis2._offset + 20]; }"
    )
    x, y = page.locator("#history").evaluate(shift)
    page.locator("#history").hover(position={"x": x, "y": y})
    until(page, "document.getElementById('readout').textContent.startsWith('step 10 ')")
    page.mouse.down()
    page.mouse.up()
    until(page, "document.getElementById('now').textContent.startsWith('step 10 ')")


def test_the_theme_follows_the_system_and_the_button(see, path):
    ground = "getComputedStyle(document.body).backgroundColor"
    page = see(path, color_scheme="dark")
    dark = page.evaluate(ground)
    assert page.locator("#theme").inner_text() == "Light theme"
    page.locator("#theme").press("Enter")
    light = page.evaluate(ground)
    assert sum(map(int, light[4:-1].split(","))) > 600 > 200 > sum(map(int, dark[4:-1].split(",")))
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == light


def test_the_table_sorts_filters_turns_pages_and_downloads(see, path, run, tmp_path):
    page = see(path)
    assert page.locator("#page").inner_text() == "24 rows, page 1 of 2"
    page.locator("#next").click()
    assert page.locator("#table tbody tr").count() == 4
    page.locator("#previous").press("Enter")
    median = page.locator("#table th", has_text="median")
    median.locator("button").press("Enter")
    assert median.get_attribute("aria-sort") == "ascending"
    column = page.locator("#table tbody tr td:nth-child(5)")
    values = [float(text) for text in column.all_inner_texts()]
    assert values == sorted(values)
    median.locator("button").press("Enter")
    assert median.get_attribute("aria-sort") == "descending"
    with page.expect_download() as download:
        page.locator("#csv").press("Enter")
    download.value.save_as(tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8-sig")))
    assert len(rows) == 24
    assert [float(row["median"]) for row in rows] == sorted((float(row["median"]) for row in rows), reverse=True)
    metrics = run.metrics.set_index("step")
    for row in rows:
        one = measured(run, int(row["step"]), row["layer"], row["scale"])
        for name, value in (
            ("median", one.median),
            ("RDF peak", one.peak),
            ("resolution", one.resolution),
            ("floor", 0.1),
        ):
            assert float(row[name]) == pytest.approx(value, rel=1e-6)
        assert row["peak is"] == "inside"
        assert float(row["loss"]) == pytest.approx(metrics["loss"][int(row["step"])], rel=1e-6)
    page.locator("#only").check()
    assert page.locator("#page").inner_text() == "3 rows, page 1 of 1"


@pytest.mark.parametrize("width", [390, 420, 1440])
def test_everything_is_reached_by_tab_and_nothing_overflows(see, path, width):
    page = see(path, width)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
    order = ["theme", "play", "step", "scale", "axis", "focus", "only", "csv", "next"]
    places = [reached.index(name) for name in order]
    assert places == sorted(places)
    outline = page.locator("#play").evaluate("(e) => { e.focus(); return getComputedStyle(e).outlineStyle; }")
    assert outline == "solid"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    names = "(e) => e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')"
    for control in page.locator("button, select, input").all():
        assert control.evaluate(names), control.evaluate("(e) => e.outerHTML")


def test_without_motion_steps_follow_calmly(see, path):
    page = see(path, reduced_motion="reduce")
    assert page.locator("#play").evaluate("(e) => getComputedStyle(e).transitionDuration") in ("0s", "")
    page.locator("#play").click()
    page.wait_for_timeout(700)
    at_step(page, "step 0 ")
