"""What a spectrum costs compared with plain implementations, and how accurate each is: same inputs, one run."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from layerfreq.measure.measure import spectrum

Result = tuple[np.ndarray, np.ndarray]
CUTOFFS = (0.01, 100.0)
EXACT = 6000  # points up to which every way is compared with float64
PAUSE = 0.2  # seconds before each call, in which the last one's threads stop spinning
DENSE = 12000  # points up to which dense matrices are tried
DEFAULTS = {"n": 5000, "d": 512, "cutoffs": 50, "classes": 10}


def dense_numpy(x: Any, labels: Any, inv_delta: Any) -> Result:
    """One dense float64 kernel matrix per cutoff, and RDF by differences: what a script does."""
    x, y = x.numpy().astype(np.float64), np.eye(int(labels.max()) + 1)[labels.numpy()]
    size = (x**2).sum(axis=1)
    squared = np.maximum(size[:, None] + size - 2 * x @ x.T, 0)
    return _by_kernels(lambda u: np.exp(squared * (-u / 2)), y, inv_delta)


def _by_kernels(kernel_at: Callable[[float], Any], y: np.ndarray, inv_delta: Any) -> Result:
    lfr = np.empty(len(inv_delta))
    for k, u in enumerate(inv_delta):
        kernel = kernel_at(u)
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
    """scikit-learn's kernel matrix, one per cutoff."""
    from sklearn.metrics.pairwise import pairwise_kernels

    y = np.eye(int(labels.max()) + 1)[labels.numpy()]
    return _by_kernels(lambda u: pairwise_kernels(x.numpy(), metric="rbf", gamma=u / 2), y, inv_delta)


def keops(x: Any, labels: Any, inv_delta: Any) -> Result:
    """PyKeOps, one reduction per cutoff."""
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
    np.matmul(array, array[::-1].T)  # of two arrays: x @ x.T would use symmetry


def measure(
    n: int, d: int, cutoffs: int, classes: int, repeats: int, ways: Sequence[str], *, errors: bool = True
) -> list[dict[str, Any]]:
    """Time several ways on random features, in turns, and hold each to float64.

    Args:
        n: Number of points.
        d: Number of features.
        cutoffs: Number of cutoffs.
        classes: Number of classes.
        repeats: How often; the median counts.
        ways: Names in `WAYS`; those whose packages are missing are left out.
        errors: Whether to compute the exact spectrum to hold them to, which takes longer than they do.

    Returns:
        One row per way: way, seconds, ratio (to the bare product), memory (bytes that its first call added at most,
        None if the system does not tell), lfr_error, rdf_error.
    """
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) / d**0.5
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))
    inv_delta = np.geomspace(*CUTOFFS, cutoffs)
    exact = engine("blocked")(x.double(), labels, inv_delta) if errors and n <= EXACT else None
    rows, times = {}, {}
    for name in dict.fromkeys(("bare matrix product", *ways)):
        try:
            WAYS[name](x[:700], labels[:700], inv_delta[:2])  # compile, load, warm up
        except ImportError:
            continue
        memory, found = added_memory(lambda way=WAYS[name]: way(x, labels, inv_delta))
        rows[name] = {"way": name, "memory": memory, "lfr_error": None, "rdf_error": None}
        times[name] = []
        if found is not None and exact is not None and name != PARTIAL:
            rows[name]["lfr_error"] = float(np.abs(found[0] - exact[0]).max())
            rows[name]["rdf_error"] = float(np.abs(found[1] - exact[1]).max() / exact[1].max())
    for _ in range(repeats):
        for name, taken in times.items():
            if name in SLOW and len(taken) == 1:
                continue  # minutes each, and far from the others: once will do
            time.sleep(PAUSE)
            start = time.perf_counter()
            WAYS[name](x, labels, inv_delta)
            taken.append(time.perf_counter() - start)
    floor = median(times["bare matrix product"])
    return [{**row, "seconds": median(times[name]), "ratio": median(times[name]) / floor} for name, row in rows.items()]


OURS = "layerfreq, cpu"
PARTIAL = "layerfreq, cpu, all rows but one"  # products are not used twice then; its LFR is that of other rows
SLOW = {"scikit-learn pairwise_kernels, float32", "PyKeOps, float32"}
WAYS: dict[str, Callable[..., Any]] = {
    "bare matrix product": product,
    OURS: engine("cpu"),
    PARTIAL: lambda x, y, u: engine("cpu", rows=len(x) - 1)(x, y, u),
    "layerfreq, blocked": engine("blocked"),
    "dense NumPy, float64": dense_numpy,
    "dense PyTorch, float32": dense_torch,
    "scikit-learn pairwise_kernels, float32": pairwise_kernels,
    "PyKeOps, float32": keops,
}


def growth(repeats: int) -> Iterator[dict[str, Any]]:
    """Time the cpu engine as n, d, cutoffs or classes grow, the others as in `DEFAULTS`, each with its bare product."""
    for name, values in (
        ("n", (1250, 2500, 5000, 10000, 20000)),
        ("d", (8, 64, 512, 3072)),
        ("cutoffs", (5, 50, 500)),
        ("classes", (2, 10, 100, 1000)),
    ):
        for value in values:
            setting = {**DEFAULTS, name: value}
            found = {row["way"]: row for row in measure(**setting, repeats=repeats, ways=[OURS], errors=False)}
            yield {**setting, **found[OURS], "grows": name}


def as_markdown(rows: Sequence[dict[str, Any]], first: str = "way") -> str:
    """Return a Markdown table of what `measure` or `growth` found.

    Args:
        rows: As returned by them.
        first: The column that tells the rows apart.
    """
    head = [first, "seconds", "x bare product", "memory added", "LFR error", "RDF error / peak"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for r in rows:
        errors = ("-" if r[key] is None else f"{r[key]:.1e}" for key in ("lfr_error", "rdf_error"))
        memory = "-" if r["memory"] is None else f"{r['memory'] / 2**20:.0f} MiB"
        lines.append(
            "| " + " | ".join([str(r[first]), f"{r['seconds']:.3f}", f"{r['ratio']:.2f}", memory, *errors]) + " |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Return what the figures were taken on."""
    name = processor()
    return (
        f"{platform.system()} {platform.machine()}{f' ({name})' if name else ''}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    )


def processor() -> str:
    """Return the processor's name, family and model, since makers give many the same name; "" if it is not known."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    parts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{word} {parts[key]}" for key, word in (("cpu family", "family"), ("model", "model")) if key in parts]
    return ", ".join([parts["model name"], *numbers]) if "model name" in parts else ""


def added_memory(call: Callable[[], Any]) -> tuple[int | None, Any]:
    """Call a function, and measure by how many bytes the process grew at most; None if the system does not tell.

    Returns:
        The bytes, and what the call returned.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present size
        before = _status("VmRSS")
    except OSError:
        return None, call()
    found = call()
    return _status("VmHWM") - before, found


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))
