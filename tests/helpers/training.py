"""Small networks, and a loop that trains them under the set-ups people have, with a monitor or without."""

import copy
from contextlib import nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from layerfreq import Monitor

N = 24


class Network(nn.Module):
    """Three parts, the second of them under gradient checkpointing where `reentrant` says how."""

    def __init__(self, stem, body, head):
        super().__init__()
        self.stem, self.body, self.head, self.reentrant = stem, body, head, None

    def forward(self, x):
        x = self.stem(x)
        x = self.body(x) if self.reentrant is None else checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, c, 3, padding=1),
            nn.BatchNorm2d(c),
        )  # fmt: skip
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.2)

    def forward(self, x):
        return self.drop(self.relu(self.inner(x) + x))


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 6, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def mlp():
    stem = nn.Sequential(nn.Linear(8, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Dropout(0.2))
    return Network(stem, nn.Sequential(nn.Linear(10, 9), nn.ReLU(), nn.Dropout(0.2)), nn.Linear(9, 3))


def resnet():
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Network(stem, nn.Sequential(Residual(4), Residual(4)), head)


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Network(nn.Embedding(11, 8), body, nn.Sequential(Mean(), nn.Linear(8, 3)))


def recurrent():
    return Network(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), Last(), nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 3)))


SHAPES = {mlp: (8,), resnet: (3, 6, 6), transformer: None, recurrent: (5, 4)}
NETWORKS = {make.__name__: make for make in SHAPES}


def data(name, n=N):
    random = torch.Generator().manual_seed(1)
    shape = SHAPES[NETWORKS[name]]
    x = torch.randint(0, 11, (n, 5), generator=random) if shape is None else torch.randn(n, *shape, generator=random)
    return x, torch.randint(0, 3, (n,), generator=random)


def train(
    name,
    monitored,
    *,
    compiled=None,
    attached_first=False,
    autocast=None,
    scaler=False,
    accumulate=1,
    reentrant=None,
    ema=False,
    frozen=None,
    parallel=None,
    error=None,
    device="cpu",
):
    """Train for a few steps; returns all that must not depend on the monitor, and the last spectra."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = NETWORKS[name]().to(device)
    model.reentrant = reentrant
    if frozen == "stem":
        model.stem.requires_grad_(False)
    x, y = data(name)
    if parallel is not None:
        x, y = x[dist.get_rank() :: dist.get_world_size()], y[dist.get_rank() :: dist.get_world_size()]
    group = None if parallel is None else dist.group.WORLD
    loader = DataLoader(TensorDataset(x, y), 12, shuffle=True)  # its order comes from the global generator
    options = {"engine": "reference", "group": group, "inv_delta": [0.1, 1.0, 10.0], "error": error}
    trained = model if compiled is None or attached_first else compiled(model)
    trained = trained if parallel is None else parallel(trained)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if ema else None
    monitors = [Monitor(m, loader, **options) for m in (trained, average) if monitored and m is not None]
    if attached_first:
        trained = compiled(model)
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], 0.01)
    scale = torch.amp.GradScaler(device, enabled=scaler)
    losses, seen = [], []

    def measure(step, moment):
        if step % 4 == moment:
            seen.extend(monitor.measure(step) for monitor in monitors)

    step = 0
    for _ in range(2):
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            with nullcontext() if autocast is None else torch.autocast(device, autocast):
                measure(step, 0)
                output = trained(inputs)
                measure(step, 1)
                output = output + trained(inputs)  # what autocast has cached is used again
                loss = nn.functional.cross_entropy(output, targets) / accumulate
            measure(step, 2)
            scale.scale(loss).backward()
            measure(step, 3)
            step += 1
            if step % accumulate == 0:
                scale.step(optimizer)
                scale.update()
                optimizer.zero_grad(set_to_none=step % 2 == 0)
                if average is not None:
                    average.update_parameters(model)
            losses.append(loss.detach())
    left = {
        "losses": losses,
        "model": [*model.state_dict().values(), *([] if average is None else average.state_dict().values())],
        "gradients": [p.grad for p in model.parameters()],
        "optimizer": [v for s in optimizer.state.values() for v in s.values()],
        "random": [
            torch.get_rng_state(),
            torch.from_numpy(np.random.get_state()[1].astype(np.int64)),  # noqa: NPY002
            *(torch.cuda.get_rng_state_all() if device == "cuda" else ()),
        ],
        "modes": [torch.tensor(m.training) for m in model.modules()],
        "trainable": [torch.tensor(p.requires_grad) for p in model.parameters()],
    }
    return copy.deepcopy(left), seen[-1] if seen else None


def differences(one, other):
    """Where two trainings left something else, bit for bit."""
    assert one.keys() == other.keys()
    return [
        f"{what} {i}"
        for what in one
        for i, (a, b) in enumerate(zip(one[what], other[what], strict=True))
        if (a is None) != (b is None) or (a is not None and not (a.dtype == b.dtype and torch.equal(a, b)))
    ]
