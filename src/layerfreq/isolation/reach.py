"""What a model and a loader hold: every object reachable through attributes, containers and functions."""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

LONG = 1024  # entries; longer containers are not looked into
MOST, FAR = 100_000, 5_000  # most objects inside, and most of those reached only through functions
ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), range, slice, torch.dtype, torch.device})
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, functools._lru_cache_wrapper)
# Machinery and tables of libraries, which may lead anywhere and hold no state of a forward pass.
LIBRARIES = frozenset(sys.stdlib_module_names) | {
    *("torch", "torchgen", "triton", "numpy", "numba", "pandas", "pyarrow", "polars", "datasets", "PIL", "h5py"),
    *("lightning", "lightning_fabric", "pytorch_lightning", "accelerate", "tensorboard", "wandb", "mlflow"),
    *("ray", "dask", "joblib", "tqdm", "rich", "layerfreq"),
}
PLAIN = (
    "collections",
    "types",
    "argparse",
    "queue",
    "torch.optim",
    "torch.quasirandom",
    "layerfreq.integrations.probe",
    "layerfreq.network.labelled",
)
KINDS = (nn.Module, DataLoader, Dataset, Sampler)
SITES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


@dataclass(frozen=True)
class Found:
    """An object that was reached.

    Attributes:
        value: The object.
        owner: The name of the module it is reached from; empty for the loader.
        inside: Whether it belongs only to model or loader: it is not reached through names that a function uses.
        data: Whether it is reached from the loader.
    """

    value: Any
    owner: str
    inside: bool
    data: bool


def reached(model: nn.Module, loader: Any = None) -> Iterator[Found]:
    """Iterate over all objects reachable from a model's modules and a loader, each once, the nearest first.

    This follows attributes, containers of at most `LONG` entries, and closures and globals of functions, but not the
    internals of libraries.

    Args:
        model: The model.
        loader: Where batches come from, or None.
    """
    near = deque(Found(module, name or type(module).__name__, True, False) for name, module in model.named_modules())
    if loader is not None:
        near.append(Found(loader, "", True, True))
    far: deque[Found] = deque()
    seen: dict[int, Any] = {}  # holds the objects, so that no id is reused
    outside = 0
    while (near and len(seen) < MOST) or (far and outside < FAR):
        one = near.popleft() if near else far.popleft()
        outside += not one.inside
        if id(one.value) in seen:
            continue
        seen[id(one.value)] = one.value
        yield one
        for value in inner(one.value):
            if type(value) not in ATOMS:
                (near if one.inside else far).append(Found(value, one.owner, one.inside, one.data))
        for value in named_by(one.value).values():
            if type(value) not in ATOMS:
                far.append(Found(value, one.owner, False, one.data))


def inner(value: Any) -> Iterator[Any]:
    """Iterate over what an object consists of."""
    if isinstance(value, CONTAINERS):
        if len(value) <= LONG:
            yield from dict.values(value) if isinstance(value, dict) else value
    elif isinstance(value, np.ndarray):
        if value.dtype == object and value.size <= LONG:
            yield from value.flat
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    if is_plain(value):
        yield from attributes(value).values()
        if isinstance(value, nn.Module):
            yield from value.parameters(recurse=False)  # scripted modules keep them outside their attributes
            yield from value.buffers(recurse=False)


def attributes(value: Any) -> dict[str, Any]:
    """Return an object's own attributes, those in slots too, without running code of its class."""
    found = dict(getattr(value, "__dict__", {}))
    for name, slot in slots(value).items():
        try:
            found[name] = slot.__get__(value)
        except AttributeError:
            pass  # not set yet
    return found


def slots(value: Any) -> dict[str, Any]:
    """Return what reads and writes an object's attributes in slots, by name."""
    own = (item for kind in type(value).__mro__ if "__slots__" in vars(kind) for item in vars(kind).items())
    return {name: slot for name, slot in own if isinstance(slot, types.MemberDescriptorType)}


def named_by(value: Any) -> dict[str, Any]:
    """Return what lies outside an object but is named by it: by a function, or in its class."""
    found: dict[str, Any] = {}
    if isinstance(value, functools._lru_cache_wrapper):
        found["its function"] = value.__wrapped__
    elif isinstance(value, types.FunctionType) and not _of_library(value):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                found[name] = cell.cell_contents
            except ValueError:
                pass  # not set yet
        names = set(_names(value.__code__)) & value.__globals__.keys()
        found |= {f"the global {name}": value.__globals__[name] for name in names}
        found |= {f"a default of {value.__name__}": value.__defaults__, "keywords": value.__kwdefaults__}
    elif isinstance(value, type) and not _of_library(value):
        plain = {name: one for name, one in vars(value).items() if not name.startswith("__")}
        found |= {f"{value.__name__}.{name}": one for name, one in plain.items()}
    elif is_plain(value):
        found |= {kind.__name__: kind for kind in inspect.getmro(type(value)) if not _of_library(kind)}
    return found


def is_plain(value: Any) -> bool:
    """Whether an object's attributes are its state, rather than a library's internals."""
    if isinstance(value, (type, types.ModuleType, Tensor, np.ndarray, np.generic, Enum, PurePath, *FUNCTIONS)):
        return False
    if isinstance(value, KINDS):
        return True
    home = type(value).__module__ or ""
    return home.split(".")[0] not in LIBRARIES or home.startswith(PLAIN)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def _of_library(value: Any) -> bool:
    """Whether a class or function is from an installed library, whose globals do not belong to the training."""
    home = getattr(value, "__module__", None) or ""
    if home.split(".")[0] in LIBRARIES:
        return True
    file = getattr(sys.modules.get(home), "__file__", None) or ""
    return file.startswith(SITES)
