"""The page: template, style and script combined with the data, so that nothing has to be downloaded.

Names in runs are untrusted: they are escaped in the HTML, the script only sets them as text, and a content security
policy allows only the page's own scripts, by hash, and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import yaml

from layerfreq._version import __version__
from layerfreq.data.scales import NAMES, SENTENCES, explained, in_order
from layerfreq.data.validation import SCALES
from layerfreq.extras import needs
from layerfreq.report.collect import Collection, Shown
from layerfreq.report.escaping import for_script, plain, text
from layerfreq.report.headline import headline
from layerfreq.report.pack import LEVELS, Pack, deflated
from layerfreq.report.sections.parts import parts
from layerfreq.report.versus import versus
from layerfreq.response.figure import LEARNED
from layerfreq.runs.run import Run
from layerfreq.runs.several import unit_of
from layerfreq.verdict.speedup import depth_of

SCRIPTS = (
    "data.js",
    "looks.js",
    "spectra.js",
    "history.js",
    "errors.js",
    "weights.js",
    "network.js",
    "table.js",
    "app.js",
)


def page(found: Collection, title: str, sources: Sequence[Run], missing: str = "") -> str:
    """Return the whole page as text; `missing` says which sections are not there."""
    pack, heads = packed(found)
    unit = unit_of(sources)
    script = "\n".join(_read(name) for name in SCRIPTS)
    plotly, library = _plotly()
    about = {
        "title": plain(title),
        "unit": unit,
        "error": _error(sources),
        "levels": LEVELS,
        "scales": SCALES,
        "explained": [explained(scale) for scale in SCALES],
        "learned": list(LEARNED),
        "runs": heads,
        "index": {name: list(where) for name, where in pack.index.items()},
    }
    fill = {
        "title": text(title),
        "policy": escape(_policy(script, plotly)),
        "style": _read("style.css"),
        "headline": headline(found, sources, unit),
        "switch": _switch(found),
        "scales": "".join(f"<li>{escape(explained(scale))}</li>" for scale in SENTENCES),
        "versus": versus(found, unit),
        "sections": parts(found.runs),
        "made": _made(found, sources, missing),
        "about": for_script(about),
        "data": pack.text(),
        "plotly": library,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: fill[hole[1]], _read("page.html"))


def packed(found: Collection) -> tuple[Pack, list[dict[str, Any]]]:
    """Return all numbers of a collection, and what the script has to know of each run."""
    pack = Pack()
    for name, dtype in _RECORDS.items():
        pack.add(name, [getattr(one, name) for one in found.records], dtype)
    shapes: dict[bytes, int] = {}
    kinds: list[Any] = []
    for one in found.curves:
        key = one.shape.round(6).tobytes()
        if key not in shapes:
            shapes[key] = len(kinds)
            kinds.append(one.shape)
    pack.add("shape", [shapes[one.shape.round(6).tobytes()] for one in found.curves], "i4")
    pack.add("shape.points", np_concatenate(kinds), "f4")
    pack.add("shape.size", [len(kind) for kind in kinds], "i4")
    pack.add("size", [len(one.lfr) for one in found.curves], "i4")
    pack.add("steepest", [one.steepest for one in found.curves], "f4")
    for name in ("density", "lfr", "chance"):
        pack.add_curves(name, [getattr(one, name) for one in found.curves])
    heads = []
    for i, shown in enumerate(found.runs):
        for j, values in enumerate(shown.metrics.values()):
            pack.add(f"metric.{i}.{j}", values, "f8" if j == 0 else "f4")
        if shown.errors is not None:
            for name, dtype in _ERRORS.items():
                pack.add(f"error.{i}.{name}", getattr(shown.errors, name), dtype)
        if shown.weights is not None:
            for name in _WEIGHTS:
                pack.add(f"kept.{i}.{name}", getattr(shown.weights, name), "f8" if name == "steps" else "f4")
        for kind, section in shown.sections.items():
            for name, (values, dtype) in section.arrays.items():
                pack.add(f"{kind}.{i}.{name}", values, dtype)
        heads.append(
            {
                "name": plain(shown.name),
                "case": plain(shown.case),
                "depth": depth_of(shown.run),
                "steps": shown.steps,
                "layers": [plain(name) for name in shown.layers],
                "metrics": [plain(name) for name in shown.metrics],
                "thinned": shown.thinned,
                "errors": shown.errors is not None,
                "kept": None if shown.weights is None else [plain(name) for name in shown.weights.layers],
                "sections": {kind: section.about for kind, section in shown.sections.items()},
            }
        )
    return pack, heads


_ERRORS = {
    "k": "f8",
    "steps": "f8",
    "cells": "u1",
    "blind": "u1",
    "learned": "f4",
    "bands": "f8",
    "target": "f4",
    "error": "f4",
    "chance": "f4",
}
_WEIGHTS = ("steps", "distance", "walk", "similarity", "chance")
_RECORDS = {
    "run": "i4",
    "step": "i4",
    "layer": "i4",
    "scale": "u1",
    "curve": "i4",
    "low": "f8",
    "high": "f8",
    "peak": "f4",
    "edge": "i4",
    "median": "f4",
    "resolution": "f4",
    "floor": "f4",
}


def _switch(found: Collection) -> str:
    """Return a radio button for every scale that some run was measured at, the paper's first, as HTML."""
    measured = in_order({SCALES[one.scale] for one in found.records})
    return "".join(
        f'<label title="{escape(SENTENCES[scale])}">'
        f'<input type="radio" name="scale" value="{SCALES.index(scale)}"><span>{NAMES[scale]}</span></label>'
        for scale in measured
    )


