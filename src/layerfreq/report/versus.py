"""Two kinds of run side by side: a table of the differences of their medians, layer by layer."""

from __future__ import annotations

import math
import warnings
from typing import Any

from layerfreq.data.scales import NAMES
from layerfreq.errors import InputError
from layerfreq.report.collect import Collection
from layerfreq.report.escaping import table, text
from layerfreq.runs.run import Run
from layerfreq.verdict.comparison import compare
from layerfreq.verdict.regression import LEVEL


def versus(found: Collection, unit: str) -> str:
    """Return the comparison of two kinds of run as HTML; nothing if there are not two, or they share no layer."""
    cases: dict[str, list[Run]] = {}
    for shown in found.runs:
        if shown.steps:
            cases.setdefault(shown.case, []).append(shown.run)
    if len(cases) != 2:
        return ""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            one, other = cases.values()
            compared = compare(one, other)
    except InputError:
        return ""
    names = [text(case) for case in cases]
    notes = "".join(f'<p class="quiet"><bdi>{text(str(each.message))}</bdi></p>' for each in told)
    heads = ["layer", "scale", *(f"median, {name}" for name in names), "octaves", f"{LEVEL:.0%} interval", "answer"]
    head = "".join(f"<th><bdi>{one}</bdi></th>" for one in heads)
    rows = "".join(_row(one) for one in compared.to_dict("records"))
    step = compared.attrs["a"]["step"]
    return (
        f"<details><summary>Layer by layer at {text(unit)} {step}: <bdi>{names[1]}</bdi> compared with "
        f"<bdi>{names[0]}</bdi></summary>{notes}{table('compared', 'medians compared', head, rows)}"
        f'<p class="quiet">Octaves of 1/δ by which <bdi>{names[1]}</bdi> is higher. The interval is that of seeds, or '
        "of drawn centres; single runs measured exactly have none. * beyond the layer's resolution, where medians tell "
        "nothing.</p>"
        "</details>"
    )


def _row(one: dict[Any, Any]) -> str:
    medians = [
        _number(one[f"median_{side}"]) + ("" if one[f"resolved_{side}"] or math.isnan(one[f"median_{side}"]) else " *")
        for side in "ab"
    ]
    between = "–" if math.isnan(one["low"]) else f"{_signed(one['low'])} to {_signed(one['high'])}"
    cells = [NAMES[one["scale"]], *medians, _signed(one["octaves"]), between, one["answer"]]
    layer = f'<th scope="row"><bdi>{text(str(one["layer"]))}</bdi></th>'
    return f"<tr>{layer}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"
