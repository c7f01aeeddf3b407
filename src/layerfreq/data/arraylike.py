"""Users' containers of numbers as arrays that PyTorch accepts: data frames, unusual strides and byte orders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.errors import Code, InputError, a_kind, first_line, is_not, no_such, none_given

if TYPE_CHECKING:
    import pandas as pd


def is_table(value: Any) -> bool:
    """Whether this is a data frame, a series or a column, of pandas or of others that have `to_numpy`."""
    return _is_column(value) or (callable(getattr(value, "to_numpy", None)) and not isinstance(value, (Tensor, type)))


def _is_column(value: Any) -> bool:
    """Whether this is a column of Hugging Face's `datasets`, as in `dataset["image"]`."""
    return type(value).__module__.split(".")[0] == "datasets" and type(value).__name__ == "Column"


def as_frame(value: Any, argument: str, columns: Iterable[str], source: str) -> pd.DataFrame:
    """Return a data frame of pandas that has some columns, and rows.

    Args:
        value: What the user passed.
        argument: Its name, for messages.
        columns: Names of the columns that it needs.
        source: Which function returns such a frame, for messages.

    Raises:
        InputError: If it is something else, lacks a column, or has no rows.
    """
    import pandas as pd

    if not isinstance(value, pd.DataFrame):
        raise is_not(argument, value, "a data frame", source)
    if missing := [name for name in columns if name not in value]:
        raise no_such(argument, "column", missing[0], f"pass {source}")
    if not len(value):
        raise none_given(argument, f"{source} of a run with measurements")
    return value


def as_tensor(value: Any, argument: str) -> Tensor:
    """Return numbers as a tensor: a tensor as it is, anything else on the CPU, whatever PyTorch's default device is.

    Args:
        value: What the user passed.
        argument: Its name, for messages.

    Raises:
        InputError: See `as_array`; PyTorch raises its own errors for anything else that is not numeric.
    """
    array = as_array(value, argument)
    return array if isinstance(array, Tensor) else torch.as_tensor(array, device="cpu")


def as_array(value: Any, argument: str) -> Any:
    """Return a table or array as an array that `torch.as_tensor` takes; anything else as it is.

    Args:
        value: What the user passed.
        argument: Its name, for messages.

    Raises:
        InputError: For masked entries, and tables that are not numeric.
    """
    if is_table(value):
        try:
            value = np.asarray(value[:] if _is_column(value) else value.to_numpy())
        except Exception as error:  # other libraries may raise anything
            said = f"{argument}: {a_kind(value)} without numbers ({first_line(error)}); pass an array"
            raise InputError(said) from None
        if value.dtype == object and not _is_text(value):
            value = _numbers(value, argument)
    if argument == "targets" and _is_text(value):
        raise InputError(f"targets: text such as {str(value[0])!r}; pass np.unique(targets, return_inverse=True)[1]")
    if isinstance(value, Tensor):
        kinds = {"sparse": value.layout != torch.strided, "quantized": value.is_quantized, "meta": value.is_meta}
        kind = next((name for name, is_so in kinds.items() if is_so), None)
        if kind is not None:
            remedy = {"sparse": "pass its .to_dense()", "quantized": "pass its .dequantize()"}.get(kind, "pass numbers")
            raise Code.UNSUPPORTED(f"{argument}: a {kind} tensor; {remedy}")
    if not isinstance(value, np.ndarray):
        return value
    masked = int(np.ma.count_masked(value)) if isinstance(value, np.ma.MaskedArray) else 0
    if masked:  # the array may hold any number there
        raise InputError(f"{argument}: {masked} masked entries; fill them in, or drop these points")
    value = np.asarray(value)
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        return value.astype(np.float64)
    if not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))
    odd = any(step < 0 or step % max(1, value.itemsize) for step in value.strides) or not value.flags.writeable
    return value.copy() if odd else value


def _is_text(value: Any) -> bool:
    return (
        (isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1))
        and len(value) > 0
        and isinstance(value[0], (str, bytes))
    )


def _numbers(value: np.ndarray, argument: str) -> np.ndarray:
    try:
        found = value.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument}: a table with other than numbers ({first_line(error)}); encode them") from None
    return found.astype(np.int64) if all(isinstance(one, int) for one in value.flat) else found
