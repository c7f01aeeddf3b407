"""The line about long measurements: what it says when, and where it is not."""

import io
from contextlib import redirect_stderr

import pytest
import torch
from torch import nn

from layerfreq import Monitor, layer_spectra, progress
from layerfreq.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(Terminal):
    def write(self, text):
        raise OSError(5, "gone")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def watch(stream, seconds, work, **options):
    """Go through layers, before each of which it is so many seconds, with standard error at a stream."""
    now = iter([0.0, *seconds])
    with redirect_stderr(stream), Progress(work, clock=lambda: next(now), **options) as line:
        for name in work:
            line.layer(name)


def test_a_quick_measurement_says_nothing(terminal):
    watch(terminal, [0.1, 0.2, 0.3], dict.fromkeys("abc", 1.0))
    assert terminal.getvalue() == ""


def test_a_long_one_says_where_it_is_and_what_is_left_by_the_work_that_is_done(terminal):
    """Work of 1, 3 and 4: after 2 s an eighth is done, so that 14 s are left; after 8 s half of it, so that 8 s are."""
    watch(terminal, [0.0, 2.0, 8.0], {"a": 1.0, "b": 3.0, "c": 4.0})
    lines = terminal.getvalue().split("\r")
    assert lines[1] == "layerfreq: layer 2 of 3, about 14 s left (b)"
    assert lines[2].rstrip() == "layerfreq: layer 3 of 3, about 8 s left (c)"
    assert lines[3].strip() == lines[4] == ""  # taken back
    assert len(lines[3]) >= len(lines[2].rstrip())


def test_before_anything_is_done_there_is_no_estimate(terminal):
    watch(terminal, [5.0], {"a": 1.0})
    assert "layer 1 of 1 (a)" in terminal.getvalue()


def test_a_longer_line_is_wiped_by_a_shorter_one_and_none_is_wider_than_the_terminal(terminal):
    watch(terminal, [2.0, 4.0, 6.0], {"a": 1.0, "long" * 40: 1.0, "c": 1.0})
    _, _, second, third, *_ = terminal.getvalue().split("\r")
    assert len(second) == len(third) == 79


@pytest.mark.parametrize(("seconds", "said"), [(0.1, "1 s"), (89.0, "89 s"), (200.0, "3 min"), (7200.0, "2.0 h")])
def test_times_as_people_say_them(seconds, said):
    assert progress._spoken(seconds) == said


@pytest.mark.parametrize("stream", [io.StringIO(), None, Gone()], ids=["a file", "none", "a terminal that is gone"])
def test_where_nobody_looks_nothing_is_written_and_nothing_fails(stream):
    watch(stream, [2.0, 4.0], dict.fromkeys("ab", 1.0))
    assert stream is None or stream.getvalue() == ""


def test_not_into_another_progress_bar():
    from rich.console import Console
    from rich.file_proxy import FileProxy

    stream = Terminal()
    watch(FileProxy(Console(file=stream, force_terminal=True), stream), [2.0, 4.0], dict.fromkeys("ab", 1.0))
    assert stream.getvalue() == ""


def test_not_where_another_one_is_told(terminal):
    watch(terminal, [2.0, 4.0], dict.fromkeys("ab", 1.0), shown=False)
    assert terminal.getvalue() == ""


def test_a_measurement_tells_its_layers_on_a_terminal_and_nowhere_else(monkeypatch, terminal):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(20, 3)
    monkeypatch.setattr(progress, "AFTER", 0.0)
    for stream, told in ((terminal, True), (io.StringIO(), False)):
        with redirect_stderr(stream):
            found = layer_spectra(model, x, (x[:, 0] > 0).long(), inv_delta=[1.0, 2.0], engine="reference")
        assert ("layer 2 of 2" in stream.getvalue()) == told
        assert list(found) == ["1", "3"]
    seen = []
    with redirect_stderr(terminal), Monitor(model, x, x[:, 0], inv_delta=[1.0, 2.0], engine="reference") as monitor:
        before = terminal.getvalue()
        monitor.on_layer = seen.append
        monitor.measure(0)
    assert seen == ["1", "3"]
    assert terminal.getvalue() == before  # whoever listens shows it in a way of their own
