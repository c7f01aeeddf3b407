"""User input, checked and converted to one form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from layerfreq.data.arraylike import as_array, as_tensor
from layerfreq.errors import Code, InputError, converting, is_not, listed, none_given, not_finite, unknown, unsupported

Curve = Float64[np.ndarray, " m"]
Scale = Literal["raw", "rms", "maxabs"]
SCALES: tuple[Scale, ...] = get_args(Scale)


def as_scale(scale: Any) -> Scale:
    """Check a scale.

    Raises:
        InputError: If it is not one of `SCALES`.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    return scale


def as_scales(scale: Any) -> tuple[Scale, ...]:
    """Return the scales to measure at, in the order given; of raw and rms, which convert exactly, only the first.

    Raises:
        InputError: If one is unknown, or there is none.
    """
    several = isinstance(scale, Iterable) and not isinstance(scale, str)
    given = listed(scale, "scale", "'raw', 'rms', 'maxabs' or several of them") if several else [scale]
    asked: list[Scale] = [as_scale(one) for one in given]
    if not asked:
        raise none_given("scale", "'raw', 'rms', 'maxabs' or several of them")
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
    with converting("features", "a numeric tensor or array (n, ...)"):
        x = as_tensor(features, "features").detach()
        x = x if device is None else x.to(device)
    if empty and x.ndim and x.shape[0] == 0:
        return x.new_empty(0, math.prod(x.shape[1:]))
    if x.ndim == 0 or x.shape[0] == 0 or x.numel() == 0:
        raise Code.EMPTY(f"features: shape {tuple(x.shape)} holds no data; pass (n, ...) with n > 0 points")
    if x.is_complex():
        raise unsupported("features", x.dtype, "torch.view_as_real(features)")
    x = x.reshape(x.shape[0], -1)
    if not x.is_floating_point():
        x = x.to(torch.float32 if x.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16) else torch.float64)
    # A finite sum proves that all numbers are finite, at a fraction of the price; an infinite one may be overflow.
    # NumPy sums on one thread; PyTorch's threads would spin for milliseconds beside those of the engine.
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    with np.errstate(all="ignore"):
        finite = bool(np.isfinite(x.numpy().sum()) if plain else torch.isfinite(x.sum()))
    bad = 0 if finite else int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise not_finite("features", bad, len(x))
    return x


def as_cutoffs(inv_delta: Any) -> Curve:
    """Check cutoffs and return them as float64.

    Raises:
        InputError: If they are not finite, positive and strictly increasing.
    """
    with converting("inv_delta", "increasing floats > 0"):
        if isinstance(inv_delta, Tensor):
            inv_delta = inv_delta.detach().cpu().double().numpy()
        grid = np.array(as_array(inv_delta, "inv_delta"), dtype=np.float64).reshape(-1)
    return increasing(grid, "inv_delta", grid > 0, "> 0")


def increasing(grid: Curve, argument: str, allowed: np.ndarray, range_: str) -> Curve:
    """Return a grid, checked.

    Raises:
        InputError: If it is empty, not finite, has a number that is not allowed, or does not increase.
    """
    if len(grid) == 0:
        raise none_given(argument, f"increasing floats {range_}, or None for the data's own")
    if not (good := np.isfinite(grid) & allowed).all():
        raise is_not(argument, float(grid[~good][0]), f"a finite number {range_}", f"increasing floats {range_}")
    if len(falls := np.flatnonzero(np.diff(grid) <= 0)):
        a, b = grid[falls[0] :][:2]
        raise InputError(f"{argument}: {a:g} is followed by {b:g}; sort them, without duplicates")
    return grid


def drift(before: Tensor, now: Tensor, spread: float) -> float:
    """Return the largest distance between two versions of the same points, relative to how far points are spread.

    Args:
        before: (k, d) features as they were.
        now: (k, d) features as they are.
        spread: Mean squared distance of points from their mean.
    """
    moved = float((before.double() - now.double()).square().sum(dim=1).max())
    return math.sqrt(moved / spread) if spread > 0 else math.inf if moved > 0 else 0.0
