"""The places in a network at which it can be cut, as a person would name them.

A cut is a value through which everything flows that the output has of the points, behind an activation and before
parameters. Of those values a person names activations, the ends of blocks (residual, attention, dense), and sums
written out in a forward that is not a block itself. Names are found last: of the modules that have made a value, the
innermost that is called once; else `<module that returned last>.<function>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from layerfreq.errors import Refusal, Refused
from layerfreq.network.reading import FLATTEN, Reading
from layerfreq.trace.hooks import STATE, Call
from layerfreq.trace.operators import STRONG
from layerfreq.trace.trace import Trace, Value


@dataclass(frozen=True)
class Cut:
    """One place in a network: what a layer returns when it is called, and how that is read.

    Attributes:
        name: Module name, or `<module>.<function>`; with `:k` for the k-th of several calls.
        call: Which call of which layer returns it.
        of_module: Whether that layer is a module, and no function.
        reading: How it is read as a feature vector.
        each: Bytes of its features for one point; 0 where that is not known.
        gradients: Whether the model runs only with gradients.
    """

    name: str
    call: Call
    of_module: bool
    reading: Reading = FLATTEN
    each: int = 0
    gradients: bool = False


@dataclass(frozen=True)
class Cuts:
    """What was found out about a model.

    Attributes:
        layers: The cuts, input to output.
        refused: name -> reason, for activations and blocks that are not cuts.
        trace: What was seen.
    """

    layers: list[Cut]
    refused: dict[str, Refused]
    trace: Trace


def cut_of(value: Value, found: Trace, reading: Reading = FLATTEN, each: int = 0) -> Cut:
    """Return the cut at a value."""
    return Cut(value.name, value.call, value.module is not None, reading, each, found.gradients)


def choose(found: Trace, faults: Mapping[str, Refusal]) -> tuple[list[Value], dict[str, Refused]]:
    """Return the values that make sense as cuts, input to output, and why others do not.

    Args:
        found: The trace of a model.
        faults: Name of a value -> what is wrong with its rows, see `fault_of_rows`.
    """
    kinds, chain = Kinds(found), set(found.flow.chain)
    chosen, refused = [], {}
    for value in _candidates(found, kinds):
        # Of what cannot be a cut, only what a person would look for is worth a word.
        if kinds.gives_way(value) if value.node in chain else not kinds.tells(value):
            continue
        fault, reason = faults.get(value.name), value.refused
        if reason is None and fault not in (None, Refusal.TOGETHER):
            reason = fault.of()
        if reason is None and value.node not in chain:
            reason = (Refusal.DERIVATIVES if found.flow.derivatives else Refusal.AROUND).of()
        if reason is None:
            chosen.append(value)
        else:
            refused[value.name] = reason
    return chosen, refused


def _candidates(found: Trace, kinds: Kinds) -> Iterator[Value]:
    """Iterate over activations, blocks and sums before the last parameters, each value under its best name."""
    for node, values in sorted(kinds.by_node.items()):
        before_weights = node < found.flow.last_weight
        if before_weights and found.flow.content[node] and any(kinds.is_candidate(v) for v in values):
            # One value may be shown in several shapes, of which one has a row for each point.
            yield _named_best([v for v in values if v.refused is None] or values, kinds)


def _named_best(values: Sequence[Value], kinds: Kinds) -> Value:
    """Of the same value under several names, the one that a person would give."""
    modules = [v for v in values if v.module is not None]
    once = [v for v in modules if v.once]
    candidates = [v for v in modules if kinds.is_candidate(v)]
    both = [v for v in once if v in candidates]
    return (both or once or candidates or values)[0]


class Kinds:
    """What the values of a trace are.

    Args:
        found: The trace.
    """

    def __init__(self, found: Trace) -> None:
        self._flow, values = found.flow, found.values
        self._modules = {v.call.layer: v.module for v in values if v.module is not None}
        self._repeated = {v.call.layer for v in values if not v.once}
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
            function = value.call.layer.split(".")[-1]
            unary = len(self._flow.parents(value.node)) == 1
            return function in (STATE, "normalize") or (unary and self._flow.is_activation(value.node))
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
        # A value that the module itself goes on with is not what it ends with (a pooled output next to the tokens).
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
        """Whether to say that a value is not a cut: of an activation or a block, but not of a step inside a block."""
        if value.module is not None:
            return True
        if not self.is_activation(value):
            return False
        return self._flow.nodes[value.node].op in STRONG or not self._is_block(value.inside)
