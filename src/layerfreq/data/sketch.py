"""Wide targets: random-sign sums that stand for many columns, and the error that this leaves.

For R of independent random signs, (c, s), and any vector z, each (z R)_k^2 has the expectation |z|^2. The filter is
linear, so it may act on the s sums instead of the c columns, and the mean over k of (f_i R)_k^2 estimates |f_i|^2
without bias, f_i being the filtered deviation from the mean target m.

What is needed is |f_i + m|^2. Sketching the sum f_i + m would add the sketch's noise of the large constant |m|^2 and of
2 f_i.m. Both are avoided by one exact column: with e = m / |m|, |f_i + m|^2 = (f_i.e + |m|)^2 + |f_i - (f_i.e) e|^2, of
which the first part is known exactly from the column y.e, and only the second is sketched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

COLUMNS = 64  # random-sign sums; the relative error is at worst sqrt(2 / 64), and mostly a small part of that
CHUNK = 1 << 22  # numbers converted to float64 at a time


@dataclass(frozen=True)
class Sketched:
    """Wide targets in a few columns.

    Attributes:
        columns: (n, 1 + s) the exact column y.e, then s random-sign sums of the rest over sqrt(s); all of mean zero.
        mean: |m|.
        energy: (n,) |y_i - m|^2, exact.
        rest: (n,) the part of it that the sums stand for, exact.
    """

    columns: Float64[Tensor, "n k"]
    mean: float
    energy: Float64[Tensor, " n"]
    rest: Float64[Tensor, " n"]


def sketch(take: Callable[[slice], Tensor], n: int, width: int, seed: int) -> Sketched:
    """Sketch targets that are too wide to be summed column by column, some columns at a time.

    Args:
        take: Returns some of the columns, (n, k) floats.
        n: Number of points.
        width: Number of columns.
        seed: Seed for the signs. The global random state is not touched.
    """
    signs = _signs(width, seed)
    sums, along, energy = torch.zeros(n, COLUMNS, dtype=torch.float64), *torch.zeros(2, n, dtype=torch.float64)
    mean_sums, mean_square = torch.zeros(COLUMNS, dtype=torch.float64), 0.0
    step = max(1, CHUNK // max(1, n))
    for start in range(0, width, step):
        at = slice(start, min(width, start + step))
        part, sign = take(at).double(), signs[at].double() * 2 - 1
        first = part[0].clone()
        part = part - first
        shift = part.mean(dim=0)
        part -= shift
        mean = first + shift
        sums.addmm_(part, sign)
        along.addmv_(part, mean)
        mean_sums.addmv_(sign.T, mean)
        mean_square += float(mean.square().sum())
        energy += part.square_().sum(dim=1)
    size = math.sqrt(mean_square)
    if size > 0:  # along / |m| is y.e, and takes its share out of the sums
        along /= size
        sums.addr_(along, mean_sums / size, alpha=-1)
    rest = (energy - along.square()).clamp_(min=0)
    return Sketched(torch.cat([along[:, None], sums / math.sqrt(COLUMNS)], dim=1), size, energy, rest)


def sketch_classes(labels: Int64[Tensor, " n"], classes: int, seed: int) -> Sketched:
    """Sketch class ids as their one-hot vectors would be, without ever forming these.

    A one-hot vector's sums are its class's row of signs, and its products with the mean are the classes' shares.

    Args:
        labels: (n,) class indices 0..classes-1, each of which occurs.
        classes: Number of classes.
        seed: Seed for the signs. The global random state is not touched.
    """
    signs = _signs(classes, seed)
    share = torch.bincount(labels, minlength=classes).double() / len(labels)
    mean_square = float(share.square().sum())
    size = math.sqrt(mean_square)
    energy = (1 - 2 * share + mean_square)[labels]
    along = (share[labels] - mean_square) / size
    sums, mean_sums = torch.empty(len(labels), COLUMNS, dtype=torch.float64), torch.zeros(COLUMNS, dtype=torch.float64)
    for at in torch.arange(classes).split(CHUNK // COLUMNS):
        mean_sums.addmv_((signs[at].double() * 2 - 1).T, share[at])
    for at in torch.arange(len(labels)).split(CHUNK // COLUMNS):
        sums[at] = signs[labels[at]].double() * 2 - 1 - mean_sums
    sums.addr_(along, mean_sums / size, alpha=-1)
    rest = (energy - along.square()).clamp_(min=0)
    return Sketched(torch.cat([along[:, None], sums / math.sqrt(COLUMNS)], dim=1), size, energy, rest)


def _signs(width: int, seed: int) -> Int8[Tensor, "width s"]:
    """Draw the signs of all columns, as 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (width, COLUMNS), generator=generator, dtype=torch.int8, device="cpu")


def unsketch(
    by_column: Float64[Tensor, "2 m k"], own: Float64[Tensor, " s"], rest: float
) -> tuple[Float64[Tensor, "2 m"], Float64[Tensor, " m"]]:
    """Estimate the energy that the filter keeps of sketched targets, its derivative, and the standard error.

    Each of the s sums gives an estimate L_k. It errs much as it does for the unfiltered targets, whose energy is known:
    so b (E_k - E) is taken off, E_k being the k-th estimate of the known E. With b from the *other* sums, b and E_k
    are independent, the correction has the expectation 0, and no bias comes in. Without a filter the error vanishes.

    Args:
        by_column: (2, m, 1 + s) sums over centres of the filtered columns' squares, and derivatives of them.
        own: (s,) the same sums of the random-sign columns, unfiltered.
        rest: What `own` stands for, exactly.

    Returns:
        (2, m) energy and derivative, (m,) standard error of the energy.
    """
    s = len(own)
    kept = by_column[..., 1:] * s
    others = (own.sum() - own) * s
    slopes = torch.where(others > 0, (kept.sum(dim=-1, keepdim=True) - kept) / others.clamp(min=1e-300), 0.0)
    estimates = kept - slopes * (own * s - rest)
    return by_column[..., 0] + estimates.mean(dim=-1), estimates[0].std(dim=-1) / math.sqrt(s)
