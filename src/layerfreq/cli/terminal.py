"""What all commands share: the console, the folder of a new run, and devices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from layerfreq.data.scales import explained, in_order
from layerfreq.data.validation import Scale, as_scale
from layerfreq.errors import InputError

console = Console()


def default_out(name: str, resume: bool = False) -> Path:
    """Return the first free folder in runs/, or the last used one when resuming."""
    number, path = 1, Path("runs") / name
    used = None
    while path.exists():
        used, number = path, number + 1
        path = Path("runs") / f"{name}-{number}"
    return used if resume and used else path


def list_files(files: list[Path]) -> None:
    """Print where files lie, a line each."""
    for file in files:
        console.print(str(file), highlight=False, soft_wrap=True)


def pick_scales(given: list[str] | None) -> list[Scale]:
    """Return the scales that were asked for, each once; raw where there are none.

    Raises:
        InputError: If one is none.
    """
    return [as_scale(scale) for scale in dict.fromkeys(given or ["raw"])]


def say_units(head: list[str], scales: Iterable[str] = ()) -> None:
    """Print what the numbers of a table of layers are, and what its scales."""
    some = any("limit" in title for title in head)
    limit = "limit: finer windows hold fewer than 2 points; *: a peak beyond it."
    console.print(f"In 1/δ. {limit if some else '*: a peak where windows hold fewer than 2 points.'}")
    for scale in in_order(scales):
        console.print(explained(scale), highlight=False)


def check_device(device: str) -> None:
    """Raise an InputError for a device that is unknown or not on this machine."""
    if device not in ("cpu", "cuda", "mps", "auto"):
        raise InputError(f"device: unknown {device!r}; choose cpu, cuda, mps or auto")
    if device in ("cuda", "mps"):
        import torch

        if not getattr(torch, device).is_available():
            raise InputError(f"device: no {device} device on this machine; choose cpu or auto")


def pick_device(device: str) -> str:
    """Return the device to use: the one that is named, or for "auto" the best there is.

    Raises:
        InputError: If it is unknown, or not on this machine.
    """
    import torch

    check_device(device)
    if device != "auto":
        return device
    return next((name for name in ("cuda", "mps") if getattr(torch, name).is_available()), "cpu")
