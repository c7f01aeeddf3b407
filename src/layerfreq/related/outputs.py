"""What a whole network puts out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from layerfreq.data.inputs import batches, blaming_inputs, call, on_device, owned
from layerfreq.errors import Code
from layerfreq.isolation.preserve import untouched
from layerfreq.trace.hooks import first_tensor


def network_outputs(model: nn.Module, inputs: Any, softmax: bool = False) -> Float64[np.ndarray, "n c"]:
    """Return what a model puts out in eval mode, without gradients; the model is left as it was."""
    rows = []
    with untouched(model, inputs):
        for x, _ in batches(inputs):
            with blaming_inputs(model, x):
                value = first_tensor(call(model, owned(on_device(model, x))))
            if value is None:
                raise Code.UNSUPPORTED(f"model: {type(model).__name__} returns no tensor of floats; pass one that does")
            value = value.detach().double().cpu().reshape(len(value), -1)
            rows.append(value.softmax(dim=1) if softmax else value)
    return torch.cat(rows).numpy()
