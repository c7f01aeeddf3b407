"""One forward pass on a few points: every value that a model's layers return, and what it was computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.inputs import (
    LABELS,
    batches,
    blaming_inputs,
    call,
    count,
    is_loader,
    on_device,
    owned,
    take,
    tensors_of,
)
from layerfreq.errors import InputError, Refusal, Refused
from layerfreq.isolation.preserve import sharded_modules
from layerfreq.isolation.rng import seed_all
from layerfreq.trace.flow import Flow
from layerfreq.trace.graph import Graph, Layout, layout_of
from layerfreq.trace.hooks import Call, Event, Tap, all_tensors, first_tensor, named_layers
from layerfreq.trace.row_order import sample_of, unmeasurable

PROBE = 4  # points on which a model is traced, if it runs on so few
PROBE_OF_EXPERTS = 32  # if the first have not reached all of a model's experts


@dataclass(frozen=True)
class Value:
    """What a module or function has returned.

    Attributes:
        name: The module's name or the function's; with `:k` for the k-th of several calls.
        call: Which call of which layer.
        once: Whether that layer was called once.
        module: The module, or None for a function.
        inside: The innermost module around it; "" is the model.
        node: Its node in the graph; -1 if it has no floats.
        started: The first node that may be made by it.
        ended: The first node after those.
        shape: Its shape, for all points.
        layout: How it lies in its memory.
        dtype: Its dtype.
        refused: Why its rows cannot be points' features, or None.
        sample: (n, at most `row_order.COLUMNS`) some of each point's numbers.
        then: The step after it, if in another batch the same call may be another place in the model (of a layer that is
            called several times, or where points choose what runs); else None.
    """

    name: str
    call: Call
    once: bool
    module: nn.Module | None
    inside: str
    node: int
    started: int
    ended: int
    shape: tuple[int, ...]
    layout: Layout
    dtype: torch.dtype
    refused: Refused | None
    sample: Tensor | None
    then: str | None = None

    @property
    def made(self) -> bool:
        """Whether the value was made here, rather than passed on."""
        return self.started <= self.node < self.ended


@dataclass(frozen=True)
class Trace:
    """What one forward pass has shown.

    Attributes:
        probe: The points on which the model was run.
        values: What layers returned, in that order.
        flow: What was computed from what.
        gradients: Whether the model runs only with gradients.
        whole: Whether the points were asked to be run together.
    """

    probe: Any
    values: list[Value]
    flow: Flow
    gradients: bool
    whole: bool = False

    @cached_property
    def by_name(self) -> dict[str, Value]:
        """Every value by its name."""
        return {value.name: value for value in self.values}

    @cached_property
    def _modules(self) -> tuple[list[nn.Module], dict[str, int]]:
        """The modules in the order in which they returned, and how many of them had at each value."""
        modules, so_far = [], {}
        for value in self.values:
            modules += [] if value.module is None else [value.module]
            so_far[value.name] = len(modules)
        return modules, so_far

    def made_by(self, value: Value) -> list[nn.Module]:
        """Return the modules that had returned at a value, its own last."""
        modules, so_far = self._modules
        return modules[: so_far[value.name]]

    @cached_property
    def _by_node(self) -> dict[int, list[Value]]:
        found: dict[int, list[Value]] = {}
        for value in self.values:
            found.setdefault(value.node, []).append(value)
        return found

    def _before(self, value: Value) -> Iterator[int]:
        """Iterate over a value's node and those of which it is a function number by number, as it lies in memory."""
        i = value.node
        while True:
            yield i
            node, of = self.flow.nodes[i], self.flow.parents(i)
            if not node.pointwise or len(of) != 1 or node.layout != value.layout:
                return
            i = of[0]

    def modules_of(self, value: Value) -> list[nn.Module]:
        """Return the modules that returned a value, or one of which it is a function number by number, last first."""
        found = (v for i in self._before(value) for v in reversed(self._by_node.get(i, ())) if v.layout == value.layout)
        return [v.module for v in found if v.module is not None]

    def parts_of(self, value: Value) -> list[Value]:
        """Return the values that a value is a concatenation of, perhaps with functions of each number after it.

        Parts that no layer returned, such as inputs, are left out. There are none if it is no concatenation, or its
        axes or those of its parts may have been moved.
        """
        nodes = self.flow.nodes
        i = next((i for i in self._before(value) if nodes[i].op == "cat" and nodes[i].layout == value.layout), None)
        if i is None:
            return []
        parts = [[v for v in self._by_node.get(p, ()) if v.ended <= i] for p in nodes[i].parents]
        found = [of[-1] for of in parts if of]
        return found if _fit([v.shape for v in found], value.shape) else []


