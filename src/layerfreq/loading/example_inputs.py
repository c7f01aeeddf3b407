"""Made-up inputs for a model, to examine its structure without data."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.data.inputs import call, map_tensors, owned
from layerfreq.errors import Code, a_kind, failed
from layerfreq.isolation.preserve import untouched
from layerfreq.loading.models import Source

TOKENS = 16  # tokens of a made-up text
SIDE = 32  # pixels of a made-up image, where the model does not say
SAMPLES = 16000  # of made-up sound
REMEDY = "pass the shape of one point, as in --input-shape 3,32,32, or --data"


def example_inputs(source: Source, n: int, shape: Sequence[int] | None = None) -> Any:
    """Return random inputs of n points that a model's forward takes.

    Args:
        source: The model.
        n: Number of points.
        shape: Of one point; None takes it from the configuration of a Hugging Face model, else from the first layer.

    Raises:
        InputError: If the model does not run on them.
    """
    generator = torch.Generator().manual_seed(0)
    model = source.model
    first = next((m for m in model.modules() if m._parameters and not any(True for _ in m.children())), None)
    if shape is None and hasattr(model, "config") and hasattr(model, "main_input_name"):
        inputs = _from_configuration(model, n, generator)
    elif shape is None:
        inputs = _for_first_layer(first, n, generator)
    elif isinstance(first, nn.Embedding):
        inputs = _integers(first.num_embeddings, (n, *shape), generator)
    else:
        inputs = torch.randn(n, *shape, generator=generator)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    inputs = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
    try:
        with untouched(model):
            call(model, owned(inputs))
    except Exception as error:  # whatever a model raises for inputs that are not its own
        made = "" if shape is None else f" of shape {','.join(map(str, shape))}"
        raise failed("input-shape", f"{type(model).__name__} fails on random inputs{made}", error, REMEDY) from None
    return inputs


def _integers(end: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, end, shape, generator=generator)


def _for_first_layer(first: nn.Module | None, n: int, generator: torch.Generator) -> Any:
    if isinstance(first, nn.Embedding):
        return _integers(first.num_embeddings, (n, TOKENS), generator)
    if isinstance(first, nn.RNNBase):
        return torch.randn(n, TOKENS, first.input_size, generator=generator)
    for kind, sides in ((nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3)):
        if isinstance(first, kind):
            return torch.randn(n, first.in_channels, *[SIDE] * sides, generator=generator)
    if isinstance(first, (nn.Linear, nn.BatchNorm1d)):
        width = first.in_features if isinstance(first, nn.Linear) else first.num_features
        return torch.randn(n, width, generator=generator)
    kind = "no layers with parameters" if first is None else f"{a_kind(first)} first"
    raise Code.EMPTY(f"input-shape: the model has {kind}, which does not say what it takes; {REMEDY}")


def _from_configuration(model: Any, n: int, generator: torch.Generator) -> dict[str, Tensor]:
    config, arguments = model.config, inspect.signature(model.forward).parameters
    text = getattr(config, "text_config", None) or config
    image = getattr(config, "vision_config", None) or config
    wanted = {model.main_input_name}
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in arguments:
        wanted.add("decoder_input_ids")
    if "vision_config" in vars(config) and "text_config" in vars(config):
        wanted |= {"input_ids", "pixel_values"} & set(arguments)
    inputs = {}
    for name in sorted(wanted):
        if name.endswith("input_ids"):
            inputs[name] = _integers(getattr(text, "vocab_size", 2), (n, TOKENS), generator)
        elif name == "pixel_values":
            side = getattr(image, "image_size", SIDE)
            sides = list(side) if isinstance(side, (list, tuple)) else [side, side]
            inputs[name] = torch.randn(n, getattr(image, "num_channels", 3), *sides, generator=generator)
        elif hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
            inputs[name] = torch.randn(n, config.max_length, config.num_mel_bins, generator=generator)
        else:
            inputs[name] = torch.randn(n, SAMPLES, generator=generator)
    return inputs
