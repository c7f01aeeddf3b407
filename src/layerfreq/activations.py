"""What counts as an activation, and as a block around activations, among the layers of a running model."""

from __future__ import annotations

import torch
from torch import nn

from layerfreq.taps import Event, first_tensor


def is_activation(event: Event) -> bool:
    """Whether an activation has returned: a function, an activation of torch.nn, or a module of its kind."""
    module = event.module
    if module is None:
        return True
    if isinstance(module, nn.RNNBase):
        return True  # what a recurrent module returns is gated by activations inside it
    if any(True for _ in module.children()):
        return False
    if type(module).__module__.startswith("torch.nn"):
        return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
    value, given = first_tensor(event.output), first_tensor(event.arguments)
    return (
        not any(True for _ in module.parameters())
        and value is not None
        and given is not None
        and value.shape == given.shape
        and not torch.equal(value, given)
    )


def is_candidate(event: Event, before: list[Event]) -> bool:
    """An activation, or a block with an activation inside it that is more than a container."""
    if is_activation(event):
        return True
    module = event.module
    if module is None or type(module).__module__ == nn.Sequential.__module__:
        return False
    return any(e.started > event.started and e is not event and is_activation(e) for e in before)
