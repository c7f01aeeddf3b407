"""What the engines cost beside the plain ways, and how far they are off, on the same inputs in one run."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch

from layerfreq.spectrum import spectrum

Result = tuple[np.ndarray, np.ndarray]


def dense_numpy(x: Any, labels: Any, inv_delta: Any) -> Result:
    """One dense float64 kernel matrix a cutoff, and RDF by differences: what a script does."""
    x, y = x.numpy().astype(np.float64), np.eye(int(labels.max()) + 1)[labels.numpy()]
    size = (x**2).sum(axis=1)
    squared = np.maximum(size[:, None] + size - 2 * x @ x.T, 0)
    lfr = np.empty(len(inv_delta))
    for k, u in enumerate(inv_delta):
        kernel = np.exp(squared * (-u / 2))
        lfr[k] = ((kernel @ y / kernel.sum(axis=1, keepdims=True)) ** 2).sum() / (y**2).sum()
    return lfr, np.gradient(lfr, inv_delta)


def dense_torch(x: Any, labels: Any, inv_delta: Any) -> Result:
    """The same in PyTorch and the features' own precision."""
    y = torch.nn.functional.one_hot(labels).to(x.dtype)
    squared = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").square_()
    lfr = np.empty(len(inv_delta))
    for k, u in enumerate(inv_delta):
        kernel = torch.exp(squared * float(-u / 2))
        lfr[k] = float((kernel @ y / kernel.sum(dim=1, keepdim=True)).square().sum() / y.square().sum())
    return lfr, np.gradient(lfr, inv_delta)


def pairwise_kernels(x: Any, labels: Any, inv_delta: Any) -> Result:
    """scikit-learn's kernel matrix, one a cutoff."""
    from sklearn.metrics.pairwise import pairwise_kernels

    y = np.eye(int(labels.max()) + 1)[labels.numpy()]
    lfr = np.empty(len(inv_delta))
    for k, u in enumerate(inv_delta):
        kernel: Any = pairwise_kernels(x.numpy(), metric="rbf", gamma=u / 2)
        lfr[k] = ((kernel @ y / kernel.sum(axis=1, keepdims=True)) ** 2).sum() / (y**2).sum()
    return lfr, np.gradient(lfr, inv_delta)


def keops(x: Any, labels: Any, inv_delta: Any) -> Result:
    """PyKeOps, one reduction a cutoff."""
    from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]

    y = torch.nn.functional.one_hot(labels).to(x.dtype)
    y = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
    lfr = np.empty(len(inv_delta))
    for k, u in enumerate(inv_delta):
        difference: Any = LazyTensor(x[:, None]) - LazyTensor(x[None])
        low = (-(difference**2).sum(-1) * float(u / 2)).exp() @ y
        lfr[k] = float((low[:, :-1] / low[:, -1:]).square().sum() / y[:, :-1].square().sum())
    return lfr, np.gradient(lfr, inv_delta)


def engine(name: str, **options: Any) -> Callable[..., Result]:
    """One of this project's engines."""

    def run(x: Any, labels: Any, inv_delta: Any) -> Result:
        found = spectrum(x, labels, inv_delta, engine=name, **options)
        return found.lfr, found.rdf

    return run


def product(x: Any, labels: Any, inv_delta: Any) -> None:
    """The bare n x n x d matrix product: nothing exact without symmetry can be faster."""
    array = x.numpy()
    np.matmul(array, array[::-1].copy().T)  # of two arrays: x @ x.T would use symmetry


def measure(n: int, d: int, cutoffs: int, classes: int, repeats: int, slow: bool = True) -> list[dict[str, Any]]:
    """Time every way on random features, in turns, and hold each to the reference on a sample of rows.

    Args:
        n: Number of points.
        d: Number of features.
        cutoffs: Number of cutoffs.
        classes: Number of classes.
        repeats: How often; the median counts.
        slow: Whether to run those that take seconds for each cutoff too.

    Returns:
        One row a way: way, seconds, ratio (to the bare product), lfr_error, rdf_error.
    """
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) / d**0.5
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))
    inv_delta = np.geomspace(0.01, 100, cutoffs)
    exact = engine("blocked")(x.double(), labels, inv_delta) if n <= 6000 else None
    rows = []
    for name, way in _ways(slow):
        try:
            way(x[: min(n, 700)], labels[: min(n, 700)], inv_delta[:2])  # compile, load, warm up
        except ImportError:
            continue
        times, found = [], None
        for _ in range(repeats if "dense" not in name and "one kernel" not in name else min(repeats, 3)):
            start = time.perf_counter()
            found = way(x, labels, inv_delta)
            times.append(time.perf_counter() - start)
        row: dict[str, Any] = {"way": name, "seconds": median(times), "lfr_error": None, "rdf_error": None}
        if found is not None and exact is not None:
            row["lfr_error"] = float(np.abs(found[0] - exact[0]).max())
            row["rdf_error"] = float(np.abs(found[1] - exact[1]).max() / exact[1].max())
        rows.append(row)
    floor = next(row["seconds"] for row in rows if row["way"] == "bare matrix product")
    return [{**row, "ratio": row["seconds"] / floor} for row in rows]


def _ways(slow: bool) -> Iterator[tuple[str, Callable[..., Any]]]:
    yield "bare matrix product", product
    yield "layerfreq, cpu", engine("cpu")
    yield "layerfreq, blocked", engine("blocked")
    yield "dense NumPy, float64", dense_numpy
    yield "dense PyTorch, float32", dense_torch
    if slow:
        yield "scikit-learn pairwise_kernels (one kernel a cutoff)", pairwise_kernels
        yield "PyKeOps (one kernel a cutoff)", keops


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of what `measure` found."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.1e}"

    lines = ["| way | seconds | x bare product | LFR error | RDF error / peak |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {r['way']} | {r['seconds']:.3f} | {r['ratio']:.2f} | {number(r['lfr_error'])} | {number(r['rdf_error'])} |"
        for r in rows
    ]
    return "\n".join(lines)


def machine() -> str:
    """Return what the figures were taken on."""
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    )
