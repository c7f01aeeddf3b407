"""`layerfreq relearn RUN`: fresh heads above every cut, and what predicts their steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerfreq.cli.analyze import DataHelp
from layerfreq.cli.terminal import JsonOption, again, counting, print_json, show_table, stoppable
from layerfreq.errors import Code

if TYPE_CHECKING:
    import pandas as pd


def relearn(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run that kept its weights, or of an experiment.")
    ],
    step: Annotated[list[int] | None, typer.Option("--step", help="A step with kept weights; default: all.")] = None,
    cut: Annotated[
        list[int] | None, typer.Option("--cut", help="0 for the inputs, 1 for the first layer ...; default: all.")
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="own, linear, hidden-1 or hidden-2; default: hidden-1.")
    ] = None,
    optimizer: Annotated[list[str] | None, typer.Option("--optimizer", help="sgd or adam; default: both.")] = None,
    scale: Annotated[list[str] | None, typer.Option("--scale", help="raw or rms; default: both.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of fresh heads of each kind.", min=1)] = 3,
    points: Annotated[int, typer.Option(help="Maximum number of points to train on.", min=2)] = 5000,
    budget: Annotated[int, typer.Option(help="Maximum number of steps per head.", min=1)] = 1500,
    batch: Annotated[int, typer.Option(help="Points per step; 0 for all.", min=0)] = 128,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODULE:FACTORY", help="For a run of your own: builds its network."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help=f"With --model: {DataHelp[0].lower()}{DataHelp[1:]}")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume after a stop or kill.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train fresh heads on the frozen features of every cut, and find what predicts how long they take.

    Options that name steps, cuts, heads, optimizers or scales may be repeated.

    For an experiment's run the data and network are rebuilt; for a run of your own, pass --model and --data.
    """
    from layerfreq.experiments import source_of
    from layerfreq.relearn import Design
    from layerfreq.relearn import relearn as train
    from layerfreq.verdict.cause import judge_cause
    from layerfreq.verdict.ranking import league

    design = Design(
        heads=tuple(head or Design.heads),
        scales=tuple(scale or Design.scales),
        optimizers=tuple(optimizer or Design.optimizers),
        seeds=seeds,
        points=points,
        budget=budget,
        batch=batch or None,
    )
    own = own_network(model, data, points)
    remedy = f"{run} keeps the heads trained so far; resume with: {again('--resume')}"
    with stoppable(remedy), counting("relearn") as tell:
        found = train(run, *own, design=design, steps=step, cuts=cut, resume=resume, tell=tell, rebuild=source_of)
    table = league(found)
    cause = judge_cause(table)
    if as_json:
        print_json({"run": run, "league": table, "verdict": str(cause)})
        return
    _show(table)
    print(f"\n{cause}")


def _show(table: pd.DataFrame) -> None:
    """Print one table per scale, optimizer, rate, head and kind of pairs."""
    shown = ["predictor", "correlation", "low", "high", "partial", "partial_low", "partial_high", "seeds", "pairs"]
    for names, part in table.groupby(["scale", "optimizer", "rule", "head", "pairs_of"], sort=False):
        of, optim, rule, kind, pairs = names if isinstance(names, tuple) else (names,) * 5
        late = part["censored"].iloc[0]
        print(f"\n{of} scale, {optim}, {rule} rate, {kind} head, {pairs}; {late:.0%} of heads censored")
        rows = [[_cell(one) for one in row] for row in part[shown].to_numpy(dtype=object)]
        show_table([name.replace("_", "\n").replace("correl", "correl-\n") for name in shown], rows)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value).replace("_", " ")
    return f"{value:.2f}" if value == value else "-"


def own_network(model: str | None, data: str | None, points: int) -> tuple[Any, Any, Any]:
    """Return a user's network, inputs and targets; None for each where an experiment's are built anew."""
    if model is None and data is None:
        return None, None, None
    if model is None or data is None:
        given, other = ("data", "--model MODULE:FACTORY") if model is None else ("model", "--data")
        raise Code.CONFLICT(f"{given}: given without {other}; name both, or neither for an experiment's run")
    from layerfreq.loading.datasets import load_data
    from layerfreq.loading.models import find_model

    found = find_model(model)
    return found.model, *load_data(data, found, points)
