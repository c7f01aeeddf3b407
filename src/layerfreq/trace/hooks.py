"""Seeing, and changing, every value that a model's layers return while it runs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerfreq.data.inputs import is_record
from layerfreq.trace.graph import Graph

# Names of Python's operators -> the functions that they call.
_SAME = {f"{how}{name}": name for how in "ri" for name in ("add", "sub", "mul", "pow")}
_SAME |= {f"{how}truediv": "div" for how in ("", "r", "i")} | {"rmatmul": "matmul", "concat": "cat"}
# Functions through which values leave PyTorch.
_ESCAPES = frozenset({"item", "tolist", "numpy", "__array__", "__float__", "__int__"})
_DIFFERENTIATES = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
# Names, as in Hugging Face's models, of what recurrent and caching models return for their next call.
_CARRIED = frozenset({"past_key_values", "cache_params", "state", "mems"})
STATE = "h_n"  # name of the last state of a recurrent module

# Where torch.compile, FullyShardedDataParallel and checkpoint_wrapper keep the module inside.
WRAPPED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


class Call(NamedTuple):
    """Which call of which layer: the same in every run of a model.

    Attributes:
        layer: The module's name. For a function `<module before it>.<function>`, where the module is the last that
            returned in the forward that runs it; if none has, `<module of that forward>.forward.<function>`.
        number: Number of the call of that name, from 1.
    """

    layer: str
    number: int


@dataclass(frozen=True)
class Event:
    """A layer of a running model has returned.

    Attributes:
        call: Which call it was.
        module: The module, or None for a function.
        output: What it returned.
        started: The clock when it was called.
        ended: The clock when it returned.
        inside: The name of the innermost module that runs it; "" is the model.
    """

    call: Call
    module: nn.Module | None
    output: Any
    started: int
    ended: int
    inside: str = ""


class Tap(TorchFunctionMode):
    """While active, hands every module's and every function's return of floats to a callback.

    Functions that run inside modules of torch.nn, or inside modules with neither children nor parameters, are left out.
    The last state of a recurrent module is handed over, too, points first, as `<module>.h_n`. Hooks are removed when
    the block ends, however it ends.

    Args:
        model: The model whose modules are watched; the model itself is not among them.
        on_return: Gets an `Event`; what it returns, if not None, replaces the output.
        graph: The graph of the same run, if one is made; its nodes are the clock then.
        on_step: Gets a word for each step of the run before it is taken: a module begins or ends, a function is called.
    """

    def __init__(
        self,
        model: nn.Module,
        on_return: Callable[[Event], Any],
        graph: Graph | None = None,
        on_step: Callable[[str], Any] = lambda step: None,
    ) -> None:
        super().__init__()
        self._model, self._on_return, self._graph, self._on_step = model, on_return, graph, on_step
        self._clock = 0
        self._calls: Counter[str] = Counter()
        self._running: list[tuple[str, nn.Module, int]] = []
        self._names = {name for name, _ in named_layers(model)}
        self._last = ""  # the module that returned last in the forward that runs; empty at its start
        self._telling = False  # the callback is running, which is no part of the model
        self._handles: list[Any] = []

    def __enter__(self) -> Tap:
        for name, module in named_layers(self._model):
            # Scripted modules take no hooks, and a parametrization's output is a weight.
            if name and not isinstance(module, torch.jit.ScriptModule) and "parametrizations" not in name.split("."):
                self._handles.append(module.register_forward_pre_hook(partial(self._enter_module, name)))
                self._handles.append(module.register_forward_hook(partial(self._leave_module, name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _tick(self) -> int:
        self._clock = self._clock + 1 if self._graph is None else len(self._graph.nodes)
        return self._clock

    def _enter_module(self, name: str, module: nn.Module, _: Any) -> None:
        self._on_step(name)
        self._running.append((name, module, self._tick()))
        self._last = ""

    def _leave_module(self, name: str, module: nn.Module, _: Any, output: Any) -> Any:
        self._on_step(f"the end of {name}")
        *_, started = self._running.pop()
        self._last = name
        changed = self._returned(name, module, output, started)
        self._telling = True
        state = state_of(module, output if changed is None else changed)
        self._telling = False
        if state is not None:
            put = self._returned(f"{name}.{STATE}", None, state, started)
            if put is not None:
                changed = with_state(output if changed is None else changed, put)
        return changed

    def _returned(self, name: str, module: nn.Module | None, output: Any, started: int) -> Any:
        self._calls[name] += 1
        inside = self._running[-1][0] if self._running else ""
        event = Event(Call(name, self._calls[name]), module, output, started, self._tick(), inside)
        self._telling = True
        try:
            return self._on_return(event)
        finally:
            self._telling = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._telling:
            return func(*args, **(kwargs or {}))
        self._on_step(getattr(func, "__name__", ""))
        graph, started = self._graph, self._tick()
        if graph is not None:
            if args and getattr(func, "__name__", "") in _ESCAPES and isinstance(args[0], Tensor):
                graph.escape(args[0])
            graph.derivative += func in _DIFFERENTIATES
        try:
            output = func(*args, **(kwargs or {}))
        finally:
            if graph is not None:
                graph.derivative -= func in _DIFFERENTIATES
        into = args[0] if func is Tensor.__setitem__ else None  # what is written into counts as what is returned
        name = _function_name(func, output if into is None else into)
        if name is not None and not self._hidden():
            changed = self._returned(self._named(name), None, output if into is None else into, started)
            if changed is not None and into is not None:
                into.copy_(changed)
            elif changed is not None:
                output = changed
        return output

    def _hidden(self) -> bool:
        """Whether functions inside the running module are left out."""
        if not self._running:
            return False
        module = self._running[-1][1]
        if type(module).__module__.startswith("torch.nn."):
            return _is_leaf(module)
        return _is_leaf(module) and not any(p is not None for p in module._parameters.values())

    def _named(self, function: str) -> str:
        """Return a function's name, which tells where in the model's code it runs and is that of no module."""
        inside = self._running[-1][0] if self._running else ""
        before = f"{self._last}." if self._last else ""
        if (inside and not before) or before + function in self._names:
            before = f"{inside}.forward.".removeprefix(".")  # no module can be named so
        return before + function


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _function_name(func: Callable[..., Any], output: Any) -> str | None:
    """Return the name of a function that returned floats, as a user writes it; None for other functions."""
    if isinstance(func, torch._ops.OpOverload) or not isinstance(output, (Tensor, tuple, list)):
        return None
    name = getattr(func, "__name__", "").strip("_")
    if name in ("get", "", "set") or first_tensor(output) is None:
        return None
    return _SAME.get(name, name)


def state_of(module: nn.Module, output: Any) -> Tensor | None:
    """Return the last hidden state of a recurrent module's output, points first (n, layers, h), or None."""
    if not isinstance(module, nn.RNNBase) or not isinstance(output, tuple) or len(output) != 2:
        return None
    state = output[1][0] if isinstance(output[1], tuple) else output[1]
    return state.transpose(0, 1) if isinstance(state, Tensor) and state.ndim == 3 else None


