"""The command line as tests call it."""

import sys

import pytest

from layerfreq.cli import main


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run a command; return its exit status, what it printed, and what it complained of."""

    def run(*args):
        capsys.readouterr()  # what making the input has printed
        monkeypatch.setattr(sys, "argv", ["layerfreq", *map(str, args)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run
