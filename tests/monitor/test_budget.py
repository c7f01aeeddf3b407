"""A budget of time is kept to, whatever a measurement costs and whenever it is due."""

# ruff: noqa: PT031  a loop of steps

from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerfreq import Monitor, Run
from layerfreq.integrations.shell import Shell
from layerfreq.monitor.budget import LEAST, PART, Budget
from tests.helpers.refusals import Code, refuses

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@given(
    share=st.floats(0.005, 0.5),
    fixed=st.floats(0.0, 3.0),
    rest=st.floats(0.01, 5.0),
    noise=st.lists(st.floats(0.5, 2.0), min_size=40, max_size=40),
    gaps=st.lists(st.floats(0.01, 100.0), min_size=40, max_size=40),
    most=st.integers(1, 2000),
)
def test_what_is_spent_before_a_measurement_is_within_the_share_of_the_training(share, fixed, rest, noise, gaps, most):
    clock, spent, trained, made = Clock(), 0.0, 0.0, 0
    budget = Budget(share, clock=clock)
    for gap, more in zip(gaps, noise, strict=True):
        clock.now += gap
        trained += gap
        rows = budget.rows(most)
        assert rows in {0, most} or max(LEAST, PART * most) <= rows < most
        if not rows:
            continue
        assert made == 0 or spent <= share * trained * (1 + 1e-9)
        made += 1
        with budget.spending(rows / most):
            took = more * (fixed + rest * rows / most)
            clock.now += took
            spent += took
    assert made
    assert spent <= share * trained + 2 * (fixed + rest)  # the last one may be owed, not more
    clock.now += 4 * (fixed + rest) / share  # with time enough all is measured again
    assert budget.rows(most) == most


def test_prices_that_do_not_change_are_learned_and_never_exceeded():
    clock, budgeted = Clock(), []
    budget = Budget(0.1, clock=clock)
    for _ in range(60):
        clock.now += 25.0
        affordable, rows = budget.affordable, budget.rows(1000)
        if not rows:
            continue
        took = 1.0 + 4.0 * rows / 1000
        budgeted.append((affordable, took, rows))
        with budget.spending(rows / 1000):
            clock.now += took
    assert budgeted[0][2] == 1000
    assert all(took <= affordable + 1e-9 for affordable, took, _ in budgeted[2:])  # the first two teach the price
    assert {rows for _, _, rows in budgeted[3:]} == {375}  # 25 s x 0.1 = 1 + 4 x 0.375, the second's debt paid


def test_a_measurement_that_fails_is_paid_for_and_teaches_no_price():
    clock = Clock()
    budget = Budget(0.5, clock=clock)
    with budget.spending():
        clock.now += 4.0
    with suppress(ValueError), budget.spending():
        clock.now += 0.001
        raise ValueError("the model's own")
    clock.now += 8.0
    assert budget.rows(1000) == 0  # still owed
    clock.now += 8.0 + 0.1
    assert budget.rows(1000) == 1000


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def watched(clock, share, **options):
    monitor = Monitor(net(), X, Y, inv_delta=[0.1, 1.0, 10.0], budget=share, **options)
    monitor._budget._clock, monitor._budget._last = clock, 0.0
    return monitor


def test_a_monitor_draws_fewer_rows_or_leaves_steps_out_and_its_run_says_so(tmp_path):
    clock, found = Clock(), {}
    monitor = watched(clock, 0.1, run=tmp_path / "run")
    afford, part = monitor._budget.rows, [1.0]

    def rows(most, **options):
        fit = afford(most, **options)
        part[0] = fit / most
        return fit

    def slow(_):
        clock.now += 2.0 * part[0]

    monitor._budget.rows, monitor.on_layer = rows, slow
    with pytest.warns(UserWarning, match=r"step 1: skipped, .* budget=0.1 of the time") as said:
        for step in range(105):
            clock.now += 1
            found[step] = monitor.measure(step)
    monitor.close()
    assert len([one for one in said if "budget" in str(one.message)]) == 1
    steps = [step for step, one in found.items() if one is not None]
    assert steps[0] == 0
    assert found[0]["1"].rows == len(X)
    assert 1 < len(steps) < 105
    assert steps[1] == 49  # 3.9 s to pay back, and a quarter of the centres takes 1 s more: 0.1 of 49 s
    assert PART * len(X) <= found[steps[1]]["1"].rows < 60
    assert found[steps[1]]["1"].stderr is not None
    run = Run(tmp_path / "run")
    assert run.steps() == steps
    notes = (run.path / "notes.txt").read_text().splitlines()
    assert notes[0] == f"{steps[1] - 1} steps from 1 to {steps[1] - 1} were due and not measured, within budget=0.1"
    assert notes[1].endswith("filter centres instead of 200, within budget=0.1")
    assert notes[-1].startswith(f"{104 - steps[-1]} steps from {steps[-1] + 1} to 104 were due")


def test_what_cannot_be_drawn_is_measured_whole_or_left_out():
    clock = Clock()
    for options in ({"rtol": 0.1}, {"error": "filter", "layers": []}):
        monitor = watched(clock, 0.1, **options)
        monitor.measure(0)
        monitor._budget._debt, monitor._budget._whole = 0.0, 10.0
        monitor._budget._last = clock.now
        clock.now += 50
        with pytest.warns(UserWarning, match="step 1: skipped"):
            assert monitor.measure(1) is None
        clock.now += 51
        assert monitor.measure(2) is not None


def test_a_budget_that_is_never_short_changes_nothing():
    with Monitor(net(), X, Y, inv_delta=[1.0], budget=1.0) as rich, Monitor(net(), X, Y, inv_delta=[1.0]) as free:
        rich._budget._clock = Clock()
        rich._budget._last = -1e9
        assert rich.measure(0)["3"].lfr.tolist() == free.measure(0)["3"].lfr.tolist()


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "3%", float("nan"), True])
def test_what_is_no_share_is_one_line(share):
    for make in (
        lambda: Monitor(net(), X, Y, budget=share),
        lambda: Shell(X, Y, None, None, 1, (), {"budget": share}),
    ):
        with refuses("budget", Code.VALUE):
            make()
