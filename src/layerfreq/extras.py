"""Importing optional packages."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

from layerfreq.errors import Code, InputError, first_line


class MissingPackage(InputError, ImportError):
    """A missing optional package; also an ImportError."""


def needs(module: str, package: str, argument: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its dotted name.
        package: What pip installs to bring it, such as "layerfreq[report]".
        argument: The argument that needs it, for messages.

    Returns:
        The module.

    Raises:
        MissingPackage: If it cannot be imported: the reason, and the command that installs it.

    Examples:
        >>> needs("math", "layerfreq[report]", "report").pi
        3.14...
        >>> needs("no_such_module", "layerfreq[report]", "report")
        Traceback (most recent call last):
            ...
        layerfreq.extras.MissingPackage: report: needs no_such_module (...); pip install 'layerfreq[report]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        said = f"{argument}: needs {module} ({first_line(error)}); pip install {shlex.quote(package)}"
        raise MissingPackage(said, Code.PACKAGE) from None
