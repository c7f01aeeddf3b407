"""Whether low frequencies are learned first, on runs whose times to half are known by construction."""

import itertools
import json
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

from layerfreq import Run, error_spectrum
from layerfreq.verdict import verdict
from layerfreq.verdict.learning import _order, arrivals

T = np.arange(64) / 64
STEPS = (0, 10, 20, 30, 40)
NEVER = 99


def write(path, times, amplitudes=None):
    """A run that learns cycle c + 1 of the target whole at step times[c], and measures no layers."""
    run = Run.create(path, {"layers": []})
    waves = [np.sin(2 * np.pi * (c + 1) * T) * a for c, a in enumerate(amplitudes or [1.0] * len(times))]
    for step in STEPS:
        learned = [wave * (step >= time) for wave, time in zip(waves, times, strict=True)]
        run.write_errors(step, error_spectrum(T, sum(waves), sum(learned)))
    return run


def test_times_to_half_are_those_of_the_curves(tmp_path):
    k, steps, late = arrivals(write(tmp_path / "a", [10, 30, 0, NEVER], [1.0, 2.0, 1.0, 0.5]).errors)
    np.testing.assert_allclose(k, 2 * np.pi * np.array([1, 2, 3, 4]), rtol=1e-12)
    assert (steps.tolist(), late.tolist()) == ([10, 30, 0, 40], [False, False, False, True])


def test_bands_without_target_are_left_out(tmp_path):
    k, _, _ = arrivals(write(tmp_path / "a", [10, 20, 30, 40], [1.0, 0.0, 1.0, 1e-3]).errors)
    np.testing.assert_allclose(k, 2 * np.pi * np.array([1, 3]), rtol=1e-12)


@pytest.mark.parametrize(
    ("times", "answer", "effect"),
    [([0, 10, 20, 30, 40], "yes", 1.0), ([0, 10, 20, NEVER, NEVER], "yes", 1.0), ([40, 30, 20, 10, 0], "no", -1.0)],
)
def test_a_known_order_is_found(tmp_path, times, answer, effect):
    for seed in range(3):
        write(tmp_path / f"seed-{seed}", times)
    found = verdict([tmp_path / f"seed-{seed}" for seed in range(3)])
    assert (found.learning.answer, found.learning.effect) == (answer, pytest.approx(effect))
    low, high = found.learning.interval
    assert -1 <= low <= effect <= high <= 1
    assert found.sentences[-1] == found.learning.sentence
    assert (", high ones are;" in found.learning.sentence) == (answer == "no")
    assert ("6 of 15 never came below" in found.learning.sentence) == (NEVER in times)


def test_one_seed_few_bands_and_nothing_learned_are_undecided(tmp_path):
    one = verdict(write(tmp_path / "one", [0, 10, 20, 30])).learning
    assert (one.answer, one.effect, one.interval) == ("undecided", pytest.approx(1), None)
    assert "one seed" in one.sentence
    few = [write(tmp_path / f"few-{seed}", [0, 10]) for seed in range(3)]
    assert "2 bands" in verdict(few).learning.sentence
    still = [write(tmp_path / f"still-{seed}", [NEVER] * 4) for seed in range(3)]
    assert "no two bands" in verdict(still).learning.sentence
    together = [write(tmp_path / f"once-{seed}", [20] * 4) for seed in range(3)]
    assert "no two bands" in verdict(together).learning.sentence
    assert {verdict(runs).learning.answer for runs in (few, still, together)} == {"undecided"}


def test_runs_without_errors_are_counted_and_none_is_no_sentence(tmp_path, capsys, monkeypatch):
    bare = Run.create(tmp_path / "bare")
    bare.log(0, loss=1.0)
    bare.flush()
    nothing = verdict(bare)
    assert nothing.learning.answer == "undecided"
    assert "no run has errors by frequency" in nothing.learning.sentence
    assert nothing.learning.sentence not in nothing.sentences
    runs = [write(tmp_path / f"seed-{seed}", [0, 10, 20, 30]) for seed in range(3)]
    assert "1 of 4 runs have no errors" in verdict([*runs, bare]).learning.sentence
    from layerfreq import cli

    monkeypatch.setattr(sys, "argv", ["layerfreq", "verdict", *(str(run.path) for run in runs), "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert said["learning"]["answer"] == "yes"
    assert said["learning"]["sentence"] in said["sentences"]


def test_the_rows_of_bands_are_those_of_the_runs(tmp_path, capsys, monkeypatch):
    times = ([0, 10, NEVER, NEVER], [0, 20, 20, NEVER], [10, 30, 40, NEVER])
    runs = [write(tmp_path / f"seed-{seed}", each) for seed, each in enumerate(times)]
    bands = verdict(runs).bands
    np.testing.assert_allclose(bands["k"], 2 * np.pi * np.arange(1, 5), rtol=1e-8)
    nothing = np.nan
    expected = [[0, 0, 10, 3, 0], [20, 10, 30, 3, 0], [40, 20, 40, 3, 1], [nothing, nothing, nothing, 3, 3]]
    np.testing.assert_array_equal(bands[["step", "first", "last", "runs", "never"]].to_numpy(float), expected)
    from layerfreq import cli

    for more in ("--table", "--json"):
        monkeypatch.setattr(sys, "argv", ["layerfreq", "verdict", *(str(run.path) for run in runs), more])
        with pytest.raises(SystemExit):
            cli.main()
        said = capsys.readouterr().out
        if more == "--json":
            assert [row["step"] for row in json.loads(said)["bands"]] == [0, 20, 40, None]
            continue
        rows = [line.split() for line in said.splitlines()[-4:]]
        assert [row[1:] for row in rows] == [[f"{v:g}".replace("nan", "-") for v in row] for row in expected]
        assert "scale and step" not in said  # no layers, no table of them


@pytest.mark.parametrize("late", [0, 2])
def test_the_variance_by_luck_is_that_of_all_orders(late):
    """Over all 120 orders of five bands, of which the last `late` never arrive, two at one step."""
    steps, never = np.array([0, 10, 10, 30, 40]), np.arange(5) >= 5 - late
    found = [_order(np.array(k, dtype=float), steps, never) for k in itertools.permutations(range(5))]
    values, variances = np.transpose(found)
    assert values.mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(variances, values.var(), rtol=1e-12)


def test_without_ties_it_is_kendalls_tau():
    rng = np.random.default_rng(0)
    k, steps = rng.permutation(12).astype(float), rng.permutation(12)
    assert _order(k, steps, np.zeros(12, dtype=bool))[0] == pytest.approx(kendalltau(k, steps).statistic)


def test_random_orders_are_seldom_called_one():
    """Seeds whose bands arrive in random order: a false "yes" in about 2.5%, few bands or many."""
    from layerfreq.verdict.learning import _finding

    for bands in (3, 8):
        rng = np.random.default_rng(bands)
        never = np.zeros(bands, dtype=bool)
        said = [
            _finding([[_order(np.arange(bands), rng.permutation(bands), never)] for _ in range(3)], "").answer
            for _ in range(200)
        ]
        assert said.count("yes") <= 12
