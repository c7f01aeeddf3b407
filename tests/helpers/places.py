"""Places on a grid, and noise upon them."""

import numpy as np


def mesh(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def lattice(shape, steps):
    return mesh(*(1.5 + step * np.arange(count) for count, step in zip(shape, steps, strict=True)))


def noise(n, columns=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, columns)), rng.standard_normal((n, columns))
