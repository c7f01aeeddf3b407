"""Files of a run: where they may lie, how they are written whole, and how damaged ones are told."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerfreq.data.notes import shown
from layerfreq.data.validation import SCALES
from layerfreq.errors import InputError, first_line

if TYPE_CHECKING:
    import pandas as pd

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
# What config.yaml says, where others count on its kind.
KINDS: dict[str, tuple[type, ...]] = {"environment": (dict,), "error": (int, float), "seeds": (list,)}
TRIES = 5  # of a reader, while a run is being rewound


def as_path(path: Any, argument: str) -> Path:
    """Return a local path, with ~ expanded.

    Args:
        path: Text or a path.
        argument: What to blame in a message.

    Raises:
        InputError: If it is a URL, or no path at all.
    """
    if isinstance(path, bytes) or not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise InputError(f"{argument}: {shown(path)} is no path; pass a local folder or file")
    if "\0" in str(path):
        raise InputError(f"{argument}: {shown(path)} has a null character; pass another path")
    if URL.match(str(path)):
        raise InputError(f"{argument}: {str(path)!r} is a URL; pass a local folder, and copy it there afterwards")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{argument}: no home folder for {str(path)!r}; write it out") from None


def write_whole(path: Path, write: Callable[[Path], Any], workroom: Path | None = None) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    What killed processes of this machine have left half-written beside it is removed.

    Args:
        path: Where the file goes.
        write: Writes the file to the path that it is given.
        workroom: Where to write it first, on the same file system; None means beside its place.

    Raises:
        InputError: If something else than a file is there.
        OSError: If it cannot be written, with the file's name.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"out: {str(path)!r} is no regular file and is not replaced; choose another place")
    room = workroom or path.parent
    partial = room / f".partial-{HOST}-{os.getpid()}-{secrets.token_hex(8)}{path.suffix}"
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # with the mode that the umask leaves
        _sweep_dead(room)
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:  # of the writers, some say neither which file nor, in plain words, what is wrong
        partial.unlink(missing_ok=True)
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or 0, why, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Let the file's new name outlive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep_dead(folder: Path) -> None:
    for leftover in folder.glob(f".partial-{HOST}-*-*"):
        writer = int(leftover.name.split("-")[2])
        try:
            os.kill(writer, 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except OSError:
            pass  # somebody else's, and alive


def sweep(folder: Path) -> None:
    """Remove the half-written files that a killed process left in a folder that nobody writes to now."""
    for leftover in folder.rglob(".partial-*"):
        leftover.unlink(missing_ok=True)


def read_config(path: Path) -> dict[str, Any]:
    """Return what a `config.yaml` says.

    Raises:
        InputError: If it cannot be read, or is of another form.
    """
    remedy = "mend it, or put a copy in its place"
    try:
        found = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"run: {str(path)!r} is damaged ({first_line(error)}); {remedy}") from None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise InputError(f"run: {str(path)!r} holds a {type(found).__name__}, not names and values; {remedy}")
    for name, kinds in KINDS.items():
        if not isinstance(found.get(name), (*kinds, type(None))):
            raise InputError(f"run: {str(path)!r} says {name}: {shown(found[name])}, which it cannot be; {remedy}")
    return found


def plain(value: Any) -> Any:
    """Return a value as YAML can hold it; what it cannot is text."""
    if isinstance(value, Mapping):
        return {name if isinstance(name, (int, float)) else str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    item = getattr(value, "tolist", None)  # of NumPy's and PyTorch's numbers and arrays
    try:
        return str(value) if item is None else plain(item())
    except Exception:  # of anybody's classes
        return shown(value)


def read_frames(folder: Path, pattern: re.Pattern[str], columns: list[str]) -> list[pd.DataFrame]:
    """Read the Parquet files in one of a run's folders.

    Args:
        folder: The folder, which may be missing.
        pattern: What their names are like.
        columns: Numbers or text that each must have; all but "layer" and "scale" are numbers.

    Raises:
        InputError: For a damaged file, or one that is none of the run's, with its name.
    """
    for left in reversed(range(TRIES)):
        try:
            parts = sorted(one for one in folder.glob("*.parquet") if not one.name.startswith("."))
            return [_read_frame(part, pattern, columns) for part in parts]
        except FileNotFoundError:  # the run is being rewound: look again at what is there
            if not left:
                raise InputError(f"run: files in {str(folder)!r} come and go; try again later") from None
            time.sleep(0.05)
    return []


def _read_frame(part: Path, pattern: re.Pattern[str], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    if not pattern.fullmatch(part.name):
        raise InputError(f"run: {str(part)!r} is no file of the run (of a sync client?); move it away")
    try:
        frame = pd.read_parquet(part)
    except FileNotFoundError:
        if part.is_symlink():
            raise InputError(f"run: {str(part)!r} leads nowhere; move it away") from None
        raise
    except Exception as error:  # damaged files raise dozens of types
        raise InputError(f"run: {str(part)!r} is damaged ({first_line(error)}); move it away") from None
    for name in columns:
        if name not in frame:
            raise InputError(f"run: {str(part)!r} has no column {name!r}; move it away")
        number = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        if number == (name in ("layer", "scale")) and len(frame):
            raise InputError(f"run: {str(part)!r} has {frame[name].dtype} in column {name!r}; move it away")
    if "scale" in columns and not bool(frame["scale"].isin(SCALES).to_numpy().all()):
        raise InputError(f"run: {str(part)!r} has other scales than {', '.join(SCALES)}; move it away")
    frame.attrs = _about(frame.attrs)  # pyright: ignore[reportAttributeAccessIssue]
    return frame


def _about(attrs: Any) -> dict[str, Any]:
    """Return what a measurement says of itself, as far as it is of the kinds that are written."""
    kinds = {"n": int, "rows": int, "floor": (int, float), "refused": dict, "failed": dict}
    items = attrs.items() if isinstance(attrs, Mapping) else ()
    return {name: value for name, value in items if name in kinds and isinstance(value, kinds[name])}
