"""Evaluating a model on a loader without side effects: what measuring must restore."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader

from layerfreq.isolation.forked import Lock, threads_that_exist
from layerfreq.isolation.reach import Found, reached
from layerfreq.isolation.rng import random_state_kept
from layerfreq.isolation.state import Kept
from layerfreq.isolation.torch_settings import settings_kept

_one_at_a_time = Lock()  # all threads share random state and modes


@contextmanager
def untouched(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Evaluate a model in eval mode without gradients, and leave everything unchanged, bit for bit.

    This restores what the model's modules and the loader hold: train/eval mode, parameters, gradients and which
    parameters are trained, buffers and other attributes; containers, arrays, tensors and plain objects in them, at any
    depth; the random state (see `random_state_kept`; inside the block it starts from one fixed seed, so that a loader
    that shuffles gives the same points every time); workers of loaders that keep them; PyTorch's settings, such as its
    default dtype, number of threads and deterministic algorithms. Structure is kept by reference, numbers by copy.
    Compiled code runs eagerly. Under the caller's autocast the model runs as in training, but leaves nothing in the
    cache of cast weights, which would have no gradient.

    Closures, globals, class attributes, open files, iterators and cached results cannot be restored: if they change, a
    warning names the module. Nested containers of more than 1024 entries, a data set's numbers beyond 64 MiB, and
    anything outside Python (files by path, other programs) are not checked.

    Args:
        model: The model that is evaluated inside the block.
        loader: Where batches come from, if it has its own generators, state or workers.
    """
    with _one_at_a_time.here, threads_that_exist(), ExitStack() as stack:
        found = list(reached(model, loader))
        # In a module's mode only the flag is changed: the user's own train() and eval() may do more than that.
        stack.enter_context(_state_kept(model, found))
        stack.enter_context(random_state_kept(found))
        stack.enter_context(settings_kept())
        stack.enter_context(_workers_kept(found))
        stack.enter_context(_shards_kept(model))
        stack.enter_context(_nothing_compiled())
        stack.enter_context(_nothing_cached(model))
        tensors = chain(model.parameters(), model.buffers())
        if torch.is_inference_mode_enabled() and not any(t.is_inference() for t in tensors):
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for module in model.modules():
            module.training = False
        yield


@contextmanager
def _state_kept(model: nn.Module, found: list[Found]) -> Iterator[None]:
    """Restore what a forward pass changed; what it left alone is not written."""
    modes = [(module, module.training) for module in model.modules()]
    kept = Kept(found, sharded=bool(sharded_modules(model)))
    try:
        yield
    finally:
        for module, training in modes:  # scripted modules do not have it among their attributes
            module.training = training
        kept.put_back(model)


def sharded_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose parameters are sharded over ranks, by FullyShardedDataParallel or fully_shard."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = tuple(getattr(fsdp, name) for name in ("FullyShardedDataParallel", "FSDPModule") if hasattr(fsdp, name))
    return [module for module in model.modules() if isinstance(module, kinds)]


@contextmanager
def _shards_kept(model: nn.Module) -> Iterator[None]:
    """Prevent ranks from keeping unsharded parameters, which an optimizer's next step would not update."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for module in sharded_modules(model):
            if hasattr(module, "reshard"):
                module.reshard()  # pyright: ignore[reportCallIssue]
            elif not failed and module._handle is not None:  # the outermost FullyShardedDataParallel keeps them
                module._handle.reshard(free_unsharded_flat_param=True)  # pyright: ignore


@contextmanager
def _workers_kept(found: list[Found]) -> Iterator[None]:
    """Set loaders' persistent workers aside for the loop that uses them; the block gets workers of its own."""
    loaders = [one.value for one in found if isinstance(one.value, DataLoader)]
    kept = [loader._iterator for loader in loaders]
    try:
        for loader in loaders:
            loader._iterator = None
        yield
    finally:
        for loader, workers in zip(loaders, kept, strict=True):
            ours, loader._iterator = loader._iterator, workers
            if ours is not None and hasattr(ours, "_shutdown_workers"):
                ours._shutdown_workers()  # pyright: ignore  they were seeded by the measurement


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Run compiled code eagerly, so that layers are visible and nothing is recompiled."""
    # Nothing is compiled before this module is imported, which takes seconds.
    stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo" in sys.modules else None
    if stance is None:
        yield
        return
    with stance("force_eager"):
        yield


@contextmanager
def _nothing_cached(model: nn.Module) -> Iterator[None]:
    """Keep weights computed without gradients out of the caches of autocast and of parametrizations."""
    inside = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    cached = torch.is_autocast_cache_enabled()
    # A model with its own autocast inside the caller's switches the cache on again.
    trainable = [p for p in model.parameters() if p.requires_grad and p.is_leaf] if inside else []
    computed = parametrize._cache, parametrize._cache_enabled
    try:
        torch.set_autocast_cache_enabled(False)
        parametrize._cache, parametrize._cache_enabled = {}, 0
        for p in trainable:  # autocast caches no casts of parameters without this flag
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
        parametrize._cache, parametrize._cache_enabled = computed
        torch.set_autocast_cache_enabled(cached)
