"""Checkpoints, read without running code from them, and fitted to a model."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerfreq.errors import Code, a_kind, damaged, no_such
from layerfreq.files import as_path
from layerfreq.loading.array_files import read_arrays

PICKLES = (".pt", ".pth", ".pth.tar", ".pt.tar", ".ckpt", ".bin")  # .tar: as many scripts call a plain pickle
# A folder holds one of these, in the order in which they are looked for.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
COUNTERS = ("global_step", "step", "epoch")
WORDS = ("step", "iter", "epoch")  # after which names say how far the training was
PARTS = 4  # dotted parts that a prefix may have


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: Its file or folder.
        state: name -> tensor, on the CPU.
        counter: The name of the entry that holds the training step (or epoch), or None.
        count: The value of that entry.
    """

    path: Path
    state: dict[str, Tensor]
    counter: str | None = None
    count: int | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; code in a pickle is refused, never run.

    Args:
        path: A `.safetensors` file; a `.pt`, `.pth`, `.pth.tar`, `.ckpt` or `.bin` file that `torch.load` reads
            with weights only: a state dict, or a dict that holds one (Lightning's, Fabric's, the usual ones); or a
            folder with `model.safetensors` or `pytorch_model.bin`, sharded or not.

    Raises:
        InputError: If it is missing, damaged, wants to run code, or holds no weights.
    """
    path = as_path(path, "checkpoint")
    if path.is_dir():
        return Checkpoint(path, _read_folder(path))
    if not path.is_file():
        raise no_such("checkpoint", "file", path)
    if path.suffix == ".safetensors":
        return Checkpoint(path, read_arrays(path, "checkpoint"))
    if not path.name.endswith(PICKLES):
        raise Code.UNSUPPORTED(f"checkpoint: {path.name!r} is not {' or '.join(PICKLES)} or .safetensors; convert it")
    packed = _read_pickle(path)
    state = _find_state(packed)
    if state is None:
        held = a_kind(packed)
        if isinstance(packed, Mapping):
            held = f"{', '.join(map(str, list(packed)[:8])) or 'nothing'}"
        raise Code.MISSING(f"checkpoint: no weights in {str(path)!r} (it holds {held}); save model.state_dict()")
    for counter in COUNTERS:
        count = packed.get(counter) if isinstance(packed, Mapping) else None
        if isinstance(count, int) and not isinstance(count, bool):
            return Checkpoint(path, state, counter, count)
    return Checkpoint(path, state)


def load_into(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights into a model, all of them or none.

    Prefixes of wrappers (`module.`, `_orig_mod.`, Lightning's `model.`, ...) are removed if exactly one way of doing so
    gives the names of the model.

    Raises:
        InputError: If names or shapes differ from the model's; the message names the first ones.
    """
    wanted = model.state_dict()
    state = fit(wanted, checkpoint.state, f"checkpoint: {str(checkpoint.path)!r}", type(model).__name__)
    model.load_state_dict(state, strict=False)  # `fit` is stricter, but for names of one and the same tensor


def fit(wanted: Mapping[str, Any], state: Mapping[str, Tensor], what: str, model: str) -> dict[str, Tensor]:
    """Return a state dict under a model's own names.

    Args:
        wanted: The model's own state dict.
        state: The weights found.
        what: What to blame at the start of a message.
        model: What to call the model in a message.

    Raises:
        InputError: If they do not fit.
    """
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "on meta" if value.is_meta else "quantized" if value.is_quantized else "sparse"
            raise Code.UNSUPPORTED(f"{what} has {name} {kind}; save plain numbers")
    plain = {".".join(part for part in name.split(".") if part != "_orig_mod"): value for name, value in state.items()}
    places = {name: _place(value) for name, value in wanted.items()}
    ways = _without_prefixes(plain)
    fitting = [way for way in ways if not any(_misfits(wanted, places, way[1]))]
    if len(fitting) > 1 and fitting[0][0]:
        names = " and ".join(repr(prefix) for prefix, _ in fitting[:3])
        raise Code.CONFLICT(f"{what} holds weights for {model} under {names}; save the one that is meant by itself")
    if not fitting:
        _, nearest = max(ways, key=lambda way: sum(name in wanted for name in way[1]))
        missing, extra, other = (
            ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") for names in _misfits(wanted, places, nearest)
        )
        parts = [f"missing: {missing}"] if missing else []
        parts += [f"not in the model: {extra}"] if extra else []
        parts += [other] if other else []
        raise Code.SHAPE(f"{what} does not fit {model} ({'; '.join(parts)}); pass the factory of its architecture")
    return {name: value for name, value in fitting[0][1].items() if name in wanted}


