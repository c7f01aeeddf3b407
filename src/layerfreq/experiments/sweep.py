"""Jobs of a study spread over processes by joblib: on this machine, or on the workers of Dask or Ray.

A job is a module-level function with its arguments, and writes its results to files. Workers on other machines
therefore need the same file system and the same version of layerfreq.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from layerfreq.errors import InputError, failed, unknown
from layerfreq.extras import needs

BACKENDS = ("loky", "dask", "ray")
NEEDS = {"loky": ("joblib", "study"), "dask": ("distributed", "dask"), "ray": ("ray", "ray")}
ONE_BY_ONE: dict[str, Any] = {"batch_size": 1}
Sweep = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]


@contextmanager
def pool(backend: str = "loky", workers: int | None = None) -> Iterator[Sweep]:
    """Provide a function that calls another one with the arguments of every job, and yields the results.

    The function must be defined in a module, not locally. Results come as jobs end, in any order; from Ray when all
    have ended. Each worker computes on one thread, so that results do not depend on their number.

    Args:
        backend: "loky" (processes of this machine), "dask" (the scheduler that `DASK_SCHEDULER_ADDRESS` names, or a
            local cluster) or "ray" (the cluster that `RAY_ADDRESS` names, or a local one).
        workers: Of a local cluster; None means one per core. With 1 and "loky", everything runs in this process.

    Raises:
        InputError: If the back end is unknown, its package is missing, or it does not start.
    """
    check_backend(backend, workers)
    from joblib import Parallel, cpu_count

    workers = workers or cpu_count()
    with _cluster(backend, workers):
        if backend == "ray":  # one for all sweeps: its processes begin, and import all they need, with each `Parallel`
            with Parallel(workers, backend="ray", **ONE_BY_ONE) as parallel:
                yield partial(_spread, parallel)
        else:
            yield partial(_sweep, backend, workers)


def _spread(parallel: Any, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    from joblib import delayed

    if not jobs:
        return
    yield from parallel(delayed(_alone)(function, job) for job in jobs)


def _sweep(backend: str, workers: int, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    from joblib import Parallel, parallel_config

    if backend == "loky" and workers == 1:
        for job in jobs:
            yield _alone(function, job)
        return
    with parallel_config(backend=backend, n_jobs=-1 if backend == "dask" else max(1, min(workers, len(jobs)))):
        yield from _spread(Parallel(return_as="generator_unordered", **ONE_BY_ONE), function, jobs)


def check_backend(backend: str, workers: int | None) -> None:
    """Refuse what `pool` cannot do, before starting anything.

    Raises:
        InputError: If the back end is unknown, its package is missing, or the number of workers is below 1.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if workers is not None and workers < 1:
        raise InputError(f"workers: {workers} is below 1; pass a number of processes, or leave it out")
    package, extra = NEEDS[backend]
    for module in (package, "joblib"):
        needs(module, f"layerfreq[{extra}]", f"backend {backend!r}")


def _alone(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """Call on one thread, whatever the worker's default is, and restore the default."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return function(*job)
    finally:
        torch.set_num_threads(before)


@contextmanager
def _cluster(backend: str, workers: int) -> Iterator[None]:
    """Start what the back end needs, or connect to it; a cluster started here is also stopped here."""
    if backend == "dask":
        with _dask(workers):
            yield
    elif backend == "ray":
        with _ray(workers):
            yield
    else:
        yield


@contextmanager
def _dask(workers: int) -> Iterator[None]:
    from dask import config
    from distributed import Client, LocalCluster

    address = config.get("scheduler-address", None)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.ERROR}
    try:
        cluster = address or LocalCluster(n_workers=workers, **options)
        client = Client(cluster)
    except (OSError, RuntimeError, ValueError) as error:
        raise failed("backend", "Dask does not start", error, "use --backend loky") from None
    with client:
        try:
            yield
        finally:
            if not isinstance(cluster, str):
                cluster.close()


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.util.joblib import register_ray

    own = not ray.is_initialized()
    try:
        if own:
            options: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, **options)
    except (OSError, RuntimeError, ValueError, ConnectionError) as error:
        raise failed("backend", "Ray does not start", error, "use --backend loky") from None
    register_ray()
    try:
        yield
    finally:
        if own:
            ray.shutdown()
