"""Verdicts on runs whose answer is known by construction, and on noise."""

import sys

import numpy as np
import pandas as pd
import pytest

from layerfreq import Run
from layerfreq.verdict import expand, judge, medians_of, verdict
from layerfreq.verdict.speedup import judge_speed
from tests.helpers.medians import curves, write_run
from tests.helpers.refusals import Code, refuses
from tests.helpers.rows import CASES


def table(slopes, noise, seeds, layers=5, rng=None, scales=("raw", "rms"), between=0.0):
    """Medians 2^(slope x depth + noise) for a slope a step."""
    rng = rng or np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for step, slope in enumerate(slopes):
            own = slope + between * rng.standard_normal()
            for depth in range(1, layers + 1):
                median = 2 ** (own * depth + noise * rng.standard_normal())
                rows += [[seed, step, depth, scale, median, 1e9] for scale in scales]
    return pd.DataFrame(rows, columns=["seed", "step", "depth", "scale", "median", "resolution"])


def test_medians_are_those_of_the_curves(tmp_path):
    runs = expand([write_run(tmp_path / "a", {0: [0.5, 2.0, 8.0], 7: [4.0, 2.0, 1.0]})])
    medians = medians_of(runs)
    expected = [0.5, 0.5, 2.0, 2.0, 8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0]
    np.testing.assert_allclose(medians["median"], expected, rtol=1e-3)
    np.testing.assert_allclose(medians["resolution"], 1e2, rtol=1e-6)
    assert medians["error"].isna().all()


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize(("slope", "answer"), [(-0.4, "yes"), (0.4, "no")])
def test_a_known_slope_is_found_in_95_of_100(seeds, slope, answer):
    right = 0
    for draw in range(100):
        rng = np.random.default_rng([draw, seeds])
        one = judge(table([0.0, slope], 0.15, seeds, rng=rng, between=0.02, scales=["rms"]))["rms"]
        right += one.answer == answer
    assert right >= 95


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_noise_is_undecided_in_90_of_100(seeds):
    undecided = 0
    for draw in range(100):
        found = judge(table([0.0] * 4, 1.0, seeds, rng=np.random.default_rng([draw, seeds, 7]), scales=["rms"]))["rms"]
        undecided += found.answer == "undecided"
    assert undecided >= 90


def test_intervals_hold_the_slope_where_seeds_differ():
    """Seeds differ in their true slope; the interval is of the mean over seeds that might have been drawn."""
    held = [
        low <= -0.3 <= high
        for draw in range(150)
        for low, high in [
            judge(table([-0.3], 0.1, 4, rng=np.random.default_rng(draw), between=0.2, scales=["raw"]))["raw"].interval
        ]
    ]
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.slow
def test_the_onset_is_seldom_too_early():
    early, found = 0, 0
    for draw in range(100):
        slopes = [0.0] * 10 + [-0.5] * 5
        one = judge(table(slopes, 0.15, 4, rng=np.random.default_rng(draw), scales=["raw"]))["raw"]
        early += one.since is not None and one.since < 10
        found += one.since is not None
    assert early <= 7  # 2.5% expected
    assert found >= 95


def test_numbers_without_noise():
    one = judge(table([0.5, 0.25, -0.125, -0.25, -0.5], 0.0, 3))["raw"]
    assert (one.answer, one.since, one.interval) == ("yes", 2, (-0.5, -0.5))
    assert one.octaves == pytest.approx(-0.5)
    assert one.steps["answer"].tolist() == ["no", "no", "yes", "yes", "yes"]
    assert one.steps["octaves"].tolist() == pytest.approx([0.5, 0.25, -0.125, -0.25, -0.5])
    assert "from step 2 on" in one.sentence
    assert "0.50 octaves per layer" in one.sentence


def test_layers_beyond_the_resolution_are_left_out_and_counted():
    medians = table([-0.5], 0.0, 3)
    bad = medians["depth"] <= 2
    medians.loc[bad & (medians["depth"] == 1), "median"] = np.nan
    medians.loc[bad & (medians["depth"] == 2), ["median", "resolution"]] = [1e6, 1.0]
    one = judge(medians)["raw"]
    assert one.answer == "yes"
    assert one.octaves == pytest.approx(-0.5)
    assert "6 of 15 medians at step 0 left out" in one.why
    medians.loc[medians["depth"] < 5, "median"] = np.nan
    one = judge(medians)["raw"]
    assert (one.answer, one.octaves, one.interval) == ("undecided", None, None)
    assert "undecided, no run has two layers" in one.sentence
    few = table([-0.5], 0.0, 5)
    few.loc[few["seed"] > 1, "median"] = np.nan
    assert "only 2 of 5 seeds" in judge(few)["raw"].why


