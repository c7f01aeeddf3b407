"""The headline: what the runs say about the deep frequency principle, in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from layerfreq.errors import InputError
from layerfreq.report.collect import SCALES, Collection, Shown
from layerfreq.report.escaping import text
from layerfreq.runs import Run
from layerfreq.speed import judge_speed
from layerfreq.verdict import PERCENT, expand, verdict

ANSWERS = {"yes": "holds", "no": "does not hold", "undecided": "is undecided"}
SIGNS = {"yes": "✓", "no": "✕", "undecided": "?"}


def headline(found: Collection, sources: Sequence[Run], unit: str) -> str:
    """Return the headline and what stands under it, as HTML: one verdict for each case of several seeds."""
    cases: dict[tuple[str, tuple[str, ...]], list[Shown]] = {}
    for shown in found.runs:
        if shown.steps:
            cases.setdefault((shown.case, tuple(shown.layers)), []).append(shown)
    if not cases:
        return (
            "<h1>Training curves only</h1>"
            '<p class="lede">No layer was measured in these runs, so nothing is said of frequencies.</p>'
            f"{_speed(sources)}"
        )
    verdicts = [(case, runs, _verdict(runs)) for (case, _), runs in cases.items()]
    if len(verdicts) == 1:
        one, sentences = verdicts[0][2]
        lede = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        lede = f'<div class="lede">{lede}</div>'
        if one is None:
            return f"<h1>Whether the deep frequency principle holds here is undecided</h1>{lede}"
        cards = "".join(_card(scale, one.scales[scale], unit) for scale in SCALES if scale in one.scales)
        return f'<h1>{escape(_title(one))}</h1><div class="cards">{cards}</div>{lede}'
    rows = "".join(_row(case, runs, *said, unit) for case, runs, said in verdicts)
    count = {scale: sum(_answer(said, scale) == "yes" for _, _, (said, _) in verdicts) for scale in SCALES}
    return (
        f"<h1>The deep frequency principle holds in {count['raw']} of {len(verdicts)} kinds of run at raw scale, "
        f"and in {count['rms']} at rms scale</h1>"
        '<div class="scroll" tabindex="0" role="region" aria-label="verdicts"><table class="verdicts">'
        "<thead><tr><th>runs</th><th>raw scale</th><th>unit RMS features</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{_speed(sources)}"
    )


def _speed(sources: Sequence[Run]) -> str:
    """Return what runs of different depth say of speed, as HTML."""
    return f'<p class="lede">{escape(judge_speed(expand(sources)).sentence)}</p>'


def _verdict(runs: list[Shown]) -> tuple[Any, list[str]]:
    """Return the verdict, or None and why there is none."""
    try:
        found = verdict([shown.run for shown in runs])
    except InputError as error:
        return None, [f"Undecided: {error}."]
    return found, list(found.sentences)


def _title(one: Any) -> str:
    raw, rms = (one.scales[scale].answer if scale in one.scales else None for scale in SCALES)
    if raw is None or rms is None:
        only = "raw" if rms is None else "rms"
        return f"The deep frequency principle {ANSWERS[raw or rms or 'undecided']} at {only} scale"
    if raw == rms:
        return f"The deep frequency principle {ANSWERS[raw]}, at raw and at rms scale"
    return f"The deep frequency principle {ANSWERS[raw]} at raw scale and {ANSWERS[rms]} at rms scale"


def _answer(one: Any, scale: str) -> str:
    return one.scales[scale].answer if one is not None and scale in one.scales else "undecided"


def _card(scale: str, one: Any, unit: str) -> str:
    name = {"raw": "Raw scale", "rms": "Unit RMS features"}[scale]
    return (
        f'<section class="card {escape(one.answer)}"><h2>{name}</h2>'
        f'<p class="answer"><span class="sign" aria-hidden="true">{SIGNS[one.answer]}</span> '
        f"{ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}</p>{_effect(one)}</section>"
    )


def _row(case: str, runs: list[Shown], found: Any, sentences: list[str], unit: str) -> str:
    seeds = f' <span class="quiet">{len(runs)} runs</span>' if len(runs) > 1 else ""
    cells = ""
    for scale in SCALES:
        if found is None or scale not in found.scales:
            cells += f"<td>{SIGNS['undecided']} undecided<p>{escape(' '.join(sentences))}</p></td>"
            continue
        one = found.scales[scale]
        said = f"{SIGNS[one.answer]} {ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}"
        cells += f"<td><b>{said}</b>{_effect(one)}</td>"
    return f'<tr><th scope="row"><bdi>{text(case)}</bdi>{seeds}</th>{cells}</tr>'


def _since(one: Any, unit: str) -> str:
    return "" if one.since is None or one.answer != "yes" else f" from {unit} {one.since} on"


def _effect(one: Any) -> str:
    if one.octaves is None:
        return f'<p class="why">{escape(one.why)}</p>' if one.why else ""
    between = ""
    if one.interval is not None:
        low, high = map(_number, one.interval)
        between = f' <span class="quiet">({PERCENT}: {low} to {high})</span>'
    why = f'<p class="why">{escape(one.why)}</p>' if one.why and one.answer == "undecided" else ""
    return f'<p class="effect">{_number(one.octaves)} octaves a layer{between}</p>{why}'


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
