"""`layerfreq advise`: where to cut a trained network, where to take features from, and whether it is deep enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerfreq.cli.analyze import DataHelp, ReadingOption, SeedOption
from layerfreq.cli.terminal import JsonOption, again, console, counting, print_json, show_table, stoppable
from layerfreq.errors import Code, InputError, no_such, none_given
from layerfreq.files import as_path

if TYPE_CHECKING:
    from layerfreq.advice import Advice


def advise(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN ... | MODEL [CHECKPOINT]",
            help="Runs with weights; or MODULE:FACTORY, or a Hugging Face folder or hub id, and a checkpoint.",
            show_default=False,
        ),
    ],
    *,
    data: Annotated[
        str | None,
        typer.Option("--data", help=f"{DataHelp} Use points not trained on. An experiment's run has its own."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODULE:FACTORY", help="For a run of your own: builds its network.")
    ] = None,
    step: Annotated[int | None, typer.Option("--step", help="For a run: the step; default: the last one kept.")] = None,
    transfer: Annotated[
        str | None, typer.Option("--transfer", help="Another data set, to find the best features for; as for --data.")
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="A layer (repeatable); default: all hidden layers.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far a head may score below the network.")] = 0.02,
    points: Annotated[int, typer.Option(help="Maximum number of points to train and score heads on.", min=30)] = 2000,
    reading: ReadingOption = "mean",
    seed: SeedOption = 0,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder for results per cut; run again with the same folder to resume."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also show how far each head is from the network.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find where to cut a trained network, where to take features from, and whether it is deep enough."""
    from layerfreq.advice import advise as judge

    found: list[tuple[str, Advice, bool]] = []
    remedy = "nothing was kept (--out FOLDER keeps results); run it again"
    if out is not None:
        remedy = f"{out} keeps the finished cuts; resume with: {again()}"
    with stoppable(remedy), counting("advise") as tell:
        for name, source, given, own in _networks(what, model, data, step, points, reading, seed):
            other = None if transfer is None else _other(transfer, source, points, reading)
            advice = judge(
                source.model,
                *given,
                transfer=other if other is None or other[1] is not None else other[0],
                layers=layers,
                reading=reading,
                tolerance=tolerance,
                seed=seed,
                out=out,
                tell=tell,
            )
            found.append((name, advice, own))
    if as_json:
        print_json({"advice": [{"of": name, **_as_dict(one), "trained_on": own} for name, one, own in found]})
        return
    for name, advice, own in found:
        these = "points" if advice.points == advice.inputs else f"positions of {advice.inputs} inputs"
        scores = f"{advice.measure} {advice.network:.3f} (a constant: {advice.constant:.3f})"
        console.print(f"{name}: {advice.points} {these}, {scores}")
        show_table(*rows_of(advice))
        if table:
            show_table(*gaps_of(advice))
        for sentence in advice.sentences:
            console.print(sentence)
        if own:
            console.print(
                "The network was trained on these points, so the scores are too high; pass others with --data."
            )


def _other(transfer: str, source: Any, points: int, reading: Any) -> Any:
    """Load the other data set, and blame its option."""
    from layerfreq.loading.datasets import load_data

    try:
        return load_data(transfer, source, points, reading)
    except InputError as error:
        raise InputError(f"transfer: {str(error).removeprefix('data: ')}", error.code) from None


def _networks(
    what: list[str], model: str | None, data: str | None, step: int | None, points: int, reading: str, seed: int
) -> Iterator[tuple[str, Any, tuple[Any, Any], bool]]:
    """Iterate over names, networks as loaded, their data, and whether the network was trained on these."""
    from layerfreq.loading.datasets import load_data
    from layerfreq.loading.models import find_model, load_checkpoint
    from layerfreq.runs.several import expand

    if (":" not in what[0] and (as_path(what[0], "run") / "config.yaml").is_file()) or model is not None:
        source = None if model is None else find_model(model, seed)
        runs = [run for run, _ in expand(what)]
        if source is not None and data is None:
            raise none_given("data", "--data along with --model, points that the network was not trained on")
        for run, at in [(run, _kept_step(run, step)) for run in runs]:  # before the first of them takes its time
            yield _of_run(run, source, data, at, points, reading)
        return
    if step is not None:
        raise InputError(f"step: {step} of {what[0]!r}, which is not a run; name its checkpoint instead")
    if data is None:
        raise InputError(
            f"data: none for {what[0]!r}, which is not a run's folder; for a model, "
            "name points that it was not trained on with --data"
        )
    if len(what) > 2:
        raise InputError(f"checkpoint: {len(what) - 1} given; name one, advice is on one network")
    source = find_model(what[0], seed)
    if len(what) == 2:
        load_checkpoint(source, as_path(what[1], "checkpoint"))
    yield " ".join(what), source, load_data(data, source, points, reading), False


