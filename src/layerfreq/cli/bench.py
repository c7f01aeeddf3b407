"""`layerfreq bench`: the engines compared with plain implementations."""

from __future__ import annotations

from typing import Annotated

import typer

from layerfreq.cli.terminal import JsonOption, print_json


def bench(
    n: Annotated[int, typer.Option(help="Number of points.", min=2)] = 5000,
    d: Annotated[list[int] | None, typer.Option(help="Number of features (repeatable).", min=1)] = None,
    cutoffs: Annotated[int, typer.Option(help="Number of cutoffs.", min=2)] = 50,
    classes: Annotated[int, typer.Option(help="Number of classes.", min=2)] = 10,
    repeats: Annotated[int, typer.Option(help="Number of timings to take the median of.", min=1)] = 5,
    slow: Annotated[
        bool, typer.Option("--slow", help="Also time implementations that take seconds per cutoff.")
    ] = False,
    grow: Annotated[bool, typer.Option("--grow", help="Also show how the cost grows with each size.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare time, memory and error of the engines with plain implementations, as Markdown tables."""
    from layerfreq.inspection import benchmark as bench

    def say(text: str) -> None:
        if not as_json:
            print(text + "\n", flush=True)

    say(f"{bench.machine()}; random features, float32, medians of {repeats}")
    ways = [way for way in bench.WAYS if (slow or way not in bench.SLOW) and (n <= bench.DENSE or "layerfreq" in way)]
    found = []
    for width in d or [64, 512, 3072]:
        say(f"n={n}, d={width}, {cutoffs} cutoffs, {classes} classes")
        rows = bench.measure(n, width, cutoffs, classes, repeats, ways)
        found += [{"n": n, "d": width, "cutoffs": cutoffs, "classes": classes, **row} for row in rows]
        say(bench.as_markdown(rows))
    growth = list(bench.growth(repeats)) if grow else []
    for name, usual in bench.DEFAULTS.items() if grow else ():
        rest = ", ".join(f"{key}={value}" for key, value in bench.DEFAULTS.items() if key != name)
        say(f"{name} ({usual} elsewhere), with {rest}")
        say(bench.as_markdown([row for row in growth if row["grows"] == name], name))
    if as_json:
        print_json({"machine": bench.machine(), "repeats": repeats, "ways": found, "growth": growth})