def test_one_seed_says_that_others_may_differ_and_two_layers_are_undecided():
    one = judge(table([-0.5], 0.01, 1))["raw"]
    assert one.answer == "yes"
    assert "other seeds may differ" in one.sentence
    two = judge(table([-0.5], 0.01, 1, layers=2))["raw"]
    assert (two.answer, two.octaves) == ("undecided", pytest.approx(-0.5, abs=0.1))
    assert "too few layers" in two.sentence


def test_a_scale_or_step_that_is_missing_is_said():
    both = pd.concat([table([-0.5], 0.0, 3), table([-0.5], 0.0, 2, scales=["maxabs"])])
    assert list(judge(both)) == ["maxabs", "raw", "rms"]
    assert "1 of 3 runs were not measured at this scale" in judge(both)["maxabs"].why
    assert "not measured" not in judge(both)["raw"].why
    assert list(judge(both[both["scale"] == "raw"])) == ["raw"]
    apart = table([-0.5, -0.5], 0.0, 2)
    apart = apart[apart["seed"] == apart["step"]]
    assert judge(apart)["raw"].why == "no step was measured in all 2 runs"
    longer = table([-0.5, -0.5], 0.0, 2)
    longer = longer[~((longer["seed"] == 1) & (longer["step"] == 1))]
    assert "steps after 0 were not measured in all runs" in judge(longer)["raw"].why