def _kept_step(run: Any, step: int | None) -> int:
    """Return the step whose weights are taken, the last one by default."""
    from layerfreq.runs.weights import kept_steps

    kept = kept_steps(run.path)
    if not kept:
        raise no_such("run", "weights in", run.path, "train anew, a Monitor with checkpoints=True")
    if step is not None and step not in kept:
        raise Code.MISSING(f"step: {str(run.path)!r} kept no weights at step {step}; it has {kept}")
    return kept[-1] if step is None else step


def _of_run(run: Any, own: Any, data: str | None, step: int, points: int, reading: str) -> tuple[str, Any, Any, bool]:
    from layerfreq.experiments import source_of
    from layerfreq.loading.datasets import load_data
    from layerfreq.loading.models import Source
    from layerfreq.runs.weights import load_weights

    name = f"{run.path}, step {step}"
    if own is not None:
        assert data is not None
        load_weights(run.path, step, own.model)
        return name, own, load_data(data, own, points, reading), False
    source = source_of(run)
    network = source.fresh(0)
    load_weights(run.path, step, network)
    if data is None:
        return name, Source(network, run.path.name), (source.inputs[:points], source.targets[:points]), True
    inputs, targets = load_data(data, Source(network, run.path.name), points, reading)
    shape = source.inputs.shape[1:]
    if hasattr(inputs, "shape") and inputs[0].numel() == shape.numel():
        inputs = inputs.reshape(len(inputs), *shape)  # as pixels in a row, for instance
    return name, Source(network, run.path.name), (inputs, targets), False


def rows_of(advice: Advice) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table, at most 80 columns wide where names are short."""
    head = ["layer", "raw", "rms", "maxabs", "linear", "hidden", "steps", "time", "params"]
    more = ["transfer"] if "transfer" in advice.table else []
    rows = []
    for row in advice.table.to_dict("records"):
        scores = [f"{row[name]:.3f}" for name in ("linear", "hidden", *more)]
        frequencies = [_short(row[name]) for name in ("raw", "rms", "maxabs")]
        steps = "never" if row["linear_steps"] == float("inf") else f"{row['linear_steps']:.0f}"
        below = [f"{row['time']:.0%}", _count(row["parameters"])]
        rows.append([row["layer"], *frequencies, *scores[:2], steps, *below, *scores[2:]])
    whole = ["network", "", "", "", f"{advice.network:.3f}", "", "", "100%", _count(advice.parameters)]
    return [*head, *more], [*rows, whole + [""] * len(more)]


def gaps_of(advice: Advice) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of how far each head is from the network, and on other data from the best cut."""
    kinds = [name for name in ("linear", "hidden", "transfer") if f"{name}_gap" in advice.table]
    rows = [
        [row["layer"], *(f"{row[f'{k}_gap']:+.3f} ({row[f'{k}_low']:+.3f} to {row[f'{k}_high']:+.3f})" for k in kinds)]
        for row in advice.table.to_dict("records")
    ]
    return ["layer", *kinds], rows


def _as_dict(advice: Advice) -> dict[str, Any]:
    fields = (
        "measure",
        "network",
        "constant",
        "parameters",
        "points",
        "inputs",
        "tolerance",
        "depth",
        "exit",
        "sure_exit",
    )
    more = ("features", "transfer_measure", "as_good", "agreement", "sentences", "table")
    return {name: getattr(advice, name) for name in (*fields, *more)}


def _short(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"


def _count(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
