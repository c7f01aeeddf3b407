"""docs/compatibility.md says what the tests say, no more and no less."""

import re
from pathlib import Path

from tests.helpers.compatibility import page, rows_of

ROOT = Path(__file__).parents[2]
WRITTEN = (ROOT / "docs" / "compatibility.md").read_text()
CELLS = re.compile(r"^\| (.+?) \| (works|works with a limit|refused) \|(.*?)\| (`.+`) \|$", re.MULTILINE)


def test_every_row_that_a_collected_test_proves_is_on_the_page(request):
    """Of however many tests run this time; all of them in a run of the whole suite."""
    written = {(name, verdict, note.strip()) for name, verdict, note, _ in CELLS.findall(WRITTEN)}
    collected = {(name, verdict, note) for (_, name), (verdict, note, _) in rows_of(request.session.items).items()}
    assert collected <= written


def test_every_test_named_on_the_page_exists_and_is_marked():
    rows = CELLS.findall(WRITTEN)
    assert len(rows) == sum(line.startswith("| ") for line in WRITTEN.splitlines()) - WRITTEN.count("| what |")
    for *_, tests in rows:
        for file, function in re.findall(r"`([\w/.]+)::(\w+)`", tests):
            source = (ROOT / "tests" / file).read_text()
            assert f"def {function}(" in source


def test_the_page_of_no_rows_is_only_a_head():
    assert page({}).startswith("# Compatibility")
    assert "|" not in page({})
