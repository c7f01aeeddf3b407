"""A model's weights at measured steps, kept next to the run: `checkpoints/step-000000000200.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from layerfreq.errors import Code, damaged
from layerfreq.extras import needs
from layerfreq.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

KEPT = re.compile(r"step-(\d{12})\.safetensors")


def keep_weights(folder: Path, step: int, model: nn.Module) -> Path:
    """Write a model's parameters and buffers, whole or not at all, replacing earlier ones of the same step.

    Args:
        folder: The run's folder.
        step: The step they belong to.
        model: The model, not a wrapper of it.

    Raises:
        InputError: If the package for it is missing.
    """
    save = _safetensors().save
    # Tied weights are written once each: the format refuses tensors that share memory, and strides other than plain.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    path = weights_at(folder, step)
    path.parent.mkdir(exist_ok=True)
    packed = save(state)
    write_whole(path, lambda at: at.write_bytes(packed))
    return path


def check_keeping(checkpoints: bool) -> None:
    """Raise an InputError if weights are to be kept and the package for it is missing."""
    if checkpoints:
        _safetensors()


def kept_steps(folder: Path) -> list[int]:
    """Return the steps with kept weights, in order."""
    names = (KEPT.fullmatch(part.name) for part in (folder / "checkpoints").glob("step-*.safetensors"))
    return sorted(int(name[1]) for name in names if name)


def read_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the parameters and buffers that a run kept at a step, by name.

    Raises:
        InputError: If there are none, or the file is damaged.
    """
    path = weights_at(folder, step)
    if not path.exists():
        raise Code.MISSING(f"step: {str(folder)!r} kept no weights at step {step}; it has {kept_steps(folder)}")
    read = _safetensors().load_file
    try:
        return read(path)
    except Exception as error:  # its own kind, and the system's
        raise damaged("run", path, error, "move it away") from None


def load_weights(folder: Path, step: int, model: nn.Module) -> None:
    """Load the weights that a run kept at a step into a model.

    Raises:
        InputError: If there are none, they belong to another model, or the file is damaged.
    """
    state = read_weights(folder, step)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        path, first = weights_at(folder, step), str(error).splitlines()[-1].strip()
        raise Code.CONFLICT(f"run: {str(path)!r} holds the weights of another model ({first}); pass that one") from None


def weights_at(folder: Path, step: int) -> Path:
    """Return where a run keeps the weights of a step."""
    return folder / "checkpoints" / f"step-{step:012d}.safetensors"


def _safetensors():
    return needs("safetensors.torch", "layerfreq[study]", "checkpoints")