def np_concatenate(parts: Sequence[Any]) -> Any:
    """Join arrays, or none of them."""
    import numpy as np

    return np.concatenate(parts) if parts else np.zeros(0)


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'" for script in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _plotly() -> tuple[str, str]:
    """Return the figures' library as text, and deflated."""
    return _packed_plotly(needs("plotly.offline", "layerfreq[report]", "report").get_plotlyjs)


@cache
def _packed_plotly(read: Callable[[], str]) -> tuple[str, str]:
    script = read().replace("\r\n", "\n")  # browsers hash a script with its line ends made so
    return script, deflated(script.encode())


def _read(name: str) -> str:
    return files("layerfreq.report").joinpath("static", name).read_text(encoding="utf-8")


def _error(sources: Sequence[Run]) -> float | None:
    """Return the loss at which the experiments end their trainings, where all say the same."""
    said = {run.config.get("error") for run in sources}
    error = said.pop() if len(said) == 1 else None
    return float(error) if isinstance(error, (int, float)) else None


def _made(found: Collection, sources: Sequence[Run], missing: str) -> str:
    """Return the section that says how the runs were made, as HTML."""
    lines = []
    for run in sources:
        mine = [shown for shown in found.runs if run.path in (shown.run.path, shown.run.path.parent)]
        config = run.config
        about = config.pop("environment", None) or {}
        rows = {"folder": str(run.path.resolve()), "command": about.pop("command", None)}
        rows["seeds"] = ", ".join(map(str, config["seeds"])) if isinstance(config.get("seeds"), list) else None
        rows["versions"] = ", ".join(f"{name} {value}" for name, value in about.items()) or None
        rows["measured"] = "; ".join(dict.fromkeys(_measured(shown) for shown in mine))
        listed = "".join(
            f"<dt>{name}</dt><dd><bdi>{text(str(value))}</bdi></dd>" for name, value in rows.items() if value
        )
        lines.append(f"<h3><bdi>{text(run.path.resolve().name)}</bdi></h3><dl>{listed}</dl>")
        lines.append(_config("Configuration", config))
        for shown in mine:
            if shown.run.path != run.path:
                own = shown.run.config
                extra = {name: value for name, value in own.items() if config.get(name) != value}
                if extra and set(extra) != {"name"}:
                    lines.append(_config(f"Configuration of {shown.name}", extra))
    lines.append(_refused(found.runs))
    lines.append(f'<p class="quiet" id="missing">{text(missing)}</p>' if missing else "")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines.append(f'<p class="quiet">Page made by layerfreq {__version__} on {now}.</p>')
    return "\n".join(lines)


def _measured(shown: Shown) -> str:
    if not shown.steps:
        return "training curves only"
    some = f"{len(shown.layers)} layers at {len(shown.steps)} steps ({shown.steps[0]} .. {shown.steps[-1]})"
    if not shown.points:
        return some
    centres = "each a filter centre" if shown.rows == shown.points else f"{shown.rows} of them filter centres"
    return f"{some}, on {shown.points} points, {centres}"


def _config(what: str, config: Any) -> str:
    if not config:
        return '<p class="quiet">The run keeps no configuration.</p>'
    dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    lines = "\n".join(text(line) for line in dumped.splitlines())
    return f'<details><summary><bdi>{text(what)}</bdi></summary><pre tabindex="0">{lines}</pre></details>'


def _refused(runs: Sequence[Shown]) -> str:
    """Return the layers that could not be measured, each with its reason, as HTML; nothing if there are none."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for shown in runs:
        for layer, why in shown.refused.items():
            reasons.setdefault((layer, why), []).append(shown.name)
    if not reasons:
        return ""
    items = "".join(
        f"<li><bdi><code>{text(layer)}</code></bdi>: <bdi>{text(why)}</bdi>"
        + (f' <span class="quiet">({len(names)} of {len(runs)} runs)</span>' if len(runs) > 1 else "")
        + "</li>"
        for (layer, why), names in reasons.items()
    )
    return f'<h3 id="refused">Layers that were not measured</h3><ul class="refused">{items}</ul>'
