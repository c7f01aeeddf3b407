"""Layers as people name them: by name, by a pattern, by number, or as the module itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

import torch
from torch import nn

from layerfreq.errors import Code, InputError, a_kind, did_you_mean, shown

Layers = str | int | nn.Module | Sequence[str | int | nn.Module] | None


def as_layers(layers: Any) -> list[Any] | None:
    """Return what was passed as `layers` as a list of names, patterns, numbers and modules; None stays.

    Raises:
        InputError: If there are none, or they are something else.
    """
    if layers is None:
        return None
    if isinstance(layers, nn.ModuleList):  # never called itself, so its modules are meant
        found: list[Any] = list(layers)
    elif isinstance(layers, (str, bytes, torch.Tensor, nn.Module)) or not isinstance(layers, Iterable):
        found = [layers]
    else:
        found = list(layers)
    if not found or not all(isinstance(each, (str, nn.Module)) or is_number(each) for each in found):
        raise InputError(
            f"layers: {shown(layers)} has no names; pass names, patterns such as 'blocks.*', numbers or modules"
        )
    return found


def none_of(layers: Any, some: bool) -> bool:
    """Whether an empty list was passed where there may be no layers."""
    return not some and isinstance(layers, (list, tuple)) and not layers


def is_number(value: Any) -> bool:
    """Whether a value is the number of a layer."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_pattern(name: Any) -> bool:
    """Whether a name contains `*`, `?` or `[`."""
    return isinstance(name, str) and any(sign in name for sign in "*?[")


def pick(layers: Any, hidden: Sequence[str], others: Sequence[str] = (), model: nn.Module | None = None) -> list[str]:
    """Return the names that names, patterns, numbers and modules stand for, each once.

    Args:
        layers: As for `as_layers`.
        hidden: The layers that numbers count (-1 is the last) and patterns choose among.
        others: Names that patterns choose among where they match none of `hidden`.
        model: The model whose modules may be passed; None takes no modules.

    Raises:
        InputError: For an unknown number or module, a pattern that matches nothing; and, without `others`, for a name
            that is not in `hidden`.
    """
    found: list[str] = []
    for each in as_layers(layers) or []:
        if isinstance(each, nn.Module):
            found.append(_name_of(each, model))
        elif isinstance(each, str):
            found += _matching(each, hidden, others)
        else:
            found.append(_numbered(int(each), hidden))
    return list(dict.fromkeys(found))


def _matching(name: str, hidden: Sequence[str], others: Sequence[str]) -> list[str]:
    if name in hidden or name in others or (others and not is_pattern(name)):
        return [name]  # the caller knows why a name is unknown
    for known in (hidden, others):
        found = [one for one in known if is_pattern(name) and fnmatchcase(one, name)]
        if found:
            return found
    what = "no layer matches" if is_pattern(name) else "no layer"
    raise Code.UNKNOWN(f"layers: {what} {name!r}; {did_you_mean(name, [*hidden, *others])}")


def _numbered(number: int, hidden: Sequence[str]) -> str:
    if not -len(hidden) <= number < len(hidden):
        raise Code.UNKNOWN(f"layers: no hidden layer has number {shown(number)}; pass one from 0 to {len(hidden) - 1}")
    return hidden[number]


def _name_of(module: nn.Module, model: nn.Module | None) -> str:
    kind = a_kind(module)
    if model is None:
        raise InputError(f"layers: {kind} cannot be found without its model; pass its name")
    name = next((name for name, one in model.named_modules() if one is module), None)
    if not name:
        what = "the whole model" if name == "" else f"not a module of this {type(model).__name__}"
        raise Code.UNKNOWN(f"layers: {kind} that is {what}; pass one of the model's modules, or a name")
    return name
