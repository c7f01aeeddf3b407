"""Rank correlations with censoring against brute force, and intervals that hold what they should."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from layerfreq.verdict.cause import judge_cause
from layerfreq.verdict.ranking import PREDICTORS, bootstrap, correlation, known_pairs, league, partial_correlation


def order(a, b):
    """1 where head a = (steps, censored) is known to be slower than b, -1 where faster, 0 where it is not known."""
    (steps_a, late_a), (steps_b, late_b) = a, b
    if late_a and late_b:
        return 0
    if late_a:
        return 1 if steps_a >= steps_b else 0
    if late_b:
        return -1 if steps_b >= steps_a else 0
    return (steps_a > steps_b) - (steps_a < steps_b)


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=9))
def test_pairs_are_those_of_brute_force(heads):
    steps, late, x = (np.array(column) for column in zip(*heads, strict=True))
    y, i, j = known_pairs(steps.astype(float), late.astype(bool))
    found = {(a, b): s for a, b, s in zip(i.tolist(), j.tolist(), y.tolist(), strict=True)}
    agree = []
    for a in range(len(heads)):
        for b in range(a + 1, len(heads)):
            expected = order(heads[a][:2], heads[b][:2])
            assert found.get((a, b), 0) == expected
            if expected:
                agree.append(expected * np.sign(x[a] - x[b]))
    value = correlation(y, np.sign(x[i] - x[j]).astype(float))
    np.testing.assert_allclose(value, np.mean(agree) if agree else np.nan)


def test_without_ties_and_censoring_it_is_kendalls_tau():
    rng = np.random.default_rng(0)
    steps, x, z = rng.random((3, 12))
    y, i, j = known_pairs(steps, np.zeros(12, dtype=bool))
    sx, sz = np.sign(x[i] - x[j]), np.sign(z[i] - z[j])
    xy, yz, xz = (kendalltau(*pair).statistic for pair in ((x, steps), (z, steps), (x, z)))
    assert correlation(y, sx) == pytest.approx(xy)
    assert partial_correlation(y, sx, []) == pytest.approx(xy)
    assert partial_correlation(y, sx, [sz]) == pytest.approx((xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5)
    assert np.isnan(partial_correlation(y, sx, [sx]))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_the_mean_over_seeds(seeds):
    """Clusters drawn from a known law; a seed's points share its value, so that only the seeds count."""
    held = 0
    for draw in range(200):
        values = np.random.default_rng([draw, seeds]).normal(0.4, 0.15, seeds)
        _, low, high = bootstrap(values)
        held += low <= 0.4 <= high
    assert held >= 180


def test_few_seeds_and_missing_values():
    assert bootstrap(np.array([0.5, np.nan]))[0] == 0.5
    assert np.isnan(bootstrap(np.array([0.5, np.nan]))[1:]).all()
    assert np.isnan(bootstrap(np.array([np.nan]))).all()
    mean, low, high = bootstrap(np.array([0.2, 0.4, 0.9, 0.9]))
    assert -1 <= low < mean < high <= 1


def table(seeds, law, *, cuts=6, noise=0.3, rng=None):
    """Results with steps = law(predictors of a cut) x noise, censored above 400."""
    rng = rng or np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for step in (0, 100):
            for cut in range(cuts):
                known = {name: rng.random() for name in PREDICTORS}
                for head_seed in range(2):
                    steps = 200 * 2 ** (3 * law(known) + noise * rng.standard_normal())
                    late = steps > 400
                    row = {"run": f"seed-{seed}", "seed": seed, "step": step, "cut": cut, "scale": "rms"}
                    row |= {"optimizer": "sgd", "rule": "best", "head": "hidden-1", "head_seed": head_seed}
                    rows.append({**row, "share": 0.5, "steps": min(steps, 400), "censored": late, **known})
    return pd.DataFrame(rows)


def test_the_predictor_that_makes_the_steps_leads():
    found = league(table(5, lambda known: known["rms_median"]))
    for pairs in ("within step", "overall"):
        part = found[found["pairs_of"] == pairs]
        assert set(part["predictor"]) == set(PREDICTORS)
        first = part.iloc[0]
        assert first["predictor"] == "rms_median"
        assert 0.5 < first["low"] < first["correlation"] < first["high"] <= 1
        assert first["partial_low"] > 0.5
        assert (part["low"].iloc[1:] < 0).mean() > 0.7
        assert 0.1 < first["censored"] < 0.9
    verdict = judge_cause(found)
    assert verdict.answer == "yes"
    assert "no rival does better" in verdict.sentence


def test_results_without_a_predictor_rank_the_others_alike():
    """Those of earlier versions have no maxabs median; rows without one make no pairs of it."""
    rows = table(3, lambda known: known["rms_median"])
    whole, older = league(rows), league(rows.drop(columns="maxabs_median"))
    rest = whole[whole["predictor"] != "maxabs_median"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, older)
    rows.loc[rows["seed"] == 0, "maxabs_median"] = np.nan
    partly = league(rows).set_index(["pairs_of", "predictor"])["seeds"]
    assert (partly["overall", "maxabs_median"], partly["overall", "rms_median"]) == (2, 3)


def test_steps_that_come_from_nothing_or_a_rival_are_not_explained():
    answers = [judge_cause(league(table(5, lambda known: 0.0, rng=np.random.default_rng(s)))).answer for s in range(10)]
    assert answers.count("yes") <= 1
    rival = judge_cause(league(table(5, lambda known: known["probe_loss"], rng=np.random.default_rng(1))))
    assert rival.answer != "yes"
    assert "probe_loss" in rival.sentence


def test_what_is_missing_is_said():
    one = judge_cause(league(table(1, lambda known: known["rms_median"])))
    assert one.answer == "undecided"
    assert "needs 2 seeds or more" in one.sentence
    assert "rms scale" in judge_cause(league(table(3, lambda known: 0.0).assign(scale="raw"))).sentence


def test_within_step_pairs_are_of_one_run_and_step():
    """Steps follow the predictor inside each run and step, and go against it between them."""
    rows = table(2, lambda known: known["rms_median"], noise=0.0)
    rows["censored"] = False
    rows["steps"] = rows["rms_median"] - 10.0 * rows["step"]
    rows["rms_median"] += rows["step"]
    found = league(rows).set_index(["pairs_of", "predictor"])["correlation"]
    assert found["within step", "rms_median"] == 1
    # Of 12 points a seed, 36 pairs lie between the two steps and 30 inside one.
    assert found["overall", "rms_median"] == pytest.approx((30 - 36) / 66)
