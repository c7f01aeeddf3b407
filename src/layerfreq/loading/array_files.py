"""Arrays in files, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerfreq.errors import Code, InputError, damaged, first_line, no_such
from layerfreq.extras import needs
from layerfreq.files import as_path

SUFFIXES = (".npz", ".safetensors")


def read_arrays(path: str | Path, argument: str) -> dict[str, Any]:
    """Return the arrays of a `.npz` (NumPy's) or `.safetensors` file (tensors) by name.

    Args:
        path: The file, whose name ends in one of `SUFFIXES`.
        argument: Its name, for messages.

    Raises:
        InputError: If it is missing or damaged, or `safetensors` is not installed.
    """
    path = as_path(path, argument)
    if not path.is_file():
        raise no_such(
            argument, "file", path, "it is a folder; name a file in it" if path.is_dir() else "check the path"
        )
    try:
        if path.suffix == ".npz":
            import numpy as np

            with path.open("rb") as file:
                if file.read(2) != b"PK":  # NumPy takes anything else for a pickle, and advises to run it
                    raise ValueError("it is not an archive")
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        return dict(needs("safetensors.torch", "safetensors", argument).load_file(path))
    except InputError:
        raise
    except Exception as error:  # damaged files raise what their formats please
        said = first_line(error)
        if "allow_pickle" in said:
            raise Code.UNSUPPORTED(f"{argument}: {str(path)!r} holds Python objects; save arrays of numbers") from None
        raise damaged(argument, path, error, "save it again", f"damaged or not a {path.suffix} file") from None
