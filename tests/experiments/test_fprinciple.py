"""The frequency principle's experiment: networks and measures held to closed forms, tables to made-up runs."""

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("lightning_fabric")

from layerfreq import Run, error_spectrum
from layerfreq.experiments import Progress, Request, fprinciple
from layerfreq.experiments.fprinciple import classes, fits, optimizers, summary
from layerfreq.experiments.fprinciple.figures import draw
from layerfreq.verdict import verdict
from tests.helpers.refusals import Code, refuses

SMOKE = replace(fprinciple.PRESETS["smoke"], steps=8, long=8, sines=(8, 2, 8), measurements=4, budget=0.002)


def run(out, *, config=SMOKE, resume=False, seeds=(3,)):
    fprinciple.run(config, Request(out=out, seeds=list(seeds), preset="smoke", resume=resume))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("fprinciple") / "run"
    run(out)
    return out


def made_up(steps_of, part="one-d", case="600 points", every=10, last=100):
    """Relative errors that fall from 1 to 0 at given steps: {seed: {k: step}}."""
    rows = [
        (case, step, "relative", k, float(step < at), part, seed)
        for seed, by_k in steps_of.items()
        for k, at in by_k.items()
        for step in range(0, last + 1, every)
    ]
    return pd.DataFrame(rows, columns=[*summary.COLUMNS, "part", "seed"])


@pytest.mark.parametrize("epochs", [1, 3, 20, 45, 60, 100])
def test_images_are_measured_at_the_published_shares_of_the_training(epochs):
    found = summary.measured_epochs(epochs)
    assert {0, round(epochs / 3), round(2 * epochs / 3), epochs} <= found <= set(range(epochs + 1))
    assert len(found) <= 45
    assert epochs != 60 or {0, 20, 40, 60} <= found


def test_every_part_is_measured_kept_and_not_done_again(smoke, monkeypatch):
    frame = fprinciple.read(smoke)
    assert set(frame["part"]) == set(fprinciple.PARTS)
    assert np.isfinite(frame.loc[frame["what"] != "bias", "value"]).all()
    assert (frame["seed"] == 3).all()
    monkeypatch.setattr(fprinciple, "PARTS", dict.fromkeys(fprinciple.PARTS))  # nothing to call
    run(smoke, resume=True)
    rows = summary.table(frame)
    assert {row[0] for row in rows} == set(fprinciple.PARTS)
    assert all(len(row) == len(summary.HEAD) for row in rows)


def test_figures_of_the_parts(smoke, tmp_path):
    frame = fprinciple.read(smoke)
    shown = frame[~frame["part"].isin(["optimizers", "ricker"])]  # whose figures are made as one-d's
    files = draw(shown, tmp_path)
    assert len(files) == 2 * shown["part"].nunique()
    assert all(file.stat().st_size > 5000 for file in files)


def test_a_part_alone_and_one_more_come_to_what_both_do(smoke, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for parts in (("bias",), ("ricker", "parity")):
        run(tmp_path / "run", config=replace(SMOKE, parts=parts), resume=True)
    assert torch.equal(before, torch.get_rng_state())
    found, whole = fprinciple.read(tmp_path / "run"), fprinciple.read(smoke)
    assert set(found["part"]) == {"bias", "ricker", "parity"}
    for part in set(found["part"]):
        one, other = (frame[frame["part"] == part].reset_index(drop=True) for frame in (found, whole))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [({"parts": ("one-q",)}, {}, ("part", Code.UNKNOWN)), ({}, {"device": "cuda"}, ("device", Code.UNSUPPORTED))],
)
def test_what_cannot_be_run_is_one_line_and_leaves_no_folder(tmp_path, change, options, words):
    with refuses(*words):
        fprinciple.run(replace(SMOKE, **change), Request(out=tmp_path / "run", seeds=[0], **options))
    assert not (tmp_path / "run").exists()


def test_settings_are_those_published():
    network = fits.fully_connected(fprinciple.PRESETS["paper"].widths, nn.Tanh)
    assert [tuple(one.weight.shape) for one in network if isinstance(one, nn.Linear)] == [
        (200, 1), (200, 200), (200, 200), (100, 200), (1, 100),
    ]  # fmt: skip
    fit = fits.amplitudes("equal", increasing=False, width=4, depth=6, steps=1, every=1, seed=0)
    assert fit.inputs.shape == (200, 1)
    assert (float(fit.inputs[0]), float(fit.inputs[-1]), fit.rate) == (0.0, pytest.approx(0.995), 3e-4)
    images = classes.image_network((3, 32, 32), 10, (32, 64), 400)
    assert images(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert images[6].in_features == 14 * 14 * 64
    assert (classes.VARIANCES[0], classes.VARIANCES[-1], len(classes.VARIANCES)) == (2, 100, 20)


@pytest.mark.parametrize("increasing", [False, True])
def test_amplitudes_are_what_they_are_called_and_a_perfect_fit_is_seen(increasing):
    fit = fits.amplitudes("a", increasing=increasing, width=4, depth=1, steps=1, every=1, seed=2)
    share = np.abs(np.fft.rfft(fit.targets[:, 0].double().numpy())) * 2 / 200
    expected = np.zeros(101)
    expected[5:51:5] = np.arange(1, 11) / 10 if increasing else 1
    np.testing.assert_allclose(share, expected, atol=1e-5)  # float32 waves

    class Half(nn.Module):
        def forward(self, t):
            return fit.targets / 2

    found = {(what, k): value for what, k, value in fit.observe(Half())}
    assert len(found) == 20
    np.testing.assert_allclose(list(found.values()), 0.5, atol=1e-6)  # half of each is there, half is missing


def test_the_ricker_activation_is_its_formula():
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    expected = [(1 - (v / 0.3) ** 2 / 2) * math.exp(-((v / 0.3) ** 2) / 2) for v in x.tolist()]
    np.testing.assert_allclose(fits.Ricker(0.3)(x), expected)


def test_phase_counts_unless_it_is_left_out():
    x = torch.linspace(-math.pi, math.pi, 101)[:-1, None]
    found = {(what, k): value for what, k, value in fits.at_frequencies(x, torch.sin(3 * x), -torch.sin(3 * x), (3.0,))}
    assert found == {("relative", 3.0): pytest.approx(2, abs=1e-5), ("phase-blind", 3.0): pytest.approx(0, abs=1e-5)}


def test_parameter_vectors_are_networks():
    networks = [fits.fully_connected((20, 20), nn.Tanh, glorot=False).double() for _ in range(3)]
    vectors = torch.stack([nn.utils.parameters_to_vector(one.parameters()) for one in networks])
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(optimizers.outputs(vectors, x), torch.stack([one(x) for one in networks]))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.needs("pymoo") if name == "particle swarm" else ())
        for name in optimizers.NAMES
    ],
)
def test_each_optimizer_comes_down_on_a_bowl(name):
    path = []
    optimizers._train(name, 0.02, 0, lambda vectors: (vectors - 0.1).square().mean(dim=1), path.append)
    values = [float(np.mean((one - 0.1) ** 2)) for one in path]
    assert len(path) > 1
    assert values[-1] < values[0]
    np.testing.assert_array_equal(path[0], optimizers._start(0)) if name != "particle swarm" else None


