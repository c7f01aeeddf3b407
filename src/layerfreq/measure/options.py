"""The options of `spectrum`, checked before anything is run or written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.data.validation import as_cutoffs, as_scale
from layerfreq.engines import pick_engine
from layerfreq.engines.cuda.device import check_device
from layerfreq.errors import InputError, first_line, is_not, shown, together, unknown

OPTIONS = ("inv_delta", "scale", "center", "rows", "rtol", "engine", "device", "seed", "group")


def check_options(options: Mapping[str, Any], n: int | None = None) -> dict[str, Any]:
    """Return options of `spectrum` as plain numbers and arrays.

    Args:
        options: Name -> value.
        n: Largest possible number of points, if known.

    Raises:
        InputError: For an option that `spectrum` does not have, or a value that it would refuse.
    """
    other = next((name for name in options if name not in OPTIONS), None)
    if other is not None:
        raise unknown("options", other, OPTIONS)
    found = dict(options)
    Shards(options.get("group"))
    if options.get("inv_delta") is not None:
        found["inv_delta"] = as_cutoffs(options["inv_delta"])
    if "scale" in options:
        found["scale"] = as_scale(options["scale"])
    device = _device(options.get("device"))
    if "engine" in options:
        _check_engine(options["engine"], device)
    if not isinstance(options.get("center"), (bool, np.bool_, type(None))):
        raise is_not("center", options["center"], "True, False or None", "one of them")
    if "seed" in options:
        found["seed"] = as_seed(options["seed"])
    rows, rtol = _number(options.get("rows")), _number(options.get("rtol"))
    check_rows(rows, rtol, n)
    return {**found, **{name: value for name, value in (("rows", rows), ("rtol", rtol)) if name in options}}


def as_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises:
        InputError: If it is not a whole number >= 0, or too large.
    """
    number = _number(seed)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
        raise is_not("seed", seed, "a whole number from 0 to 2^63 - 1", "one, such as 0")
    return number


def _number(value: Any) -> Any:
    """Return NumPy's and PyTorch's scalars as plain numbers, and anything else as it is."""
    if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def check_rows(rows: Any, rtol: Any, n: int | None) -> None:
    """Raise an InputError if `rows` of n points cannot be filter centres, or both `rows` and `rtol` are given."""
    if rows is not None and rtol is not None:
        raise together("rows", f"rtol={rtol}", "leave one out: rtol draws as many rows as it needs")
    if rtol is not None and not (isinstance(rtol, (int, float)) and not isinstance(rtol, bool) and 0 < rtol < math.inf):
        raise is_not("rtol", rtol, "a positive number", "0.01 for one per cent")
    if rows is None:
        return
    if isinstance(rows, bool) or not isinstance(rows, int):
        raise is_not("rows", rows, "an integer", "a number of filter centres, or None for all")
    least = 1 if n is None else min(2, n)
    if rows < least or (n is not None and rows > n):
        of = "" if n is None else f" of {n} points"
        raise InputError(f"rows: {rows}{of} cannot be drawn; pass {least} .. {n or 'n'}, or None for all")


def _device(device: Any) -> torch.device | None:
    try:
        return None if device is None else torch.empty(0, device=device).device
    except Exception as error:  # of many types, for unknown names and missing accelerators
        raise InputError(f"device: {shown(device)} cannot be used ({first_line(error)}); pass 'cpu' or None") from None


def _check_engine(engine: Any, device: torch.device | None) -> None:
    if not isinstance(engine, str):
        raise InputError(f"engine: {shown(engine)} is not a valid name; pass 'auto'")
    pick_engine(engine, device or torch.device("cpu"), 1)
    if engine == "cuda" and device is not None:
        check_device(device)
