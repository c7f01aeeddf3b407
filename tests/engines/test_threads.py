"""Parts of the work on several threads: as `map` gives them, whoever calls, and whatever goes wrong."""

import gc
import linecache
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from layerfreq.engines import threads as module
from layerfreq.engines.threads import every_two, in_turn, scratch, threads


def chosen(monkeypatch, pytorchs):
    """From now on these threads are PyTorch's, or not."""
    monkeypatch.setattr(module, "_apart", lambda count: pytorchs)
    module._kept.__dict__.pop("choice", None)


@pytest.fixture(params=["as installed", "new"])
def some(request, monkeypatch):
    """The threads of PyTorch, where they can be had, and others."""
    chosen(monkeypatch, request.param == "as installed")
    return request.param


def squares(items, count=3):
    with threads(count) as run:
        return list(run(lambda x: x * x, items))


def test_results_come_in_order(some):
    assert squares(range(50)) == [x * x for x in range(50)]
    assert squares([]) == []
    assert squares(iter([3])) == [9]


def test_each_thread_has_its_own_room(some):
    """Those that work at once write nowhere else."""
    together = threading.Barrier(3, timeout=20)

    def work(number):
        room = scratch(1, 100, np.float64)
        together.wait()
        room[:] = number
        together.wait()
        return room.ctypes.data, float(room.sum())

    for _ in range(3):  # again in the rooms of the first time
        with threads(3) as run:
            found = list(run(work, range(3)))
        assert len({place for place, _ in found}) == 3
        assert [total for _, total in found] == [0, 100, 200]


def test_an_error_ends_the_work_and_is_raised(some):
    def fail(number):
        if number == 2:
            raise KeyError("two")
        return number

    with threads(2) as run, pytest.raises(KeyError, match="two"):
        list(run(fail, range(5)))
    assert squares([4]) == [16]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("many", [1, 2, 4, 10])
def test_every_two_blocks_meet_once_alone_and_in_order(some, many, count):
    """So that what is added up in a block is the same to the last bit, whichever thread is faster."""
    pairs, at_work, found = every_two(many), set(), {block: [] for block in range(many)}
    assert sorted(tuple(sorted(pair)) for pair in pairs) == [(i, j) for i in range(many) for j in range(i, many)]

    def meet(pair):
        assert not at_work & set(pair)
        at_work.update(pair)
        time.sleep(random.random() / 2000)
        for block in set(pair):
            found[block].append(pair)
        at_work.difference_update(pair)

    random = np.random.default_rng(many * count)
    for _ in range(3):
        with threads(count) as run:
            in_turn(meet, pairs, run)
        assert found == {block: [pair for pair in pairs if block in pair] for block in range(many)}
        found = {block: [] for block in range(many)}


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("pair", [(0, 0), (0, 3), (3, 1)])
def test_an_error_in_one_meeting_ends_all(some, kind, pair):
    def meet(two):
        time.sleep(0.001)
        if two == pair:
            raise kind

    with threads(3) as run, pytest.raises(kind):
        in_turn(meet, every_two(4), run)
    assert squares(range(5)) == [0, 1, 4, 9, 16]


def test_an_interrupt_gets_through(some):
    def interrupt(number):
        raise KeyboardInterrupt

    with threads(2) as run, pytest.raises(KeyboardInterrupt):
        list(run(interrupt, range(2)))


def interrupted_at(position, work):
    """Interrupt a function before one of the lines that this thread does in the module; whether it got so far."""
    passed = 0

    def trace(frame, event, _):
        nonlocal passed
        if frame.f_code.co_filename != module.__file__:
            return None
        # At the end of a `with` this is a line again, but no signal comes between it and the exit.
        line = linecache.getline(module.__file__, frame.f_lineno).strip()
        passed += event in ("call", "line") and not line.startswith("with ")
        if passed > position:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return passed > position  # else the interrupt is lost


@pytest.mark.parametrize("kind", ["map", "in turn"])
def test_an_interrupt_before_any_line_stops_all_threads(some, kind):
    """Nothing is called any more when it is raised, and the next result is right."""
    at_work, called, random = set(), [], np.random.default_rng(0)

    def one(item):
        at_work.add(item)
        called.append(item)
        time.sleep(random.random() / 4000)
        at_work.discard(item)

    def work():
        with threads(3) as run:
            list(run(one, range(8))) if kind == "map" else in_turn(one, every_two(4), run)

    position = 0
    while interrupted_at(position, work):
        found, busy = len(called), set(at_work)
        time.sleep(0.0005)
        assert not busy
        assert len(called) == found
        assert not module._limit._users
        called.clear()
        assert squares(range(5)) == [0, 1, 4, 9, 16]
        position += 1
    assert position > 40


