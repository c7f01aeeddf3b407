"""Selecting parts of a run: a step, some layers, a scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfreq.data.notes import as_step
from layerfreq.data.scales import in_order
from layerfreq.data.validation import SCALES, as_scale
from layerfreq.errors import Code, no_such, none_given, shown
from layerfreq.layers import LayerSpectra
from layerfreq.measure.result import Spectrum
from layerfreq.network.naming import pick
from layerfreq.runs.reader import read_back


def measured_step(step: Any, steps: list[int], path: Path) -> int:
    """Return a measured step, counted from the end if negative.

    Args:
        step: The requested step.
        steps: The run's steps, in order.
        path: The run's path.

    Raises:
        InputError: If it was not measured; names nearby steps.
    """
    if not steps:
        raise no_such("run", "measurement in", path, "measure at least one step first")
    if isinstance(step, int) and not isinstance(step, bool) and -len(steps) <= step < 0:
        return steps[step]
    wanted = as_step(step)
    if wanted not in steps:
        near = sorted(sorted(steps, key=lambda one: abs(one - wanted))[:3])
        raise Code.MISSING(f"step: {shown(step)} was not measured; near it are {', '.join(map(str, near))}")
    return wanted


def several(given: Any, what: str) -> list[Any]:
    """Return one value or several as a list.

    Raises:
        InputError: If there are none.
    """
    try:
        found = [given] if isinstance(given, (str, bytes)) else list(given)
    except TypeError:  # one value; a tensor without axes says only here that it cannot be gone through
        found = [given]
    if not found:
        raise none_given(what, "at least one, or leave it out for all")
    return found


def with_layers(frame: Any, layers: Any) -> Any:
    """Return a run's frame with some layers only, by name, pattern or number."""
    known = frame.groupby("layer")["depth"].min().sort_values(kind="stable").index
    return frame[frame["layer"].isin(pick(layers, list(known)))]


def at_scales(frame: Any, scale: Any) -> Any:
    """Return a run's frame at one scale or several only.

    Raises:
        InputError: If it was not measured at one of them.
    """
    has = in_order(frame["scale"])
    wanted = [as_scale(one) for one in several(scale, "scale")]
    missing = next((one for one in wanted if one not in has), None)
    if missing is not None:
        raise Code.MISSING(f"scale: {missing!r} was not measured; choose among {', '.join(has)}")
    return frame[frame["scale"].isin(wanted)]


def layers_at(frame: Any, scale: Any, options: Any) -> LayerSpectra:
    """Return the spectra of one step in a run's frame at one scale, as measured.

    If it has raw and rms, the spectra know the factor between them, so that `to_scale` works.

    Args:
        frame: As `Run.spectra`, of one step.
        scale: "raw", "rms" or "maxabs"; None means the monitor's first one.
        options: The measurement's options from the run's config.
    """
    said: dict[str, Any] = options if isinstance(options, dict) else {}
    asked, has = said.get("scale"), in_order(frame["scale"])
    asked = asked[0] if isinstance(asked, list) and asked else asked
    if scale is None:
        scale = asked if asked in has else next(one for one in SCALES if one in has)
    at_scales(frame, as_scale(scale))
    measured = {(one.layer, one.spectrum.scale): one for one in read_back(frame)}
    found: dict[str, Spectrum] = {}
    for (layer, own), one in measured.items():
        raw, rms = measured.get((layer, "raw")), measured.get((layer, "rms"))
        if own != scale:
            continue
        spread = 0.0
        if raw is not None and rms is not None and rms.again and own != "maxabs":
            spread = float(rms.spectrum.inv_delta[0] / raw.spectrum.inv_delta[0])
        found[layer] = replace(one.spectrum, spread=spread, center=bool(said.get("center")))
    return LayerSpectra(found, frame.attrs.get("refused"), frame.attrs.get("failed"))
