"""What was computed from what while a model ran: every operator of PyTorch, seen below autograd.

A node is what one operator wrote into one piece of memory. Views that show all of it are the same node, views that show
a part of it (a token, a channel, a chunk) are nodes of their own, and writing in place makes a new one. So it makes no
difference whether a value passes through `flatten`, an empty Sequential or a dropout that is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerfreq.isolation.preserve import sharded_modules

# Operators that use the shape and dtype of a tensor, not its values.
_SHAPE_ONLY = frozenset(
    f"{how}_like" for how in ("zeros", "ones", "empty", "full", "rand", "randn", "randint", "randperm")
) | frozenset(f"new_{what}" for what in ("zeros", "ones", "empty", "full", "empty_strided"))
_OVERWRITES = frozenset({"copy", "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential"})
_Part = tuple[int, int, int, int]  # see `_part`
# How a tensor lies in its memory: shape, strides and offset; None if it has no plain memory.
Layout = tuple[tuple[int, ...], tuple[int, ...], int] | None


@dataclass(slots=True)
class Node:
    """What one operator wrote.

    Attributes:
        op: Name of the operator, without the underscore of writing in place; "input", "weight" or "constant".
        parents: The nodes that it was computed from, once for each argument.
        floating: Whether it holds floats.
        pointwise: Whether PyTorch says that the operator works element by element.
        derivative: Whether it was computed by `torch.autograd.grad` or `backward` inside the model.
        layout: How it lies in its memory.
    """

    op: str
    parents: tuple[int, ...]
    floating: bool
    pointwise: bool = False
    derivative: bool = False
    layout: Layout = None


class Graph(TorchDispatchMode):
    """Records nodes while active.

    Args:
        model: Its parameters are the weights.
        inputs: The tensors that the model is given.
    """

    def __init__(self, model: nn.Module, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.derivative = 0  # depth of nested torch.autograd.grad
        self.escaped: list[int] = []  # nodes whose values went to Python or NumPy
        self._now: dict[int, int] = {}  # memory -> its latest node
        self._parts: dict[_Part, tuple[int, int]] = {}  # part of memory -> its node, and the node of the whole
        # Memory written to in parts: its node before, and the parts. Whatever is disjoint from them has not changed.
        self._writes: dict[int, tuple[int, list[Tensor]]] = {}
        # Parameters that are sharded over ranks are gathered into memory that the model does not know.
        self._unknown = "weight" if sharded_modules(model) else "constant"
        self._without_memory: list[Tensor] = []  # held, so that ids of sparse tensors and the like are not reused
        for p in model.parameters():
            self._begin(p, "weight")
        for x in inputs:
            self._begin(x, "input")

    def _begin(self, t: Tensor, op: str) -> int:
        at = self._now[self._memory(t)] = self._add(Node(op, (), t.is_floating_point()))
        return at

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def node_of(self, t: Tensor) -> int:
        """Return the node of a tensor; one that was never seen before is a constant."""
        memory = self._memory(t)
        whole = self._now.get(memory)
        if whole is None:
            return self._begin(t, self._unknown if t.is_floating_point() else "constant")
        part, of = self._parts.get(_part(memory, t), (-1, -1)) if memory > 0 else (-1, -1)
        return part if of == whole else whole

    def escape(self, t: Tensor) -> None:
        """Note that a tensor's values leave PyTorch; tensors made from numbers afterwards may depend on them."""
        self.escaped.append(self.node_of(t))

    def _memory(self, t: Tensor) -> int:
        """Return a key for the memory of a tensor's values, or for the tensor itself if it has no plain storage."""
        try:
            if not t.is_nested and t.layout == torch.strided:
                return t.untyped_storage()._cdata
        except (RuntimeError, NotImplementedError, ValueError):
            pass
        self._without_memory.append(t)
        return -id(t)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(getattr(func, "overloadpacket", func), "__name__", func)).removesuffix("_")
        given = list(_tensors((*args, *kwargs.values())))
        parents = tuple(self.node_of(t) for t in given) if name not in _SHAPE_ONLY else ()
        if name == "lift_fresh":  # a tensor made from numbers of Python or NumPy
            parents = tuple(self.escaped)
        output = func(*args, **kwargs)
        self._record(func, name, args, kwargs, {self._memory(t) for t in given}, parents, output)
        return output

    def _record(
        self, func: Any, name: str, args: Any, kwargs: Any, given: set[int], parents: tuple[int, ...], output: Any
    ) -> None:
        """Add the nodes of what an operator has written into its arguments, and of what it returned."""

        def node(t: Tensor, of: tuple[int, ...]) -> int:
            pointwise = torch.Tag.pointwise in getattr(func, "tags", ())
            return self._add(Node(name, of, t.is_floating_point(), pointwise, self.derivative > 0, layout_of(t)))

        written = list(_written(func, args, kwargs))
        for t in written:
            memory, of = self._memory(t), parents
            whole = _shows_all(t)
            # Overwritten as a whole, memory keeps nothing of what it held; overwritten in part, it does.
            if whole and (name in _OVERWRITES or t is kwargs.get("out")):
                of = tuple(p for p in parents if p != self._now.get(memory))
            if whole:
                self._writes.pop(memory, None)
            else:
                self._writes.setdefault(memory, (self._now.get(memory, -1), []))[1].append(t.detach())
                of = (*parents, *([self._now[memory]] if memory in self._now else []))
            self._now[memory] = node(t, of)
        fresh: dict[int, int] = {}
        for t in _tensors(output):
            memory = self._memory(t)
            if any(t is one for one in written):
                continue
            # New memory is a new value. A view of the whole memory is the same value; a view of a part is a value of
            # its own, which does not depend on other parts that were written meanwhile.
            if name == "lift_fresh" or (memory not in given and memory not in fresh):
                self._writes.pop(memory, None)
                fresh[memory] = self._now[memory] = node(t, parents)
            elif not _shows_all(t) and self._parts.get(_part(memory, t), (-1, -1))[0] not in parents:
                before, parts = self._writes.get(memory, (-1, []))
                of = parents
                if before >= 0 and not any(_overlap(t, part) for part in parts):
                    of = tuple(before if p == self._now[memory] else p for p in parents)
                self._parts[_part(memory, t)] = (node(t, of), self._now[memory])


