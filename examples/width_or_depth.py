"""Width or depth: which of them lowers what the last layer still has to learn?"""

# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import hidden_layers, layer_spectra


def measure(seed, widths=(25, 50, 100, 200), depths=(1, 2, 4, 8), n=500, steps=300):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    rows = []
    for width in widths:
        for depth in depths:
            torch.manual_seed(seed)
            sizes = [64] + [width] * depth
            hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
            model = nn.Sequential(*hidden, nn.Linear(width, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
            for _ in range(steps):
                output = model(images)
                loss = nn.functional.cross_entropy(output, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            accuracy = (output.argmax(1) == labels).float().mean().item()
            last = hidden_layers(model, images)[-1]
            s = layer_spectra(model, images, labels, layers=[last])[last]
            for scale in ("raw", "rms"):
                one = s.to_scale(scale)
                values = {"median": one.median, "resolution": one.resolution, "loss": loss.item(), "accuracy": accuracy}
                rows.append({"width": width, "depth": depth, "scale": scale, **values})
    return rows


# --8<-- [end:code]
