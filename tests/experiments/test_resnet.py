import io
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("lightning_fabric")
pytest.importorskip("datasets")

from layerfreq import layer_features
from layerfreq.cli import app
from layerfreq.errors import InputError
from layerfreq.experiments import minibatch, resnet
from layerfreq.experiments.residual import CUTS, VARIANTS, Block, network
from layerfreq.experiments.runner import Progress
from layerfreq.runs import Run
from tests.forked import context

CLOCKS = ["epoch_seconds", "measuring_seconds", "measuring_share"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Sixteen by sixteen colour pictures whose class is their hue, in the hub's layout."""
    path = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, n in (("train", 200), ("test", 100)):
        labels = rng.integers(0, 10, n)
        rows = []
        for label in labels:
            hue = np.array([25 * label, 250 - 25 * label, 60 * (label % 3)])
            pixels = np.clip(hue + rng.normal(0, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG")
            rows.append({"bytes": buffer.getvalue(), "path": None})
        frame = pd.DataFrame({"img": rows, "label": labels})
        frame.to_parquet(path / f"{split}-00000-of-00001.parquet")
    return path


@pytest.fixture(scope="session")
def smoke(folder):
    return replace(resnet.PRESETS["smoke"], data=str(folder))


def run(config, out, *, seeds=(0,), resume=False, progress=None):
    resnet.run(
        config,
        out,
        preset="smoke",
        seeds=list(seeds),
        device="cpu",
        resume=resume,
        progress=progress or Progress(),
    )
    return out


@pytest.fixture(scope="session")
def whole(smoke, tmp_path_factory):
    """Variant -1 with augmentation, trained without a break."""
    return run(replace(smoke, variants=(1,), augment=True), tmp_path_factory.mktemp("whole") / "o")


def assert_same(one: Path, other: Path):
    name = resnet.folder(1, 0)
    keys = ["step", "depth", "scale", "inv_delta"]
    frames = [Run(out / name).spectra.sort_values(keys, ignore_index=True) for out in (one, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    metrics = [Run(out / name).metrics.drop(columns=CLOCKS) for out in (one, other)]
    pd.testing.assert_frame_equal(*metrics, check_exact=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_lose_two_blocks_each_and_keep_the_head(variant):
    model = network(variant, 4, 24, 10)
    assert sum(isinstance(module, Block) for module in model.modules()) == 10 - 2 * variant
    first = network(1, 4, 24, 10)
    for name in ("linear1", "linear2", "output"):
        assert getattr(model, name).weight.shape == getattr(first, name).weight.shape
    x = torch.randn(3, 3, 32, 32)
    shapes = {name: tuple(f.shape) for name, f in layer_features(model, x, list(CUTS)).items()}
    assert shapes == {"features": (3, 32), "hidden1": (3, 24), "hidden2": (3, 24)}
    assert model(x).shape == (3, 10)


def test_variant_1_is_resnet18_below_its_head():
    parameters = sum(
        p.numel() for name in ("stem", "blocks") for p in getattr(network(1, 64, 8, 10), name).parameters()
    )
    # torchvision's 11,689,512 less its last layer (513,000) and its 7 x 7 stem instead of one of 3 x 3 (7,680)
    assert parameters == 11_689_512 - 513_000 - 7_680


def test_smoke_preset_end_to_end(smoke, tmp_path):
    out = run(replace(smoke, variants=(1, 4), panels=(3,)), tmp_path / "o", seeds=(0, 1))
    head, rows, files = resnet.present(out, [0, 1])
    assert [row[:3] for row in rows] == [["-1", "0", "3"], ["-1", "1", "3"], ["-4", "0", "3"], ["-4", "1", "3"]]
    assert all(len(row) == len(head) for row in rows)
    assert all(file.stat().st_size > 1000 for file in files)
    assert {file.stem for file in files} == {"accuracy", "rdf-by-variant", "median-frequency", "summary", "metrics"}
    assert len(pd.read_parquet(out / "figures" / "summary.parquet")) == 4 * 4 * len(CUTS) * 2  # runs, epochs, scales
    one = Run(out / resnet.folder(4, 1))
    assert one.steps() == [0, 1, 2, 3]
    assert set(one.spectra["layer"]) == set(CUTS)
    assert set(one.spectra["scale"]) == {"raw", "rms"}
    metrics = one.metrics
    assert metrics["step"].tolist() == [0, 1, 2, 3]
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[0]
    assert metrics["measuring_share"].between(0, 1).all()
    assert metrics[["train_accuracy", "validation_accuracy"]].notna().all(axis=None)


def test_a_variant_may_be_added_to_a_folder(smoke, tmp_path):
    out = run(replace(smoke, variants=(4,), epochs=1), tmp_path / "o")
    before = (out / resnet.folder(4, 0) / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    run(replace(smoke, variants=(3, 4), epochs=1), out, resume=True)
    assert Run(out / resnet.folder(3, 0)).steps() == [0, 1]
    assert (out / resnet.folder(4, 0) / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


def test_paper_preset_at_few_images_and_epochs(smoke, tmp_path):
    paper = resnet.PRESETS["paper"]
    few = {"images": 128, "validation": 50, "probe": 128, "rows": 64, "epochs": 1, "measure": (0, 1), "panels": (0, 1)}
    out = run(replace(paper, data=smoke.data, variants=(4,), augment=True, **few), tmp_path / "o")
    assert Run(out / resnet.folder(4, 0)).steps() == [0, 1]


def test_what_a_gpu_adds_works_on_the_cpu(smoke, tmp_path, monkeypatch):
    """Autocast to bfloat16 under Fabric, and a compiled model, whose parameters are those that are measured."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    monkeypatch.setattr(resnet, "launch", lambda device: fabric)
    monkeypatch.setattr(minibatch, "compiled", lambda model, device: torch.compile(model, backend="eager"))
    out = run(replace(smoke, variants=(4,), epochs=2), tmp_path / "o")
    run(replace(smoke, variants=(4,), epochs=2), out, resume=True)
    result = Run(out / resnet.folder(4, 0))
    assert result.metrics["loss"][2] < result.metrics["loss"][0]
    first, last = (result.spectra.query("step == @step")["lfr"].to_numpy() for step in (0, 2))
    assert not np.array_equal(first, last)
    keys = torch.load(out / resnet.folder(4, 0) / "checkpoints" / "last.ckpt", weights_only=False)["model"].keys()
    assert "linear1.weight" in keys


def test_same_seed_same_run(smoke, whole, tmp_path):
    assert_same(whole, run(replace(smoke, variants=(1,), augment=True), tmp_path / "o"))
    other = run(replace(smoke, variants=(1,), augment=True, epochs=1), tmp_path / "other", seeds=(1,))
    assert Run(other / resnet.folder(1, 1)).metrics["loss"][0] != Run(whole / resnet.folder(1, 0)).metrics["loss"][0]


def killed(config, out, writes, threads):
    """Train, and die of the last of so many checkpoints."""
    torch.set_num_threads(threads)
    write = minibatch.write_whole

    def write_then_die(*arguments):
        nonlocal writes
        write(*arguments)
        writes -= 1
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    minibatch.write_whole = write_then_die
    run(config, out, resume=True)


def test_killed_inside_an_epoch_and_resumed_ends_with_the_same_spectra(smoke, whole, tmp_path):
    # Four steps an epoch, a checkpoint each: the process dies half-way through epoch 2.
    config = replace(smoke, variants=(1,), augment=True)
    child = context.Process(target=killed, args=(config, tmp_path / "o", 6, torch.get_num_threads()))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    name = resnet.folder(1, 0)
    assert Run(tmp_path / "o" / name).metrics["step"].max() == 1
    state = torch.load(tmp_path / "o" / name / "checkpoints" / "last.ckpt", weights_only=False)
    assert (state["epoch"], state["step"]) == (1, 2)
    run(config, tmp_path / "o", resume=True)
    assert_same(whole, tmp_path / "o")


def test_crop_and_flip_moves_and_mirrors_each_image():
    x = torch.arange(2 * 3 * 6 * 5.0).reshape(2, 3, 6, 5) + 1
    m = minibatch.MARGIN
    same = minibatch.crop_and_flip(x, torch.full((2, 2), m), torch.tensor([False, True]))
    torch.testing.assert_close(same, torch.stack([x[0], x[1].flip(-1)]))
    moved = minibatch.crop_and_flip(x, torch.tensor([[m + 1, m], [m, m - 2]]), torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(moved[0, :, :-1], x[0, :, 1:])
    torch.testing.assert_close(moved[1, :, :, 2:], x[1, :, :, :-2])
    assert (moved[0, :, -1] == 0).all()
    assert (moved[1, :, :, :2] == 0).all()


def test_bad_input_is_refused_before_anything_is_written(smoke, folder, tmp_path):
    with pytest.raises(InputError, match="variant"):
        run(replace(smoke, variants=(5,)), tmp_path / "o")
    with pytest.raises(InputError, match="201 are needed"):
        run(replace(smoke, images=201), tmp_path / "o")
    assert not (tmp_path / "o").exists()
    run(replace(smoke, variants=(4,), epochs=1), tmp_path / "o")
    with pytest.raises(InputError, match="holds another run"):
        run(replace(smoke, variants=(4,), epochs=1, augment=True), tmp_path / "o", resume=True)


@pytest.mark.parametrize("words", [("sine", "--variant", "-1"), ("mlp", "--augment")])
def test_options_out_of_place_are_refused(words, tmp_path):
    result = CliRunner().invoke(app, ["reproduce", *words, "--preset", "smoke", "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, InputError)
    assert words[1].lstrip("-") in str(result.exception)
    assert not (tmp_path / "o").exists()


def test_diverging_training_is_one_error(smoke, tmp_path):
    with pytest.raises(InputError, match="the loss is"):
        run(replace(smoke, variants=(4,), rate=1e9), tmp_path / "o")
