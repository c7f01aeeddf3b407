"""The points that a model is measured on: one place that turns a name into inputs and targets."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfreq.data.arraylike import as_array
from layerfreq.data.inputs import batches, count, is_loader, take
from layerfreq.errors import Code, InputError, a_kind, converting, shown, wrong_length
from layerfreq.files import as_path
from layerfreq.loading.array_files import SUFFIXES, read_arrays
from layerfreq.loading.hub_tables import class_ids, open_table, pictures, pixels, readable, texts
from layerfreq.loading.models import Source, make, processor
from layerfreq.network.labelled import for_model, is_causal

LENGTH = 128  # most tokens of a text


def load_data(name: str, source: Source, points: int, reading: str = "flatten") -> tuple[Any, Any]:
    """Return inputs as the model's forward takes them, and targets.

    Args:
        name: One of: a `.npz` or `.safetensors` file with `targets` and `inputs`, or several arrays by the names of
            forward's arguments; MODULE:FACTORY, which returns (inputs, targets) or a loader of such batches; "digits";
            a local folder in the hub's layout or a hub id, with labelled images or texts. A language model gets windows
            of the texts, with the next tokens as targets.
        source: The model, whose tokenizer or image processor is used if it has one.
        points: Maximum number of points.
        reading: How sequences are read; with "positions", a language model has a target for each token.

    Returns:
        Inputs and targets, or a list of (inputs, targets) batches and None.

    Raises:
        InputError: If the data cannot be read, or is of a kind that the model does not take.
    """
    path = as_path(name, "data")
    if path.suffix in SUFFIXES:
        inputs, targets = _from_file(path)
    elif ":" in name and not path.exists():
        found = make(name, "data")
        if is_loader(found):
            return _first_batches(for_model(source.model, found), points), None
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise InputError(f"data: {name!r} returns {a_kind(found)}; return (inputs, targets) or a loader")
        inputs, targets = _as_tensors(found[0]), as_array(found[1], "data")
    elif name == "digits":
        from layerfreq.loading.images import load_images

        inputs, targets = load_images("digits", min(points, 1797))
    else:
        inputs, targets = _from_table(name, source, points, reading)
    n = count(inputs)
    if isinstance(targets, Mapping):
        raise InputError(f"data: {name!r} names several targets, {shown(list(targets))}; give one, as an array")
    if not hasattr(targets, "__len__") or getattr(targets, "ndim", 1) == 0:
        raise Code.SHAPE(f"data: {name!r} has {shown(targets)} for targets; give one for each of {n} inputs")
    if len(targets) != n:
        raise wrong_length("data", f"{name!r} has {len(targets)} targets", n)
    if n == 0:
        raise Code.EMPTY(f"data: {name!r} holds no points; pass data with at least one")
    return take(inputs, slice(0, points), n), targets[:points]


def in_batches(inputs: Any, targets: Any, size: int) -> Any:
    """Split inputs and targets into a list of batches; a list of batches is returned unchanged."""
    if targets is None:
        return inputs
    n = count(inputs)
    slices = [slice(start, start + size) for start in range(0, n, size)]
    return [(take(inputs, at, n), targets[at]) for at in slices]


def _from_file(path: Any) -> tuple[Any, Any]:
    arrays = _as_tensors(read_arrays(path, "data"))
    if "targets" not in arrays or len(arrays) < 2:
        held = ", ".join(arrays) or "none"
        raise Code.MISSING(f"data: {str(path)!r} has arrays {held}; it needs `targets`, and `inputs` or forward's own")
    targets = arrays.pop("targets")
    return arrays["inputs"] if list(arrays) == ["inputs"] else arrays, targets


def _first_batches(loader: Iterable[Any], points: int) -> list[tuple[Any, Any]]:
    found, left = [], points
    for x, y in batches(loader):
        n = count(x)
        found.append((take(x, slice(0, left), n), as_array(y, "data")[:left]))
        left -= n
        if left <= 0:
            break
    return found


def _as_tensors(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _as_tensors(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(map(_as_tensors, inputs))
    inputs = as_array(inputs, "data")
    with converting("data", "tensors"):
        return torch.as_tensor(inputs) if isinstance(inputs, (np.ndarray, list)) else inputs


def _from_table(name: str, source: Source, points: int, reading: str) -> tuple[Any, Any]:
    table = open_table(name, points)
    language = is_causal(source.model)
    with readable(name):
        images = None if language else pictures(table)
        written = texts(table) if images is None else None
        if images is None and written is None:
            raise Code.MISSING(
                f"data: {name!r} has columns {table.column_names}, neither images nor texts; write a function that "
                "gives (inputs, targets) and pass it as MODULE:FUNCTION, or save both as .npz"
            )
        if language:
            return _windows(written or [], source, points, reading)
        if "label" not in table.column_names:
            raise Code.MISSING(f"data: {name!r} has columns {table.column_names}; a column `label` is needed")
        targets = torch.from_numpy(class_ids(table, name))
        inputs = _tokens(written or [], source) if images is None else _pictures(images, source)
        return inputs, targets


def _pictures(images: list[Any], source: Source) -> Any:
    prepare = processor(source, "AutoImageProcessor")
    if prepare is not None:
        return _known(source, dict(prepare(images=[image.convert("RGB") for image in images], return_tensors="pt")))
    x = torch.from_numpy(pixels(images) / 255)
    x = x[:, None] if x.ndim == 3 else x.movedim(-1, 1)
    return x if source.pretrained is None else {getattr(source.model, "main_input_name", "pixel_values"): x}


def _tokens(written: list[str], source: Source) -> Any:
    tokenizer = _tokenizer(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    length = min(LENGTH, _context(source))
    packed = tokenizer(written, padding=True, truncation=True, max_length=length, return_tensors="pt")
    return _known(source, dict(packed))


def _windows(written: list[str], source: Source, points: int, reading: str) -> tuple[Any, Any]:
    """Windows of the running text, and the token that follows: each one's, or the last one's alone."""
    tokenizer = _tokenizer(source)
    ids = [i for text in written for i in tokenizer(text)["input_ids"]]
    length = min(LENGTH, _context(source), max(1, len(ids) - 1))
    n = min(points, (len(ids) - 1) // length)
    if n < 2:
        raise Code.EMPTY(f"data: {len(ids)} tokens, too few for windows of {length}; pass more texts")
    every = torch.tensor(ids[: n * length + 1])
    following = every[1:].reshape(n, length)
    inputs = _known(source, {"input_ids": every[:-1].reshape(n, length)})
    return inputs, following if reading.startswith("positions") else following[:, -1]


def _tokenizer(source: Source) -> Any:
    tokenizer = processor(source, "AutoTokenizer")
    if tokenizer is None:
        raise Code.MISSING(
            "data: texts need a tokenizer, and the model has none next to it; save it there (save_pretrained), "
            "or pass data as a file of token ids or as MODULE:FUNCTION"
        )
    return tokenizer


def _context(source: Source) -> int:
    config = getattr(source.model, "config", None)
    names = ("max_position_embeddings", "n_positions", "context_length")
    known = [value for value in (getattr(config, name, None) for name in names) if isinstance(value, int) and value > 0]
    return min(known, default=LENGTH)


def _known(source: Source, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the inputs that the model's forward takes."""
    arguments = inspect.signature(source.model.forward).parameters
    return {key: value for key, value in inputs.items() if key in arguments}
