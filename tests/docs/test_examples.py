"""The gallery: every example runs at smoke size, and every page shows what its data say."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("PIL")
pytest.importorskip("safetensors")

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "gallery"
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "publish")
RELATED = (
    "axis",
    "condensation",
    "convergence",
    "image_fit",
    "image_frequency",
    "loss_spike",
    "neural_operator",
    "suspects",
    "two_scales",
)  # examples of other measures than a spectrum
SNIPPET = re.compile(r'^ *--8<-- "([^":]+)(?::(\w+))?"$', re.MULTILINE)


@pytest.fixture
def load(monkeypatch):
    """Import an example by name, as running the script would."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))

    def load_one(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_one


def test_there_is_a_page_for_each_example():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted([*NAMES, "index"])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_at_smoke_size(name, tmp_path, monkeypatch, load):
    import publish

    script = (ROOT / "examples" / f"{name}.py").read_text()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--smoke", "--out", str(tmp_path)])
    exec(compile(script, name, "exec"), {"__name__": "__main__"})
    table = publish.read(name, tmp_path)
    assert sorted(table["seed"].unique()) == [0, 1]
    if name not in RELATED:
        assert {"median", "resolution"} <= set(table.columns)
        assert (table["resolution"] > 0).all()
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "2 seeds" not in (PAGES / "data" / f"{name}.txt").read_text()  # the pages' own data are the full size's


@pytest.mark.parametrize("name", NAMES)
def test_the_sentences_of_a_page_are_those_of_its_data(name, load):
    import publish

    table = publish.read(name)
    sentences = load(name).sentences(table)
    assert (PAGES / "data" / f"{name}.txt").read_text() == publish.answer(sentences)
    assert (PAGES / "data" / f"{name}.remarks.txt").read_text() == publish.remarks(sentences)
    assert not [one for one in sentences if "nan" in one]
    last = max(table["seed"])
    assert last >= 4
    made = (PAGES / "data" / f"{name}.made.txt").read_text()
    assert made.startswith(f"`python examples/{name}.py`, seeds 0 to {last}, ")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_includes_code_figure_and_sentences(name):
    page = (PAGES / f"{name}.md").read_text()
    data = f"docs/gallery/data/{name}"
    wanted = {(f"examples/{name}.py", "code"), *((f"{data}.{end}", "") for end in ("txt", "remarks.txt", "made.txt"))}
    assert set(SNIPPET.findall(page)) == wanted
    assert f"]({name}.png)" in page
    assert f"](data/{name}.csv)" in page
    assert (PAGES / f"{name}.png").stat().st_size <= 40_000
    assert (PAGES / "data" / f"{name}.csv").stat().st_size <= 60_000
    script = (ROOT / "examples" / f"{name}.py").read_text()
    shown = script.split("# --8<-- [start:code]\n")[1].split("# --8<-- [end:code]")[0]
    assert "publish" not in shown  # what a reader copies stands by itself


@pytest.mark.parametrize("name", [*NAMES, "index"])
def test_a_page_renders_with_its_snippets(name):
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("pymdownx")
    html = markdown.markdown(
        (PAGES / f"{name}.md").read_text(),
        extensions=["pymdownx.snippets", "pymdownx.superfences"],
        extension_configs={"pymdownx.snippets": {"base_path": [str(ROOT)], "check_paths": True}},
    )
    assert "8&lt;--" not in html
    assert "8<--" not in html
    assert name == "index" or '<div class="highlight">' in html  # the code's fence, in a form that ruff leaves alone
    for one in NAMES if name == "index" else [name]:
        answer = (PAGES / "data" / f"{one}.txt").read_text()
        assert re.sub(r"\W", "", answer)[:60] in re.sub(r"<[^>]+>|&\w+;|\W", "", html)


def test_the_index_shows_every_example_with_its_answer():
    index = (PAGES / "index.md").read_text()
    for name in NAMES:
        assert "[![" in index
        assert f"]({name}.png)]({name}.md)" in index
        assert f'--8<-- "docs/gallery/data/{name}.txt"' in index


def test_numbers_are_written_without_exponents(load):
    load("label_noise")
    import publish

    assert [publish.number(v) for v in (123456, 0.000123, 12.5, -0.0, 1)] == ["120000", "0.00012", "12", "0", "1"]
    assert publish.spread([1, 2, 3]) == "2 (1 to 3)"
    assert publish.join(["a", "b", "c"]) == "a, b and c"
    assert publish.join(["a"]) == "a"
