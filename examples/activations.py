"""Tanh, ReLU or GELU: does the activation change what the layers still have to learn?"""

# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import Monitor


def measure(seed, n=1000, steps=(0, 25, 50, 100, 200, 400)):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for activation in (nn.Tanh, nn.ReLU, nn.GELU):
        torch.manual_seed(seed)  # the same weights for all
        sizes = [64, 100, 100, 100, 100, 100]
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), activation())]
        model = nn.Sequential(*hidden, nn.Linear(100, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        monitor = Monitor(model, images, labels, when=steps)
        for step in range(max(steps) + 1):
            loss = nn.functional.cross_entropy(model(images), labels)
            spectra = monitor.measure(step)  # None at most steps
            for scale in ("raw", "rms") if spectra else ():
                for depth, s in enumerate(spectra.to_scale(scale).values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution, "loss": loss.item()}
                    rows.append({"activation": activation.__name__, "step": step, "depth": depth, "scale": scale, **values})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
