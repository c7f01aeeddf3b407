"""How far each engine is from the float64 reference, on features of several kinds: a Markdown table.

Run: python benchmarks/accuracy.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_features, spectrum
from layerfreq.inspection.benchmark import machine

N, D, CLASSES = 1500, 512, 10


def random_features():
    random = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=random), torch.randint(CLASSES, (N,), generator=random)


def clustered(spread):
    x, y = random_features()
    return torch.randn(CLASSES, D, generator=torch.Generator().manual_seed(1))[y] + spread * x, y


def far():
    x, y = random_features()
    return x + 300, y


def duplicates():
    x, y = random_features()
    return x[torch.arange(N) // 3], y


def trained():
    """The last hidden layer of a ReLU network that fits scikit-learn's digits."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images[:N] / 16).float(), torch.from_numpy(labels[:N])
    model = nn.Sequential(nn.Linear(64, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return layer_features(model, x, ["3"])["3"], y


KINDS = {
    "random": random_features,
    "clustered, spread 0.1 of the centres'": lambda: clustered(0.1),
    "collapsed, spread 1e-4 of the centres'": lambda: clustered(1e-4),
    "300 standard deviations from the origin": far,
    "every point three times": duplicates,
    "trained network, last hidden layer": trained,
}

if __name__ == "__main__":
    print(f"{machine()}; n={N}, d={D}, float32, each on its own grid\n")
    print("| features | targets | engine | LFR error | RDF error / peak |\n|---|---|---|---:|---:|")
    for name, make in KINDS.items():
        x, labels = make()
        for kind, y in (("class ids", labels), ("3 columns", torch.eye(CLASSES)[labels][:, :3] + 0.1 * x[:, :3])):
            exact = spectrum(x, y, engine="reference")
            for engine in ("cpu", "blocked"):
                found = spectrum(x, y, exact.inv_delta, engine=engine)
                errors = np.abs(found.lfr - exact.lfr).max(), np.abs(found.rdf - exact.rdf).max() / exact.rdf.max()
                print(f"| {name} | {kind} | {engine} | {errors[0]:.1e} | {errors[1]:.1e} |", flush=True)