def _without_prefixes(state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The weights as they are, and those under each prefix without it."""
    prefixes = {""}
    for name in state:
        parts = name.split(".")[:-1]
        prefixes |= {".".join(parts[:k]) + "." for k in range(1, min(len(parts), PARTS) + 1)}
    return [
        (prefix, {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        for prefix in sorted(prefixes)
    ]


def _misfits(
    wanted: Mapping[str, Any], places: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Names that the model wants and the state lacks, names the other way, and shapes that differ."""
    given = {places[name] for name in state if name in wanted}
    missing = [name for name, place in places.items() if name not in state and place not in given]
    extra = [name for name in state if name not in wanted and name != "n_averaged"]  # an averaged copy's count
    shapes = [
        (name, getattr(value, "shape", None), getattr(wanted.get(name), "shape", None)) for name, value in state.items()
    ]
    other = [
        f"{name} is {tuple(there)} there and {tuple(here)} in the model"
        for name, there, here in shapes
        if there is not None and here is not None and there != here
    ]
    return missing, extra, other


def _place(value: Any) -> Any:
    """Something equal for two names of one tensor, and for nothing else."""
    if not isinstance(value, Tensor) or value.numel() == 0:
        return object()
    return value.data_ptr(), value.shape, value.stride()


def steps_of(checkpoints: Sequence[Checkpoint]) -> tuple[list[int], str]:
    """Return the training step of each checkpoint, and where the steps come from.

    It is the first of these that gives one for each: the checkpoints' own counters; the number after "step", then after
    "epoch", in the file's name (the folder's, if all files have the same name); the last number there, except digits
    after a decimal point (a loss) or a version ("-v1"); the order given.

    Raises:
        InputError: If two of them have the same.
    """
    names = [c.path.name if c.path.is_dir() else Path(c.path.name.removesuffix(".tar")).stem for c in checkpoints]
    if len(names) > 1 and len(set(names)) == 1:
        names = [c.path.absolute().parent.name for c in checkpoints]
    found = {f"the number after {word!r} in each name": [_after(word, name) for name in names] for word in WORDS}
    found["the last number in each name"] = [_last_number(name) for name in names]
    if all(c.count is not None and c.counter == checkpoints[0].counter for c in checkpoints):
        found = {f"the checkpoints' entry {checkpoints[0].counter!r}": [c.count for c in checkpoints], **found}
    found["the order given"] = list(range(1, len(checkpoints) + 1))
    whole = {what: [n for n in numbers if n is not None] for what, numbers in found.items() if None not in numbers}
    # Where one says the same of two (an epoch's number, within it), the next may tell them apart.
    source = next((what for what, numbers in whole.items() if len(set(numbers)) == len(numbers)), "")
    if source == "the order given" and len(whole) > 1:
        source = next(iter(whole))
    steps = whole[source]
    for i, step in enumerate(steps):
        if step in steps[:i]:
            first, second = (str(checkpoints[k].path) for k in (steps.index(step), i))
            raise Code.CONFLICT(f"checkpoint: {first!r} and {second!r} are both step {step} ({source}); rename one")
    return steps, source


def _after(word: str, name: str) -> int | None:
    found = re.search(rf"(?:^|[^a-z]|global|train){word}s?[-_=. ]?(\d+)(?![.\d])", name.lower())
    return None if found is None else int(found[1])


def _last_number(name: str) -> int | None:
    plain = re.sub(r"\d*\.\d+|[-_.]v\d+$", " ", name)
    found = re.findall(r"\d+", plain)
    return int(found[-1]) if found else None


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's weights one after the other."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.suffix in (".safetensors", ".bin"))
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_folder(folder: Path) -> dict[str, Tensor]:
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise Code.MISSING(f"checkpoint: no weights in {str(folder)!r} (none of {', '.join(WEIGHTS)}); name a file")
    if file.suffix != ".json":
        return read_checkpoint(file).state
    try:
        parts = sorted({Path(part) for part in json.loads(file.read_text())["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError):
        raise damaged("checkpoint", file, None, "save the checkpoint again") from None
    state: dict[str, Tensor] = {}
    for part in parts:
        state |= read_checkpoint(folder / part.name).state
    return state


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what follows, one line is said
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise dozens of types
        what = str(error).strip() or type(error).__name__
    if "weights only" not in what.lower():
        first = what.splitlines()[0][:120]
        raise Code.DAMAGED(f"checkpoint: {str(path)!r} is damaged or no PyTorch file ({first}); save it again")
    code = re.search(r"GLOBAL ([\w.]+)", what)
    allow = ""
    if code and "allowed global by default" in what:
        allow = f", or, if you trust it, call torch.serialization.add_safe_globals([{code[1]}]) in the factory's module"
    raise Code.UNSUPPORTED(
        f"checkpoint: {str(path)!r} is a pickle that wants code ({code[1] if code else 'not said which'}), which is "
        f"not run; save the weights by safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'){allow}"
    )


def _find_state(packed: Any, depth: int = 2) -> dict[str, Tensor] | None:
    """The state dict that a checkpoint is or holds, or None."""
    if not isinstance(packed, Mapping):
        return None
    if packed and all(isinstance(name, str) for name in packed) and _mostly_tensors(packed):
        return {name: value for name, value in packed.items() if isinstance(value, Tensor)}
    for holder in HOLDERS if depth else ():
        found = _find_state(packed.get(holder), depth - 1)
        if found:
            return found
    return None


def _mostly_tensors(packed: Mapping[Any, Any]) -> bool:
    """Whether every value is a tensor, or a module's extra state (which has no tensor's name)."""
    return all(isinstance(v, Tensor) or str(name).endswith("_extra_state") for name, v in packed.items()) and any(
        isinstance(v, Tensor) for v in packed.values()
    )
