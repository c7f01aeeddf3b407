"""Does label noise raise what is left to learn?"""

# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_spectra, spectrum


def measure(seed, noises=(0.0, 0.1, 0.25, 0.5, 1.0), n=1000, steps=400):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for noise in noises:
        torch.manual_seed(seed)
        wrong = torch.rand(n) < noise  # these get a class drawn at random, their own included
        noisy = torch.where(wrong, torch.randint(10, (n,)), labels)

        sizes = [64, 100, 100, 100, 100]
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
        model = nn.Sequential(*hidden, nn.Linear(100, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(images), noisy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        accuracy = (model(images).argmax(1) == noisy).float().mean().item()
        spectra = {"images": spectrum(images, noisy), **layer_spectra(model, images, noisy)}
        for depth, (layer, s) in enumerate(spectra.items()):
            for scale in ("raw", "rms"):
                one = s.to_scale(scale)
                values = {"median": one.median, "resolution": one.resolution, "accuracy": accuracy}
                rows.append({"noise": noise, "depth": depth, "layer": layer, "scale": scale, **values})
    return rows


# --8<-- [end:code]
