"""Seeing, and changing, every value that a model's layers return while it runs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_BY_NAME = [
    "relu",
    "relu_",
    "relu6",
    "tanh",
    "tanh_",
    "sigmoid",
    "sigmoid_",
    "gelu",
    "silu",
    "elu",
    "elu_",
    "leaky_relu",
    "leaky_relu_",
    "selu",
    "selu_",
    "celu",
    "celu_",
    "mish",
    "softplus",
    "softsign",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "hardtanh_",
    "logsigmoid",
    "prelu",
    "rrelu",
    "tanhshrink",
    "softshrink",
]
FUNCTIONAL = {
    getattr(home, name): name.rstrip("_")
    for home in (F, torch, Tensor)
    for name in _BY_NAME
    if callable(getattr(home, name, None))
}

# Where torch.compile, FullyShardedDataParallel and checkpoint_wrapper keep the module inside.
WRAPPED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclass(frozen=True)
class Event:
    """A layer of a running model has returned.

    Attributes:
        name: The module's name, or for a function `<module that returned last>.<function>`.
        number: Which call of that name it is, from 1.
        module: The module, or None for a function.
        output: What it returned.
        arguments: What it was given, by position.
        started: The clock when it was called; the clock counts calls.
        ended: The clock when it returned.
    """

    name: str
    number: int
    module: nn.Module | None
    output: Any
    arguments: tuple[Any, ...]
    started: int
    ended: int


class Tap(TorchFunctionMode):
    """While active, hands every module's and every activation function's return to a callback.

    Hooks are removed when the block ends, however it ends.

    Args:
        model: The model whose modules are watched; the model itself is not among them.
        on_return: Gets an `Event`; what it returns, if not None, replaces the output.
    """

    def __init__(self, model: nn.Module, on_return: Callable[[Event], Any]) -> None:
        super().__init__()
        self.parameters_used = 0  # clock at the last use of a parameter
        self._model, self._on_return = model, on_return
        self._clock = 0
        self._calls: Counter[str] = Counter()
        self._running: list[tuple[nn.Module, int]] = []
        self._last = ""
        self._handles: list[Any] = []

    def __enter__(self) -> Tap:
        for name, module in named_layers(self._model):
            # Scripted modules take no hooks, and a parametrization's output is a weight.
            if name and not isinstance(module, torch.jit.ScriptModule) and "parametrizations" not in name.split("."):
                self._handles.append(module.register_forward_pre_hook(self._enter_module))
                self._handles.append(module.register_forward_hook(partial(self._leave_module, name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._running.append((module, self._tick()))
        if any(p is not None for p in module._parameters.values()) or "parametrizations" in module._modules:
            self.parameters_used = self._clock

    def _leave_module(self, name: str, module: nn.Module, arguments: Any, output: Any) -> Any:
        _, started = self._running.pop()
        self._last = name
        self._calls[name] += 1
        return self._on_return(Event(name, self._calls[name], module, output, arguments, started, self._tick()))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(isinstance(a, nn.Parameter) for a in (*args, *(kwargs or {}).values())):
            self.parameters_used = self._tick()
        output = func(*args, **(kwargs or {}))
        if func in FUNCTIONAL and not self._inside_leaf():
            started = self._tick()
            name = f"{self._last}.{FUNCTIONAL[func]}" if self._last else FUNCTIONAL[func]
            self._calls[name] += 1
            changed = self._on_return(Event(name, self._calls[name], None, output, args, started, self._tick()))
            output = output if changed is None else changed
        return output

    def _inside_leaf(self) -> bool:
        """Whether a module without children is running: what it computes is its own business."""
        return bool(self._running) and not any(True for _ in self._running[-1][0].children())


def named_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over a model's modules as if none were wrapped: wrappers are left out, in names too."""
    for name, module in model.named_modules():
        if not WRAPPED.intersection(module._modules.keys()):
            yield ".".join(part for part in name.split(".") if part not in WRAPPED), module


def first_tensor(output: Any) -> Tensor | None:
    """Return the first floating tensor in what a module returned, or None."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    return next((t for t in map(first_tensor, _values(output)) if t is not None), None)


def replace_first(output: Any, value: Tensor) -> Any:
    """Return what a module returned with its first floating tensor exchanged."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, Mapping):
        key = next(k for k, v in output.items() if first_tensor(v) is not None)
        changed = {k: replace_first(v, value) if k == key else v for k, v in output.items()}
        return changed if type(output) is dict else type(output)(**changed)
    if _is_record(output):
        name = next(f.name for f in fields(output) if first_tensor(getattr(output, f.name)) is not None)
        changed = copy.copy(output)
        object.__setattr__(changed, name, replace_first(getattr(output, name), value))
        return changed
    at = next(i for i, v in enumerate(output) if first_tensor(v) is not None)
    changed = [replace_first(v, value) if i == at else v for i, v in enumerate(output)]
    return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)


def all_tensors(output: Any) -> list[Tensor]:
    """Return every floating tensor in what a model returned."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    return [t for v in _values(output) for t in all_tensors(v)]


def _values(output: Any) -> Iterable[Any]:
    """The parts of a mapping, tuple, list or dataclass."""
    if isinstance(output, Mapping):
        return output.values()
    if _is_record(output):
        return [getattr(output, f.name) for f in fields(output)]
    return output if isinstance(output, (tuple, list)) else ()


def _is_record(output: Any) -> bool:
    return is_dataclass(output) and not isinstance(output, (type, Mapping))
