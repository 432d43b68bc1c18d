"""The progress bar: silent unless it is wanted, and gone at the end."""

from __future__ import annotations

import io

import pytest

from nums_core import config
from nums_core.runtime import progress
from nums_core.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def run(stream, clock, seconds=5.0, steps=50):
    bar = Progress(1.0, 1000, stream)
    for _ in range(steps):
        clock[0] += seconds / steps
        bar.step(1.0 / steps)
    shown = stream.getvalue()
    bar.close()
    return shown


@pytest.mark.parametrize(("mode", "stream", "shows"), [
    ("auto", Terminal, True), ("auto", io.StringIO, False), ("on", io.StringIO, True), ("off", Terminal, False)])
def test_where_it_shows(clock, mode, stream, shows):
    with config.set(progress=mode):
        assert bool(run(stream(), clock)) == shows


def test_short_runs_show_nothing(clock):
    assert run(Terminal(), clock, seconds=0.9) == ""


def test_what_it_says(clock):
    stream = Terminal()
    shown = run(stream, clock, steps=10)
    last = shown.split("\r")[-1]
    assert "100 %" in last and "1000 tasks" in last and "[" + "#" * 30 + "]" in last
    assert stream.getvalue().endswith("\r" + " " * 79 + "\r")


def test_more_done_than_was_estimated(clock):
    bar = Progress(1.0, 10, stream := Terminal())
    clock[0] = 3.0
    bar.step(7.0)
    assert "100 %" in stream.getvalue()


def test_no_work_at_all(clock):
    bar = Progress(0.0, 0, stream := Terminal())
    clock[0] = 3.0
    bar.step(0.0)
    bar.close()
    assert "nan" not in stream.getvalue() and "inf" not in stream.getvalue()
