"""Images from a local folder in the hub's layout, and from scikit-learn."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

pytest.importorskip("datasets")

from layerfreq.errors import InputError
from layerfreq.loading.images import load_images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
LABELS = np.array([3, 0, 1, 2, 3, 0, 1])


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path):
    frame = pd.DataFrame({"image": [png(one) for one in PIXELS], "label": LABELS})
    (tmp_path / "data").mkdir()
    frame[:4].to_parquet(tmp_path / "data" / "train-00000-of-00002.parquet")
    frame[4:].to_parquet(tmp_path / "data" / "train-00001-of-00002.parquet")
    frame[::-1].to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    return tmp_path


def fails(source, n, *words, **options):
    with pytest.raises(InputError) as caught:
        load_images(str(source), n, **options)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ("data: ", *words)), str(caught.value)


def test_a_folder_gives_its_first_images_in_order(folder):
    x, y = load_images(str(folder), 6)
    assert torch.equal(x, torch.from_numpy(PIXELS[:6]).float() / 255)
    assert torch.equal(y, torch.from_numpy(LABELS[:6]))
    x, y = load_images(str(folder), 2, split="test")
    assert torch.equal(x, torch.from_numpy(PIXELS[[6, 5]]).float() / 255)
    assert y.tolist() == [1, 0]


def test_other_names_of_columns(tmp_path):
    colour = np.stack([PIXELS] * 3, axis=-1)
    frame = pd.DataFrame({"label": LABELS, "img": [png(one) for one in colour]})
    frame.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    assert torch.equal(load_images(str(tmp_path), 7)[0], torch.from_numpy(colour).float() / 255)


def test_digits():
    x, y = load_images("digits", 1797)
    assert (x.shape, x.dtype, y.dtype) == ((1797, 64), torch.float32, torch.int64)
    assert (x.min(), x.max(), y.bincount().tolist()) == (0, 1, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    fails("digits", 1798, "holds 1797 images, 1798 are needed")


def test_bad_folders_are_one_line(tmp_path, folder):
    fails(tmp_path / "none", 1, "no folder", "none")
    fails("./none", 1, "no folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", 1, "no Parquet file")
    fails(folder, 8, "holds 7 images, 8 are needed")
    fails(folder, 1, "cannot load", split="validation")
    part = folder / "data" / "train-00001-of-00002.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    fails(folder, 7, "cannot load")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"picture": [1, 2], "label": [0, 1]}, ["'picture', 'label'", "an image and a label are needed"]),
        ({"image": [png(PIXELS[0])], "class": [0]}, ["'image', 'class'", "an image and a label are needed"]),
        ({"image": [{"bytes": b"no picture", "path": None}], "label": [0]}, ["cannot load"]),
        ({"image": [png(PIXELS[0]), png(PIXELS[0][:2])], "label": [0, 1]}, ["cannot load", "shape"]),
        ({"image": [png(PIXELS[0])], "label": ["three"]}, ["not class ids", "three"]),
        ({"image": [png(PIXELS[0])], "label": [-1]}, ["not class ids"]),
    ],
)
def test_wrong_columns_are_one_line(tmp_path, columns, words):
    pd.DataFrame(columns).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    fails(tmp_path, len(columns["label"]) if "label" in columns else 1, *words)
