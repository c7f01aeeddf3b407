"""Files: where they may lie, how they are written whole, and in which order people name them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerfreq.errors import Code, InputError, is_not, shown

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def as_path(path: Any, argument: str) -> Path:
    """Return a local path, with ~ expanded.

    Args:
        path: Text or a path.
        argument: Its name, for messages.

    Raises:
        InputError: If it is a URL, or no path at all.
    """
    if isinstance(path, bytes) or not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise is_not(argument, path, "a valid path", "a local folder or file")
    if "\0" in str(path):
        raise InputError(f"{argument}: {shown(path)} has a null character; pass another path")
    if URL.match(str(path)):
        raise InputError(f"{argument}: {str(path)!r} is a URL; pass a local folder, and copy it there afterwards")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise Code.MISSING(f"{argument}: no home folder for {str(path)!r}; write it out") from None


class Anchored:
    """An attribute for a path that stays the same place when the working directory changes.

    It is as it was given, and absolute while the working directory is another.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, owner: Any, path: Path) -> None:
        owner.__dict__[self._name] = path, _absolute(path)

    def __get__(self, owner: Any, kind: type) -> Path:
        if owner is None:  # as where documentation is made
            return self  # pyright: ignore[reportReturnType]
        if self._name not in owner.__dict__:
            raise AttributeError(self._name)
        path, whole = owner.__dict__[self._name]
        return path if _absolute(path) == whole else whole


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:  # the working directory is gone
        return path


def write_whole(path: Path, write: Callable[[Path], Any], workroom: Path | None = None) -> None:
    """Write a file whole or not at all, whatever happens meanwhile.

    Half-written files next to it, left by killed processes of this machine, are removed.

    Args:
        path: Where the file goes.
        write: Writes the file to the path that it is given.
        workroom: Where to write it first, on the same file system; None means next to its place.

    Raises:
        InputError: If there is something other than a file.
        OSError: If it cannot be written, with the file's name.
    """
    if path.exists() and not path.is_file():
        raise Code.EXISTS(f"out: {str(path)!r} is not a regular file and is not replaced; choose another place")
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
    except OSError as error:  # some writers say neither which file it is nor, in plain words, what is wrong
        partial.unlink(missing_ok=True)
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or 0, why, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the file's new name survive a power cut, if the system can."""
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
            pass  # another user's process, which is alive


def sweep(folder: Path) -> None:
    """Remove half-written files that killed processes left in a folder that is not being written to."""
    for leftover in folder.rglob(".partial-*"):
        leftover.unlink(missing_ok=True)


def natural(name: str) -> list[Any]:
    """Return a key that sorts layer-10 after layer-9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name) if part]
