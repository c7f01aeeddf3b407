"""Forked processes measure, whatever threads the parent has: none of those is copied."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from layerfreq.isolation.forked import Lock, forked
from layerfreq.isolation.torch_settings import Flag

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_a_fork(check):
    """Whether a function returns true in a forked process, within 40 seconds."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(not check()))
    process.start()
    process.join(40)
    process.kill()
    process.join()
    return process.exitcode == 0


PARENT = """
import os, signal, sys, torch
from torch import nn
torch.set_num_threads(2)
first = len(sys.argv) > 1
if not first:
    import layerfreq
features = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
targets = features[:, 0].sin()
torch.randn(1000000).exp()
model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

def measure():
    import layerfreq
    found = [layerfreq.spectrum(features, targets, [0.01, 0.1])]
    found.append(layerfreq.spectrum(features[:500], targets[:500], [0.01, 0.1], engine="blocked"))
    found.append(layerfreq.layer_spectra(model, features, targets, inv_delta=[0.01, 0.1])["1"])
    return torch.tensor(found[0].lfr.tolist() + found[1].lfr.tolist() + found[2].lfr.tolist())

expected = None if first else measure()
if not os.fork():
    signal.alarm(40)
    found = measure()
    assert first or torch.allclose(found, expected, rtol=1e-4), (found, expected)
    assert torch.get_num_threads() == 2
    os._exit(0)
os._exit(os.wait()[1] != 0)
"""


@pytest.mark.parametrize("first", [[], ["first to import"]], ids=["parent imports", "child imports"])
def test_a_forked_process_measures_where_the_parent_used_openmp(first):
    """PyTorch's own operations wait forever there, unless they are kept to one thread."""
    done = subprocess.run([sys.executable, "-c", PARENT, *first], timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_fork_is_noticed():
    assert in_a_fork(forked)


@pytest.mark.parametrize("whose", ["another thread's", "own"])
def test_locks_and_settings_of_other_threads_are_not_taken_along(whose):
    lock, now = Lock(), ["before"]
    flag = Flag(lambda: now[0], lambda value: now.__setitem__(0, value))
    inside, over = threading.Event(), threading.Event()

    def hold():
        with lock.here, flag.at("meanwhile"):
            inside.set()
            over.wait(60)

    def check():
        with lock.here, flag.at("again"):
            at_work = now[0]
        return (at_work, now[0]) == (("again", "before") if other else ("meanwhile", "meanwhile"))

    other = whose != "own"
    if other:
        holder = threading.Thread(target=hold)
        holder.start()
        assert inside.wait(20)
        found = in_a_fork(check)
        over.set()
        holder.join()
    else:
        with lock.here, flag.at("meanwhile"):
            found = in_a_fork(check)
    assert found
    assert now == ["before"]
