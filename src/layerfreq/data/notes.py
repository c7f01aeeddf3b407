"""Steps and metrics from a training loop, checked before they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from layerfreq.errors import InputError, is_not, shown

LARGEST = 2**1023  # about the largest float
MOST = 10**12  # steps are below this: the names of their files have twelve digits


def as_step(step: Any) -> int:
    """Return a step as an int.

    Raises:
        InputError: If it is not a whole number >= 0.
    """
    number: Any = _plain(step)
    whole = isinstance(number, Integral) or (isinstance(number, Real) and float(number).is_integer())
    if not whole or isinstance(number, (bool, np.bool_)) or not 0 <= number < MOST:  # pyright: ignore[reportOperatorIssue]
        raise is_not("step", step, "a whole number >= 0", "how many training steps are done")
    return int(number)  # pyright: ignore[reportArgumentType]


def as_metrics(metrics: Mapping[Any, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics that can be stored, as floats, and the reasons for the others.

    Raises:
        InputError: If they have no names.
    """
    if not isinstance(metrics, Mapping):
        raise InputError(f"metrics: {shown(metrics)} has no names; pass a dict such as {{'loss': 0.3}}")
    kept: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, value in metrics.items():
        number = _plain(value)
        if not isinstance(name, str) or name == "step":
            refused[str(name)] = "a run has its steps under this name; choose another"
        elif isinstance(number, (Real, np.bool_)) and abs(number) < LARGEST:  # pyright: ignore[reportOperatorIssue]
            kept[name] = float(number)
        elif isinstance(number, float):
            kept[name] = number
        else:
            refused[name] = f"{shown(value)} is not a number"
    return kept, refused


def _plain(value: Any) -> Any:
    """Return the number in a tensor or array of one number, and anything else as it is."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and getattr(value, "size", None) is not None:
        size = value.numel() if isinstance(value, Tensor) else value.size
        try:
            return value.item() if size == 1 else value
        except (RuntimeError, ValueError):  # without a value, such as one on "meta"
            return value
    return value
