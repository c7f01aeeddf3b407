"""Cutting a network into two modules that can be run: pre-condition component and learning component."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from layerfreq.data.inputs import call, count, map_tensors, owned
from layerfreq.errors import Code, InputError, Refusal
from layerfreq.isolation.preserve import untouched
from layerfreq.network.cuts import Cut
from layerfreq.network.find import choose_layers, unwrap
from layerfreq.trace.hooks import Event, Tap, all_tensors, first_tensor, replace_first
from layerfreq.trace.trace import Trace, run_again


def split(model: nn.Module, layer: str, inputs: Any) -> tuple[nn.Module, nn.Module]:
    """Cut a network after a layer.

    The parts share parameters and buffers with the model; `learning(precondition(x))` equals `model(x)`. A model that
    `torch.fx` can trace (in its current mode, train or eval) is cut into two graphs. Any other model is replayed: both
    parts hold all of it, and the learning component runs it with the layer's output substituted. In both cases
    `parameters()` of a part are those that its output depends on; a parameter may be in both parts.

    Args:
        model: Any module.
        layer: A name as from `hidden_layers`.
        inputs: What its forward takes, or an iterable of (inputs, targets) batches; a few points are used.

    Returns:
        The pre-condition component, from inputs to the layer's output (not flattened), and the learning
        component, from there to the model's output.

    Raises:
        InputError: If the layer is unknown, or its output does not determine the network's.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> precondition, learning = split(model, "1", x)
        >>> torch.equal(learning(precondition(x)), model(x))
        True
    """
    model = unwrap(model)
    with untouched(model, inputs):
        cuts = choose_layers(model, inputs, layer, own_rows=False)
        chosen, found = cuts.layers[0], cuts.trace
        probe = found.probe
        if not _determines_output(model, found, chosen):
            kind = f"layer: {layer!r} is not a cut of {type(model).__name__}"
            if found.by_name[chosen.name].node not in found.flow.chain:
                raise Code.UNSUPPORTED(f"{kind}, {Refusal.AROUND.long}; choose among hidden_layers(model, inputs)")
            raise Code.UNSUPPORTED(
                f"{kind} by itself: an input beside the points (a mask, labels, edges) is used above it, too; leave it "
                "out, or measure the layer without cutting there"
            )
        before, after = _Reach(model, chosen), _Replay(model, chosen, probe)
        with _all_trainable(model):
            value = before(*_positional(probe), **_named(probe))
            before.own(_leaves([value]))
            # If forward differentiates with respect to the value, its stand-in has to be differentiable, too.
            after.own(_leaves(all_tensors(after(value.detach().requires_grad_(chosen.gradients)))))
    return _cut_graph(model, probe, value.detach()) or (before, after)


def below(model: nn.Module, layer: str, inputs: Any) -> nn.Module:
    """Return the part of a model up to a layer, as `split` does, even if masks and the like go around the layer.

    Args:
        model: The model, unwrapped; left as it was.
        layer: Name of a cut.
        inputs: One batch of what its forward takes.
    """
    with untouched(model, inputs):
        cuts = choose_layers(model, inputs, layer, own_rows=False)
        part, probe = _Reach(model, cuts.layers[0]), cuts.trace.probe
        with _all_trainable(model):
            part.own(_leaves([part(*_positional(probe), **_named(probe))]))
    return part


def _determines_output(model: nn.Module, found: Trace, cut: Cut) -> bool:
    """Whether the output depends on the inputs, masks and the like included, only through the layer."""
    # It does if everything flows through the layer, masks too. If masks may go around it, the model is run on other
    # points and masks with the layer's value put in place, and has to give the same output.
    node = found.by_name[cut.name].node
    if node not in found.flow.chain:
        return False
    if node in found.flow.strict().chain:
        return True
    values: list[Tensor] = []

    def keep(event: Event) -> None:
        value = first_tensor(event.output)
        if event.call == cut.call and value is not None:
            values.append(value.clone())

    def put(event: Event) -> Any:
        return replace_first(event.output, values[0].clone()) if event.call == cut.call else None

    output = [t.clone() for t in all_tensors(run_again(model, found, found.probe, keep))]
    return _agree(all_tensors(run_again(model, found, _other_points(found.probe), put)), output)


class _Found(BaseException):  # no Exception, since a model may catch those
    pass


class _Part(nn.Module):
    """A part of a model that holds the whole of it, and owns the parameters that the part uses."""

    def __init__(self, model: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.model, self._cut = model, cut
        self._used: set[str] = set()  # names, since ids do not survive a deep copy

    def own(self, used: set[int]) -> None:
        """Set which parameters are used, by their `id`."""
        self._used = {
            f"model.{name}" for name, p in self.model.named_parameters(remove_duplicate=False) if id(p) in used
        }

    def _missed(self) -> InputError:
        return Code.UNSUPPORTED(f"layer: {self._cut.name!r} was not reached for these inputs; choose another")

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over the parameters that the part uses."""
        start = len(prefix) + bool(prefix)
        every = super().named_parameters(prefix, recurse, remove_duplicate)
        return ((name, p) for name, p in every if name[start:] in self._used)


