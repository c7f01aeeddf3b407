"""Looking at a model and a loader without leaving a trace: what measuring must put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Evaluate a model in eval mode without gradients, and leave everything bit for bit as it was.

    Kept are: train/eval mode of every module, buffers, the random state of PyTorch (CPU and accelerators),
    NumPy and Python, and of the loader's own generators. Parameters and gradients are not written at all.

    Args:
        model: The model that is evaluated inside the block.
        loader: What batches come from, if it has generators of its own.
    """
    modes = [(module, module.training) for module in model.modules()]
    # A module may rebind a buffer or write into it; both are undone, and an unchanged one is not written.
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    owners = [
        loader,
        getattr(loader, "sampler", None),
        getattr(getattr(loader, "batch_sampler", None), "sampler", None),
    ]
    generators = {id(g): g for g in (getattr(o, "generator", None) for o in owners) if isinstance(g, torch.Generator)}
    kept = [(g, g.get_state()) for g in generators.values()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the user's global state
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            if buffer is not None and before is not None and not _same(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
        for generator, state in kept:
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bitwise equal, NaN counting as itself."""
    return torch.equal(a, b) or (a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all()))