def with_state(output: Any, state: Tensor) -> Any:
    """Return a recurrent module's output with another last hidden state."""
    state = state.transpose(0, 1)
    return output[0], (state, *output[1][1:]) if isinstance(output[1], tuple) else state


def named_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over a model's modules as if none were wrapped: wrappers are left out, in names too."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not WRAPPED.intersection(module._modules.keys()):
            plain = ".".join(part for part in name.split(".") if part not in WRAPPED)
            if id(module) not in seen:
                yield plain, module
            yield from _layers_of_keras(plain, module, seen)


def _layers_of_keras(name: str, model: nn.Module, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the layers of a Keras model that are not registered as modules, by their names in Keras."""
    if not any(kind.__module__.startswith("keras.") for kind in type(model).__mro__):
        return
    registered = {id(module) for module in model.modules()}
    for layer in getattr(model, "layers", ()):
        if id(layer) not in seen and id(layer) not in registered:
            seen.add(id(layer))
            yield f"{name}.{layer.name}".lstrip("."), layer
            yield from _layers_of_keras(f"{name}.{layer.name}".lstrip("."), layer, seen)


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
    if is_record(output):
        name = next(f.name for f in fields(output) if first_tensor(getattr(output, f.name)) is not None)
        changed = copy.copy(output)
        object.__setattr__(changed, name, replace_first(getattr(output, name), value))
        return changed
    at = next(i for i, v in enumerate(output) if first_tensor(v) is not None)
    changed = [replace_first(v, value) if i == at else v for i, v in enumerate(output)]
    return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)


def all_tensors(output: Any) -> list[Tensor]:
    """Return every tensor that a model returned, except carried states; if there are none, those in other objects."""
    return _tensors_in(output, 0) or _tensors_in(output, 8)


def _tensors_in(output: Any, depth: int) -> list[Tensor]:
    """Return every tensor in mappings, tuples, lists, dataclasses, and `depth` deep in attributes of other objects."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        values = [value for key, value in output.items() if key not in _CARRIED]
    elif is_record(output) or isinstance(output, (tuple, list, set, frozenset)):
        values = list(output if isinstance(output, (set, frozenset)) else _values(output))
    elif depth and not isinstance(output, (nn.Module, type)):
        slots = [getattr(output, s) for s in getattr(type(output), "__slots__", ()) if hasattr(output, s)]
        return [t for v in (*getattr(output, "__dict__", {}).values(), *slots) for t in _tensors_in(v, depth - 1)]
    else:
        values = []
    return [t for v in values for t in _tensors_in(v, depth)]


def _values(output: Any) -> Iterable[Any]:
    """Return the parts of a mapping, tuple, list or dataclass."""
    if isinstance(output, Mapping):
        return output.values()
    if is_record(output):
        return [getattr(output, f.name) for f in fields(output)]
    return output if isinstance(output, (tuple, list)) else ()
