"""What is kept in a folder: killed and called again the table is the same, and no other network's is taken for it."""

import os
import signal

import pandas as pd
import pytest
import torch
from torch import nn

from layerfreq import advise
from layerfreq.advice import cells, heads
from layerfreq.errors import InputError
from tests.helpers.forked import context

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
OTHER = (X, X[:, 2])


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heads, "STEPS", 4)


@pytest.fixture
def trained(monkeypatch):
    """Kinds of the heads that are trained from now on."""
    kinds = []

    def counted(x, targets, kind, *more):
        kinds.append(kind)
        return heads.held_out(x, targets, kind, *more)

    monkeypatch.setattr(cells, "held_out", counted)
    return kinds


def killed(folder, at):
    """Ask for advice, and be killed before some training of heads."""
    heads.STEPS, done = 4, []

    def train(*arguments):
        done.append(arguments)
        if len(done) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return heads.held_out(*arguments)

    cells.held_out = train
    advise(model(), X, Y, transfer=OTHER, out=folder)


@pytest.mark.kill
def test_killed_and_called_again_it_is_the_same_table_and_no_cut_is_done_twice(tmp_path, trained):
    whole = advise(model(), X, Y, transfer=OTHER).to_frame()
    assert len(trained) == 9  # at each of three cuts two, and one for the other data
    for at, left in ((4, {"cut": 1, "transfer": 0}), (6, {"cut": 3, "transfer": 1})):
        child = context.Process(target=killed, args=(tmp_path, at))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        found = {kind: len(list(tmp_path.glob(f"{kind}-*.npz"))) for kind in left}
        assert found == left
    trained.clear()
    again = advise(model(), X, Y, transfer=OTHER, out=tmp_path).to_frame()
    assert trained == ["linear"] * 2
    pd.testing.assert_frame_equal(again.drop(columns="time"), whole.drop(columns="time"), check_exact=True)
    trained.clear()
    pd.testing.assert_frame_equal(advise(model(), X, Y, transfer=OTHER, out=tmp_path).to_frame(), again)
    assert not trained
    assert not list(tmp_path.rglob(".partial-*"))


def test_other_weights_targets_and_seeds_are_other_work_and_another_tolerance_is_not(tmp_path, trained):
    for call in (
        lambda: advise(model(), X, Y, layers=["1"], out=tmp_path),
        lambda: advise(model(1), X, Y, layers=["1"], out=tmp_path),
        lambda: advise(model(), X, 1 - Y, layers=["1"], out=tmp_path),
        lambda: advise(model(), X, Y, layers=["1"], seed=1, out=tmp_path),
    ):
        trained.clear()
        call()
        assert len(trained) >= 2
    trained.clear()
    advise(model(), X, Y, layers=["1"], tolerance=0.5, out=tmp_path)
    assert not trained


def test_a_damaged_file_is_made_anew(tmp_path, trained):
    first = advise(model(), X, Y, layers=["1"], out=tmp_path).to_frame()
    for file in tmp_path.glob("cut-*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    trained.clear()
    pd.testing.assert_frame_equal(advise(model(), X, Y, layers=["1"], out=tmp_path).to_frame(), first)
    assert len(trained) == 4


@pytest.mark.parametrize("out", ["file", "https://example.org/advice", 7])
def test_what_is_no_folder_is_one_line(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^out: ") as caught:
        advise(model(), X, Y, out=out)
    assert "\n" not in str(caught.value)
