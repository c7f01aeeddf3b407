"""Points spread over ranks: what travels and how long it takes, counted over 1, 2 and 4 beside a model of it.

    python benchmarks/ranks.py [--points 4000] [--features 256] [--rows 200] [--repeats 3]

The ranks are processes of one thread on this machine, in a gloo group; bytes are those that one rank receives.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from layerfreq import spectrum
from layerfreq.data.distributed import BLOCK

GRID = np.geomspace(0.01, 100, 50)


def serve(rank: int, ranks: int, job: argparse.Namespace, folder: str, answers: Any) -> None:
    """Measure this rank's part; the first rank reports seconds, bytes received and messages."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    x = torch.randn(job.points, job.features, generator=torch.Generator().manual_seed(0)) / job.features**0.5
    y = (x[:, 0] > 0).long()
    at = slice(job.points * rank // ranks, job.points * (rank + 1) // ranks)
    seen, broadcast = [0, 0], dist.broadcast

    def counted(tensor: torch.Tensor, source: int, **options: Any) -> Any:
        if source != rank:
            seen[0] += tensor.nbytes
        seen[1] += 1
        return broadcast(tensor, source, **options)

    dist.broadcast = counted
    taken = []
    for _ in range(job.repeats + 1):
        seen[:] = 0, 0
        dist.barrier()
        begun = time.perf_counter()
        spectrum(x[at], y[at], GRID, rows=job.rows, engine="cpu", group=dist.group.WORLD)
        taken.append(time.perf_counter() - begun)
    if rank == 0:
        answers.put((min(taken[1:]), *seen))
    dist.destroy_process_group()


def model(points: float, features: int, ranks: int) -> tuple[float, float]:
    """Return the bytes that a rank receives, and the messages: all points once, and their targets and sizes."""
    here = points / ranks
    received = (4 * features + 16) * (points - here)
    return received, ranks * (2 + math.ceil(here * features / BLOCK)) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("points", 4000), ("features", 256), ("rows", 200), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    job, context = parser.parse_args(), multiprocessing.get_context("spawn")
    print(f"{job.points} points, {job.features} features, {job.rows} rows, 50 cutoffs\n")
    print("| ranks | seconds | bytes received, counted | by the model | messages, counted | by the model |")
    print("|---:|---:|---:|---:|---:|---:|")
    for ranks in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            answers = context.Queue()
            all_ranks = [context.Process(target=serve, args=(r, ranks, job, folder, answers)) for r in range(ranks)]
            for one in all_ranks:
                one.start()
            seconds, received, messages = answers.get()
            for one in all_ranks:
                one.join()
        expected = model(job.points, job.features, ranks) if ranks > 1 else (0, 0)
        print(
            f"| {ranks} | {seconds:.2f} | {received:,} | {expected[0]:,.0f} | {messages} | {expected[1]} |", flush=True
        )


if __name__ == "__main__":
    main()
