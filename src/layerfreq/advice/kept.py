"""Finished pieces of work in a folder, so that a killed call, made again, does not do them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from layerfreq._version import __version__
from layerfreq.errors import Code
from layerfreq.files import as_path, write_whole

Arrays = Mapping[str, Any]  # of NumPy


class Kept:
    """Pieces of work, each a file that is named after all that it was made from, so that no other's is taken for it.

    Args:
        folder: Where they are; None keeps none.

    Raises:
        InputError: If it is no folder, nor can be one.
    """

    def __init__(self, folder: Any = None) -> None:
        self._folder: Path | None = None
        if folder is None:
            return
        self._folder = as_path(folder, "out")
        if self._folder.exists() and not self._folder.is_dir():
            raise Code.EXISTS(f"out: {str(folder)!r} is not a folder; choose another place")
        self._folder.mkdir(parents=True, exist_ok=True)

    def key(self, *parts: Any) -> str:
        """Return a text that differs where tensors, or anything else by how it prints, do; none where none is kept."""
        found = hashlib.sha256(__version__.encode())
        for part in parts if self._folder else ():
            if isinstance(part, Tensor):
                found.update(f"{tuple(part.shape)} {part.dtype}".encode())
                found.update(part.contiguous().view(torch.uint8).numpy().data)
            else:
                found.update(repr(part).encode())
        return found.hexdigest()[:32]

    def get(self, name: str, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a piece of work, done before or now.

        Args:
            name: What kind of work it is, for the file's name.
            key: Key of what it is made from, as for `key`.
            make: Does it.
        """
        if self._folder is None:
            return make()
        file = self._folder / f"{name}-{key}.npz"
        try:
            with np.load(file) as found:
                return dict(found)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not there, or damaged by others
            arrays = make()
            write_whole(file, lambda at: np.savez(at, **arrays))
            return arrays
