"""Which tokens of a batch are there, and which are padding: read off the mask among a model's inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def tokens_there(model: nn.Module, inputs: Any, n: int) -> list[Tensor]:
    """Return the masks (n, t) of the tokens that are there, for every length t that a mask has.

    A mask is an input whose name in the model's forward ends in "mask" and which holds one truth value or 0 or 1 for
    each token of each point: 1 is a token, as in Hugging Face's `attention_mask`; where the name says "padding",
    1 (or True) is padding, as in PyTorch's `src_key_padding_mask`.
    """
    found = []
    for name, x in _by_name(model, inputs).items():
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[0] != n or not name.endswith("mask"):
            continue
        if x.dtype == torch.bool or bool(((x == 0) | (x == 1)).all()):
            found.append(x == 0 if "padding" in name else x != 0)
    return found


def _by_name(model: nn.Module, inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {str(name): x for name, x in inputs.items()}
    if not isinstance(inputs, (tuple, list)):
        return {}
    return dict(zip(inspect.signature(model.forward).parameters, inputs, strict=False))
