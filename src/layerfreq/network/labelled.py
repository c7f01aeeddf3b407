"""Batches that are dicts with labels, as Hugging Face's models take them: which target belongs to which token.

A causal language model gets its own input as labels, and compares its output at a token with the label of the next
token; a masked one compares each token with its own label. Which of the two a model does is tried, not guessed. A
measurement passes no labels, unless the model does not run without them. A model with a decoder makes the decoder's
input from the labels, so that it is made here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from layerfreq.data.inputs import (
    LABELS,
    as_loader,
    batches,
    call,
    collated,
    count,
    device_of,
    is_loader,
    map_tensors,
    on_device,
    owned,
    pair_of,
    take,
)
from layerfreq.isolation.preserve import untouched
from layerfreq.network.reading import IGNORED

CAUSAL = ("ForCausalLM", "LMHeadModel")  # ends of the names of causal language models
FEW = 4  # points on which it is tried whether a model runs
NEAR = 1e-2  # relative error that half precision may leave in a difference of logits


def is_causal(model: nn.Module) -> bool:
    """Whether a model is a causal language model by its name."""
    return type(model).__name__.endswith(CAUSAL)


def following(tokens: Integer[Tensor, "n t"]) -> Integer[Tensor, "n t"]:
    """Return the tokens (n, t) that follow those given; the last of each row has none, and gets -100."""
    after = tokens.roll(-1, dims=1)
    after[:, -1] = IGNORED
    return after


def for_model(model: nn.Module, inputs: Any) -> Any:
    """Return a loader of dicts whose labels are the targets that the model compares with; anything else as it is.

    Args:
        model: The model, unwrapped.
        inputs: As for `layer_spectra`.
    """
    known = inspect.signature(model.forward).parameters
    if not is_loader(inputs) or isinstance(inputs, Iterator) or not known.keys() & set(LABELS):
        return inputs
    with untouched(model, inputs):
        batch = next(collated(as_loader(inputs)), None)
        name = None if batch is None else _labels_in(batch)
        if batch is None or name is None:
            return inputs
        start = _decoder_start(model, batch)
        labels, others = _tensor(batch[name]), dict(pair_of(batch)[0])
        if start is not None and labels is not None:
            others["decoder_input_ids"] = start(labels)
        needed = labels is not None and _needs(model, others, name, labels)
        made = _ForModel(inputs, start, labels is not None and shifts(model, others, name, labels), needed)
        return list(made) if isinstance(inputs, list) else made


def _needs(model: nn.Module, inputs: Mapping[str, Any], name: str, labels: Tensor) -> bool:
    """Whether a model runs on some points with their labels, but not without them; call it inside `untouched`."""

    def runs(given: Mapping[str, Any]) -> bool:
        try:
            points, _ = next(batches(dict(given)))
            call(model, owned(on_device(model, take(points, slice(0, FEW), count(points)))))
        except Exception:  # a model may raise anything for what it cannot do without
            return False
        return True

    return not runs(inputs) and runs({**inputs, name: labels})


def shifts(model: nn.Module, inputs: Mapping[str, Any], name: str, labels: Tensor) -> bool:
    """Whether a model compares its output at a token with the label of the next one; call it inside `untouched`.

    With a label at one token alone, the losses for two values differ by the difference of two logits, at that token or
    at the one before. If that does not decide, as for a model that returns no logits, the model's name does.

    Args:
        model: The model.
        inputs: Its forward's other arguments, by name.
        name: Its name for labels.
        labels: (n, t) token ids.
    """
    if labels.ndim != 2 or labels.is_floating_point() or labels.shape[1] < 2:
        return False
    values = labels[labels >= 0].unique()[:2].tolist()
    at, n = labels.shape[1] // 2, len(labels)
    try:
        losses, logits = [], torch.empty(0)
        for value in values:
            one = torch.full_like(labels[:1], IGNORED)
            one[0, at] = value
            given = map_tensors(lambda t: t.to(device_of(model)), {**take(dict(inputs), slice(0, 1), n), name: one})
            out = call(model, owned(given))
            losses.append(float(out["loss"]))
            logits = out["logits"][0].double()
        gap = logits[:, values[1]] - logits[:, values[0]]
        misses = [abs(float(gap[place]) - (losses[0] - losses[1])) for place in (at - 1, at)]
    except Exception:  # no loss, no logits, fewer than two values, or whatever else a model raises
        return is_causal(model)
    room = NEAR * float(gap.abs().max())
    return misses[0] < misses[1] if (min(misses) <= room < max(misses)) else is_causal(model)


class _ForModel:
    """A loader of dicts with targets in place of labels.

    Args:
        loader: The loader.
        start: Makes the decoder's input from labels; None if the batch has it, or there is no decoder.
        shifted: Whether each token's target is the next one's label.
        needed: Whether the model gets the labels, too.
    """

    def __init__(self, loader: Any, start: Any, shifted: bool, needed: bool) -> None:
        self.loader, self._start, self._shifted, self._needed = loader, start, shifted, needed

    def __iter__(self) -> Iterator[Any]:
        for batch in collated(as_loader(self.loader)):
            name = _labels_in(batch)
            labels = None if name is None else _tensor(batch[name])
            if name is None or labels is None:
                yield batch
                continue
            more = {} if self._start is None else {"decoder_input_ids": self._start(labels)}
            target = following(labels) if self._shifted and labels.ndim == 2 else batch[name]
            if self._needed:
                yield {**pair_of(batch)[0], **more, name: labels}, target
            else:
                yield {**batch, **more, name: target}


def _labels_in(batch: Any) -> str | None:
    if not isinstance(batch, Mapping):
        return None
    return next((name for name in LABELS if batch.get(name) is not None), None)


def _tensor(labels: Any) -> Tensor | None:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # reading the targets raises the error
        return None


def _decoder_start(model: Any, batch: Mapping[str, Any]) -> Any:
    """Return a function that makes a decoder's input from labels; None if the batch has it, or there is no decoder."""
    config = getattr(model, "config", None)
    if "decoder_input_ids" in batch or "decoder_inputs_embeds" in batch:
        return None
    prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is not None:
        return lambda labels: prepare(labels=labels)
    first = getattr(config, "decoder_start_token_id", None)
    if not getattr(config, "is_encoder_decoder", False) or not isinstance(first, int):
        return None
    padding = getattr(config, "pad_token_id", None) or 0

    def moved(labels: Tensor) -> Tensor:
        before = labels.roll(1, dims=1)
        before[:, 0] = first
        return before.masked_fill(before == IGNORED, padding)

    return moved
