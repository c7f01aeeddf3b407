"""The places in a network at which it can be cut, as a person would name them.

A cut is a value through which everything flows that the output has of the points, behind an activation and before
parameters. Of those values a person names activations, the ends of blocks (residual, attention, dense), and sums
written out in a forward that is no block itself. Names are found last: of the modules that have made a value, the
innermost that is called once; else `<module that returned last>.<function>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from layerfreq.network.reading import FLATTEN, Reading
from layerfreq.trace.operators import STRONG
from layerfreq.trace.row_order import ELSEWHERE, PAIRS
from layerfreq.trace.trace import Trace, Value

AROUND = "the output depends on the input by another way too (a skip connection or a second branch)"
DERIVED = (
    "the output holds derivatives with respect to the inputs, taken inside forward, which pass through every layer; "
    "let forward return the network's own output, too"
)


@dataclass(frozen=True)
class Cut:
    """One place in a network.

    Attributes:
        name: Module name, or `<module>.<function>`; with `:k` for the k-th of several calls.
        base: The name without the number of the call.
        number: The number of the call, from 1.
        call: The same where a module returns it; None for what a function returns.
        reading: How it is read as a feature vector.
        each: Bytes of its features for one point; 0 where that is not known.
        gradients: Whether the model runs only with gradients.
    """

    name: str
    base: str
    number: int
    call: int | None = None
    reading: Reading = FLATTEN
    each: int = 0
    gradients: bool = False


@dataclass(frozen=True)
class Cuts:
    """What was found out about a model.

    Attributes:
        layers: The cuts that make sense, input to output.
        refused: name -> reason, for activations and blocks that are no cut.
        trace: What was seen.
    """

    layers: list[Cut]
    refused: dict[str, str] = field(default_factory=dict)
    trace: Trace | None = None


def cut_of(value: Value, found: Trace) -> Cut:
    """Return the cut at a value."""
    call = None if value.module is None else value.number
    return Cut(value.name, value.base, value.number, call, gradients=found.gradients)


def choose(found: Trace, faults: dict[str, str]) -> tuple[list[Value], dict[str, str]]:
    """Return the values that make sense as cuts, input to output, and why others do not.

    Args:
        found: The trace of a model.
        faults: Name of a value -> what is wrong with its rows, see `fault_of_rows`.
    """
    flow, kinds = found.flow, Kinds(found.values, found)
    chain = set(flow.chain)
    chosen, refused = [], {}
    for node, values in sorted(kinds.by_node.items()):
        if node >= flow.last_weight or not flow.content[node] or not any(kinds.is_candidate(v) for v in values):
            continue
        # One value may be shown in several shapes, of which one has a row for each point.
        value = _named_best([v for v in values if not v.trouble] or values, kinds)
        reason, fault = value.trouble, faults.get(value.name, "")
        if not reason and fault in (ELSEWHERE, PAIRS):
            reason = fault
        if node in chain:
            if kinds.gives_way(value):
                continue
        elif not kinds.tells(value):
            continue
        reason = reason or ("" if node in chain else DERIVED if flow.derivatives else AROUND)
        if reason:
            refused[value.name] = reason
        else:
            chosen.append(value)
    return chosen, refused


def _named_best(values: Sequence[Value], kinds: Kinds) -> Value:
    modules = [v for v in values if v.module is not None]
    once = [v for v in modules if v.once]
    mostly = [v for v in modules if kinds.is_candidate(v)]
    return next(iter([v for v in once if v in mostly] or once or mostly or values))


class Kinds:
    """What the values of a trace are.

    Args:
        values: All of them.
        found: The trace.
    """

    def __init__(self, values: Sequence[Value], found: Trace) -> None:
        self._flow, self._chain = found.flow, set(found.flow.chain)
        self._modules = {v.base: v.module for v in values if v.module is not None}
        self._repeated = {v.base for v in values if not v.once}
        self._classes = [type(module) for module in self._modules.values()]
        self.by_node: dict[int, list[Value]] = {}
        for value in values:
            if value.made:
                self.by_node.setdefault(value.node, []).append(value)

    def is_candidate(self, value: Value) -> bool:
        """An activation, a block with an activation inside that is more than a container, or a sum written out."""
        if value.module is None:
            return self.is_activation(value) or (not self._is_block(value.inside) and self._flow.joins(value.node))
        return self.is_activation(value) or self._holds_activations(value)

    def is_activation(self, value: Value) -> bool:
        """Whether a value comes straight out of an activation: a function, or a module that is one."""
        module = value.module
        if module is None:
            if value.base.endswith(".h_n"):
                return True
            unary = len(self._flow.parents(value.node)) == 1
            return (unary and self._flow.is_activation(value.node)) or value.base.split(".")[-1] == "normalize"
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return True  # gated by activations inside
        if any(True for _ in module.children()):
            return False
        if type(module).__module__.startswith("torch.nn."):
            return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
        return self._flow.is_activation(value.node) and len(self._flow.parents(value.node)) == 1

    def _holds_activations(self, value: Value) -> bool:
        module = type(value.module)
        if module.__module__ == nn.Sequential.__module__:
            return False
        if module.__module__.startswith("torch.nn.") and not any(True for _ in value.module.children()):  # pyright: ignore
            return False
        # A value that the module itself goes on with is not what it ends with (a pooled output beside the tokens).
        if any(child < value.ended for child in self._flow.children.get(value.node, ())):
            return False
        return any(self._flow.counts(i) for i in range(value.started, value.ended))

    def _is_block(self, name: str) -> bool:
        """Whether a module is one of several of its kind, or called again: its inside is not searched for sums."""
        module = self._modules.get(name)
        return module is not None and (
            name.split(".")[-1].isdigit()
            or name in self._repeated
            or type(module).__module__.startswith("torch.nn.")
            or self._classes.count(type(module)) > 1
        )

    def gives_way(self, value: Value) -> bool:
        """Whether all that a value goes into is an activation, which is the cut then."""
        activation = any(v.module is not None and self.is_activation(v) for v in self.by_node[value.node])
        return not activation and self._flow.next_bends(value.node)

    def tells(self, value: Value) -> bool:
        """Whether it is worth saying that a value is no cut: an activation or a block, but no step inside a block."""
        if value.module is not None:
            return True
        if not self.is_activation(value):
            return False
        return self._flow.nodes[value.node].op in STRONG or not self._is_block(value.inside)
