"""A physics-informed network and a solution with a high frequency: which part does it learn first?"""

# --8<-- [start:code]
import math

import torch
from torch import nn

from layerfreq import layer_spectra

LOW, HIGH = math.pi, 4 * math.pi  # u = sin(LOW x) + sin(HIGH x) solves u'' = f on [-1, 1] with u(-1) = u(1) = 0


def derivative(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def measure(seed, points=100, steps=3000, every=200):
    x = torch.linspace(-1, 1, points)[:, None].requires_grad_()
    low, high = torch.sin(LOW * x.detach()), torch.sin(HIGH * x.detach())
    u, f = low + high, -(LOW**2) * low - HIGH**2 * high
    rows = []
    for loss_of in ("equation", "solution"):
        torch.manual_seed(seed)
        sizes = [1, 50, 50, 50]
        hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
        model = nn.Sequential(*hidden, nn.Linear(50, 1))
        for linear in model[::2]:
            nn.init.xavier_normal_(linear.weight, gain=5 / 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(steps + 1):
            y = model(x)
            if step % every == 0:
                error = (y - u).detach()
                left = {
                    "low_left": abs((error * low).sum() / low.square().sum()).item(),
                    "high_left": abs((error * high).sum() / high.square().sum()).item(),
                    "error": (error.square().sum() / u.square().sum()).sqrt().item(),
                }
                for depth, s in enumerate(layer_spectra(model, x.detach(), u, scale="rms").values(), start=1):
                    values = {"median": s.median, "resolution": s.resolution}
                    rows.append({"loss_of": loss_of, "step": step, "depth": depth, **left, **values})
            if loss_of == "equation":
                residual = derivative(derivative(y, x), x) - f
                loss = (residual / HIGH**2).square().mean() + y[0].square().sum() + y[-1].square().sum()
            else:
                loss = (y - u).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rows


# --8<-- [end:code]
