"""How many points coincide: exactly equal features, found from one number per point."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from layerfreq.data.distributed import Shards
from layerfreq.engines.threads import parts, threads

SAME = 1e-12  # relative difference of |x|^2 that equal points may have, due to the order of its sum
NUMBERS = 1 << 20  # numbers taken at a time; for more, the compiled loop, with the same result, is worth loading
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def coincident(features: Float[Tensor, "n d"] | Tensor, squares: Float[Tensor, " n"], shards: Shards) -> float:
    """Return the mean number of points in a point's own place, itself included; the same on all ranks.

    Args:
        features: (n, d) of this rank.
        squares: (n,) |x|^2 of these, centred and scaled; only points that nearly agree in it are compared.
        shards: The ranks.
    """
    whole = shards.join(squares if squares.is_cuda else squares.cpu())
    size, order = whole.sort()
    near = size.diff() <= SAME * size[1:]
    alike = torch.zeros(len(whole), dtype=torch.bool, device=whole.device)
    alike[order[1:][near]] = True
    alike[order[:-1][near]] = True
    if not bool(alike.any()):
        return 1.0
    own = torch.nonzero(alike[shards.first : shards.first + len(features)])[:, 0]
    prints = torch.zeros(len(features), dtype=torch.int64, device=whole.device)
    prints[own] = fingerprints(features, own.to(features.device)).to(whole.device)
    found = mean_count(shards.join(prints)[alike])
    return 1 + (found - 1) * int(alike.sum()) / len(whole)


def fingerprints(features: Float[Tensor, "n d"] | Tensor, index: Tensor | None = None) -> Int64[Tensor, " k"]:
    """Return a number for each point: the same for equal features, and almost surely another one otherwise.

    It is the sum of the features' bits times random odd numbers, modulo 2^64, and does not depend on the order of
    summation.

    Args:
        features: (n, d) floats.
        index: (k,) the points wanted; None means all.
    """
    d, device = features.shape[1], features.device
    weight = weights(d).to(device)
    rows = torch.arange(len(features), device=device) if index is None else index
    out = torch.empty(len(rows), dtype=torch.int64, device=device)
    plain = device.type == "cpu" and features.dtype in (torch.float32, torch.float64) and features.is_contiguous()
    if plain and index is None and features.numel() > NUMBERS:
        from layerfreq.engines.cpu import kernels

        bits, found = bits_of(features), out.zero_().numpy()
        with threads() as run:
            list(run(lambda s: kernels.fingerprints(bits[s], 0, weight.numpy(), found[s]), parts(len(bits), d)))
        return out
    for at, part in zip(out.split(step := max(1, NUMBERS // max(1, d))), rows.split(step), strict=True):
        plain = features[part] + 0.0  # without a sign of zero
        bits = plain.view(_BITS[plain.element_size()]).long()
        bits = bits ^ (bits >> 16) ^ (bits >> 32)  # the low bits of round numbers are all zero
        at[:] = (bits * weight).sum(dim=1)
    return out


def bits_of(features: Tensor) -> np.ndarray:
    """Return the bits of contiguous features on the CPU as signed integers."""
    return features.detach().view(_BITS[features.element_size()]).numpy()


@lru_cache(maxsize=4)
def weights(d: int) -> Int64[Tensor, " d"]:
    """Return the random odd numbers of `fingerprints`."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (d,), generator=random, device="cpu") * 2 + 1


def mean_count(prints: Int64[Tensor, " n"]) -> float:
    """Return the mean, over all numbers, of how many are equal to each, itself included."""
    counts = torch.unique(prints, return_counts=True)[1].double()
    return float(counts.square().sum()) / len(prints)
