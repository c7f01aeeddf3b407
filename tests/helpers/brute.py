"""Brute force in NumPy, written from the formulas alone."""

import numpy as np


def one_hot(labels):
    return np.eye(int(labels.max()) + 1)[labels]


def brute(x, y, inv_delta):
    """Return LFR, RDF, mean neighbours and mean sum_j w_ij^2, float64, one kernel per cutoff."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    squared = np.array([((x - point) ** 2).sum(axis=1) for point in x])
    lfr, rdf, neighbours, weight = [], [], [], []
    for u in inv_delta:
        g = np.exp(-squared * u / 2)
        total = g.sum(axis=1, keepdims=True)
        w = g / total
        dw = (-squared / 2 * g) / total - w * (-squared / 2 * g).sum(axis=1, keepdims=True) / total
        low = w @ y
        lfr.append((low**2).sum() / (y**2).sum())
        rdf.append(2 * (low * (dw @ y)).sum() / (y**2).sum())
        neighbours.append((1 / (w**2).sum(axis=1)).mean())
        weight.append((w**2).sum(axis=1).mean())
    return tuple(map(np.array, (lfr, rdf, neighbours, weight)))
