"""The headline: what the runs say about the deep frequency principle, in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from layerfreq.data.scales import SENTENCES, TITLES, in_order, spoken
from layerfreq.errors import InputError
from layerfreq.report.collect import Collection, Shown
from layerfreq.report.escaping import table, text
from layerfreq.runs.run import Run
from layerfreq.runs.several import expand
from layerfreq.verdict.depth import PERCENT, verdict
from layerfreq.verdict.learning import judge_learning
from layerfreq.verdict.speedup import judge_speed

ANSWERS = {"yes": "holds", "no": "does not hold", "undecided": "is undecided"}
SIGNS = {"yes": "✓", "no": "✕", "undecided": "?"}


def headline(found: Collection, sources: Sequence[Run], unit: str) -> str:
    """Return the headline and what stands under it, as HTML: one verdict for each case of several seeds."""
    cases: dict[tuple[str, tuple[str, ...]], list[Shown]] = {}
    for shown in found.runs:
        if shown.steps:
            cases.setdefault((shown.case, tuple(shown.layers)), []).append(shown)
    if not cases and any(shown.errors is not None for shown in found.runs):
        said = judge_learning(expand(sources)).sentence
        return f'<h1>Error by frequency</h1><p class="lede">{escape(said)}</p>'
    if not cases:
        return (
            "<h1>Training curves only</h1>"
            '<p class="lede">No layer was measured in these runs, so nothing can be said about frequencies.</p>'
            f"{_speed(sources)}"
        )
    verdicts = [(case, runs, _verdict(runs)) for (case, _), runs in cases.items()]
    if len(verdicts) == 1:
        one, sentences = verdicts[0][2]
        lede = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        lede = f'<div class="lede">{lede}</div>'
        if one is None:
            return f"<h1>Whether the deep frequency principle holds here is undecided</h1>{lede}"
        cards = "".join(_card(scale, its, unit) for scale, its in one.scales.items())
        return f'<h1>{escape(_title(one))}</h1><div class="cards">{cards}</div>{lede}'
    scales = in_order(scale for _, _, (one, _) in verdicts if one is not None for scale in one.scales)
    rows = "".join(_row(case, runs, *said, scales, unit) for case, runs, said in verdicts)
    counts = [_count([one for _, _, (one, _) in verdicts], scale) for scale in scales]
    decided = any(found.answer != "undecided" for _, _, (one, _) in verdicts if one for found in one.scales.values())
    said = (
        f"holds in so many of these kinds of run: {', '.join(counts)}" if decided else "is undecided in all these runs"
    )
    heads = "".join(f'<th title="{escape(SENTENCES[scale])}">{escape(TITLES[scale])}</th>' for scale in scales)
    verdict_table = table("verdicts", "verdicts", f"<th>runs</th>{heads}", rows)
    return f"<h1>The deep frequency principle {escape(said)}</h1>{verdict_table}{_speed(sources)}"


def _speed(sources: Sequence[Run]) -> str:
    """Return what runs of different depth say of speed, as HTML; nothing if some have parts, which are no seeds."""
    if any(run.parts for run in sources):
        return ""
    return f'<p class="lede">{escape(judge_speed(expand(sources)).sentence)}</p>'


def _verdict(runs: list[Shown]) -> tuple[Any, list[str]]:
    """Return the verdict, or None and why there is none."""
    try:
        found = verdict([shown.run for shown in runs])
    except InputError as error:
        return None, [f"Undecided: {error}."]
    return found, list(found.sentences)


def _title(one: Any) -> str:
    """Return the answers in a sentence, scales of one answer together."""
    answers: dict[str, list[str]] = {}
    for scale, found in one.scales.items():
        answers.setdefault(found.answer, []).append(scale)
    said = [f"{ANSWERS[answer]} {spoken(scales)}" for answer, scales in answers.items()]
    return f"The deep frequency principle {', and '.join(said)}"


def _count(verdicts: list[Any], scale: str) -> str:
    """Return in how many of the kinds of run that were measured at a scale the principle holds, or may hold."""
    answers = [one.scales[scale].answer for one in verdicts if one is not None and scale in one.scales]
    open_ = answers.count("undecided")
    return f"{answers.count('yes')} of {len(answers)} {spoken([scale])}{f' ({open_} undecided)' if open_ else ''}"


def _card(scale: str, one: Any, unit: str) -> str:
    return (
        f'<section class="card {escape(one.answer)}"><h2>{escape(TITLES[scale])}</h2>'
        f'<p class="answer"><span class="sign" aria-hidden="true">{SIGNS[one.answer]}</span> '
        f"{ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}</p>{_effect(one)}</section>"
    )


def _row(case: str, runs: list[Shown], found: Any, sentences: list[str], scales: list[str], unit: str) -> str:
    seeds = f' <span class="quiet">{len(runs)} runs</span>' if len(runs) > 1 else ""
    cells = ""
    for scale in scales:
        named = f'data-scale="{escape(TITLES[scale])}"'  # of narrow screens, on which a row is a list
        if found is None:
            cells += f"<td {named}>{SIGNS['undecided']} undecided<p>{escape(' '.join(sentences))}</p></td>"
            continue
        if scale not in found.scales:
            cells += f'<td {named} class="quiet">not measured</td>'
            continue
        one = found.scales[scale]
        said = f"{SIGNS[one.answer]} {ANSWERS[one.answer].removeprefix('is ')}{_since(one, unit)}"
        cells += f"<td {named}><b>{said}</b>{_effect(one)}</td>"
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
    return f'<p class="effect">{_number(one.octaves)} octaves per layer{between}</p>{why}'


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
