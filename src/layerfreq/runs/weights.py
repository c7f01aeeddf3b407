"""A model's weights at measured steps, kept beside the run: `checkpoints/step-000000000200.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerfreq.errors import InputError
from layerfreq.files import write_whole

if TYPE_CHECKING:
    from torch import nn


def keep_weights(folder: Path, step: int, model: nn.Module) -> Path:
    """Write a model's parameters and buffers, whole or not at all; the same step again replaces them.

    Args:
        folder: Of the run.
        step: The step they belong to.
        model: The model, not a wrapper of it.

    Raises:
        InputError: If the package for it is missing.
    """
    save = _safetensors().save
    # Tied weights are written once each: the format refuses tensors that share memory, and strides other than plain.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    path = folder / "checkpoints" / f"step-{step:012d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    packed = save(state)
    write_whole(path, lambda at: at.write_bytes(packed))
    return path


def check_keeping(checkpoints: bool) -> None:
    """Raise an InputError if weights are to be kept and the package for it is missing."""
    if checkpoints:
        _safetensors()


def kept_steps(folder: Path) -> list[int]:
    """Return the steps whose weights a run has kept, in order."""
    return sorted(int(p.stem.removeprefix("step-")) for p in (folder / "checkpoints").glob("step-*.safetensors"))


def load_weights(folder: Path, step: int, model: nn.Module) -> None:
    """Put the weights that a run kept at a step into a model.

    Raises:
        InputError: If there are none, or they are of another model.
    """
    path = folder / "checkpoints" / f"step-{step:012d}.safetensors"
    if not path.is_file():
        raise InputError(f"step: {str(folder)!r} kept no weights at step {step}; it has {kept_steps(folder)}")
    try:
        model.load_state_dict(_safetensors().load_file(path))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"run: {str(path)!r} holds the weights of another model ({first}); pass that one") from None


def _safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise InputError("safetensors: keeping weights needs it; pip install 'layerfreq[study]'") from None
    return safetensors.torch