@pytest.mark.parametrize("whose", ["as installed", "new"])
def test_no_signal_is_lost_whenever_it_comes(monkeypatch, whose):
    """Also one that comes between the call of the threads and the first line that they do."""
    if whose != "new" and (module._openmp() is None or module.forked()):
        pytest.skip("no OpenMP threads here")
    chosen(monkeypatch, whose != "new")

    class StopError(Exception):
        pass

    def stop(*_):
        raise StopError

    def count(_):
        calls.append(None)

    def busy():
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-3))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with threads(2) as run:
                list(run(count, range(6)))

    calls, lost, random = [], [], np.random.default_rng(0)
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    before = signal.signal(signal.SIGALRM, stop)
    gc.disable()  # what a signal raises in a finalizer, of whatever ran before, is lost to everybody
    try:
        for _ in range(200):
            with pytest.raises(StopError):
                busy()
            found = len(calls)
            time.sleep(0.0002)
            assert len(calls) == found
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not lost
    assert not module._limit._users


def test_work_within_work_and_from_several_threads_is_done(some):
    found = {}

    def nested(number):
        return sum(squares(range(number), 2))

    def outside(name):
        with threads(2) as run:
            found[name] = list(run(nested, range(6)))

    callers = [threading.Thread(target=outside, args=(name,), daemon=True) for name in range(3)]
    for one in callers:
        one.start()
    for one in callers:
        one.join(60)
    assert found == {name: [0, 0, 1, 5, 14, 30] for name in range(3)}


def test_what_overflows_is_no_warning(some, recwarn):
    with threads(2) as run:
        list(run(lambda x: np.float32(x) * np.float32(1e38), [1e5, 1e6]))
    assert not recwarn.list


def _child(queue):
    queue.put((os.getpid(), squares(range(4), 2)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    """OpenMP's threads stay behind where a process is forked."""
    chosen(monkeypatch, True)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    assert squares(range(4), 2) == [0, 1, 4, 9]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    assert queue.get(timeout=60)[1] == [0, 1, 4, 9]
    process.join(20)
    assert process.exitcode == 0


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_that_imports_the_first_has_threads_too():
    """The parent used OpenMP's threads and never heard of this library."""
    script = """
import os, signal, torch
torch.set_num_threads(2)
torch.randn(1000000).exp()
if not os.fork():
    signal.alarm(40)
    from layerfreq.engines import threads as module
    module._apart = lambda count: True
    with module.threads(2) as run:
        os._exit(list(run(abs, range(4))) != [0, 1, 2, 3])
os._exit(os.wait()[1] != 0)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@pytest.mark.skipif(module._openmp() is None, reason="PyTorch has no OpenMP threads here")
def test_the_threads_are_those_of_pytorch(monkeypatch):
    """No thread is started beside those that PyTorch's own operations have."""
    chosen(monkeypatch, True)
    count = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    torch.set_num_threads(count)
    before = {os.path.basename(one) for one in os.listdir("/proc/self/task")}

    def who(number):
        time.sleep(0.05)
        return threading.get_native_id()

    with threads(2) as run:
        found = set(run(who, range(4)))
    assert len(found) == 2
    assert {str(one) for one in found} <= before


@pytest.mark.skipif(module._openmp() is None, reason="PyTorch has no OpenMP threads here")
@pytest.mark.parametrize(
    ("others", "state", "core", "taken"),
    [(0, "S", 1, False), (0, "R", 1, True), (0, "R", 0, False), (1, "S", 1, False), (1, "R", 1, False)],
)
def test_threads_are_taken_where_they_are_awake_and_alone(monkeypatch, others, state, core, taken):
    """To wake them takes as long as to wake others; beside others, or on one core, they would wait for each other."""
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module, "_team", lambda: {7})
    me = threading.get_native_id()
    states = {
        "/proc/loadavg": f"0 0 0 {1 + others + (state == 'R')}/99 7",
        f"/proc/self/task/{me}/stat": f"{me} (python) R {'0 ' * 35}0 0",
        "/proc/self/task/7/stat": f"7 (a) b) {state} {'0 ' * 35}{core} 0",
    }
    monkeypatch.setattr(module.Path, "read_text", lambda path: states[str(path)])
    assert module._apart(2) is taken


@pytest.mark.skipif(module._openmp() is None, reason="PyTorch has no OpenMP threads here")
def test_one_measurement_stays_with_its_threads(monkeypatch):
    """To change costs more than to stay; only a change of their number, or some time, brings the question again."""
    asked, clock = [], [1.0]
    chosen(monkeypatch, True)
    monkeypatch.setattr(module, "_apart", lambda count: bool(asked.append(count)) or len(asked) % 2 == 1)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    for count, at in ((2, 0.0), (2, 0.09), (3, 0.09), (3, 0.18), (3, 0.2)):
        clock[0] = 1 + at
        assert squares(range(9), count) == [x * x for x in range(9)]
    assert asked == [2, 3, 3]
