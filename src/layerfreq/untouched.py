"""Looking at a model and a loader without leaving a trace: what measuring must put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from layerfreq.generators import random_state_kept

_OWN = frozenset(vars(nn.Module()))  # attributes that every module has, hooks and parameters among them


@contextmanager
def untouched(model: nn.Module, loader: Any = None) -> Iterator[None]:
    """Evaluate a model in eval mode without gradients, and leave everything bit for bit as it was.

    Put back are: train/eval mode of every module, buffers, other attributes of modules that are tensors, are bound
    anew, or are lists, dicts or sets; the random state (see `random_state_kept`; inside the block it starts from one
    fixed seed, so that a loader that shuffles gives the same points every time); workers of a loader that keeps
    them. Parameters and gradients are not written at all. What is compiled runs eagerly. Under the caller's autocast
    the model runs as it trains, but leaves nothing in the cache of cast weights, which would have no gradient.

    What hooks, closures and objects of the user's own remember cannot be put back.

    Args:
        model: The model that is evaluated inside the block.
        loader: What batches come from, if it has generators or workers of its own.
    """
    with ExitStack() as stack:
        # In a module's mode only the flag is changed: the user's own train() and eval() may do more than that.
        stack.enter_context(_modules_kept(model))
        stack.enter_context(random_state_kept(model, loader))
        stack.enter_context(_workers_kept(loader))
        stack.enter_context(_shards_kept(model))
        stack.enter_context(_nothing_compiled())
        stack.enter_context(_nothing_cached(model))
        if torch.is_inference_mode_enabled() and not any(t.is_inference() for t in _tensors(model)):
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for module in model.modules():
            module.training = False
        yield


@contextmanager
def _modules_kept(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass may change in modules; what it leaves alone is not written."""
    modes = [(module, module.training) for module in model.modules()]
    kept = [_Attributes(module) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for one in kept:
            one.put_back()


class _Attributes:
    """The buffers and attributes of one module, as they are now."""

    def __init__(self, module: nn.Module) -> None:
        own = {name: value for name, value in vars(module).items() if name != "training"}
        buffers = dict(module._buffers.items())
        self._homes = [(vars(module), own)]
        if not isinstance(module, torch.jit.ScriptModule):  # whose buffers cannot be bound anew
            self._homes.append((module._buffers, buffers))
        # A module may bind a buffer anew or write into it; both are undone.
        values = [*buffers.values(), *(value for name, value in own.items() if name not in _OWN)]
        self._tensors = [(v, v.detach().clone()) for v in values if isinstance(v, Tensor) and _is_filled(v)]
        self._containers = [(v, v.copy()) for v in values if type(v) in (list, dict, set)]

    def put_back(self) -> None:
        for home, before in self._homes:
            for name in [name for name in home if name not in before and name != "training"]:
                del home[name]
            for name, value in before.items():
                if name not in home or home[name] is not value:
                    home[name] = value
        for tensor, before in self._tensors:
            if not _same(tensor, before):
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    tensor.copy_(before)
        for container, before in self._containers:
            now, then = _items(container), _items(before)
            if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)


def _items(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _is_filled(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers of its own now: not one on "meta", and none whose memory has been given back."""
    try:
        return not tensor.is_meta and tensor.untyped_storage().nbytes() > 0
    except (RuntimeError, NotImplementedError, ValueError):  # kinds of tensors without a storage, or lazy ones
        return False


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def sharded_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose parameters are shared out over ranks, by FullyShardedDataParallel or fully_shard."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = tuple(getattr(fsdp, name) for name in ("FullyShardedDataParallel", "FSDPModule") if hasattr(fsdp, name))
    return [module for module in model.modules() if isinstance(module, kinds)]


@contextmanager
def _shards_kept(model: nn.Module) -> Iterator[None]:
    """Let no rank keep whole parameters, which an optimizer's next step would leave as they are."""
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
def _workers_kept(loader: Any) -> Iterator[None]:
    """Leave the workers that a loader keeps to the loop that goes through it now, and start others."""
    workers = getattr(loader, "_iterator", None)
    if workers is None:
        yield
        return
    try:
        loader._iterator = None
        yield
    finally:
        loader._iterator = workers


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Run what `torch.compile` has compiled eagerly, so that layers are seen and nothing is compiled anew."""
    # Before something is compiled, this module has not been imported; doing so takes seconds.
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
    # A model that has an autocast of its own inside the caller's would switch the cache on again.
    trainable = [p for p in model.parameters() if p.requires_grad and p.is_leaf] if inside else []
    computed = parametrize._cache, parametrize._cache_enabled
    try:
        torch.set_autocast_cache_enabled(False)
        parametrize._cache, parametrize._cache_enabled = {}, 0
        for p in trainable:  # only the flag: of those without it no cast is cached
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
        parametrize._cache, parametrize._cache_enabled = computed
        torch.set_autocast_cache_enabled(cached)


def _same(a: Tensor, b: Tensor) -> bool:
    """Bitwise equal, NaN counting as itself."""
    return torch.equal(a, b) or (a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all()))
