"""docs/paper.md and docs/resnet.md say what their published data say."""

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric")

from benchmarks import paper_page

PAGES = paper_page.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_is_what_the_data_give(page):
    text, parts = page.read_text(), PAGES[page]
    assert sorted(re.findall(r"<!-- begin (.*) -->", text)) == sorted(parts)
    assert paper_page.filled(text, parts) == text


def test_the_front_page_says_what_the_data_give():
    said = PAGES[paper_page.DOCS / "paper.md"]["mnist agreement"]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    of, near = re.match(r"Of (\d+) peaks.* and (\d+) within both", said).groups()
    assert f"Of {of} peaks {near} lie within 15 %" in " ".join(readme.split())