def test_parity_is_balanced_and_its_points_are_apart():
    rows = list(classes.parity(widths=(4, 4), points=200, steps=2, seed=1).rows(1, Progress()))
    assert [row[2] for row in rows] == ["loss", "accuracy", "rest"] * 3
    signs = np.array(list(itertools.product((-1, 1), repeat=classes.BITS)))
    assert signs.prod(axis=1).sum() == 0


def test_steps_to_learning_and_their_order():
    frame = made_up({0: {1.0: 20, 3.0: 50, 5.0: 90}, 1: {1.0: 30, 3.0: 20, 5.0: 999}})
    steps = summary.first_below(frame, 0.1)
    np.testing.assert_array_equal(steps, [[20, 50, 90], [30, 20, np.inf]])
    assert [summary.in_order(one) for one in steps.to_numpy()] == [True, False]
    assert [summary.rank_correlation(one) for one in steps.to_numpy()] == [1.0, pytest.approx(1 / 3)]
    assert not summary.in_order([10, 10, 10])
    assert not summary.in_order([np.inf] * 3)
    assert summary.rank_correlation([7, 7, 7]) == 0
    (row,) = summary.table(frame)
    assert row == ["one-d", "600 points", "k=1/3/5 at 25/35/-, τ=0.67", "1 of 2", "< 100, 750, 2000"]


def test_what_was_not_learned_is_no_order():
    (row,) = summary.table(made_up({0: {1.0: 999, 3.0: 999}}))
    assert row[2:4] == ["none learned", "0 of 0"]


def test_low_parts_that_fall_first_are_counted():
    rows = []
    for k, low, high in ((0.1, 2, 5), (2**-0.5, 4, 4)):
        for step in range(7):
            rows += [("cifar", step, "low", k, float(step < low)), ("cifar", step, "high", k, float(step < high))]
    frame = pd.DataFrame(rows, columns=summary.COLUMNS).assign(part="cifar", seed=0)
    low, high = summary.table(frame)
    assert low == ["cifar", "e_low, δ=2", "1.00/1.00/.00/.00 at epochs 0/2/4/6", "1 of 2", ".93/.72/.30/.05"]
    assert high[2] == low[2]


def learning(folder, fits_of, points, steps, every, **options):
    """The verdict on low frequencies first, over three seeds of a fit whose error is measured on some points."""
    x, y = points
    for seed in range(3):
        fit, run = fits_of(seed), Run.create(folder / f"seed-{seed}", {"layers": []})
        torch.manual_seed(seed)
        model = fit.build()
        optimizer = torch.optim.Adam(model.parameters(), lr=fit.rate)
        for step in range(steps + 1):
            if step % every == 0:
                with torch.no_grad():
                    run.write_errors(step, error_spectrum(x, y, model(x), **options))
            optimizer.zero_grad()
            nn.functional.mse_loss(model(fit.inputs), fit.targets).backward()
            optimizer.step()
    return verdict([folder / f"seed-{seed}" for seed in range(3)]).learning


@pytest.mark.parametrize(("a", "answers"), [(0.3, {"yes"}), (0.1, {"no", "undecided"})])
def test_the_verdict_on_the_activation_that_turns_the_order_off(tmp_path, a, answers):
    build = partial(fits.fully_connected, (200, 200, 200, 100), partial(fits.Ricker, a))
    fit = fits.three_sines("ricker", 101, build, rate=2e-4, steps=80, every=2)
    along = {"method": "projection", "frequencies": fits.SINES}
    assert learning(tmp_path, lambda _: fit, (fit.inputs, fit.targets), 80, 2, **along).answer in answers


def test_the_verdict_on_a_target_of_high_frequency_alone(tmp_path):
    x = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=classes.BITS)))
    fits_of = partial(classes.parity, widths=(50, 20), points=200, steps=60)
    filters = {"method": "filter", "frequencies": [0.7, 1.0, 1.4, 2.0]}
    points = (x, x.prod(dim=1, keepdim=True))
    found = learning(tmp_path, lambda seed: fits_of(seed=seed), points, 60, 20, **filters)
    assert found.answer == "undecided"  # all of it lies in one band
    assert "an order needs 3" in found.sentence
