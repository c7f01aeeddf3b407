"""Where a result came from."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch

from layerfreq._version import __version__


def environment() -> dict[str, Any]:
    """Return where a result came from: versions, machine and command."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    ours = program in ("layerfreq", "layerfreq.exe", "-c", "cli.py")
    return {
        "layerfreq": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "command": " ".join(["layerfreq" if ours else program, *sys.argv[1:]]),
    }
