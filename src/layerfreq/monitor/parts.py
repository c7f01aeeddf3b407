"""The parts of a monitor: each target of each probe set, and the config of its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from layerfreq.errors import Code, InputError, none_given, shown, together, under
from layerfreq.monitor.probe_check import check_points
from layerfreq.network.outputs import ONE, name_of
from layerfreq.probe import Probe
from layerfreq.runs.environment import environment
from layerfreq.runs.files import is_part

# The part of a monitor that has no others; its run is the monitor's.
ALONE = ONE


def as_probe_sets(inputs: Any, targets: Any, probes: Any) -> dict[str, tuple[Any, Any]]:
    """Return name -> inputs and targets of every probe set of a `Monitor`; one not passed by name is `ALONE`.

    Raises:
        InputError: If neither or both are given, or a name cannot be that of a folder.
    """
    if probes is None:
        if inputs is None:
            raise none_given("inputs", "inputs and targets, or several by name: probes={'train': (x, y), ...}")
        return {ALONE: (inputs, targets)}
    if inputs is not None or targets is not None:
        raise together("probes", "inputs or targets", "put these among the probes, by name")
    if not isinstance(probes, Mapping) or not probes:
        raise Code.EMPTY(f"probes: {shown(probes)} names none; pass some, as in {{'train': (x, y), 'test': loader}}")
    pairs = {name: one if isinstance(one, tuple) else (one, None) for name, one in probes.items()}
    odd = next((name for name, pair in pairs.items() if len(pair) != 2), None)
    if odd is not None:
        raise Code.SHAPE(f"probes: {odd!r} is a tuple of {len(pairs[odd])}; pass (inputs, targets), or a loader")
    named = {str(name): pair for name, pair in pairs.items()}
    if len(named) < len(pairs) or (ALONE in named and len(named) > 1):
        raise InputError(f"probes: {shown(list(pairs))} are not names, each another; pass names, such as 'train'")
    return named


@contextmanager
def about_probes(name: str) -> Iterator[None]:
    """Add the probe set's name to an InputError raised inside, if there are several."""
    try:
        yield
    except InputError as error:
        if name == ALONE:
            raise
        raise under(error, f"probes[{name!r}]") from error


def name_part(place: str, target: Any) -> str:
    """Return a part's name: its probe set, its target, or both if both have names."""
    return "-".join(str(one) for one in (place, target) if one != ONE)


def describe(model: nn.Module, probes: Mapping[str, Probe]) -> dict[str, dict[str, Any]]:
    """Check all probe sets, and return the config of each part's run; every rank must call this.

    Raises:
        InputError: For points, targets or names that cannot be measured.
    """
    about: dict[str, dict[str, Any]] = {}
    for place, probe in probes.items():
        with about_probes(place), probe.shards.together():
            ours, centers = check_points(model, probe)
        points = sum(probe.shards.gather(ours))
        for target, center in centers.items():
            name = name_part(place, target)
            argument = "targets" if is_part(place) or place == ALONE else "probes"
            twin = next((other for other in about if name.casefold() == other.casefold()), None)
            if twin is not None or (name != ALONE and not is_part(name)):
                beside = "" if twin is None else f" next to {twin!r}"
                raise InputError(
                    f"{argument}: {shown(name)} cannot be a folder of its own{beside}; use letters, digits, '-'"
                )
            made = None if probe.wanted is None else probe.wanted[target]
            said = {"probe": place, "target": name_of(made) if target == ONE and made is not None else str(target)}
            about[name] = {
                **{key: value for key, value in said.items() if value != ONE},
                **_describe(model, probe, center, points),
            }
    return about


def config_of(about: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the run of all parts says about itself: what the first does, and which parts there are."""
    first = next(iter(about.values()))
    if list(about) == [ALONE]:
        return first
    return {"parts": list(about), **{key: value for key, value in first.items() if key not in ("probe", "target")}}


def _describe(model: nn.Module, probe: Probe, center: bool, points: int) -> dict[str, Any]:
    options = {**probe.options, "center": center}
    plain = {key: value for key, value in options.items() if isinstance(value, (str, int, float, type(None)))}
    cuts, scales = probe.plan.layers, list(probe.scales)
    return {
        "model": type(model).__name__,
        "layers": [cut.name for cut in cuts],
        "hidden_layers": probe.plan.hidden,
        "parameters": _parameters(model),
        "points": points,
        "reading": {cut.name: cut.reading.name for cut in cuts if cut.reading.name != "flatten"} or "flatten",
        "options": {"scale": scales[0] if len(scales) == 1 else scales, **plain},
        **({} if probe.error is None else {"error_by_frequency": dict(probe.error)}),
        "environment": environment(),
    }


def _parameters(model: nn.Module) -> int | None:
    """Return a network's number of parameters; None if shapes are not yet known."""
    lazy = any(isinstance(one, nn.parameter.UninitializedParameter) for one in model.parameters())
    return None if lazy else sum(one.numel() for one in model.parameters())
