"""Tests that need what a machine may lack are left out when tests are collected, and named when they are over.

Mark a test or a case with `pytest.mark.needs("a GPU")`, `"two GPUs"`, or the package that it imports, where the pinned
environment does not have that.
"""

from collections import Counter
from importlib.util import find_spec

import pytest
import torch

COUNTS = pytest.StashKey[Counter]()
GPUS = {"a GPU": 1, "two GPUs": 2}


def is_here(what):
    """Whether this machine has it."""
    return torch.cuda.device_count() >= GPUS[what] if what in GPUS else find_spec(what) is not None


def leave_out(config, items):
    """Take tests that lack something out of those collected, and count them by what and where."""
    chosen, others, counts = [], [], config.stash.setdefault(COUNTS, Counter())
    for item in items:
        lack = next((what for mark in item.iter_markers("needs") for what in mark.args if not is_here(what)), None)
        (chosen if lack is None else others).append(item)
        if lack is not None:
            counts[lack, item.nodeid.split("::")[0]] += 1
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


def tell_controller(config):
    """Hand the counts of a worker of pytest-xdist to the process that writes the summary."""
    if hasattr(config, "workeroutput"):
        config.workeroutput["not_run"] = [(*key, n) for key, n in config.stash.get(COUNTS, Counter()).items()]


def hear_worker(config, output):
    """Take the counts of one worker; all have the same."""
    config.stash[COUNTS] = Counter({(what, file): n for what, file, n in output.get("not_run", ())})


def lines(counts):
    """One line for each thing that is missing."""
    for lack in sorted({what for what, _ in counts}):
        files = {file: n for (what, file), n in counts.items() if what == lack}
        where = ", ".join(f"{file} ({n})" for file, n in files.items())
        yield f"NOT RUN [{sum(files.values())}] needs {lack}: {where}"