def layout_of(t: Tensor) -> Layout:
    """Return how a tensor lies in its memory."""
    if t.is_nested or t.layout != torch.strided:
        return None
    return tuple(t.shape), t.stride(), int(t.storage_offset())


def _part(memory: int, t: Tensor) -> _Part:
    """Return a key for a part of memory, the same for all transposed and reshaped views of it."""
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return memory, int(t.storage_offset()), int(last), t.numel()


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two views of the same memory may overlap; exact for views of the same shape and strides."""
    if a.shape != b.shape or a.stride() != b.stride():
        return True
    steps = sorted(zip(a.stride(), a.shape, strict=True), reverse=True)

    def reached(distance: int, at: int) -> bool:
        if at == len(steps) or distance == 0:
            return distance == 0
        stride, size = steps[at]
        times = {distance // stride, -(-distance // stride)} if stride else {0}
        return any(abs(k) < size and reached(distance - k * stride, at + 1) for k in times)

    return reached(int(a.storage_offset() - b.storage_offset()), 0)


def _shows_all(t: Tensor) -> bool:
    if t.is_nested or t.layout != torch.strided:
        return True
    try:
        return t.numel() * t.element_size() >= t.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError, ValueError):
        return True


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Iterate over the arguments that an operator writes to; a collective writes to its first, unsaid by its schema."""
    if getattr(func, "namespace", "") == "c10d":
        yield from _tensors(args[:1])
        return
    schema = getattr(func, "_schema", None)
    for i, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[i] if i < len(args) else kwargs.get(argument.name))


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
