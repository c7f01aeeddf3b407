"""Hooks on some layers of a running model, and on these alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from layerfreq.errors import Code
from layerfreq.isolation.torch_settings import fused_encoders
from layerfreq.network.cuts import Cut
from layerfreq.trace.hooks import Event, Tap, named_layers


@contextmanager
def watch(
    model: nn.Module, cuts: Sequence[Cut], on_output: Callable[[str, Any], Any], on_step: Callable[[str], Any]
) -> Iterator[None]:
    """While active, hand what the layers at cuts return to a callback; hooks are removed however the block ends.

    If all of them are modules that are known again by their call, only these are hooked, and the others run as fast as
    ever.

    Args:
        model: The model.
        cuts: The cuts, as `choose_layers` returns them.
        on_output: Gets the cut's name and the output.
        on_step: Gets the steps of the run if a cut is not known again by its call alone, see `Tap`.

    Raises:
        InputError: If the model no longer has one of the modules.
    """
    alone = all(cut.of_module and cut.then is None for cut in cuts)
    hooks = _on_modules(model, cuts, on_output) if alone else _on_everything(model, cuts, on_output, on_step)
    # Encoder blocks run their modules: without hooks on any of them, PyTorch would fuse a block and round otherwise.
    with hooks, fused_encoders.at(False):
        yield


def _on_everything(
    model: nn.Module, cuts: Sequence[Cut], on_output: Callable[[str, Any], Any], on_step: Callable[[str], Any]
) -> AbstractContextManager[Any]:
    names = {cut.call: cut.name for cut in cuts}

    def see(event: Event) -> None:
        if event.call in names:
            on_output(names[event.call], event.output)

    return Tap(model, see, on_step=on_step)


@contextmanager
def _on_modules(model: nn.Module, cuts: Sequence[Cut], on_output: Callable[[str, Any], Any]) -> Iterator[None]:
    by_module: dict[str, dict[int, str]] = {}
    for cut in cuts:
        by_module.setdefault(cut.call.layer, {})[cut.call.number] = cut.name
    handles = []
    try:
        for layer, names in by_module.items():
            handles.append(_module(model, layer).register_forward_hook(_counting(names, on_output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(model: nn.Module, name: str) -> nn.Module:
    found = next((module for known, module in named_layers(model) if known == name), None)
    if found is None:
        raise Code.CONFLICT(f"layer {name!r}: no longer in {type(model).__name__}; begin another measurement")
    return found


def _counting(names: dict[int, str], on_output: Callable[[str, Any], Any]) -> Callable[[nn.Module, Any, Any], None]:
    calls = 0

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in names:
            on_output(names[calls], output)

    return leave
