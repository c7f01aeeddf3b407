"""Images and labels from a hub or from a local folder in its layout."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from layerfreq.errors import Code
from layerfreq.extras import needs
from layerfreq.loading.hub_tables import class_ids, open_table, pictures, pixels, readable


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
        images, labels = needs("sklearn.datasets", "layerfreq[experiments]", "data").load_digits(return_X_y=True)
        x, y = torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long()
    else:
        x, y = _from_datasets(source, n, split)
    if len(x) < n:
        raise Code.EMPTY(f"data: {source!r} holds {len(x)} images, {n} are needed; choose a smaller preset")
    return x[:n], y[:n]


def _from_datasets(source: str, n: int, split: str) -> tuple[Tensor, Tensor]:
    table = open_table(source, n, split)
    with readable(source):
        images = pictures(table)
        if images is None or "label" not in table.column_names:
            raise Code.MISSING(f"data: {source!r} has columns {table.column_names}; an image and a label are needed")
        values, labels = pixels(images), class_ids(table, source)
    return torch.from_numpy(values / 255), torch.from_numpy(labels)
