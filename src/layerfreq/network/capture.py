"""Hooks on some layers of a running model, and on these alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from layerfreq.errors import InputError
from layerfreq.isolation.torch_settings import fused_encoders
from layerfreq.network.cuts import Cut
from layerfreq.trace.hooks import Event, Tap, named_layers


@contextmanager
def watch(model: nn.Module, places: Sequence[Cut], on_output: Callable[[str, Any], Any]) -> Iterator[None]:
    """While active, hand what the layers return to a callback; hooks are removed however the block ends.

    Where all of them are modules, nothing else is hooked, and the others run as fast as ever.

    Args:
        model: The model.
        places: The layers, as `choose_layers` returns them.
        on_output: Gets the layer's name and its output.

    Raises:
        InputError: If the model has lost a module since.
    """
    if any(place.call is None for place in places):
        wanted = {(place.base, place.number): place.name for place in places}

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
        by_module.setdefault(place.base, {})[place.call] = place.name
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
