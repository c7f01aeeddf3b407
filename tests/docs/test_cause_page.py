"""docs/cause.md says what its published data say."""

import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data" / "cause" / "results.parquet"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cause_page", ROOT / "benchmarks" / "cause_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_what_the_data_give(script):
    page = (ROOT / "docs" / "cause.md").read_text()
    parts = script.sections(pd.read_parquet(DATA))
    assert sorted(re.findall(r"<!-- begin (.*) -->", page)) == sorted(parts)
    assert script.filled(page, parts) == page


def test_numbers_of_the_summary_are_in_the_tables():
    summary, _, rest = (ROOT / "docs" / "cause.md").read_text().partition("## Design")
    tables = " ".join(re.findall(r"<!-- begin .*? -->(.*?)<!-- end -->", rest, re.DOTALL))
    found = re.findall(r"\d+%|\d\.\d\d", summary.replace("95% intervals", ""))
    assert len(found) > 15
    assert not [number for number in found if number not in tables]


def test_the_data_are_small_and_whole():
    assert DATA.stat().st_size < 500_000
    table = pd.read_parquet(DATA)
    assert table.groupby("study", observed=True)["seed"].nunique().eq(5).all()
    assert set(table["scale"]) == {"raw", "rms"}
    assert set(table["rule"]) == {"fixed", "best"}
    keys = ["run", "step", "cut", "scale", "optimizer", "head", "rule", "head_seed", "share"]
    assert not table.duplicated(keys).any()
    assert (table["steps"] >= 0).all()
