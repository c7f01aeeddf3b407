"""Shapes in signatures are checked at run time in every test."""

import re
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

from tests.helpers import compatibility

SOURCE = Path(__file__).parents[1] / "src"
DOCS = Path(__file__).parent / "docs"
# Where shapes are in signatures: checking binds the arguments of every call in Python, so that all other modules, among
# them those that run for each operation of a model, are left alone. Compiled loops have no Python signature to check.
MODULES = [
    ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    for file in sorted(SOURCE.rglob("*.py"))
    if not file.stem.endswith("kernels") and re.search(r"jaxtyping|import .*\bCurve\b", file.read_text())
]
install_import_hook(MODULES, "beartype.beartype")
settings.register_profile("layerfreq", deadline=None, max_examples=30)
settings.load_profile("layerfreq")


def pytest_addoption(parser):
    compatibility.add_options(parser)


def pytest_configure(config):
    compatibility.configure(config)


def pytest_collection_modifyitems(items):
    """Mark what a folder or a fixture tells, so that `make test-fast` can leave it out."""
    for item in items:
        if DOCS in item.path.parents:
            item.add_marker("docs")
        for fixture, marker in {"browser": "browser", "ranks": "ranks", "two": "ranks"}.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
