"""Where the engines are tested: the one for GPUs in Triton's interpreter, where there is no GPU."""

import pytest
import torch

from layerfreq.engines import ENGINES as NAMES

GPU = torch.cuda.is_available()


def case(engine, *more):
    """A case of a test of engines: that for GPUs needs Triton, with a GPU or without."""
    return pytest.param(engine, *more, marks=pytest.mark.needs("triton") if engine == "cuda" else ())


ENGINES = [case(name) for name in NAMES]


def device_of(engine):
    """Where an engine is tested."""
    return "cuda" if engine == "cuda" and GPU else None
