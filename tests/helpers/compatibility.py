"""docs/compatibility.md: a row for each test marked `compatibility`, written from what the tests found.

Mark a test with `@pytest.mark.compatibility(kind, name, verdict, note)`, or a case of a parametrised test with
`pytest.param(..., marks=pytest.mark.compatibility(...))`. Verdicts are those in `VERDICTS`; the note is the limit, or
the message of the refusal. `pytest -m compatibility --compatibility=docs/compatibility.md` writes the page.
"""

from pathlib import Path

VERDICTS = ("works", "works with a limit", "refused")
KINDS = ("framework", "tracker", "set-up", "layer kind", "model family", "checkpoint")


def rows_of(items):
    """The rows that some tests prove: (kind, name) -> (verdict, note, test ids)."""
    rows = {}
    for item in items:
        for mark in item.iter_markers("compatibility"):
            kind, name, verdict, note = (*mark.args, "", "", "", "")[:4]
            assert kind in KINDS, f"{item.nodeid}: unknown kind {kind!r}"
            assert verdict in VERDICTS, f"{item.nodeid}: unknown verdict {verdict!r}"
            assert note or verdict == "works", f"{item.nodeid}: {verdict!r} needs a note"
            known = rows.setdefault((kind, name), (verdict, note, []))
            assert known[:2] == (verdict, note), f"{item.nodeid}: {kind} {name!r} has two verdicts"
            known[2].append(item.nodeid.split("[")[0])
    return rows


class Results:
    """A pytest plugin that notes which tests passed, and writes the page when they are over."""

    def __init__(self, path):
        self.path, self.items, self.outcomes = Path(path), [], {}

    def pytest_collection_finish(self, session):
        self.items = list(session.items)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self):
        passed = [item for item in self.items if self.outcomes.get(item.nodeid) == "passed"]
        self.path.write_text(page(rows_of(passed)))


def page(rows):
    """The page's Markdown."""
    lines = [
        "# Compatibility",
        "",
        "Each row is proved by the tests named in it; the page is written by",
        "`pytest -m compatibility --compatibility=docs/compatibility.md`, and holds only rows whose tests passed.",
    ]
    for kind in KINDS:
        of_kind = {name: row for (k, name), row in sorted(rows.items()) if k == kind}
        if not of_kind:
            continue
        lines += ["", f"## {kind[0].upper()}{kind[1:]}s".replace("familys", "families"), ""]
        lines += ["| what | verdict | limit, or message | test |", "|---|---|---|---|"]
        for name, (verdict, note, tests) in of_kind.items():
            short = sorted({test.removeprefix("tests/") for test in tests})
            lines.append(
                f"| {name} | {verdict} | {note} | {', '.join(f'`{test}`' for test in short)} |".replace("  ", " ")
            )
    return "\n".join(lines) + "\n"


def add_options(parser):
    """Add `--compatibility`."""
    parser.addoption("--compatibility", metavar="FILE", help="write the compatibility page from the tests that passed")


def configure(config):
    """Switch the plugin on, if it is asked for."""
    path = config.getoption("--compatibility")
    if path:
        config.pluginmanager.register(Results(path))
