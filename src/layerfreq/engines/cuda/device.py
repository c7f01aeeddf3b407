"""Whether the `cuda` engine runs on a device."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

from layerfreq.engines.base import out_of_memory
from layerfreq.errors import Code, InputError, first_line, warn_caller

_ready = set[torch.device]()


def check_device(device: torch.device) -> bool:
    """Return whether kernels are interpreted, as Triton does on any device where TRITON_INTERPRET=1.

    Raises:
        InputError: If they are not, and features are on another device than a CUDA one.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        raise Code.UNSUPPORTED("engine: 'cuda' needs features on a CUDA device; pass device='cuda'")
    return interpreted


def can_run(device: torch.device) -> bool:
    """Return whether the engine runs, as it was measured, on a device: an NVIDIA GPU from Ampere on, with Triton.

    If only Triton itself fails there, a warning says so, once: other engines take far longer.
    """
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    reason = why_not(device)
    if reason:
        _tell(reason)
    return reason is None


def why_not(device: torch.device) -> str | None:
    """Return why Triton's kernels cannot run on a device, or None if they do: it is tried once, with a small one.

    At its first use Triton compiles a library in C, which fails in containers without a compiler or Python's headers.
    """
    if device not in _ready:
        try:
            from layerfreq.engines.cuda.triton_kernels import write_one

            launch = write_one[(1,)]
            with torch.cuda.device(device):
                launch(torch.empty(1, dtype=torch.int32, device=device), enable_fp_fusion=True)
        except Exception as error:  # of many types: no compiler, no place for its files, an unknown GPU
            return None if out_of_memory(error) else first_line(error)
        _ready.add(device)
    return None


def fails(reason: str) -> InputError:
    """Return the error that says so."""
    return Code.FAILED(
        f"engine: 'cuda' cannot run here, since Triton fails ({reason}); it needs a C compiler and Python's headers; "
        "pass engine='blocked' to do without it"
    )


@cache
def _tell(reason: str) -> None:
    warn_caller(
        f"engine: 'blocked' is used, which takes far longer than 'cuda': Triton fails ({reason}); it needs a C "
        "compiler and Python's headers"
    )
