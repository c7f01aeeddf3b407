import io
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from typer.testing import CliRunner

pytest.importorskip("lightning_fabric")
pytest.importorskip("datasets")

from layerfreq import layer_features, spectrum
from layerfreq.cli.program import app
from layerfreq.errors import InputError
from layerfreq.experiments import Progress, Request, minibatch, resnet
from layerfreq.experiments.figures import resnet_figures
from layerfreq.experiments.residual import CUTS, VARIANTS, Block, network
from layerfreq.runs.run import Run
from tests.helpers.forked import context
from tests.helpers.refusals import Code, refuses

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
    request = Request(out=out, seeds=list(seeds), preset="smoke", resume=resume, progress=progress or Progress())
    resnet.run(config, request)
    return out


@pytest.fixture(scope="session")
def whole(smoke, tmp_path_factory):
    """Variant -1, trained without a break."""
    return run(replace(smoke, variants=(1,)), tmp_path_factory.mktemp("whole") / "o")


def assert_same(one: Path, other: Path):
    name = resnet.folder(1, 0)
    keys = ["step", "depth", "scale", "inv_delta"]
    frames = [Run(out / name).spectra.sort_values(keys, ignore_index=True) for out in (one, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    metrics = [Run(out / name).metrics.drop(columns=CLOCKS) for out in (one, other)]
    pd.testing.assert_frame_equal(*metrics, check_exact=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_structure_against_closed_form_counts(variant):
    width, head, blocks = 64, 1024, 8 - 2 * variant
    inputs = {1: 1024, 2: 2048, 3: 4096, 4: 4096}[variant]
    model = network(variant, width, head, 10)
    modules = list(model.modules())
    assert sum(isinstance(module, Block) for module in modules) == blocks
    assert sum(isinstance(module, nn.Dropout) and module.p == 0.1 for module in modules) == 2 + blocks // 2
    assert model.linear1.in_features == inputs

    def convolution(a, b, kernel):  # its batch normalisation has two numbers a channel
        return a * b * kernel**2 + 2 * b

    expected = convolution(3, width, 3)
    before = width
    for stage in range(4 - variant):
        channels = width * 2**stage
        expected += convolution(before, channels, 3) + 3 * convolution(channels, channels, 3)
        expected += convolution(before, channels, 1) if stage else 0
        before = channels
    expected += (inputs + 1) * head + (head + 1) * head + (head + 1) * 10
    assert sum(p.numel() for p in model.parameters()) == expected
    x = torch.randn(3, 3, 32, 32)
    assert {name: tuple(f.shape) for name, f in layer_features(model, x, list(CUTS)).items()} == dict.fromkeys(
        CUTS, (3, head)
    )
    assert model(x).shape == (3, 10)


def test_initialisation_is_glorots_uniform_and_every_bias_zero():
    for module in network(1, 16, 128, 10).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach()
            area = weight[0, 0].numel()
            bound = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
            assert 0.9 * bound < weight.abs().max() <= bound
            # The sample's mean square of a uniform draw, within five of its standard deviations, sqrt(4 / (45 n)).
            mean_square = (weight / bound).square().mean()
            assert abs(mean_square - 1 / 3) < 5 * (4 / 45 / weight.numel()) ** 0.5
            assert module.bias is None or (module.bias == 0).all()


def test_a_block_is_what_the_paper_says():
    """In eval mode, against the formula; the shortcut of stride 1 is the input itself."""
    torch.manual_seed(0)
    for inputs, outputs, stride in ((6, 6, 1), (6, 12, 2)):
        block = Block(inputs, outputs, stride).eval()
        x = torch.randn(2, inputs, 8, 8)

        def part(sequence, x, stride):
            convolved = nn.functional.conv2d(x, sequence[0].weight, stride=stride, padding=sequence[0].padding)
            return torch.relu(convolved / (1 + 1e-3) ** 0.5)

        inside = part(block.second, part(block.first, x, stride), 1)
        shortcut = x if stride == 1 else part(block.shortcut, x, stride)
        torch.testing.assert_close(block(x), torch.relu(inside + shortcut))


@given(n=st.integers(2, 300), share=st.floats(0, 0.9), seed=st.integers(0, 2**31))
def test_split_is_disjoint_whole_and_seeded(n, share, seed):
    x, y, held = torch.arange(n), -torch.arange(n), int(share * n)
    (trained, labels), (validation, others) = resnet.split(x, y, held, seed)
    assert len(validation) == held
    assert sorted([*trained.tolist(), *validation.tolist()]) == list(range(n))
    assert torch.equal(labels, -trained)
    assert torch.equal(others, -validation)
    again = resnet.split(x, y, held, seed)[0][0]
    assert torch.equal(trained, again)


def test_seeds_split_differently_and_variants_alike(smoke):
    x = torch.arange(100)
    assert not torch.equal(resnet.split(x, x, 10, 0)[1][0], resnet.split(x, x, 10, 1)[1][0])


def test_pixels_are_between_0_and_1_and_nothing_else_is_done_to_them(smoke, folder):
    x, _ = resnet._data(smoke)
    assert x.shape == (200, 3, 16, 16)
    first = pd.read_parquet(folder / "train-00000-of-00001.parquet")["img"][0]["bytes"]
    pixels = np.asarray(Image.open(io.BytesIO(first)))
    np.testing.assert_array_equal(x[0].permute(1, 2, 0), pixels.astype(np.float32) / 255)
    digits, _ = resnet._data(resnet.PRESETS["smoke"])
    assert (digits.min(), digits.max(), digits.shape[1:]) == (0, 1, (3, 16, 16))


def test_published_epochs_of_the_falls():
    assert resnet.restarts(resnet.PRESETS["paper"].epochs) == (40, 60)
    for preset in resnet.PRESETS.values():
        assert preset.measure[0] == 0
        assert preset.measure[-1] == preset.epochs
        assert set(preset.panels) <= set(preset.measure)
    assert resnet.MAXABS[0] <= 0.015
    assert resnet.MAXABS[-1] >= 60


def test_rate_and_state_of_adam_at_the_boundaries(smoke, tmp_path, monkeypatch):
    """Of 150 images an epoch has three steps of 40 and one of 30; Adam counts anew at each fall of the rate."""
    seen, sizes = [], []

    class Watched(torch.optim.Adam):
        def step(self, *arguments, **options):
            result = super().step(*arguments, **options)
            group = self.param_groups[0]
            assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-7, 0)
            seen.append((group["lr"], int(self.state[group["params"][0]]["step"])))
            return result

    loss = nn.functional.cross_entropy

    def watched_loss(outputs, y):
        if outputs.requires_grad:
            sizes.append(len(y))
        return loss(outputs, y)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    monkeypatch.setattr(nn.functional, "cross_entropy", watched_loss)
    run(replace(smoke, variants=(4,), measure=(0,)), tmp_path / "o")
    assert [step for _, step in seen] == [*range(1, 9), *range(1, 5), *range(1, 5)]
    np.testing.assert_allclose([rate for rate, _ in seen], [1e-3] * 8 + [1e-4] * 4 + [1e-5] * 4, rtol=1e-12)
    assert sizes == [40, 40, 40, 30] * 4


def test_dropout_is_at_work_in_training_alone(smoke, whole):
    """The kept weights, in eval mode, give the accuracy that the run notes."""
    from layerfreq.runs.weights import load_weights

    one = Run(whole / resnet.folder(1, 0))
    found = resnet.rebuild(one, Run(whole).config)
    model = found.fresh(0).eval()
    load_weights(one.path, 4, model)
    with torch.no_grad():
        right = (model(found.inputs).argmax(dim=1) == found.targets).double().mean()
    assert float(right) == one.metrics["train_accuracy"].iloc[-1]


def test_smoke_preset_end_to_end(smoke, tmp_path):
    out = run(replace(smoke, variants=(1, 4), panels=(4,)), tmp_path / "o", seeds=(0, 1))
    head, rows, files, _ = resnet.present(out, [0, 1])
    named = [["-1", "0"], ["-4", "0"], ["pairs as\npublished", "0"]]
    assert [row[:2] for row in rows] == named + [[name, "1"] for name, _ in named]
    assert all(len(row) == len(head) for row in rows)
    assert all(cell in ("0 of 1", "1 of 1") for row in rows[2::3] for cell in row[2:5])
    assert all(file.stat().st_size > 1000 for file in files)
    assert {file.stem for file in files} == {"accuracy", "rdf-by-variant", "median-frequency", "summary", "metrics"}
    summary = pd.read_parquet(out / "figures" / "summary.parquet")
    assert len(summary) == 4 * 4 * len(CUTS) * 3  # runs, epochs, scales
    assert set(summary["scale"]) == {"maxabs", "rms", "raw"}
    one = Run(out / resnet.folder(4, 1))
    assert one.steps() == [0, 1, 2, 4]
    assert set(one.spectra["layer"]) == set(CUTS)
    metrics = one.metrics
    assert metrics["step"].tolist() == [0, 1, 2, 3, 4]
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[0]
    assert metrics["measuring_share"].between(0, 1).all()
    assert metrics[["running_accuracy", "validation_accuracy"]].notna().all(axis=None)
    assert metrics["train_accuracy"].notna().tolist() == [True, True, True, False, True]


def test_the_order_of_variants_against_the_published_one():
    values = {1: 0.889, 2: 0.868, 3: 0.814, 4: 0.711}
    assert resnet_figures._ordered(values, -1) == "6 of 6"
    assert resnet_figures._ordered(values, 1) == "0 of 6"
    assert resnet_figures._ordered({1: 1.0, 3: 2.0, 4: 2.0}, 1) == "2 of 3"
    assert resnet_figures._ordered({1: 1.0, 2: float("nan")}, 1) == "0 of 1"


def test_every_scale_in_the_run_is_what_spectrum_gives(whole):
    one = Run(whole / resnet.folder(1, 0))
    found = resnet.rebuild(one, Run(whole).config)
    from layerfreq.runs.weights import load_weights

    model = found.fresh(0)
    load_weights(one.path, 4, model)
    features = layer_features(model, found.inputs, list(CUTS))
    frame = one.spectra.query("step == 4")
    assert set(frame["scale"]) == {"maxabs", "rms", "raw"}
    for (layer, scale), part in frame.groupby(["layer", "scale"]):
        grid = part["inv_delta"].to_numpy()
        expected = spectrum(features[layer], found.targets, grid, scale=scale, engine="reference")
        np.testing.assert_allclose(part["lfr"], expected.lfr, atol=1e-5)
        if scale == "maxabs":
            np.testing.assert_array_equal(grid, resnet.MAXABS)


def test_a_variant_may_be_added_to_a_folder(smoke, tmp_path):
    out = run(replace(smoke, variants=(4,), epochs=1), tmp_path / "o")
    before = (out / resnet.folder(4, 0) / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    run(replace(smoke, variants=(3, 4), epochs=1), out, resume=True)
    assert Run(out / resnet.folder(3, 0)).steps() == [0, 1]
    assert (out / resnet.folder(4, 0) / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["small", "medium", "paper"])
def test_large_presets_at_few_images_and_epochs(smoke, tmp_path, name):
    few = {"images": 128, "validation": 50, "batch": 64, "epochs": 1, "measure": (0, 1), "panels": (0, 1)}
    out = run(replace(resnet.PRESETS[name], data=smoke.data, variants=(4,), **few), tmp_path / "o")
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
    assert_same(whole, run(replace(smoke, variants=(1,)), tmp_path / "o"))
    other = run(replace(smoke, variants=(1,), epochs=1), tmp_path / "other", seeds=(1,))
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


@pytest.mark.kill
def test_killed_inside_an_epoch_and_resumed_ends_with_the_same_spectra(smoke, whole, tmp_path):
    # Four steps an epoch, a checkpoint each: the process dies half-way through epoch 2.
    config = replace(smoke, variants=(1,))
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


def test_training_leaves_the_random_state_as_it_was(smoke, tmp_path):
    before = torch.get_rng_state()
    run(replace(smoke, variants=(4,), epochs=1, measure=(0,)), tmp_path / "o")
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input_is_refused_before_anything_is_written(smoke, folder, tmp_path):
    with refuses("variant", Code.UNKNOWN):
        run(replace(smoke, variants=(5,)), tmp_path / "o")
    with refuses("data", Code.EMPTY):
        run(replace(smoke, images=201), tmp_path / "o")
    assert not (tmp_path / "o").exists()
    run(replace(smoke, variants=(4,), epochs=1), tmp_path / "o")
    with refuses("out", Code.EXISTS):
        run(replace(smoke, variants=(4,), epochs=1, rate=0.1), tmp_path / "o", resume=True)


@pytest.mark.parametrize("words", [("sine", "--variant", "-1"), ("mlp", "--variant", "-1")])
def test_options_out_of_place_are_refused(words, tmp_path):
    result = CliRunner().invoke(app, ["reproduce", *words, "--preset", "smoke", "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, InputError)
    assert words[1].lstrip("-") in str(result.exception)
    assert not (tmp_path / "o").exists()


def test_diverging_training_is_one_error(smoke, tmp_path):
    with refuses("rate", Code.FAILED):
        run(replace(smoke, variants=(4,), rate=1e9), tmp_path / "o")


def test_only_finished_variants_are_drawn(tmp_path):
    """Each variant may be a process of its own: what the others have not finished yet is left out."""
    import pandas as pd

    from layerfreq.runs.run import SPECTRA_COLUMNS

    Run.create(tmp_path / "o", {"epochs": 4})
    row = pd.DataFrame({name: ["raw" if name in ("layer", "scale") else 1.0] for name in SPECTRA_COLUMNS})
    for variant, steps in {1: (0, 1, 4), 2: (0, 1), 3: ()}.items():
        run = Run.create(tmp_path / "o" / resnet.folder(variant, 0))
        for step in steps:
            run.write_spectra(step, row)
    assert list(resnet._runs(tmp_path / "o", [0, 1])) == [(1, 0)]
