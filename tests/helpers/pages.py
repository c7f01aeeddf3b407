"""Pages whose code runs: every Python block of a Markdown page, in order, in one namespace.

A block fenced as `text` that follows a Python block directly is what that block prints: words exactly, numbers to two
per cent. `python -m tests.helpers.pages docs/reading.md docs/reading` runs a page in a folder: its figures are made
anew.
"""

import contextlib
import io
import math
import os
import re
import sys
from pathlib import Path

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks(text):
    """Yield line number, code, and what it must print (None where the page does not say)."""
    found = [(m.group(1), m.group(2), m.start(), m.end()) for m in FENCE.finditer(text)]
    for i, (language, code, start, end) in enumerate(found):
        if language != "python" or code.startswith("--8<--"):  # files that a page shows are run by their own tests
            continue
        follows = i + 1 < len(found) and found[i + 1][0] == "text" and not text[end : found[i + 1][2]].strip()
        yield text.count("\n", 0, start) + 2, code, found[i + 1][1] if follows else None


def run(page, namespace=None):
    """Run a page's blocks in the current folder.

    Raises:
        AssertionError: If a block prints something else than the page says.
    """
    page = Path(page)
    namespace = {"__name__": page.stem, **(namespace or {})}
    for line, code, expected in blocks(page.read_text()):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
        if expected is not None:
            assert alike(said.getvalue(), expected), f"{page}:{line} prints\n{said.getvalue()}"


def alike(said, expected):
    """Whether two texts have the same words, and numbers within two per cent (or one in the last place)."""
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", expected).split():
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(expected), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=_last_place(b)) for a, b in pairs)


def _last_place(number):
    digits = number.split("e")[0].partition(".")[2]
    return 1.001 * 10.0 ** -len(digits) if digits else 0.0


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("agg")
    source, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    run(source)
