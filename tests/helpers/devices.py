"""Where the engines are tested: the one for GPUs in Triton's interpreter, where there is no GPU."""

import os
from importlib.util import find_spec

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:  # before Triton is imported: its kernels are then interpreted
    os.environ.setdefault("TRITON_INTERPRET", "1")


def device_of(engine):
    """Where an engine is tested; skips where it cannot be."""
    if engine == "cuda" and find_spec("triton") is None:
        pytest.skip("cuda: Triton is not installed")
    return "cuda" if engine == "cuda" and GPU else None
