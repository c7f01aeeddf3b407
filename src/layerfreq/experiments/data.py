"""Images and labels, from a hub or a local folder in its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from layerfreq.errors import InputError


def load_images(source: str, n: int, split: str = "train") -> tuple[Float32[Tensor, "n ..."], Int64[Tensor, " n"]]:
    """Return the first n images of a split in [0, 1], and their class ids.

    Args:
        source: "digits" (scikit-learn's, 8 x 8, no download), a local folder in the hub's layout (Parquet with
            an image and a label column), or a hub id such as "ylecun/mnist".
        n: Number of images.
        split: Name of the split; digits have one only.

    Raises:
        InputError: If the data is missing, damaged, or holds fewer images.
    """
    if source == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x, y = torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long()
    else:
        x, y = _from_datasets(source, n, split)
    if len(x) < n:
        raise InputError(f"data: {source!r} holds {len(x)} images, {n} are needed; choose a smaller preset")
    return x[:n], y[:n]


def _from_datasets(source: str, n: int, split: str) -> tuple[Tensor, Tensor]:
    import datasets

    looks_local = Path(source).is_absolute() or source.startswith((".", "~")) or source.count("/") != 1
    folder = Path(source).expanduser()
    if looks_local and not folder.is_dir():
        raise InputError(
            f"data: no folder {source!r}; pass a folder in the hub's layout, or a hub id like 'ylecun/mnist'"
        )
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise InputError(f"data: no Parquet file in {source!r}; pass a folder in the hub's layout")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        table = datasets.load_dataset(str(folder.resolve()) if folder.is_dir() else source, split=split)
        table = table.select(range(min(n, len(table))))
        image = next((c for c, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
        image = image or next((c for c in ("image", "img") if c in table.column_names), None)
        if image is None or "label" not in table.column_names:
            raise InputError(f"data: {source!r} has columns {table.column_names}; an image and a label are needed")
        table = table.cast_column(image, datasets.Image())
        pixels = np.stack([np.asarray(picture, dtype=np.float32) for picture in table[image]])
        labels = np.asarray(table["label"])
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(f"data: labels in {source!r} are not class ids >= 0 ({labels[0]!r}); number the classes")
    except InputError:
        raise
    except Exception as error:
        # The library raises dozens of types for damaged files, missing splits and unreachable hubs.
        first = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"data: cannot load {source!r} ({first}); check the folder or the hub id") from None
    return torch.from_numpy(pixels / 255), torch.from_numpy(labels).long()
