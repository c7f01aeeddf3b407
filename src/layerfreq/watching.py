"""Where some layers of a running model are to be found, and hooks on these alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from layerfreq.errors import InputError
from layerfreq.inputs import call, count
from layerfreq.network import Layer, unmeasurable
from layerfreq.settings import fused_encoders
from layerfreq.taps import Event, Tap, first_tensor, named_layers
from layerfreq.untouched import sharded_modules


@dataclass(frozen=True)
class Place:
    """Where a layer's output appears, and how large it is.

    Attributes:
        layer: The layer.
        call: Which call of the module of that name it is, from 1; None for a function's output.
        each: Bytes of its features for one input; 0 where that is not known.
    """

    layer: Layer
    call: int | None
    each: int = 0


class _Seen(BaseException):  # which a model that survives exceptions lets pass
    pass


def find_places(model: nn.Module, probe: Any, layers: Sequence[Layer]) -> list[Place]:
    """Run the model on a few points and see where the layers are; call it inside `untouched`."""
    wanted = {(layer.base, layer.number): layer for layer in layers}
    found: dict[Layer, Place] = {}
    calls: Counter[str] = Counter()
    n = count(probe)
    whole = bool(sharded_modules(model))

    def note(event: Event) -> None:
        calls[event.name] += event.module is not None
        layer = wanted.get((event.name, event.number))
        if layer is None:
            return
        value = first_tensor(event.output)
        each = 0 if value is None or unmeasurable(value, n) else layer.reading.read(value)[0].nbytes // n
        found[layer] = Place(layer, None if event.module is None else calls[event.name], each)
        if len(found) == len(wanted) and not whole:
            raise _Seen

    with Tap(model, note):
        try:
            call(model, probe)
        except _Seen:
            pass
    return [found.get(layer, Place(layer, None)) for layer in layers]


@contextmanager
def watch(model: nn.Module, places: Sequence[Place], on_output: Callable[[str, Any], Any]) -> Iterator[None]:
    """While active, hand what the layers return to a callback; hooks are removed however the block ends.

    Where all of them are modules, nothing else is hooked, and the others run as fast as ever.

    Args:
        model: The model.
        places: As `find_places` found them.
        on_output: Gets the layer's name and its output.

    Raises:
        InputError: If the model has lost a module since.
    """
    if any(place.call is None for place in places):
        wanted = {(place.layer.base, place.layer.number): place.layer.name for place in places}

        def see(event: Event) -> None:
            name = wanted.get((event.name, event.number))
            if name is not None:
                on_output(name, event.output)

        with Tap(model, see), _plain_attention():
            yield
        return
    by_module: dict[str, dict[int, str]] = {}
    for place in places:
        assert place.call is not None
        by_module.setdefault(place.layer.base, {})[place.call] = place.layer.name
    handles = []
    try:
        for base, names in by_module.items():
            handles.append(_module(model, base).register_forward_hook(_counting(names, on_output)))
        with _plain_attention():
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Let every encoder block run its modules: where none of them has hooks, PyTorch fuses it and rounds otherwise."""
    with fused_encoders.at(False):
        yield


def _module(model: nn.Module, name: str) -> nn.Module:
    found = next((module for known, module in named_layers(model) if known == name), None)
    if found is None:
        raise InputError(
            f"layer {name!r}: no longer in {type(model).__name__}; the model was changed, begin another measurement"
        )
    return found


def _counting(names: dict[int, str], on_output: Callable[[str, Any], Any]) -> Callable[[nn.Module, Any, Any], None]:
    calls = 0

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in names:
            on_output(names[calls], output)

    return leave
