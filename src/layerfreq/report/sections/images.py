"""Which frequencies of its images a classifier uses, at the last kept step: maps and a table per run."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from layerfreq.errors import InputError
from layerfreq.related.image_frequency import image_frequency
from layerfreq.report.escaping import table, text
from layerfreq.report.sections.section import Section, Trained, affordable

IMAGES = 200  # most images
FEWEST = 10
BLOCKS = (64, 32, 16)  # about how many blocks of frequencies are removed in turn: the first that leaves enough images
ENOUGH = 100
PIXELS = 2_000_000  # most pixels of all images, each of which is transformed back for each block
CONTROLS = 5
CLASSES = 10  # most classes whose maps are shown


def images(trained: Trained) -> Section:
    """Return, by class, the loss without each frequency of the images.

    Raises:
        InputError: If the inputs are not images with class ids, or the network is too slow.
    """
    x, y = trained.inputs, trained.targets
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or min(x.shape[2:]) < 4:
        raise InputError("inputs are not images")
    if y is None or y.ndim != 1 or y.is_floating_point():
        raise InputError("targets are not class ids")
    h, w = x.shape[2:]
    patch, count = _affordable(trained, h, w, len(y.unique()), min(IMAGES, max(FEWEST, PIXELS // x[0].numel())))
    places = trained.drawn(count)
    x, y = x[places], y[places]
    found = image_frequency(trained.model, x, y, patch=patch, controls=CONTROLS)
    frame = found.to_frame()
    frame["images"] = [int((y == int(one)).sum()) for one in found.classes]
    names = ("images", "accuracy", "filtered", "random", "random_most")
    heads = (
        "class",
        "images",
        "accuracy",
        f"on its {found.share:.1%} of frequencies",
        "on as many random",
        f"best of {CONTROLS} random",
    )
    head = "".join(f"<th>{one}</th>" for one in heads)
    rows = "".join(
        f'<tr><th scope="row">{row["class"]:.0f}</th>'
        + "".join(f"<td>{row[name]:.0f}</td>" if name == "images" else f"<td>{row[name]:.2f}</td>" for name in names)
        + "</tr>"
        for row in frame.to_dict("records")
    )
    block = "each frequency by itself" if patch == 1 else f"blocks of {patch} × {patch} frequencies"
    many = f", the first {CLASSES} of {len(found.classes)} classes" if len(found.classes) > CLASSES else ""
    last = f"{text(trained.unit)} {trained.steps[-1]}"
    return Section(
        about={"classes": found.classes[:CLASSES].tolist(), "size": [int(h), int(w)]},
        arrays={"loss": (np.asarray(found.loss[:CLASSES]), "f4")},
        html=f'<p class="quiet">At {last}, on {trained.told(count, "images")}, {block} at a time{many}.</p>',
        below=table("changes", "accuracy on filtered images", head, rows),
    )


def _affordable(trained: Trained, h: int, w: int, classes: int, most: int) -> tuple[int, int]:
    """Return the side of the blocks of frequencies, and the number of images.

    Raises:
        InputError: If there would be too few images.
    """
    patch = count = 0
    for blocks in BLOCKS:
        patch = max(1, min(math.ceil(math.sqrt(h * w / (2 * blocks))), min(h, w) // 4))
        passes = (h / patch + 1) * (w / patch + 1) / 2 + CONTROLS + classes + 1
        count = affordable(trained, passes, most, FEWEST if blocks == BLOCKS[-1] else 0)
        if count >= min(ENOUGH, most, trained.n):
            break
    return patch, count