@pytest.mark.parametrize("draw", range(3))
def test_runs_on_disk(tmp_path, draw, capsys, monkeypatch):
    rng = np.random.default_rng(draw)
    Run.create(tmp_path / "e", {"experiment": "mlp"})
    for seed in range(4):
        before = 2 ** (0.4 * np.arange(5) + 0.1 * rng.standard_normal(5))
        after = 2 ** (-0.4 * np.arange(5) + 0.1 * rng.standard_normal(5))
        write_run(tmp_path / "e" / f"seed-{seed}", {0: before, 100: after, 200: after * 1.1})
    found = verdict([tmp_path / "e"])
    assert (found.runs, found.seeds) == (4, 4)
    for scale in ("raw", "rms"):
        assert (found.scales[scale].answer, found.scales[scale].since) == ("yes", 100)
        assert -0.5 < found.scales[scale].octaves < -0.3
        assert "from epoch 100 on; at epoch 200 by" in found.scales[scale].sentence  # as the experiment counts
    assert len(found.to_frame()) == 6
    assert found.cause.answer == found.speed.answer == "undecided"
    assert "runs of different depth" in found.speed.sentence
    assert "trained anew" in found.cause.sentence
    assert str(found) == "\n".join(found.sentences)
    from layerfreq import cli

    monkeypatch.setattr(sys, "argv", ["layerfreq", "verdict", str(tmp_path / "e"), "--table"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert out.startswith("4 runs, 4 seeds\n")
    assert found.sentences[0] in out
    assert "octaves" in out
    from layerfreq.cli import verdict as command

    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    lines = command._fitted(found.sentences[0]).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert " ".join(line.strip() for line in lines) == found.sentences[0]


@pytest.mark.parametrize("scales", CASES, ids="+".join)
def test_each_measured_scale_has_its_own_verdict(tmp_path, scales):
    """Deeper is higher at maxabs scale and lower at the others; which others there are changes no answer."""
    for seed in range(3):
        rng, run = np.random.default_rng(seed), Run.create(tmp_path / f"seed-{seed}")
        for step in (0, 50):
            slopes = {"maxabs": 0.5, "raw": -0.5, "rms": -0.25}
            parts = [
                curves(2 ** (slopes[scale] * depth + 0.02 * rng.standard_normal())).assign(
                    layer=f"hidden{depth}", depth=depth, scale=scale
                )
                for depth in range(1, 6)
                for scale in scales
            ]
            frame = pd.concat(parts).sample(frac=1, random_state=seed)
            frame.attrs = {"n": 100, "rows": 100, "floor": 0.0}
            run.write_spectra(step, frame)
    found = verdict([tmp_path / f"seed-{seed}" for seed in range(3)])
    assert set(found.scales) == set(scales)
    for scale, one in found.scales.items():
        assert one.answer == ("no" if scale == "maxabs" else "yes")
        assert one.octaves == pytest.approx(slopes[scale], abs=0.03)
    assert sum("At maxabs scale, the paper's: no" in sentence for sentence in found.sentences) == ("maxabs" in scales)
    assert len(found.sentences) == len(scales) + 2
    assert set(found.to_frame()["scale"]) == set(scales)


def test_runs_without_a_measured_layer_say_so(tmp_path):
    found = verdict(write_run(tmp_path / "a", {}, losses={0: 1.0}))
    assert (found.scales, len(found.to_frame())) == ({}, 0)
    assert found.sentences[0].startswith("No layer was measured")


def test_variants_of_one_seed_are_one_cluster(tmp_path):
    Run.create(tmp_path / "e")
    for seed in range(2):
        for variant in (1, 2):
            write_run(tmp_path / "e" / f"variant-{variant}-seed-{seed}", {0: [4, 2, 1]})
    found = verdict(tmp_path / "e")
    assert (found.runs, found.seeds) == (4, 2)
    assert found.scales["rms"].interval == pytest.approx((-1, -1), abs=1e-3)


def test_nothing_to_judge_is_one_line(tmp_path):
    run = write_run(tmp_path / "a", {0: [1.0, 2.0]})
    for given, words in (
        ([], ("runs", Code.EMPTY)),
        ([tmp_path / "none"], ("run", Code.MISSING)),
        ([run, run.path], ("runs", Code.CONFLICT)),
    ):
        with refuses(*words):
            verdict(given)


def test_runs_of_different_kinds_are_not_judged_together_unasked(tmp_path, capsys, monkeypatch):
    """Each of these differs from the first in one thing; what a run does not say is no difference."""
    kind = {
        "model": "MLP",
        "points": 100,
        "layers": ["a", "b", "c"],
        "options": {"center": False},
        "reading": "flatten",
        "hidden_layers": 3,
        "parameters": 500,
    }
    one = write_run(tmp_path / "one", {0: [4, 2, 1]}, kind)
    others = {
        "model": "ResNet",
        "points": 200,
        "reading": "mean",
        "options": {"center": True},
        "data": "digits",
        "layers": ["d"],
        "parameters": 600,
    }
    for name, value in others.items():
        first = write_run(tmp_path / f"{name}-first", {0: [4, 2, 1]}, {"data": "cifar"} if name == "data" else kind)
        other = write_run(tmp_path / name, {0: [4, 2, 1]}, {**kind, name: value})
        with refuses("runs", Code.CONFLICT) as caught:
            verdict([first, other])
        assert str(other.path) in str(caught.value)
        assert verdict([first, other], together=True).runs == 2
        assert "of different kinds" in judge_speed(expand([first, other])).sentence
    deeper = {**kind, "hidden_layers": 4, "parameters": 700}
    for i, like in enumerate(
        [kind, {}, {**kind, "layers": ["c", "d"]}, {**kind, "environment": {"torch": "1"}}, deeper]
    ):
        assert verdict([one, write_run(tmp_path / f"like-{i}", {0: [4, 2, 1]}, like)]).runs == 2
    from layerfreq.cli import program as cli

    for more, status in ((), 2), (("--together",), 0):
        arguments = ["layerfreq", "verdict", str(one.path), str(tmp_path / "model"), *more]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == status


def test_experiments_of_one_folder_belong_together_and_those_of_two_kinds_do_not(tmp_path):
    for name, experiment in (("e", "mlp"), ("f", "mlp"), ("g", "resnet")):
        Run.create(tmp_path / name, {"experiment": experiment, "preset": "small"})
        for seed in range(2):
            write_run(tmp_path / name / f"seed-{seed}", {0: [4, 2, 1]}, {"name": f"{name}{seed}"})
    assert verdict([tmp_path / "e", tmp_path / "f"]).runs == 4
    with refuses("runs", Code.CONFLICT, "'mlp'", "'resnet'"):
        verdict([tmp_path / "e", tmp_path / "g"])


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("losses", "decided"),
    [
        ({0: 2.31, 10: 2.30, 31: 2.27}, False),  # near chance
        ({0: 2.31}, False),  # nothing trained at all
        ({0: 2.0, 31: 1.51}, False),
        ({0: 2.0, 31: 1.49}, True),
        ({0: 2.31, 31: 0.2, 40: 9.0}, True),  # what comes later is not asked
        ({0: 2.31, **{k: 2.3 for k in range(1, 30)}, 31: 0.1}, False),  # one lucky minibatch
        ({}, True),  # nobody knows
        ({0: -3.0, 31: -2.9}, True),  # no loss that starts above 0
        ({0: float("nan"), 5: 2.0, 31: 1.9}, False),
    ],
)
def test_a_training_that_has_hardly_begun_decides_nothing(tmp_path, losses, decided, direction):
    medians = [2.0 ** (direction * k) for k in range(5)]
    run = write_run(tmp_path / "run", {0: medians, 31: medians}, losses=losses)
    for one in verdict(run).scales.values():
        assert one.answer == (("no" if direction > 0 else "yes") if decided else "undecided")
        assert one.octaves == pytest.approx(direction, abs=1e-3)
        assert ("training had hardly begun at step 31: its loss was" in one.sentence) != decided
        assert decided or one.since is None


@pytest.mark.parametrize(("early", "answer"), [(1, "yes"), (2, "undecided"), (4, "undecided")])
def test_a_few_seeds_that_do_not_train_are_told_and_half_of_them_decide(tmp_path, early, answer):
    for seed in range(4):
        losses = {0: 2.0, 9: 1.9 if seed < early else 0.5}
        write_run(tmp_path / f"seed-{seed}", {9: [4, 2, 1.1**seed]}, losses=losses)
    one = verdict([tmp_path / f"seed-{seed}" for seed in range(4)]).scales["raw"]
    assert one.answer == answer
    assert f"{early} of 4 runs" in one.why
