"""The random state that a measurement starts from, and restores."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch

from layerfreq.isolation.reach import Found

SEED = 0  # what every measurement starts from
KINDS = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
_kept: ContextVar[Sequence[Any]] = ContextVar("generators that are kept now", default=())


@contextmanager
def random_state_kept(found: Iterable[Found]) -> Iterator[None]:
    """Seed every reachable random generator, and restore its state afterwards.

    These are the global ones of PyTorch (CPU and CUDA), NumPy and Python, and those reachable from model and loader,
    including through the functions that they call.

    Args:
        found: Objects reachable from model and loader.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the user's global state
    generators = [one.value for one in found if isinstance(one.value, KINDS)]
    generators = [one for one in generators if not isinstance(one, random.SystemRandom)]  # it has no state
    states = [_state(generator) for generator in generators]
    gpus = [(generator, generator.graphsafe_get_state()) for generator in _gpus()]
    token = _kept.set(generators)
    try:
        with torch.random.fork_rng(devices=[]):
            seed_all()
            yield
    finally:
        _kept.reset(token)
        for generator, state in gpus:
            generator.graphsafe_set_state(state)
        for generator, state in zip(generators, states, strict=True):
            _set(generator, state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def seed_all() -> None:
    """Seed every reachable random generator with one fixed seed; call it inside `random_state_kept`."""
    torch.default_generator.manual_seed(SEED)
    for generator in _gpus():
        # The state is replaced: after `manual_seed`, cuDNN would draw the dropout of a recurrent network anew in the
        # next training step, whatever state is restored.
        generator.graphsafe_set_state(torch.Generator(generator.device).manual_seed(SEED))
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    for generator in _kept.get():
        if isinstance(generator, torch.Generator):
            generator.manual_seed(SEED)
        elif (bits := _bits(generator)) is not None:
            bits.state = type(bits)(SEED).state
        else:
            generator.seed(SEED)


def _gpus() -> tuple[torch.Generator, ...]:
    """Return the generators of the GPUs in use; PyTorch would apply a seed to the others once they are used."""
    return torch.cuda.default_generators if torch.cuda.is_initialized() else ()


def _bits(generator: Any) -> Any:
    """Return the bit generator, which holds the state, of a NumPy generator; None for other generators."""
    if isinstance(generator, (np.random.Generator, np.random.BitGenerator)):
        return getattr(generator, "bit_generator", generator)
    return None


def _state(generator: Any) -> Any:
    if (bits := _bits(generator)) is not None:
        return bits.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set(generator: Any, state: Any) -> None:
    if (bits := _bits(generator)) is not None:
        bits.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
