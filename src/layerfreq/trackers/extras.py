"""Importing what only an extra brings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from layerfreq.errors import InputError, first_line


def needs(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Raises:
        InputError: If it is not installed, with the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        why = first_line(error)
        raise InputError(f"{module}: cannot be imported ({why}); pip install 'layerfreq[{extra}]'") from None
