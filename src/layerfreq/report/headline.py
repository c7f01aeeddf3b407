"""The headline: what the runs say about the deep frequency principle, in words."""

from __future__ import annotations

from html import escape
from typing import Any

from layerfreq.errors import InputError
from layerfreq.report.collect import SCALES, Collection, Shown
from layerfreq.report.escaping import text

ANSWERS = {"yes": "holds", "no": "does not hold", "undecided": "is undecided"}
SIGNS = {"yes": "✓", "no": "✕", "undecided": "?"}


def headline(found: Collection, unit: str) -> str:
    """Return the headline and what stands under it, as HTML: one verdict for each case of several seeds."""
    cases: dict[tuple[str, tuple[str, ...]], list[Shown]] = {}
    for shown in found.runs:
        if shown.steps:
            cases.setdefault((shown.case, tuple(shown.layers)), []).append(shown)
    if not cases:
        return (
            "<h1>Training curves only</h1>"
            '<p class="lede">No layer was measured in these runs, so nothing is said of frequencies.</p>'
        )
    verdicts = [(case, runs, _verdict(runs)) for (case, _), runs in cases.items()]
    if len(verdicts) == 1:
        case, runs, (verdict, sentences) = verdicts[0]
        said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        if verdict is None:
            return f"<h1>Whether the deep frequency principle holds here is undecided</h1>{_lede(said)}"
        cards = "".join(_card(scale, verdict.scales[scale], unit) for scale in SCALES if scale in verdict.scales)
        return f'<h1>{escape(_title(verdict))}</h1><div class="cards">{cards}</div>{_lede(said)}'
    rows = "".join(_row(case, runs, *said, unit) for case, runs, said in verdicts)
    count = {scale: sum(_answer(said, scale) == "yes" for _, _, (said, _) in verdicts) for scale in SCALES}
    return (
        f"<h1>The deep frequency principle holds in {count['raw']} of {len(verdicts)} kinds of run at raw scale, "
        f"and in {count['rms']} at rms scale</h1>"
        '<div class="scroll" tabindex="0" role="region" aria-label="verdicts"><table class="verdicts">'
        "<thead><tr><th>runs</th><th>raw scale</th><th>unit RMS features</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _verdict(runs: list[Shown]) -> tuple[Any, list[str]]:
    """Return the verdict, or None and why there is none."""
    from layerfreq.verdict import verdict

    try:
        found = verdict([shown.run for shown in runs])
    except InputError as error:
        return None, [f"Undecided: {error}."]
    return found, list(found.sentences)


def _title(verdict: Any) -> str:
    raw, rms = (verdict.scales[scale].answer if scale in verdict.scales else None for scale in SCALES)
    if raw is None or rms is None:
        only = "raw" if rms is None else "rms"
        return f"The deep frequency principle {ANSWERS[raw or rms or 'undecided']} at {only} scale"
    if raw == rms:
        return f"The deep frequency principle {ANSWERS[raw]}, at raw and at rms scale"
    return f"The deep frequency principle {ANSWERS[raw]} at raw scale and {ANSWERS[rms]} at rms scale"


def _answer(verdict: Any, scale: str) -> str:
    return verdict.scales[scale].answer if verdict is not None and scale in verdict.scales else "undecided"


def _card(scale: str, one: Any, unit: str) -> str:
    name = {"raw": "Raw scale", "rms": "Unit RMS features"}[scale]
    return (
        f'<section class="card {escape(one.answer)}"><h2>{name}</h2>'
        f'<p class="answer"><span class="sign" aria-hidden="true">{SIGNS[one.answer]}</span> '
        f"{ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}</p>{_effect(one)}</section>"
    )


def _row(case: str, runs: list[Shown], verdict: Any, sentences: list[str], unit: str) -> str:
    seeds = f' <span class="quiet">{len(runs)} runs</span>' if len(runs) > 1 else ""
    cells = ""
    for scale in SCALES:
        if verdict is None or scale not in verdict.scales:
            cells += f"<td>{SIGNS['undecided']} undecided<p>{escape(' '.join(sentences))}</p></td>"
            continue
        one = verdict.scales[scale]
        said = f"{SIGNS[one.answer]} {ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}"
        cells += f"<td><b>{said}</b>{_effect(one)}</td>"
    return f'<tr><th scope="row"><bdi>{text(case)}</bdi>{seeds}</th>{cells}</tr>'


def _since(one: Any, unit: str) -> str:
    return "" if one.since is None or one.answer != "yes" else f" from {unit} {one.since} on"


def _effect(one: Any) -> str:
    if one.octaves is None:
        return f'<p class="why">{escape(one.why)}</p>' if one.why else ""
    between = "" if one.interval is None else f" ({_number(one.interval[0])} to {_number(one.interval[1])})"
    why = f'<p class="why">{escape(one.why)}</p>' if one.why and one.answer == "undecided" else ""
    return f'<p class="effect">{_number(one.octaves)} octaves a layer{between}</p>{why}'


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _lede(said: str) -> str:
    return f'<div class="lede">{said}</div>' if said else ""
