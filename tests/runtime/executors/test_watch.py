"""Workers that are silent end in a replacement or a clear error; slow ones are named."""

from __future__ import annotations

import time

import numpy as np
import pytest

from nums_core import config
from nums_core.errors import KernelError, WorkerLostError
from nums_core.runtime import report as reports
from nums_core.runtime.executors.watch import Watch
from nums_core.runtime.remote import WorkerHost
from nums_core.runtime.report import Report, slow_workers
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch

CHUNKS = ((500,) * 6,)
X = np.arange(3000.0)


@pytest.fixture
def executor():
    made = LoopbackExecutor(3)
    with config.set(worker_timeout_s=0.1):
        yield made
    made.close()


def chain(executor, function=np.negative, **kw):
    s = Sketch()
    v = s.call(function, s.apply("add", s.view(0, CHUNKS), 1.0))
    return s.plan(executor.cluster, [v], place="turned", **kw)


def test_a_silent_worker_is_replaced_and_the_run_goes_on(executor):
    plan, outputs = chain(executor)
    executor.frozen.add(1)
    (got,), report = executor.run(plan, [X], outputs)
    np.testing.assert_array_equal(got, -(X + 1))
    assert executor.generation == [0, 1, 0] and report.interruptions == 1


def test_a_silent_worker_during_a_fetch(executor):
    plan, outputs = chain(executor, keep=True)
    (held,), _ = executor.run(plan, [X], outputs)
    executor.frozen.add(2)
    np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), -(X + 1))


def test_a_silent_worker_that_cannot_be_ended(executor, monkeypatch):
    plan, outputs = chain(executor)
    executor.frozen.add(1)
    monkeypatch.setattr(executor, "_end", lambda w: None)
    with pytest.raises(WorkerLostError, match=r"(?s)worker 1 on node 1 did not answer for .* raise worker_timeout_s"):
        executor.run(plan, [X], outputs)


def _bad(block):
    raise ValueError("bad block")


def test_a_cluster_that_says_nothing(executor, monkeypatch):
    plan, outputs = chain(executor)
    executor.frozen.add(1)
    monkeypatch.setattr(executor, "_silent", lambda *a: executor._ask(1, "ping"))
    with pytest.raises(WorkerLostError, match=r"(?s)the cluster did not answer for .* nums_core\.init"):
        executor.run(plan, [X], outputs)


def test_a_silent_worker_where_a_kernel_fails(executor):
    s = Sketch()
    v = s.view(0, CHUNKS)
    place = np.array([0] * 6 + [1] * 6 + [0] * 6)
    plan, outputs = s.plan(executor.cluster, [s.apply("add", v, 1.0), s.call(_bad, v)], place=place)
    executor.frozen.add(1)
    with pytest.raises(KernelError, match="bad block"):
        executor.run(plan, [X], outputs)


def test_zero_never_asks(executor, monkeypatch):
    monkeypatch.setattr(executor, "_silent", lambda *a: pytest.fail("nobody should be asked"))
    with config.set(worker_timeout_s=0):
        watch = Watch(executor)
    watch.due_s -= 100
    watch.look([0, 1])


def test_quick_runs_ask_nothing(executor, monkeypatch):
    monkeypatch.setattr(executor, "_silent", lambda *a: pytest.fail("nobody should be asked"))
    with config.set(worker_timeout_s=60):
        watch = Watch(executor)
        watch.look([0, 1])
        plan, outputs = chain(executor)
        executor.run(plan, [X], outputs)


# -- slow workers -----------------------------------------------------------------------------------------------------

def test_what_sets_one_worker_apart():
    predicted = dict.fromkeys(range(4), 1.0)
    assert slow_workers({0: 5.0, 1: 5.0, 2: 5.5, 3: 12.5}, predicted) == {3: 2.5}
    assert slow_workers({0: 5.0, 1: 5.0, 2: 5.5, 3: 9.0}, predicted) == {}
    assert slow_workers({0: 9.0, 1: 9.0}, predicted) == {}  # the model is off for all
    assert slow_workers({0: 0.01, 1: 0.01, 2: 0.09}, predicted) == {}  # too little to tell
    assert slow_workers({0: 3.0}, predicted) == {}
    assert slow_workers({0: 3.0, 1: 9.0}, {0: 1.0, 1: 3.0}) == {}  # three times the work


def test_a_report_names_slow_workers():
    assert "worker 3 took 2.5 times as long" in Report(slow_workers={3: 2.5}).text()


pause_s = [0.0]


def _paced(block):
    time.sleep(pause_s[0])
    return block


class _Slow(WorkerHost):
    def step(self, *args):
        pause_s[0] = 0.03
        try:
            return super().step(*args)
        finally:
            pause_s[0] = 0.005


def test_a_slow_machine_is_seen(executor, monkeypatch):
    monkeypatch.setattr(reports, "SLOW_S", 0.005)
    executor.hosts[2] = _Slow(2, 1, 2**30, {})
    pause_s[0] = 0.005
    plan, outputs = chain(executor, _paced)
    _, report = executor.run(plan, [X], outputs)
    assert set(report.slow_workers) == {2} and report.slow_workers[2] > 2