def _fit(parts: Sequence[tuple[int, ...]], whole: tuple[int, ...]) -> bool:
    """Whether shapes, put together along one axis and perhaps with others, make another."""
    if any(len(part) != len(whole) for part in parts):
        return False
    differ = {axis for part in parts for axis, size in enumerate(whole) if part[axis] != size}
    return len(differ) <= 1 and all(sum(part[axis] for part in parts) <= whole[axis] for axis in differ)


def trace(model: nn.Module, inputs: Any, whole: bool = False) -> Trace:
    """Run a model once; call it inside `untouched`.

    The model gets the first four points. If it does not run on so few (points depend on one another, its state has a
    fixed batch size, lengths must stay together), it gets the whole first batch; so it does if the inputs are a list of
    one batch.

    Args:
        model: The model, unwrapped.
        inputs: What its forward takes, or an iterable of batches.
        whole: Take the first batch whole at once.

    Raises:
        InputError: If the model does not run, or what it does cannot be followed.
    """
    first, _ = next(iter(batches(inputs, whole=whole)))
    n = count(first)
    whole = whole or (isinstance(inputs, list) and is_loader(inputs) and len(inputs) == 1)
    sizes = [n] if whole or n <= PROBE else [PROBE, n]
    for size in sizes:
        probe = _some(model, first, size)
        try:
            found = replace(_traced(model, probe), whole=whole)
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model may raise anything
            if size == n:
                cut = "" if len(sizes) == 1 else f", nor on the first {PROBE} of these points"
                with blaming_inputs(model, probe, cut):
                    raise error
        else:
            more = min(n, PROBE_OF_EXPERTS)
            wanted = size < more and _passed_by(model, found.values)
            return _wider(model, found, _some(model, first, more)) if wanted else found
    raise AssertionError


def _some(model: nn.Module, batch: Any, size: int) -> Any:
    """Return the first points of a batch, on the model's device."""
    n = count(batch)
    return owned(on_device(model, take(batch, slice(0, size), n) if size < n else batch))


def _called(values: Sequence[Value]) -> set[str]:
    """Return the names of the modules that ran, and of those around them."""
    parts = [value.call.layer.split(".") for value in values if value.module is not None]
    return {".".join(name[:k]) for name in parts for k in range(1, len(name) + 1)}


def _passed_by(model: nn.Module, values: Sequence[Value]) -> list[str]:
    """Return the lists of modules of which some were called and some of the same kind, with parameters, were not."""
    called, found = _called(values), []
    for name, module in named_layers(model):
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            each = [(f"{name}.{key}".removeprefix(".") in called, one) for key, one in module.named_children()]
            kinds = {type(one) for was, one in each if was}
            if any(not was and type(one) in kinds and any(True for _ in one.parameters()) for was, one in each):
                found.append(name)
    return found


def _wider(model: nn.Module, found: Trace, probe: Any) -> Trace:
    """Trace a model on more points; return what was found if that shows no more of it."""
    try:
        wider = _traced(model, probe)
    except Exception:  # a model may raise anything, and it ran on fewer points
        return found
    return wider if _called(wider.values) > _called(found.values) else found


def _traced(model: nn.Module, probe: Any) -> Trace:
    """Trace without gradients, or with them if the model needs them."""
    try:
        return _once(model, probe, gradients=False)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    return _once(model, probe, gradients=True)


