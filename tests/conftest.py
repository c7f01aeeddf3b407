"""Shapes in signatures are checked at run time in every test."""

import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.helpers import compatibility, needs

SOURCE = Path(__file__).parents[1] / "src"
TESTS = Path(__file__).parent
# Where shapes are in signatures: checking binds the arguments of every call in Python, so that all other modules, among
# them those that run for each operation of a model, are left alone. Compiled loops have no Python signature to check.
MODULES = [
    ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    for file in sorted(SOURCE.rglob("*.py"))
    if not file.stem.endswith("kernels") and re.search(r"jaxtyping|import .*\bCurve\b", file.read_text())
]
if not torch.cuda.is_available():  # before anything imports Triton: its own functions are then interpreted, too
    os.environ.setdefault("TRITON_INTERPRET", "1")
install_import_hook(MODULES, "beartype.beartype")
settings.register_profile("layerfreq", deadline=None, max_examples=30)
settings.load_profile("layerfreq")


def pytest_addoption(parser):
    compatibility.add_options(parser)
    parser.addoption("--one-case", action="store_true", help="of each test that has several cases, run the first alone")


def pytest_configure(config):
    compatibility.configure(config)


def pytest_collection_modifyitems(config, items):
    """Mark what a folder or a fixture tells, and leave out what cannot run here, or `make test-fast` does not run."""
    for item in items:
        for folder in ("advice", "docs", "integrations", "experiments", "relearn"):
            if TESTS / folder in item.path.parents:
                item.add_marker("docs" if folder == "docs" else "slow")
        for fixture, marker in {"browser": "browser", "ranks": "ranks", "two": "ranks"}.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    needs.leave_out(config, items)
    if config.getoption("--one-case"):
        firsts = {(item.path, item.originalname): item for item in reversed(items)}
        chosen = [item for item in items if firsts[item.path, item.originalname] is item]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def pytest_sessionfinish(session):
    needs.tell_controller(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    needs.hear_worker(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter, config):
    for line in needs.lines(config.stash.get(needs.COUNTS, {})):
        terminalreporter.write_line(line)
