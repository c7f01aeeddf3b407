"""Networks that fit a function of one variable, watched by frequency: parts one-d, heatmap, ricker and bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerfreq.errors import Code
from layerfreq.experiments import Progress
from layerfreq.response import error_spectrum

Row = tuple[str, int, str, float, float]  # case, step, what, k (NaN of a number without one), value
SINES = (1.0, 3.0, 5.0)
END = 3.1415  # as published: the interval's ends, not quite a period


class Ricker(nn.Module):
    """The activation (1 - (x/a)^2 / 2) exp(-(x/a)^2 / 2), whose transform has its maximum away from zero."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        square = (x / self.a).square()
        return (1 - square / 2) * torch.exp(-square / 2)


def fully_connected(
    widths: Sequence[int], activation: Callable[[], nn.Module], *, glorot: bool = True
) -> nn.Sequential:
    """Return a network of one input and one output.

    Args:
        widths: Widths of the hidden layers.
        activation: Makes one.
        glorot: Uniform weights of Glorot's range and zero biases, the default of the framework of the authors' code;
            else PyTorch's own.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((1, *widths)):
        layers += [nn.Linear(before, after), activation()]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
    for module in model.modules():
        if glorot and isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model


@dataclass(frozen=True)
class Fit:
    """One fit by Adam on the mean squared error, all points in each step.

    Attributes:
        case: What it is called.
        inputs: (n, d).
        targets: (n, 1).
        build: Makes the network.
        rate: Learning rate.
        steps: Number of them.
        every: Steps between measurements.
        observe: From step and network, (what, k, value) of each number measured.
    """

    case: str
    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, "n 1"]
    build: Callable[[], nn.Module]
    rate: float
    steps: int
    every: int
    observe: Callable[[nn.Module], Iterator[tuple[str, float, float]]]

    def rows(self, seed: int, progress: Progress) -> Iterator[Row]:
        """Train under a seed, and measure.

        Raises:
            InputError: If the loss is no longer finite.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build()
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        progress.start(f"{self.case}, seed {seed}", self.steps, 0)
        for step in range(self.steps + 1):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(self.inputs), self.targets)
            if step % self.every == 0 or step == self.steps:
                if not math.isfinite(float(loss.detach())):
                    raise Code.FAILED(f"rate: the loss of {self.case} is {float(loss)} at step {step}; report it")
                yield self.case, step, "loss", math.nan, float(loss.detach())
                with torch.no_grad():
                    for what, k, value in self.observe(model):
                        yield self.case, step, what, k, value
                progress.step(step, float(loss.detach()))
            loss.backward()
            optimizer.step()
        progress.finish()


def at_frequencies(
    x: Tensor, y: Tensor, out: Tensor, frequencies: Sequence[float]
) -> Iterator[tuple[str, float, float]]:
    """Yield the relative error at some frequencies: complex, and of magnitudes alone as in the authors' 1-D script."""
    for what, blind in (("relative", False), ("phase-blind", True)):
        found = error_spectrum(x, y, out, frequencies, method="projection", phase_blind=blind)
        yield from ((what, k, float(value)) for k, value in zip(frequencies, found.relative, strict=True))


def sines(x: Tensor) -> Tensor:
    """Return sin x + sin 3x + sin 5x, the target as published."""
    return torch.stack([torch.sin(k * x) for k in SINES]).sum(dim=0)


def three_sines(case: str, points: int, build: Callable[[], nn.Module], *, rate: float, steps: int, every: int) -> Fit:
    """Return the fit of the three sines on evenly spaced points."""
    x = torch.linspace(-END, END, points)[:, None]
    return Fit(case, x, sines(x), build, rate, steps, every, lambda model: at_frequencies(x, sines(x), model(x), SINES))


def amplitudes(case: str, *, increasing: bool, width: int, depth: int, steps: int, every: int, seed: int) -> Fit:
    """Return the fit of ten sines of k = 5, 10 .. 50 cycles, of Rahaman et al. (2019); phases are the seed's.

    Measured are the relative error and the fraction |output_k| / |target_k|, the number that the paper draws.
    """
    t, cycles = torch.arange(200) / 200, torch.arange(5, 51, 5)
    phases = 2 * math.pi * torch.rand(10, generator=torch.Generator().manual_seed(seed))
    sizes = torch.arange(1, 11) / 10 if increasing else torch.ones(10)
    y = (sizes * torch.sin(2 * math.pi * cycles * t[:, None] + phases)).sum(dim=1, keepdim=True)

    def observe(model: nn.Module) -> Iterator[tuple[str, float, float]]:
        out = model(t[:, None])
        error, fraction = (error_spectrum(t, y, shown, method="grid") for shown in (out, y - out))
        for at in cycles.tolist():
            yield "relative", float(at), float(error.relative[at])
            yield "fraction", float(at), float(fraction.relative[at])

    build = lambda: fully_connected([width] * depth, nn.ReLU, glorot=False)  # noqa: E731
    return Fit(case, t[:, None], y, build, 3e-4, steps, every, observe)


def by_density(
    case: str, *, uneven: bool, widths: Sequence[int], points: int, steps: int, every: int, seed: int
) -> Fit:
    """Return the fit of the three sines on random points, uneven: nine of ten on the left half; own settings.

    The spectral bias (Kiessling & Thor 2022) is that of the error on an even grid, where the target is known too.
    """
    rng = np.random.default_rng(seed)
    u = rng.uniform(0, 1, points)
    if uneven:
        u = np.where(rng.uniform(0, 1, points) < 0.9, u / 2, (1 + u) / 2)
    x = torch.from_numpy(math.pi * (2 * u - 1)).float()[:, None]
    grid = torch.linspace(-math.pi, math.pi, 257)[:-1, None]

    def observe(model: nn.Module) -> Iterator[tuple[str, float, float]]:
        found = error_spectrum(grid, sines(grid), model(grid), method="grid")
        yield "bias", math.nan, math.nan if found.bias is None else found.bias
        yield from (("relative", k, float(found.relative[int(k)])) for k in SINES)

    return Fit(case, x, sines(x), lambda: fully_connected(widths, nn.Tanh), 2e-4, steps, every, observe)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: small networks gain nothing from more, and sums are the same on all machines."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
