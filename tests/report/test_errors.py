"""The report's map of the error by frequency."""

import numpy as np
import pytest

pytest.importorskip("plotly")

from layerfreq import Run, error_spectrum
from layerfreq.report.errors import NOTHING, error_map
from layerfreq.runs.errors import read_errors

from .conftest import at_step, make, until

T = np.arange(64, dtype=np.float32) / 64
SLOW, FAST = (np.sin(2 * np.pi * c * T) for c in (1, 5))


def learn(run):
    for step, outputs in {0: 0 * T, 10: SLOW, 20: SLOW + FAST, 30: SLOW - FAST}.items():
        run.write_errors(step, error_spectrum(T, SLOW + FAST, outputs, method="grid"))
    return run


def test_cells_are_hundredths_of_the_relative_error(tmp_path):
    found = error_map(learn(Run.create(tmp_path / "a", {"layers": []})))
    np.testing.assert_allclose(found.k, 2 * np.pi * np.arange(1, 6))
    assert found.steps.tolist() == [0, 10, 20, 30]
    assert (found.cells[0].tolist(), found.cells[4].tolist()) == ([100, 0, 0, 0], [100, 100, 0, 200])
    assert (found.cells[1:4] == NOTHING).all()
    assert found.blind[4, 3] == 1
    assert not found.blind[0, 1:].any()
    assert error_map(make(tmp_path / "b")) is None


def test_what_is_learned_is_that_of_the_measurements(tmp_path):
    run = learn(Run.create(tmp_path / "a", {"layers": []}))
    found = error_map(run)
    for i, threshold in enumerate((0.5, 0.1)):
        for j, (_, one) in enumerate(read_errors(run.errors)):
            value, low, high = found.learned[i, :, j]
            assert value == low == high == one.learned(threshold) or (
                np.isnan(value) and one.learned(threshold) is None
            )
    assert found.target.shape == (1, 32)  # the same at every step, and only k > 0
    np.testing.assert_allclose(found.target.sum(), 1)
    np.testing.assert_allclose(found.error.sum(axis=1), [1, 0.5, 0, 2], atol=1e-12)


def test_the_interval_of_what_is_learned_ends_at_the_lowest_band(tmp_path):
    """Scattered points have standard errors: two of them are added to and taken from every band's error."""
    x = np.random.default_rng(0).random(300).astype(np.float32)
    slow, fast = (np.sin(2 * np.pi * c * x) for c in (1, 5))
    run = Run.create(tmp_path / "a", {"layers": []})
    for step, share in enumerate((0.0, 0.5, 0.93)):
        run.write_errors(step, error_spectrum(x, slow + fast, share * (slow + fast), method="scattered"))
    found = error_map(run)
    for i, threshold in enumerate((0.5, 0.1)):
        for j, (_, one) in enumerate(read_errors(run.errors)):
            ends = [one.learned(threshold), *one.learned_interval(threshold)]
            value, low, high = (np.nan if end is None else end for end in ends)
            low = found.k[0] if np.isnan(low) else low
            np.testing.assert_array_equal(found.learned[i, :, j], [value, low, high])
    assert (found.learned[:, 1] <= found.learned[:, 2])[np.isfinite(found.learned[:, 2])].all()


@pytest.mark.parametrize("layers", [True, False])
def test_map_cursors_and_energies_follow_the_slider(see, tmp_path, layers):
    run = make(tmp_path / "a") if layers else Run.create(tmp_path / "a", {"layers": []})
    page = see(learn(run).report(), 390)
    for figure in ("history", "errors", "energies"):
        page.locator(f"#{figure}").scroll_into_view_if_needed()
        until(page, f"document.getElementById('{figure}').data")
    z = page.evaluate("document.getElementById('errors').data[0].z")
    assert (z[0], z[2], z[4]) == ([1, 0, 0, 0], [None] * 4, [1, 1, 0, 2])
    assert "low frequencies learned first" in page.locator("header").inner_text()
    for only_of_layers in ("#part-table", '[name="scale"]', "#focus"):
        assert page.locator(only_of_layers).first.is_visible() == layers
    found = {step: one for step, one in read_errors(run.errors)}
    for key, step in (("Home", 0), ("ArrowRight", 10), ("End", 30)):
        page.locator("#step").press(key)
        at_step(page, f"step {step} ")
        until(page, f"document.getElementById('energies-now').textContent === 'step {step}'")
        error = page.evaluate("document.getElementById('energies').data[2].y")
        np.testing.assert_allclose([v or 0 for v in error], found[step].error_energy[1:], rtol=1e-6, atol=1e-12)
        for figure in ("history", "errors"):
            until(page, f"document.getElementById('{figure}').layout.shapes[0].x0 === {step}")
    learned = "document.getElementById('history').data.find((d) => d.name.includes('under 0.5')).y"
    assert page.evaluate(learned) == pytest.approx([None, 2 * np.pi, 10 * np.pi, 2 * np.pi], nan_ok=True)
    said = page.locator("#readout").inner_text()
    assert "error under 0.5 up to k 6.283 · error under 0.1 up to k 6.283" in said
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    place = "(f) => { const l = f._fullLayout; return [l.xaxis._offset + l.xaxis.d2p(11), l.yaxis._offset + 20]; }"
    x, y = page.locator("#errors").evaluate(place)
    page.locator("#errors").click(position={"x": x, "y": y})  # a press goes to the step there
    at_step(page, "step 10 ")


def test_a_run_without_errors_has_no_such_part(see, tmp_path):
    assert not see(make(tmp_path / "a").report()).locator("#part-errors").is_visible()
