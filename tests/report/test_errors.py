"""The report's map of the error by frequency."""

import numpy as np
import pytest

pytest.importorskip("plotly")

from layerfreq import Run, error_spectrum
from layerfreq.report.errors import NOTHING, error_map

from .conftest import make, until

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


@pytest.mark.parametrize("layers", [True, False])
def test_the_map_is_on_the_page(see, tmp_path, layers):
    run = make(tmp_path / "a") if layers else Run.create(tmp_path / "a", {"layers": []})
    page = see(learn(run).report())
    page.locator("#errors").scroll_into_view_if_needed()
    until(page, "document.getElementById('errors').data")
    z = page.evaluate("document.getElementById('errors').data[0].z")
    assert (z[0], z[2], z[4]) == ([1, 0, 0, 0], [None] * 4, [1, 1, 0, 2])
    assert "low frequencies learned first" in page.locator("header").inner_text()
    assert page.locator("#part-table").is_visible() == page.locator("#controls").is_visible() == layers


def test_a_run_without_errors_has_no_such_part(see, tmp_path):
    assert not see(make(tmp_path / "a").report()).locator("#part-errors").is_visible()