def _once(model: nn.Module, probe: Any, gradients: bool) -> Trace:
    given = owned(probe, gradients)  # a model may write into its inputs
    graph, found, n = Graph(model, tensors_of(given)), [], count(probe)
    held, masks = _may_be_held(given, graph)
    then: list[str] = []  # the steps after what was found

    def step(word: str) -> None:
        then.extend([word] * (len(found) - len(then)))

    seed_all()  # inside `untouched`: the same noise, if there is any, in every run
    with Tap(model, lambda event: found.append(_value(event, graph, n)), graph, step), graph:
        output = call(model, given, gradients)
    step("")
    # Which layers are called more than once is known only now.
    calls = Counter(value.call.layer for value in found)
    values = [v if calls[v.name] == 1 else replace(v, name="{}:{}".format(*v.call), once=False) for v in found]
    tensors = all_tensors(output)
    # An output without tensors is made of numbers that left PyTorch; the last of them stands for it.
    ends = [graph.node_of(t) for t in tensors] if tensors else graph.escaped[-1:]
    flow = Flow(graph.nodes, held, masks, ends)
    values = _with_steps(model, [_as_routed(v) if v.node >= 0 and flow.routed[v.node] else v for v in values], then)
    return Trace(probe, values, flow, gradients)


def _with_steps(model: nn.Module, values: list[Value], then: list[str]) -> list[Value]:
    """Tell values apart that may be another place of the model in other batches: by the steps after them, or not."""
    routed = [v.name for v in values if v.refused and v.refused.why is Refusal.ROUTED]
    missed = [f"{name}." for name in _passed_by(model, values) if any(one.startswith(f"{name}.") for one in routed)]
    values = [_as_unsure(v) if v.module is None and v.name.startswith(tuple(missed)) else v for v in values]
    if sharded_modules(model):
        return values  # parameters are fetched at any time
    return [replace(v, then=word) if routed or not v.once else v for v, word in zip(values, then, strict=True)]


def _as_unsure(value: Value) -> Value:
    """Refuse a function after an expert, since others that were not reached may come after it in other batches."""
    return value if value.refused else replace(value, refused=Refusal.UNSURE.of())


def _as_routed(value: Value) -> Value:
    """Say of a value whose rows the points have chosen that this is why they are not one for each point."""
    rows = value.refused is not None and value.refused.why in (Refusal.NO_ROWS, Refusal.OTHER_AXIS)
    return replace(value, refused=Refusal.ROUTED.of()) if rows else value


def _value(event: Event, graph: Graph, n: int) -> Value:
    """Record what a layer has returned for n points, before anything writes into it."""
    value = first_tensor(event.output)
    refused = unmeasurable(event.output, n)
    return Value(
        name=event.call.layer,
        call=event.call,
        once=True,
        module=event.module,
        inside=event.inside,
        node=-1 if value is None else graph.node_of(value),
        started=event.started,
        ended=event.ended,
        shape=() if value is None or value.is_nested else tuple(value.shape),
        layout=None if value is None else layout_of(value),
        dtype=torch.float32 if value is None else value.dtype,
        refused=refused,
        sample=None if value is None or refused else sample_of(value),
    )


def _may_be_held(inputs: Any, graph: Graph) -> tuple[frozenset[int], frozenset[int]]:
    """Return the inputs that may be masks, lengths, ids or labels, and those of them that consist of 0 and 1.

    `Flow` decides by how they are used.
    """
    n, given = count(inputs), tensors_of(inputs)
    labels = [inputs[name] for name in LABELS if name in inputs] if isinstance(inputs, Mapping) else []
    held = [t for t in given if not t.is_floating_point() or _is_mask(t, n)] + tensors_of(labels)
    masks = [t for t in held if not t.is_floating_point() and len(given) > 1 and bool(((t == 0) | (t == 1)).all())]
    return frozenset(map(graph.node_of, held)), frozenset(map(graph.node_of, masks))


def _is_mask(x: Tensor, n: int) -> bool:
    """Whether an input may be a mask: zeros and ones, zeros and very negative numbers, or of shape (n, n)."""
    if x.layout != torch.strided or tuple(x.shape) == (n, n) or x.ndim == 0 or x.shape[0] != n:
        return True
    zero = x == 0
    return bool((zero | (x == 1)).all()) or bool(zero.any() & (zero | (x < -1e4)).all())


def run_again(model: nn.Module, found: Trace, probe: Any, on_return: Callable[[Event], Any]) -> Any:
    """Run a model on other points as it was traced, and hand over what its layers return."""
    seed_all()
    given = owned(probe, found.gradients)
    with Tap(model, on_return):
        return call(model, given, found.gradients)
