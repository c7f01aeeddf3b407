"""The runner: steps to an error, going on after a kill, and what stops it."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric")

from layerfreq import Run
from layerfreq.experiments import Progress, Request, runner
from layerfreq.experiments.runner import Training, train
from tests.helpers.refusals import Code, refuses

POINTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


class Counting(Progress):
    def __init__(self):
        self.steps, self.open, self.layers = [], 0, []

    def start(self, name, total, done):
        self.open += 1

    def step(self, step, loss=None):
        self.steps.append(step)

    def measuring(self, what):
        self.layers.append(what)

    def finish(self):
        self.open -= 1


def halving(lr=0.25, **options):
    """One weight w from 0 to 1 by gradient descent on (w - 1)^2: its distance takes the factor 1 - 2 lr each step."""

    def build():
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model, torch.optim.SGD(model.parameters(), lr=lr)

    one = torch.ones(1, 1)
    return Training("halving", 0, build, one, one, nn.functional.mse_loss, **{"steps": 50, "log_every": 2, **options})


def learning(**options):
    """A small network that is measured at steps 0, 5 and 12, and draws from the random state to be built."""

    def build():
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    targets = (POINTS[:, 0] > 0).long()
    more = {"steps": 12, "measure_at": (0, 5, 12), "options": {"inv_delta": [0.1, 1.0, 10.0]}, **options}
    return Training("learning", 3, build, POINTS, targets, nn.functional.cross_entropy, **more)


def run(training, folder, progress=None):
    return train(training, folder, device="cpu", progress=progress or Progress(), checkpoint_every=4)


def frames(folder):
    order = ["step", "layer", "scale", "inv_delta"]
    return Run(folder).spectra.sort_values(order, ignore_index=True), Run(folder).metrics


def assert_same(a, b):
    for one, other in zip(frames(a), frames(b), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_it_stops_at_the_first_step_below_the_error(tmp_path):
    assert run(halving(stop_below=1e-3), tmp_path / "a") == 5  # 0.25^5 < 0.001 < 0.25^4
    metrics = Run(tmp_path / "a").metrics
    assert metrics["step"].tolist() == [0, 2, 4, 5]
    np.testing.assert_allclose(metrics["loss"], 0.25 ** metrics["step"])
    assert run(halving(stop_below=1e-3, steps=3), tmp_path / "b") == 3
    assert run(halving(steps=7), tmp_path / "c") == 7


def test_what_is_finished_is_not_done_again(tmp_path):
    first, again = Counting(), Counting()
    assert run(halving(stop_below=1e-3), tmp_path / "a", first) == run(halving(stop_below=1e-3), tmp_path / "a", again)
    assert (first.steps, first.open, again.steps, again.open) == ([1, 2, 3, 4, 5], 0, [], 0)


@pytest.mark.parametrize("at", [0, 2, 5, 6, 11])
def test_stopped_and_gone_on_with_it_ends_the_same(tmp_path, at):
    whole = Counting()
    run(learning(), tmp_path / "whole", whole)
    assert whole.layers == ["1", "3"] * 3

    class Stopping(Progress):
        def step(self, step, loss=None):
            if step == at + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(learning(), tmp_path / "stopped", Stopping())
    run(learning(), tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_the_seed_decides_and_the_random_state_stays(tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(learning(), tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    run(learning(), tmp_path / "b")
    run(replace(learning(), seed=4), tmp_path / "c")
    assert_same(tmp_path / "a", tmp_path / "b")
    assert (frames(tmp_path / "a")[1]["loss"] != frames(tmp_path / "c")[1]["loss"]).all()


def test_a_diverging_loss_is_one_line(tmp_path):
    with refuses("halving", Code.VALUE) as caught:
        run(halving(lr=1e9), tmp_path / "a")
    assert all(word in str(caught.value) for word in ("halving", "inf at step 3", "smaller learning rate"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("write", [1, 2, 3, 4, 6, 7, 8, 14])
def test_a_disk_that_fills_up_keeps_what_was_measured(tmp_path, monkeypatch, write):
    made, opened = [], os.open

    def fills_up(path, flags, *args, **options):
        handle = opened(path, flags, *args, **options)
        if flags & os.O_EXCL and tmp_path in Path(path).parents:  # not a file of a monitor only now let go of
            made.append(path)
            if len(made) > write:  # the config is the first write; what opens this file writes to a full device
                os.unlink(path)
                os.symlink("/dev/full", path)
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fills_up)
        with pytest.raises(OSError, match="No space left") as caught:
            run(learning(), tmp_path / "full")
    assert caught.value.filename.startswith(str(tmp_path / "full"))
    assert not list(tmp_path.rglob(".partial-*"))
    assert len(Run(tmp_path / "full").steps()) == (write >= 3) + (write >= 8) + (write >= 13)
    frames(tmp_path / "full")
    run(learning(), tmp_path / "full")
    run(learning(), tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "full")


@dataclass
class Plan:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    workers: int = 1


def test_an_experiment_is_gone_on_with_by_the_same_plan_only(tmp_path):
    request = Request(out=tmp_path / "o", seeds=[0, 1], preset="smoke", resume=True)
    begin = partial(Request.open, name="mlp", unit="epoch", without=("workers",))
    opened = begin(request, config=Plan())  # nothing there yet
    plan = {"experiment": "mlp", "preset": "smoke", "seeds": [0, 1], "rate": 0.5, "sizes": [1, 2]}
    assert opened.config == {**plan, "unit": "epoch", "environment": opened.config["environment"]}
    assert {"layerfreq", "torch", "python"} <= set(opened.config["environment"])
    (tmp_path / "o" / ".partial-x.parquet").write_bytes(b"PAR1")
    before = (tmp_path / "o" / "config.yaml").read_bytes()
    assert begin(request, config=Plan(workers=8)).path == tmp_path / "o"
    for other, options, words in (
        (request, {"config": Plan(rate=0.1)}, ("out", Code.EXISTS)),
        (replace(request, seeds=[0]), {"config": Plan()}, ("out", Code.EXISTS)),
        (request, {"config": Plan(), "width": 3}, ("out", Code.EXISTS)),
    ):
        with refuses(*words):
            begin(other, **options)
    with refuses("run", Code.EXISTS):
        begin(replace(request, resume=False), config=Plan())
    assert [p.name for p in Path(tmp_path / "o").iterdir()] == ["config.yaml"]
    assert (tmp_path / "o" / "config.yaml").read_bytes() == before


def test_an_early_end_is_measured_too(tmp_path):
    run(learning(stop_below=0.66), tmp_path / "a")
    metrics = Run(tmp_path / "a").metrics
    assert Run(tmp_path / "a").steps() == [0, int(metrics["step"].iloc[-1])]
    assert metrics["loss"].iloc[-1] < 0.66 < metrics["loss"].iloc[-2]


def test_points_in_pieces_are_points_together(tmp_path, monkeypatch):
    run(learning(), tmp_path / "whole")
    monkeypatch.setattr(runner, "PIECE", 7)
    run(learning(), tmp_path / "pieces")
    (one, losses), (other, same) = frames(tmp_path / "whole"), frames(tmp_path / "pieces")
    np.testing.assert_allclose(losses["loss"], same["loss"], rtol=1e-5)
    np.testing.assert_allclose(one["lfr"], other["lfr"], rtol=1e-4)


def test_the_rate_follows_the_step(tmp_path):
    """The distance of `halving` takes the factor 1 - 2 rate in each step."""
    run(halving(steps=6, log_every=1, rate=lambda step: 0.1 * 0.5**step), tmp_path / "a")
    factors = np.cumprod([1.0, *(1 - 0.2 * 0.5**step for step in range(6))])
    np.testing.assert_allclose(Run(tmp_path / "a").metrics["loss"], factors**2, rtol=1e-5)


def test_batches_are_updates_of_their_own(tmp_path):
    run(replace(halving(steps=3, log_every=1, batch=2), inputs=torch.ones(7, 1), targets=torch.ones(7, 1)), tmp_path)
    np.testing.assert_allclose(Run(tmp_path).metrics["loss"], 0.25 ** (3 * np.arange(4)), rtol=1e-5)  # 3 whole batches


def test_batches_are_drawn_by_seed_and_step(tmp_path):
    class Stopping(Progress):
        def step(self, step, loss=None):
            if step == 6:
                raise KeyboardInterrupt

    run(learning(batch=8), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(learning(batch=8), tmp_path / "stopped", Stopping())
    torch.manual_seed(77)
    run(learning(batch=8), tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")
