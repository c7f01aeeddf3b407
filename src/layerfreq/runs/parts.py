"""A run of several parts: a folder with a complete run for each target and probe set of a monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from layerfreq.errors import Code
from layerfreq.files import write_whole
from layerfreq.runs.files import part_names, plain
from layerfreq.runs.run import Run


def open_parts(run: Run, about: Mapping[str, Mapping[str, Any]]) -> dict[str, Run]:
    """Return the runs of a run's parts, creating missing ones.

    Args:
        run: The run that they are parts of.
        about: Name -> contents of the part's `config.yaml`; the single name "" means the run itself.

    Raises:
        InputError: If the run has other parts, or its own measurements.
    """
    config, names = run.config, [name for name in about if name]
    known = part_names(config)
    if not known and not names:
        return dict.fromkeys(about, run)
    if not known and any((run.path / folder).is_dir() for folder in ("spectra", "errors", "metrics")):
        raise Code.EXISTS(f"run: {str(run.path)!r} has no parts {', '.join(names)}; choose another directory")
    if known and set(known) != set(names):
        theirs, ours = ", ".join(known), ", ".join(names) or "no parts"
        raise Code.EXISTS(f"run: {str(run.path)!r} has parts {theirs}, not {ours}; choose another directory")
    if not known:
        text = yaml.safe_dump(plain({**config, "parts": names}), sort_keys=False)
        write_whole(run.path / "config.yaml", lambda at: at.write_text(text, encoding="utf-8"))
    there = run.parts
    return {name: there.get(name) or Run.create(run.path / name, of) for name, of in about.items()}
