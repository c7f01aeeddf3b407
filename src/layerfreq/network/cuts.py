"""The places in a network at which it can be cut, as a person would name them.

A cut is a value through which everything flows that the output takes from the points, behind an activation and before
parameters. Of those values, cuts are activations, the ends of blocks (residual, attention, dense), and sums written out
in a forward that is not a block itself. The name is that of the innermost module that has made the value and is called
once; else that of the function, see `trace.hooks.Call`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from layerfreq.errors import Code, Refusal, Refused
from layerfreq.network.reading import FLATTEN, Reading
from layerfreq.trace.hooks import STATE, Call
from layerfreq.trace.operators import STRONG
from layerfreq.trace.trace import Trace, Value


@dataclass(frozen=True)
class Cut:
    """One place in a network: what a call of a layer returns, and how it is read.

    Attributes:
        name: That of the module or the function; with `:k` for the k-th of several calls.
        call: Which call of which layer returns it.
        of_module: Whether that layer is a module rather than a function.
        reading: How it is read as a feature vector.
        each: Bytes of its features per point; 0 if unknown.
        gradients: Whether the model runs only with gradients.
        then: The step after it by which it is known again, see `Value`.
    """

    name: str
    call: Call
    of_module: bool
    reading: Reading = FLATTEN
    each: int = 0
    gradients: bool = False
    then: str | None = None

    def check(self, step: str) -> None:
        """Raise an InputError if a step after the call shows that it is another place in the model now."""
        if self.then is not None and step != self.then:
            now, before = (repr(word) if word else "nothing" for word in (step, self.then))
            raise Code.UNSUPPORTED(f"layer {self.name!r}: {now} comes after it, not {before}; {Refusal.UNSURE.long}")


@dataclass(frozen=True)
class Cuts:
    """The cuts of a model.

    Attributes:
        layers: The cuts, input to output.
        refused: name -> reason, for activations and blocks that are not cuts.
        trace: The trace that they were found in.
    """

    layers: list[Cut]
    refused: dict[str, Refused]
    trace: Trace


def cut_of(value: Value, found: Trace, reading: Reading = FLATTEN, each: int = 0) -> Cut:
    """Return the cut at a value."""
    return Cut(value.name, value.call, value.module is not None, reading, each, found.gradients, value.then)


def choose(found: Trace, faults: Mapping[str, Refusal]) -> tuple[list[Value], dict[str, Refused]]:
    """Return the values that make sense as cuts, input to output, and why others do not.

    Args:
        found: The trace of a model.
        faults: Name of a value -> what is wrong with its rows, see `fault_of_rows`.
    """
    kinds, chain = Kinds(found), set(found.flow.chain)
    chosen, refused = [], {}
    for value in _candidates(found, kinds):
        # A value that cannot be a cut is mentioned only if a person would look for it.
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
            # A value may appear in several shapes, one of which has a row for each point.
            yield _named_best([v for v in values if v.refused is None] or values, kinds)


def _named_best(values: Sequence[Value], kinds: Kinds) -> Value:
    """Return the name of a value with several names that a person would choose."""
    modules = [v for v in values if v.module is not None]
    once = [v for v in modules if v.once]
    candidates = [v for v in modules if kinds.is_candidate(v)]
    both = [v for v in once if v in candidates]
    return (both or once or candidates or values)[0]


class Kinds:
    """Tells what the values of a trace are: activations, blocks, sums.

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
        """Whether a value is an activation, a block (more than a container) with one inside, or a sum written out."""
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
        # A value that the module itself still uses is not the module's end (tokens, next to a pooled output).
        if any(child < value.ended for child in self._flow.children.get(value.node, ())):
            return False
        return any(self._flow.counts(i) for i in range(value.started, value.ended))

    def _is_block(self, name: str) -> bool:
        """Whether a module is one of several of its kind or called several times; it is then not searched for sums."""
        module = self._modules.get(name)
        return module is not None and (
            name.split(".")[-1].isdigit()
            or name in self._repeated
            or type(module).__module__.startswith("torch.nn.")
            or self._classes.count(type(module)) > 1
        )

    def gives_way(self, value: Value) -> bool:
        """Whether a value only goes into an activation, which is the cut then."""
        activation = any(v.module is not None and self.is_activation(v) for v in self.by_node[value.node])
        return not activation and self._flow.next_bends(value.node)

    def tells(self, value: Value) -> bool:
        """Whether to say that a value is not a cut: for activations and blocks, but not for steps inside a block."""
        if value.module is not None:
            return True
        if not self.is_activation(value):
            return False
        return self._flow.nodes[value.node].op in STRONG or not self._is_block(value.inside)
