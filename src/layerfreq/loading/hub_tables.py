"""Tables from a hub, or from a local folder in its layout: images, labels and texts as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from layerfreq.errors import Code, InputError, first_line, no_such
from layerfreq.extras import needs
from layerfreq.files import as_path
from layerfreq.loading.hub import cache_alone, missing


def open_table(source: str, n: int, split: str = "train") -> Any:
    """Return the first n rows (or all, if there are fewer) of a split, as a `datasets.Dataset`.

    Args:
        source: A local folder in the hub's layout (Parquet), or a hub id such as "ylecun/mnist".
        n: Number of rows.
        split: Name of the split.

    Raises:
        InputError: If the table is missing or damaged, or there is no such split.
    """
    datasets = needs("datasets", "layerfreq[experiments]", "data")
    looks_local = Path(source).is_absolute() or source.startswith((".", "~")) or source.count("/") != 1
    folder = as_path(source, "data")
    if looks_local and not folder.is_dir():
        raise no_such("data", "folder", source, "pass a folder in the hub's layout, or a hub id like 'ylecun/mnist'")
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise no_such("data", "Parquet file in", source, "pass a folder in the hub's layout")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    with readable(source):
        if folder.is_dir():
            table = datasets.load_dataset(str(folder.resolve()), split=split)
        else:
            table = _of_the_hub(datasets, source, split)
        return table.select(range(min(n, len(table))))


def _of_the_hub(datasets: Any, source: str, split: str) -> Any:
    """Load a split from the hub; or, if it does not answer, as it was loaded before."""
    absent = missing("dataset", source, "pass a folder in the hub's layout")
    if absent is None:
        return datasets.load_dataset(source, split=split)
    with cache_alone(datasets):
        try:
            return datasets.load_dataset(source, split=split)
        except (ConnectionError, FileNotFoundError):  # it was not loaded before
            raise absent from None


def pictures(table: Any) -> list[Any] | None:
    """Return the pictures of a table as PIL images, or None if it has no column of them."""
    import datasets

    name = next((c for c, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    name = name or next((c for c in ("image", "img") if c in table.column_names), None)
    return None if name is None else list(table.cast_column(name, datasets.Image())[name])


def pixels(images: list[Any]) -> Float32[np.ndarray, "n ..."]:
    """Stack pictures of one size; values 0 .. 255, channels (if there are several) last."""
    return np.stack([np.asarray(image, dtype=np.float32) for image in images])


def texts(table: Any) -> list[str] | None:
    """Return the texts of a table: its column "text", else its only column of strings; None if there is none."""
    names = [name for name, kind in table.features.items() if getattr(kind, "dtype", "") in ("string", "large_string")]
    if "text" in names:
        names = ["text"]
    return list(table[names[0]]) if len(names) == 1 else None


def class_ids(table: Any, source: str) -> Int64[np.ndarray, " n"]:
    """Return the column "label" of a table.

    Raises:
        InputError: If it holds anything but class ids.
    """
    labels = np.asarray(table["label"])
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(f"data: labels in {source!r} are not class ids >= 0 ({labels[0]!r}); number the classes")
    return labels.astype(np.int64)


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn errors with a table inside into one line: damaged files, missing splits, unreachable hubs."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library raises dozens of types
        first = first_line(error.__cause__ or error)
        raise Code.FAILED(f"data: cannot load {source!r} ({first}); check the folder or the hub id") from None
