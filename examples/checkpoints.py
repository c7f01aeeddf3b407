"""Training is over, and its checkpoints were kept: what did each layer still have to learn on the way?"""

# --8<-- [start:code]
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

from layerfreq import Monitor, layer_spectra


def build():
    sizes = [64, 100, 100, 100, 100, 100]
    hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(100, 10))


def train(images, labels, folder, steps):
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = Monitor(model, images, labels, run=folder / "live", when=steps)  # to compare with
    for step in range(max(steps) + 1):
        loss = nn.functional.cross_entropy(model(images), labels)
        if step in steps:
            save_file(model.state_dict(), folder / f"step-{step:04d}.safetensors")
        monitor.measure(step, loss=loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return monitor.run


def measure(seed, n=800, steps=(0, 10, 20, 40, 80, 160, 320)):
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16).float(), torch.tensor(labels)
    parts = {"training": slice(n), "held out": slice(n, 2 * n)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        live = train(images[:n], labels[:n], Path(folder), steps).spectra
        for path in sorted(Path(folder).glob("step-*.safetensors")):
            model, step = build(), int(path.stem.split("-")[1])
            model.load_state_dict(load_file(path))
            for part, at in parts.items():
                spectra = layer_spectra(model, images[at], labels[at])
                for depth, (layer, s) in enumerate(spectra.items(), start=1):
                    then = live[(live["step"] == step) & (live["layer"] == layer) & (live["scale"] == "raw")]
                    for scale in ("raw", "rms"):
                        one = s.to_scale(scale)
                        values = {"median": one.median, "resolution": one.resolution}
                        rows.append({"step": step, "part": part, "depth": depth, "scale": scale, **values})
                    if part == "training":
                        rows[-1]["difference"] = rows[-2]["difference"] = abs(s.lfr - then["lfr"].to_numpy()).max()
    return rows


# --8<-- [end:code]
