"""Image frequency: which frequencies of the *images* a network uses, which are not those of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from layerfreq.data.curves import ReadOnly
from layerfreq.data.targets import read_targets
from layerfreq.errors import Code, InputError, converting, is_not, listed, unknown
from layerfreq.measure.options import as_seed
from layerfreq.related.outputs import network_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class ImageFrequency(ReadOnly):
    """What each class loses without a frequency of its images, and what it keeps with only the most important ones.

    Frequencies are in the order of `numpy.fft.fftshift`, the mean in the middle, at (h // 2, w // 2).

    Attributes:
        classes: (c,) int64, class ids.
        loss: (c, h, w) float64, how much a class's mean cross-entropy rises when the frequency and the rest of its
            block are removed.
        adcs: (c, h, w) float64, see `class_spectra`.
        kept: (c, h, w) bool, the frequencies whose removal costs a class most.
        accuracy: (c,) float64, accuracy on the images as they are.
        filtered: (c,) float64, accuracy on a class's images filtered to its `kept`.
        random: (r, c) float64, accuracy on images filtered to as many random frequencies: the control.
        share: Share of frequencies kept, in whole blocks; the mean over classes.
        patch: Side of the blocks in which frequencies are removed together.
        n: Number of images.

    Examples:
        >>> images, labels = torch.randn(20, 1, 8, 8), torch.arange(20) % 2
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> found = image_frequency(model, images, labels, patch=2, share=0.1)
        >>> list(found.to_frame())
        ['class', 'accuracy', 'filtered', 'random', 'random_most']
        >>> figure = found.plot()
    """

    classes: Int64[np.ndarray, " c"]
    loss: Float64[np.ndarray, "c h w"]
    adcs: Float64[np.ndarray, "c h w"]
    kept: Bool[np.ndarray, "c h w"]
    accuracy: Float64[np.ndarray, " c"]
    filtered: Float64[np.ndarray, " c"]
    random: Float64[np.ndarray, "r c"]
    share: float
    patch: int
    n: int

    def to_frame(self) -> Any:
        """Return a data frame, one row per class: accuracy, filtered, random (mean), random_most."""
        import pandas as pd

        return pd.DataFrame(
            {
                "class": self.classes,
                "accuracy": self.accuracy,
                "filtered": self.filtered,
                "random": self.random.mean(axis=0),
                "random_most": self.random.max(axis=0),
            }
        )

    def plot(self, classes: Any = None) -> Figure:
        """Draw the loss of each class by frequency (top) and its ADCS (bottom); the mean is in the middle.

        Args:
            classes: Ids of the classes to draw; None means the first six.
        """
        import matplotlib.pyplot as plt

        wanted = listed(self.classes[:6] if classes is None else classes, "classes", "ids of classes") or [None]
        other = next((one for one in wanted if one not in self.classes), None)
        if other is not None:
            raise unknown("classes", other, self.classes.tolist())
        figure, axes = plt.subplots(
            2, len(wanted), figsize=(1.6 * len(wanted) + 1, 3.8), layout="constrained", squeeze=False
        )
        most, many = float(np.abs(self.loss).max()) or 1.0, max(1, len(self.classes) - 1)
        rows = ((self.loss, most, "loss without it"), (self.adcs, many, "ADCS"))
        for row, (values, top, text) in zip(axes, rows, strict=True):
            for ax, one in zip(row, wanted, strict=True):
                at = int(np.flatnonzero(self.classes == one)[0])
                ax.imshow(values[at], cmap="RdBu_r", vmin=-top, vmax=top)
                ax.set(xticks=[], yticks=[], title=f"class {one}" if values is self.loss else "")
            figure.colorbar(row[0].images[0], ax=row, label=text, shrink=0.85)
        return figure

    def __repr__(self) -> str:
        table = self.to_frame().mean()
        return (
            f"ImageFrequency of {self.n} images, {len(self.classes)} classes, blocks of {self.patch} x {self.patch}\n"
            f"  accuracy    {table['accuracy']:.3f} on the images as they are (means over classes)\n"
            f"  filtered    {table['filtered']:.3f} on the {self.share:.1%} of frequencies that a class needs most\n"
            f"  control     {table['random']:.3f} on as many drawn at random"
        )


def class_spectra(images: Any, labels: Any) -> Float64[np.ndarray, "c h w"]:
    """Compare classes by the spectra of their images: the accumulative difference of class-wise spectra, ADCS.

    ADCS_c(f) = sum over other classes i of sign(A_c(f) - A_i(f)), where A_c is the mean amplitude |F| of class c's
    images, averaged over channels: c - 1 if a class has more of a frequency than all others, 1 - c if it has least.
    After Wang, Veldhuis, Brune & Strisciuglio, "What do neural networks learn in image classification?" (ICCV 2023),
    whose code sums over images, so that more images count as more amplitude, and weights channels as for grey values.

    Args:
        images: (n, h, w) or (n, channels, h, w), finite.
        labels: (n,) class ids.

    Returns:
        (c, h, w) float64 in the order of `numpy.fft.fftshift`, classes in the order of their ids.

    Raises:
        InputError: If they are not images and class ids, or there is only one class.

    Examples:
        >>> flat, wavy = torch.ones(3, 4, 4), torch.ones(3, 4, 4) + torch.tensor([1.0, -1, 1, -1])
        >>> class_spectra(torch.cat([flat, wavy]), [0, 0, 0, 1, 1, 1])[1]  # four pixels: the wave is at -2
        array([[0., 0., 0., 0.],
               [0., 0., 0., 0.],
               [1., 0., 0., 0.],
               [0., 0., 0., 0.]])
    """
    x, y = _images(images, labels)
    size = np.fft.fftshift(np.abs(np.fft.fft2(x)).mean(axis=1), axes=(1, 2))
    mean = np.stack([size[y == one].mean(axis=0) for one in np.unique(y)])
    near = 1e-12 * mean.max()
    difference = mean[:, None] - mean[None]
    return np.where(np.abs(difference) <= near, 0.0, np.sign(difference)).sum(axis=1)


def image_frequency(
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    patch: int | None = None,
    share: float = 0.05,
    controls: int = 5,
    seed: int = 0,
) -> ImageFrequency:
    """Measure which frequencies of the images a classifier uses, by class.

    This is not the frequency of `spectrum`, which says how fast the *target* changes from point to point; it says how
    fast brightness changes from pixel to pixel. Each frequency is removed from the images (with its mirror image and
    the rest of its block), and the rise of each class's loss is recorded; then images are filtered to the frequencies
    whose removal costs a class most. A class still recognised from very few frequencies relies on a shortcut.

    Args:
        model: A classifier of (n, channels, h, w) images; it is left as it was.
        images: (n, channels, h, w) floats as it takes them, or (n, h, w), which get one channel.
        labels: (n,) class ids, columns of the model's output.
        patch: Side of the blocks of frequencies that are removed together; 1 removes each by itself. There are about h
            w / (2 patch^2) blocks, with a forward pass each. None means 2, or 1 if a side has fewer than 8 pixels.
        share: Share of the frequencies to which images are filtered.
        controls: Number of random choices of as many frequencies to compare with.
        seed: Seed for the random choices.

    Returns:
        An `ImageFrequency`.

    Raises:
        InputError: One line naming the argument, the value and the remedy.

    Examples:
        >>> t = torch.arange(16.0)
        >>> signs = torch.tensor([1.0, -1] * 5)[:, None, None, None]
        >>> images = torch.sin(2 * torch.pi * 4 * t / 16).expand(10, 1, 16, 16) * signs
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
        >>> with torch.no_grad():  # it looks at the wave, and at nothing else
        ...     _ = model[1].weight.copy_(images[:2].flatten(1))
        >>> found = image_frequency(model, images, torch.arange(10) % 2, patch=1)
        >>> at = np.unravel_index(found.loss[0].argmax(), (16, 16))
        >>> int(at[0]) - 8, abs(int(at[1]) - 8)
        (0, 4)
    """
    x, y = _images(images, labels)
    seed, controls = as_seed(seed), _whole(controls, "controls", 1, 100)
    h, w = x.shape[2:]
    most = max(1, min(h, w) // 4)
    patch = min(2, most) if patch is None else _whole(patch, "patch", 1, most, f" for images of {h} x {w}")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise is_not("share", share, "a share of the frequencies", "a number between 0 and 1")
    like = images if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
    dtype = like.dtype if like.is_floating_point() else torch.float32
    ids, transformed = np.unique(y), np.fft.fft2(x)
    groups = _blocks(h, w, patch)

    def answers(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.fft.ifft2(transformed * mask).real
        return _losses(network_outputs(model, torch.from_numpy(pixels).to(dtype)), y, ids)

    base, accuracy = answers(np.ones((h, w)))
    rise = np.zeros((len(ids), h, w))
    costs = np.array([answers(groups != one)[0] - base for one in range(groups.max() + 1)])  # (groups, classes)
    rise = np.moveaxis(costs[groups], 2, 0)
    sizes = np.bincount(groups.ravel())
    kept = np.stack([_first(np.argsort(-costs[:, at], kind="stable"), groups, sizes, share) for at in range(len(ids))])
    filtered = np.array([answers(mask)[1][at] for at, mask in enumerate(kept)])
    rng = np.random.default_rng(seed)
    random = [answers(_first(rng.permutation(len(sizes)), groups, sizes, share))[1] for _ in range(controls)]
    return ImageFrequency(
        classes=ids,
        loss=np.fft.fftshift(rise, axes=(1, 2)),
        adcs=class_spectra(x, y),
        kept=np.fft.fftshift(kept, axes=(1, 2)),
        accuracy=accuracy,
        filtered=filtered,
        random=np.array(random),
        share=float(kept.mean()),
        patch=patch,
        n=len(x),
    )


def _blocks(h: int, w: int, patch: int) -> Int64[np.ndarray, "h w"]:
    """Return the number of each frequency's block, the same for a frequency and its mirror image."""
    rows, columns = (np.rint(np.fft.fftfreq(count, 1 / count) / patch).astype(np.int64) for count in (h, w))
    label = rows[:, None] * (2 * w + 1) + columns
    mirror = label[np.ix_(-np.arange(h) % h, -np.arange(w) % w)]
    return np.unique(np.maximum(label, mirror), return_inverse=True)[1].reshape(h, w)


def _first(order: np.ndarray, groups: np.ndarray, sizes: np.ndarray, share: float) -> Bool[np.ndarray, "h w"]:
    """Return which frequencies are in the first blocks of an order, up to a share of all, and at least one block."""
    count = max(1, int((sizes[order].cumsum() <= share * groups.size * (1 + 1e-12)).sum()))
    return np.isin(groups, order[:count])


def _losses(outputs: np.ndarray, y: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean cross-entropy and accuracy by class."""
    if outputs.shape[1] <= y.max():
        raise Code.SHAPE(f"labels: class id {y.max()} for {outputs.shape[1]} outputs; pass columns of the outputs")
    if not np.isfinite(outputs).all():
        raise Code.NOT_FINITE("model: its outputs are NaN or infinite; pass one from before the training diverged")
    loss = nn.functional.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(y), reduction="none").numpy()
    right = outputs.argmax(axis=1) == y
    return np.array([loss[y == one].mean() for one in ids]), np.array([right[y == one].mean() for one in ids])


def _images(images: Any, labels: Any) -> tuple[Float64[np.ndarray, "n k h w"], Int64[np.ndarray, " n"]]:
    with converting("images", "(n, channels, h, w) numbers"):
        x = torch.as_tensor(images).detach().cpu().double().numpy()
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or min(x.shape) == 0 or min(x.shape[2:]) < 4:
        raise Code.SHAPE(f"images: shape {tuple(x.shape)}; pass (n, channels, h, w) with sides of four pixels or more")
    if not np.isfinite(x).all():
        raise Code.NOT_FINITE("images: NaN or infinite; clean or drop them")
    y = read_targets(labels, len(x))
    if y.ndim != 1:
        raise InputError("labels: floats; pass class ids, one integer per image")
    if len(torch.unique(y)) < 2:
        raise Code.CONSTANT("labels: one class only, which is told from nothing; pass images of two or more")
    return x, y.numpy()


def _whole(value: Any, name: str, least: int, most: int, of: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise is_not(name, value, f"a whole number from {least} to {most}{of}", "one")
    return int(value)
