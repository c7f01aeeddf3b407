"""The options of `error_spectrum`, checked before anything is run or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from layerfreq.data.targets import read_targets
from layerfreq.errors import InputError, did_you_mean, shown
from layerfreq.measure.options import as_seed
from layerfreq.measure.sampling import row_limit
from layerfreq.response.given import as_frequencies, as_given
from layerfreq.response.measure import METHODS, TAKES, choose_method, error_spectrum

OPTIONS = ("method", "frequencies", *TAKES, "seed")
SOME = 64  # points on which filters, whose cost grows as their square, are tried


def as_error_options(error: Any) -> dict[str, Any] | None:
    """Return what `Monitor(error=)` was given as options of `error_spectrum`; None stays.

    Args:
        error: The name of a method, "auto", or a mapping of options.

    Raises:
        InputError: For an unknown method or option.
    """
    if error is None:
        return None
    if isinstance(error, str):
        error = {"method": error}
    if not isinstance(error, Mapping):
        raise InputError(
            f"error: {shown(error)} is neither a method nor options; pass 'auto', {', '.join(map(repr, METHODS))}, "
            "or a dict of options of error_spectrum"
        )
    unknown = next((name for name in error if name not in OPTIONS), None)
    if unknown is not None:
        raise InputError(f"error: no option {unknown!r}; {did_you_mean(str(unknown), OPTIONS)}")
    method = error.get("method", "auto")
    if method not in ("auto", *METHODS):
        raise InputError(f"error: no method {method!r}; {did_you_mean(str(method), ('auto', *METHODS))}")
    as_frequencies(error.get("frequencies"))
    as_seed(error.get("seed", 0))
    return dict(error)


def check_error(inputs: Any, targets: Any, options: Mapping[str, Any]) -> None:
    """Try options on the points before there are outputs.

    Raises:
        InputError: For points, targets or options that no measurement of the error takes.
    """
    y = read_targets(targets, len(inputs))
    blank = torch.zeros(y.shape) if y.ndim == 2 else torch.full((len(y), max(2, int(y.max()) + 1)), 0.5)
    given = as_given(inputs, targets, blank)
    method = options.get("method", "auto")
    at = slice(None)
    if (choose_method(given)[0] if method == "auto" else method) == "filter":
        at = torch.linspace(0, len(y) - 1, min(len(y), SOME)).long()
        rows = options.get("rows")
        few = None if rows is None else min(row_limit(rows, None, len(y)), len(at))
        options = {**options, "method": "filter", "rows": few}
    error_spectrum(given.inputs[at], y[at], blank[at], **options)
