"""User input, checked and converted to one form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from layerfreq.data.arraylike import as_array
from layerfreq.errors import InputError, first_line, listed

Curve = Float64[np.ndarray, " m"]
Scale = Literal["raw", "rms", "maxabs"]
SCALES: tuple[Scale, ...] = get_args(Scale)


def as_scale(scale: Any) -> Scale:
    """Check a scale.

    Raises:
        InputError: If it is not one of `SCALES`.
    """
    if scale not in SCALES:
        raise InputError(f"scale: {scale!r} is none of 'raw', 'rms' and 'maxabs'; choose one of them")
    return scale


def as_scales(scale: Any) -> tuple[Scale, ...]:
    """Return the scales to measure at, the first one first; one of raw and rms is enough.

    Raises:
        InputError: If one is unknown, or there is none.
    """
    several = isinstance(scale, Iterable) and not isinstance(scale, str)
    given = listed(scale, "scale", "'raw', 'rms', 'maxabs' or several of them") if several else [scale]
    asked: list[Scale] = [as_scale(one) for one in given]
    if not asked:
        raise InputError("scale: none given; pass 'raw', 'rms', 'maxabs' or several of them")
    kinds = {one == "maxabs": one for one in reversed(asked)}
    return tuple(one for one in asked if kinds.pop(one == "maxabs", None))


def as_features(features: Any, device: str | torch.device | None = None, *, empty: bool = False) -> Tensor:
    """Check features and return them as a finite (n, d) tensor of a real floating type.

    Args:
        features: (n, ...) tensor or array.
        device: Target device; None leaves them where they are.
        empty: Whether there may be no points.

    Raises:
        InputError: For anything but n > 0 points of finite numbers.
    """
    try:
        x = torch.as_tensor(as_array(features, "features")).detach()
        x = x if device is None else x.to(device)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        first = first_line(error)
        raise InputError(f"features: cannot be used ({first}); pass a numeric tensor or array (n, ...)") from None
    if empty and x.ndim and x.shape[0] == 0:
        return x.new_empty(0, math.prod(x.shape[1:]))
    if x.ndim == 0 or x.shape[0] == 0 or x.numel() == 0:
        raise InputError(f"features: shape {tuple(x.shape)} holds no data; pass (n, ...) with n > 0 points")
    if x.is_complex():
        raise InputError(f"features: {x.dtype} is not supported; pass torch.view_as_real(features)")
    x = x.reshape(x.shape[0], -1)
    if not x.is_floating_point():
        x = x.to(torch.float32 if x.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16) else torch.float64)
    # A finite sum proves finite numbers at a fraction of the price; an infinite one may be mere overflow.
    # NumPy's uses one thread; PyTorch's would keep spinning for milliseconds next to the engine's.
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    with np.errstate(all="ignore"):
        finite = bool(np.isfinite(x.numpy().sum()) if plain else torch.isfinite(x.sum()))
    bad = 0 if finite else int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise InputError(f"features: NaN or infinite in {bad} of {len(x)} points; clean or drop them")
    return x


def as_cutoffs(inv_delta: Any) -> Curve:
    """Check cutoffs and return them as float64.

    Raises:
        InputError: If they are not finite, positive and strictly increasing.
    """
    try:
        if isinstance(inv_delta, Tensor):
            inv_delta = inv_delta.detach().cpu().double().numpy()
        grid = np.array(as_array(inv_delta, "inv_delta"), dtype=np.float64).reshape(-1)
    except InputError:
        raise
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"inv_delta: cannot be read as numbers ({error}); pass increasing floats > 0") from None
    if len(grid) == 0:
        raise InputError("inv_delta: empty; pass increasing floats > 0, or None for a grid of its own")
    if not np.isfinite(grid).all() or (grid <= 0).any():
        worst = grid[~(np.isfinite(grid) & (grid > 0))][0]
        raise InputError(f"inv_delta: {worst:g} is not a positive finite number; every cutoff must be > 0")
    falls = np.flatnonzero(np.diff(grid) <= 0)
    if len(falls):
        at = int(falls[0])
        raise InputError(f"inv_delta: {grid[at]:g} is followed by {grid[at + 1]:g}; sort it, without duplicates")
    return grid


def drift(before: Tensor, now: Tensor, spread: float) -> float:
    """Return how far features (k, d) of the same points are apart at most, relative to how far points are spread.

    Args:
        before: As they were.
        now: As they are.
        spread: Mean squared distance of points from their mean.
    """
    moved = float((before.double() - now.double()).square().sum(dim=1).max())
    return math.sqrt(moved / spread) if spread > 0 else math.inf if moved > 0 else 0.0
