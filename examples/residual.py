"""Do skip connections lower what the layers still have to learn, at equal depth?"""

# --8<-- [start:code]
import torch
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import layer_spectra


class Block(nn.Module):
    def __init__(self, width, skip, branch):
        super().__init__()
        self.linear, self.skip, self.branch = nn.Linear(width, width), skip, branch
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")

    def forward(self, x):
        return self.skip * x + self.branch * torch.relu(self.linear(x))


def measure(seed, blocks=12, n=1000, steps=300):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:n] / 16).float(), torch.tensor(labels[:n])
    kinds = {"plain": (0, 1), "residual": (1, 1), "residual, scaled": (1, blocks**-0.5)}
    rows = []
    for kind, (skip, branch) in kinds.items():
        torch.manual_seed(seed)  # the same weights for all
        model = nn.Sequential(*(Block(64, skip, branch) for _ in range(blocks)), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        measured, fitted = {}, None
        for step in range(steps + 1):
            output = model(images)
            accuracy = (output.argmax(1) == labels).float().mean().item()
            fitted = step if fitted is None and accuracy >= 0.99 else fitted
            if step in (0, steps):
                measured[step] = layer_spectra(model, images, labels, layers=[str(i) for i in range(blocks)])
            loss = nn.functional.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for step, spectra in measured.items():
            for scale in ("raw", "rms"):
                for depth, s in enumerate(spectra.to_scale(scale).values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution, "fitted": fitted, "accuracy": accuracy}
                    rows.append({"kind": kind, "step": step, "depth": depth, "scale": scale, **values})
    return rows


# --8<-- [end:code]
