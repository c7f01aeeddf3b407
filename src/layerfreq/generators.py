"""The random state that a measurement starts from, and puts back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler

SEED = 0  # what every measurement starts from
KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
INSIDE = (Dataset, Sampler)  # what generators are looked for in
DEPTH = 4  # how far below a loader generators are looked for: batch sampler, sampler, data set, and what that wraps


@contextmanager
def random_state_kept(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Seed every random generator within reach, and put its state back afterwards.

    These are the global ones of PyTorch (CPU and CUDA), NumPy and Python, and those held by the modules of the model
    and by the loader: its own, its samplers' and its data sets'.

    Args:
        model: The model, whose modules may hold generators.
        loader: What batches come from; None for nothing.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the user's global state
    generators = _held(model, loader)
    kept = [_state(generator) for generator in generators]
    gpus = [(generator, generator.graphsafe_get_state()) for generator in _gpus()]
    try:
        with torch.random.fork_rng(devices=[]):
            seed_all(model, loader)
            yield
    finally:
        for generator, state in gpus:
            generator.graphsafe_set_state(state)
        for generator, state in zip(generators, kept, strict=True):
            _set(generator, state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def seed_all(model: nn.Module, loader: Any = None) -> None:
    """Seed every random generator within reach with one fixed seed; call it inside `random_state_kept`."""
    torch.default_generator.manual_seed(SEED)
    for generator in _gpus():
        # Another state in its place: seeding it would make the next training step of a recurrent network on a GPU draw
        # its dropout anew (cuDNN), whatever state is put back.
        generator.graphsafe_set_state(torch.Generator(generator.device).manual_seed(SEED))
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    for generator in _held(model, loader):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(SEED)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(SEED).state
        else:
            generator.seed(SEED)


def _gpus() -> tuple[torch.Generator, ...]:
    """Return the generators of the GPUs in use; seeding the others would be remembered until they are."""
    return torch.cuda.default_generators if torch.cuda.is_initialized() else ()


def _held(model: nn.Module, loader: Any) -> list[Any]:
    """Find the generators among the attributes of modules and loader, and of the samplers and data sets inside it."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [(owner, 0) for owner in (*model.modules(), loader)]
    while waiting:
        owner, depth = waiting.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        if isinstance(owner, KINDS):
            found.append(owner)
        elif isinstance(owner, (list, tuple)):
            waiting += [(value, depth) for value in owner if isinstance(value, INSIDE)]
        else:
            deeper = () if isinstance(owner, nn.Module) or depth == DEPTH else INSIDE
            values = list(getattr(owner, "__dict__", {}).values())
            for value in values:
                if isinstance(value, (*KINDS, *deeper)) or (deeper and _is_short_list(value)):
                    waiting.append((value, depth + 1))
    return found


def _is_short_list(value: Any) -> bool:
    """Whether this may be a list of data sets or samplers, rather than of data."""
    return isinstance(value, (list, tuple)) and len(value) <= 64


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
