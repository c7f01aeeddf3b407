"""The command line, one command per file; `app` registers each with one line."""

from layerfreq.cli.program import app, main

__all__ = ["app", "main"]