class _Reach(_Part):
    """Runs a model up to a layer."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        found: list[Tensor] = []

        def stop(event: Event) -> None:
            value = first_tensor(event.output)
            if event.call == self._cut.call and value is not None:
                found.append(value)
                if self._cut.then is None:
                    raise _Found

        def step(word: str) -> None:
            if found:
                self._cut.check(word)
                raise _Found

        with Tap(self.model, stop, on_step=step):
            try:
                self.model(*args, **kwargs)
                step("")
            except _Found:
                return found[0]
        raise self._missed()


class _Replay(_Part):
    """Runs a model on stand-in points, with a layer's output replaced by features."""

    def __init__(self, model: nn.Module, cut: Cut, probe: Any) -> None:
        super().__init__(model, cut)
        self._probe = probe

    def forward(self, features: Tensor) -> Any:
        size = count(self._probe)
        rows = torch.arange(features.shape[0], device=features.device) % size
        stand_in = owned(
            map_tensors(lambda t: t[rows.to(t.device)] if t.ndim and t.shape[0] == size else t, self._probe)
        )

        reached = False

        def put(event: Event) -> Any:
            nonlocal reached
            if event.call != self._cut.call:
                return None
            reached = True
            return replace_first(event.output, features)

        with Tap(self.model, put):
            output = call(self.model, stand_in)
        if not reached:  # fewer points may reach fewer experts
            raise self._missed()
        return output


def _agree(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _other_points(probe: Any) -> Any:
    """Return points unlike the probe's: in another order, and floats of another size."""

    def change(x: Tensor) -> Tensor:
        if x.ndim == 0:
            return x
        other = x.flip(0) if x.shape[0] > 1 else x.roll(1, -1)
        return other * 0.5 + 0.25 if x.is_floating_point() else other

    return map_tensors(change, probe)


@contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """Let autograd record the use of every parameter, also of frozen ones."""
    if any(p.is_inference() for p in model.parameters()):
        raise InputError(
            "model: made under torch.inference_mode(), so that its parameters record nothing; make it outside, or pass "
            "copy.deepcopy(model) there"
        )
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        with torch.enable_grad():
            for p in frozen:
                p.requires_grad_(True)
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _leaves(tensors: list[Tensor]) -> set[int]:
    """Return the ids of the leaf tensors that these were computed from, read off the autograd graph."""
    found, seen = set(), set()
    waiting: list[Any] = [t.grad_fn for t in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(id(getattr(node, "variable", None)))
            waiting += [following for following, _ in node.next_functions]
    return found


def _cut_graph(model: nn.Module, probe: Any, value: Tensor) -> tuple[nn.Module, nn.Module] | None:
    """Cut a traced graph at the first node that computes the layer's value; None if that is not possible."""
    try:
        graph = fx.Tracer().trace(model, _absent_arguments(model, probe))
        with untouched(model):
            node = _find(fx.GraphModule(model, graph), probe, value)
        if node is None:
            return None
        # Below the cut: what its value is computed from, and all arguments.
        before, after = fx.Graph(), fx.Graph()
        output = next(n for n in graph.nodes if n.op == "output")
        copies: dict[fx.Node, fx.Node] = {}
        needed = _needed(node, None)
        for one in graph.nodes:  # forward keeps all its arguments, used or not
            if one.op == "placeholder" or one in needed:
                copies[one] = before.node_copy(one, lambda n: copies[n])
        before.output(copies[node])
        # Above it: what the output is computed from, with the value as the only argument.
        copies = {node: after.placeholder("features")}
        needed = _needed(output, node)
        if any(one.op == "placeholder" for one in needed):
            return None  # it needs a size of the input, for instance
        for one in graph.nodes:
            if one in needed:
                copies[one] = after.node_copy(one, lambda n: copies[n])
        after.lint()
    except Exception:  # tracing a user's code may raise anything; replaying does without it
        return None
    return fx.GraphModule(model, before), fx.GraphModule(model, after)


def _needed(end: fx.Node, stop: fx.Node | None) -> set[fx.Node]:
    """Return the nodes that a node is computed from, itself included, up to `stop` and without it."""
    needed: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is not stop and node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed


def _find(module: fx.GraphModule, probe: Any, value: Tensor) -> fx.Node | None:
    found: list[fx.Node] = []

    class Compare(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            same = isinstance(result, Tensor) and result.shape == value.shape and torch.equal(result, value)
            if same and n.op != "placeholder":
                found.append(n)
            return result

    arguments = iter(_positional(probe))
    named = _named(probe)
    order = [n.target for n in module.graph.nodes if n.op == "placeholder"]
    Compare(module).run(*(named[str(name)] if str(name) in named else next(arguments) for name in order))
    return found[0] if found else None


def _absent_arguments(model: nn.Module, probe: Any) -> dict[str, Any]:
    """Return the defaults of forward's arguments that are not given, which tracing takes as constants."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    given = {p.name for p in parameters[: len(_positional(probe))]} | set(_named(probe))
    return {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}


def _positional(probe: Any) -> tuple[Any, ...]:
    return () if isinstance(probe, Mapping) else tuple(probe) if isinstance(probe, (tuple, list)) else (probe,)


def _named(probe: Any) -> dict[str, Any]:
    return dict(probe) if isinstance(probe, Mapping) else {}
