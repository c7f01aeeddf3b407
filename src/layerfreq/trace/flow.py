"""The values through which everything flows that a model's output takes from its points.

They are found from the graph of one forward pass, so they depend neither on the values of weights nor on the points: a
head that is all zeros, a saturated output, or one row more or less changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from layerfreq.trace.graph import Node
from layerfreq.trace.operators import CHOOSES, CHOOSES_ROWS, COMPARES, LINEAR, NORMALISES, PUTS_BACK, REDUCES, STRONG

ROOT = -1  # what comes before all points


class Flow:
    """What flows where.

    Args:
        nodes: The graph.
        held: Inputs that may be masks, lengths or positions. They are, and not points, if they meet the points before
            they meet a weight.
        masks: Those of them that consist of zeros and ones. They are not points if there are others, except at nodes
            where they meet a weight.
        outputs: Nodes of the output.
        structure: Whether comparisons of whole numbers are structure (where a text ends), and not content.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        held: frozenset[int],
        masks: frozenset[int],
        outputs: Sequence[int],
        structure: bool = True,
    ) -> None:
        self.nodes, self._outputs = nodes, outputs
        inputs = {i for i, node in enumerate(nodes) if node.op == "input"}
        self.weight = self._weights()
        met = self._met(held)
        points = (inputs - held) | {i for i in met if i not in masks}
        # A mask that is summed to positions, which index parameters, is content there and a mask everywhere else.
        starts = points.union(*(met[i] for i in met if i in masks)) or inputs
        self.content = self._content(starts, structure)
        if not any(self.content[i] for i in outputs):
            self.content = self._content(points or inputs, structure=False)
        self.sinks = self._sinks([i for i in dict.fromkeys(outputs) if self.content[i]])
        self.above = self._ancestors(self.sinks)

    def strict(self) -> Flow:
        """Return the flow if masks and the like are points, too."""
        return Flow(self.nodes, frozenset(), frozenset(), self._outputs, structure=False)

    def parents(self, i: int) -> list[int]:
        """Return the nodes that a node is computed from and that depend on the points, each once."""
        return [p for p in dict.fromkeys(self.nodes[i].parents) if self.content[p]]

    def _weights(self) -> list[bool]:
        """Which nodes are computed from parameters and constants alone."""
        found: list[bool] = []
        given: list[bool] = []
        for node in self.nodes:
            given.append(node.op == "input" or any(given[p] for p in node.parents))
            found.append(node.op == "weight" or (not given[-1] and any(found[p] for p in node.parents)))
        return found

    def _met(self, held: frozenset[int]) -> dict[int, set[int]]:
        """Find the inputs that meet a weight before anything else, and the nodes where they do."""
        pure: dict[int, set[int]] = {i: {i} for i in held}
        met: dict[int, set[int]] = {}
        mixed: list[bool] = []  # whether a node depends on other inputs, or on a weight that was met
        for i, node in enumerate(self.nodes):
            mixed.append((node.op == "input" and i not in held) or any(mixed[p] for p in node.parents))
            mine = set().union(*(pure.get(p, set()) for p in node.parents))
            if not mine or mixed[i]:
                continue
            if any(self.weight[p] for p in node.parents):
                mixed[i] = True
                for one in mine:
                    met.setdefault(one, set()).add(i)
            else:
                pure[i] = mine
        return met

    def _content(self, points: set[int], structure: bool) -> list[bool]:
        """Find the nodes that depend on the points; with `structure`, comparisons of whole numbers do not count."""
        found: list[bool] = []
        met: list[bool] = []
        for i, node in enumerate(self.nodes):
            of = [p for p in node.parents if found[p]]
            weighed = any(met[p] for p in of) or bool(of and any(self.weight[p] for p in node.parents))
            only_structure = structure and node.op in COMPARES and not any(self.nodes[p].floating or met[p] for p in of)
            found.append(i in points or (bool(of) and not only_structure))
            met.append(weighed)
        self.weighed = met
        return found

    def _sinks(self, outputs: list[int]) -> list[int]:
        """Return the parts of the output, without values from which other parts are computed."""
        plain = [i for i in outputs if not self._through_derivative(i)]
        outputs = plain or outputs
        inner = {p for i in outputs for p in self._ancestors([i]) if p != i}
        return [i for i in outputs if i not in inner]

    def _through_derivative(self, i: int) -> bool:
        return any(self.nodes[p].derivative for p in self._ancestors([i]))

    @cached_property
    def derivatives(self) -> bool:
        """Whether every part of the output holds derivatives of what the network computes."""
        return bool(self.sinks) and any(self._through_derivative(i) for i in self.sinks)

    def _ancestors(self, ends: Sequence[int]) -> set[int]:
        found: set[int] = set()
        waiting = list(ends)
        while waiting:
            i = waiting.pop()
            if i not in found:
                found.add(i)
                waiting += self.parents(i)
        return found

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Node -> the nodes on the way to the output that are computed from it."""
        found: dict[int, list[int]] = {}
        for i in sorted(self.above):
            for p in self.parents(i):
                found.setdefault(p, []).append(i)
        return found

    @cached_property
    def before(self) -> dict[int, int]:
        """Node -> the last value before it through which everything in it flows (its immediate dominator)."""
        found: dict[int, int] = {}
        for i in sorted(self.above):
            found[i] = self._common(found, self.parents(i))
        return found

    @staticmethod
    def _common(before: dict[int, int], nodes: Sequence[int]) -> int:
        at = nodes[0] if nodes else ROOT
        for other in nodes[1:]:
            while at != other:
                at, other = (before[at], other) if at > other else (at, before[other])
        return at

    @cached_property
    def chain(self) -> list[int]:
        """The values through which everything flows that the output has of the points, input to output."""
        found = []
        at = self._common(self.before, self.sinks)
        while at != ROOT:
            found.append(at)
            at = self.before[at]
        return found[::-1]

    @cached_property
    def routed(self) -> list[bool]:
        """Which nodes hold rows that the values of the points have chosen, not put back among the others since."""
        found: list[bool] = []
        for node in self.nodes:
            chosen = node.op in CHOOSES_ROWS and any(self.content[p] for p in node.parents[1:])
            found.append(chosen or (node.op not in PUTS_BACK and any(found[p] for p in node.parents)))
        return found

    @cached_property
    def last_weight(self) -> int:
        """The last node on the way to the output at which a parameter is used."""
        return max((i for i in self.above if any(self.weight[p] for p in self.nodes[i].parents)), default=-1)

    def is_activation(self, i: int) -> bool:
        """Whether a node is not linear, element by element or as it normalises."""
        return self.content[i] and (self.nodes[i].op in STRONG or self.nodes[i].op in NORMALISES or self.bends(i))

    def counts(self, i: int) -> bool:
        """Whether a node makes the block around it more than a linear map: an activation that is no part of a norm."""
        return self.content[i] and (self.nodes[i].op in STRONG or self.bends(i))

    def bends(self, i: int) -> bool:
        """Whether a node is elementwise and not linear, and no step of a mean, norm or softmax that is written out."""
        node, of = self.nodes[i], self.parents(i)
        if not of or not self.weighed[i]:
            return False
        if node.op in ("amax", "max") and any(self.weight[p] for p in self.nodes[of[0]].parents):
            return True  # maxout
        twice = len(of) < sum(self.content[p] for p in node.parents) and node.op in ("mul", "div")
        chooses = node.op in CHOOSES and self.content[node.parents[0 if node.op == "where" else 1]]
        if not (twice or chooses or (node.pointwise and node.op not in LINEAR)):
            return False
        reduced = any(self.nodes[c].op in REDUCES for c in self._children_of_all.get(i, ()))
        return not reduced and not self._from_reduction(of[0])

    def _from_reduction(self, i: int) -> bool:
        while self.nodes[i].op not in REDUCES:
            of = self.parents(i)
            if len(of) != 1 or not self.nodes[i].pointwise:
                return False
            i = of[0]
        return True

    @cached_property
    def _children_of_all(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for p in node.parents:
                found.setdefault(p, []).append(i)
        return found

    def joins(self, i: int) -> bool:
        """Whether several paths meet at a node, and an activation lies on one of them."""
        if len(self.parents(i)) < 2:
            return False
        first = self.before.get(i, ROOT)
        between = [p for p in self._ancestors([i]) if p > first]
        sums = self.nodes[i].op in ("add", "cat")
        return any(self.counts(p) or (sums and self._attends(p)) for p in between)

    def _attends(self, i: int) -> bool:
        return self.content[i] and (self.nodes[i].op in NORMALISES or "attention" in self.nodes[i].op)

    def next_bends(self, i: int) -> bool:
        """Whether a value goes into an activation and nowhere else, perhaps after a factor, a sign or a shift."""
        for after in self.alone_after(i):
            if self.is_activation(after):
                return True
            if any(self.weight[p] for p in self.nodes[after].parents) or not self.nodes[after].pointwise:
                return False
        return False

    def alone_after(self, i: int) -> Iterator[int]:
        """Iterate over the nodes after a value as long as each has one child, which has no other parent."""
        while len(following := self.children.get(i, [])) == 1 and len(self.parents(following[0])) == 1:
            i = following[0]
            yield i
