"""One small network and target under six optimizers, two of which use no gradient: part optimizers.

After Ma, Xu and Zhang (2021); the settings are this project's own. A step is an update (SGD, Adam), an iteration
(L-BFGS, conjugate gradients, Powell: a line search along every direction) or a generation (particle swarm).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from layerfreq.experiments import Progress
from layerfreq.experiments.fprinciple.fits import END, SINES, Row, at_frequencies, fully_connected, sines

WIDTH = 20  # of two hidden layers, tanh
SHAPES = ((WIDTH, 1), (WIDTH,), (WIDTH, WIDTH), (WIDTH,), (1, WIDTH), (1,))
SIZES = [math.prod(shape) for shape in SHAPES]
SWARM = 40
BOUND = 5.0  # of a particle's coordinates
# name -> learning rate, or SciPy's name of the method; and steps for a budget of 1
GRADIENT = {"SGD": (torch.optim.SGD, 0.05, 20000), "Adam": (torch.optim.Adam, 2e-3, 3000)}
SCIPY = {"L-BFGS": ("L-BFGS-B", 500), "conjugate gradients": ("CG", 500), "Powell": ("Powell", 20)}
GENERATIONS = 500
NAMES = (*GRADIENT, *SCIPY, "particle swarm")
Vector = Float64[np.ndarray, " d"]


def outputs(vectors: Float64[Tensor, "p d"], x: Float64[Tensor, "n 1"]) -> Float64[Tensor, "p n 1"]:
    """Return what networks with these parameters put out."""
    parts = [part.unflatten(1, shape) for part, shape in zip(vectors.split(SIZES, dim=1), SHAPES, strict=True)]
    hidden = x[None]
    for weight, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        hidden = torch.tanh(hidden @ weight.mT + bias[:, None])
    return hidden @ parts[-2].mT + parts[-1][:, None]


def rows(budget: float, seed: int, progress: Progress) -> Iterator[Row]:
    """Train under each optimizer from the same initial network.

    Args:
        budget: Share of the steps.
        seed: Seed for the initialisation, and for the swarm.
        progress: Told of each optimizer.
    """
    x = torch.linspace(-END, END, 101, dtype=torch.float64)[:, None]
    y = sines(x)

    def losses(vectors: Float64[Tensor, "p d"]) -> Float64[Tensor, " p"]:
        return (outputs(vectors, x) - y).square().mean(dim=(1, 2))

    for name in NAMES:
        if name == "particle swarm" and find_spec("pymoo") is None:
            continue  # `present` says so
        progress.start(f"{name}, seed {seed}", 1, 0)
        path: list[Vector] = []
        _train(name, budget, seed, losses, path.append)
        progress.step(1)
        progress.finish()
        every = GRADIENT_EVERY if name in GRADIENT else 1
        for i in _some(len(path)):
            vector = torch.from_numpy(path[i])[None]
            yield name, i * every, "loss", math.nan, float(losses(vector))
            for what, k, value in at_frequencies(x, y, outputs(vector, x)[0], SINES):
                yield name, i * every, what, k, value


GRADIENT_EVERY = 10  # steps between two networks kept


def _some(count: int) -> list[int]:
    """Return the places to measure at: the first hundred, and then fewer and fewer."""
    late = np.geomspace(100, count - 1, 150).astype(int) if count > 101 else []
    return sorted({*range(min(count, 101)), *map(int, late)})


def _start(seed: int) -> Vector:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = fully_connected((WIDTH, WIDTH), nn.Tanh, glorot=False).double()
    return parameters_to_vector(model.parameters()).detach().numpy()


def _train(
    name: str, budget: float, seed: int, losses: Callable[[Tensor], Tensor], keep: Callable[[Vector], None]
) -> None:
    start = _start(seed)
    if name in GRADIENT:
        make, rate, steps = GRADIENT[name]
        vector = torch.from_numpy(start.copy()).requires_grad_()
        optimizer = make([vector], lr=rate)
        for step in range(max(1, round(budget * steps)) + 1):
            if step % GRADIENT_EVERY == 0:
                keep(vector.detach().numpy().copy())
            optimizer.zero_grad()
            losses(vector[None]).sum().backward()
            optimizer.step()
        return
    if name in SCIPY:
        from scipy.optimize import minimize

        def value_and_slope(at: Vector) -> tuple[float, Vector]:
            vector = torch.from_numpy(at)[None].requires_grad_()
            loss = losses(vector)
            (slope,) = torch.autograd.grad(loss.sum(), vector)
            return loss.item(), slope[0].numpy()

        method, iterations = SCIPY[name]
        blind = method == "Powell"
        keep(start)
        minimize(
            (lambda at: losses(torch.from_numpy(at)[None]).item()) if blind else value_and_slope,
            start,
            jac=not blind,
            method=method,
            callback=lambda at: keep(np.array(at)),
            options={"maxiter": max(1, round(budget * iterations))},
        )
        return
    _swarm(max(1, round(budget * GENERATIONS)), seed, losses, keep)


def _swarm(generations: int, seed: int, losses: Callable[[Tensor], Tensor], keep: Callable[[Vector], None]) -> None:
    """Keep the best particle of each generation; each begins as a freshly initialised network."""
    from pymoo.algorithms.soo.nonconvex.pso import PSO  # pyright: ignore[reportMissingImports]
    from pymoo.core.problem import Problem  # pyright: ignore[reportMissingImports]

    class Loss(Problem):
        def _evaluate(self, x: Any, out: Any, *_: Any, **__: Any) -> None:
            out["F"] = losses(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))).numpy()

    first = np.stack([_start(1000 * seed + i) for i in range(SWARM)])
    swarm = PSO(pop_size=SWARM, sampling=first)
    problem = Loss(n_var=first.shape[1], n_obj=1, xl=-BOUND, xu=BOUND)
    swarm.setup(problem, termination=("n_gen", generations), seed=seed, verbose=False)
    while swarm.has_next():
        swarm.next()
        keep(np.array(swarm.opt[0].X, dtype=np.float64))
