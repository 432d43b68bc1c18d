"""The driver's side of cluster executors, over the loopback: what is sent, what a death costs."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from nums_core import config
from nums_core.errors import ConfigError, WorkerLostError
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch

CHUNKS = ((500,) * 4,)


@pytest.fixture
def executor():
    made = LoopbackExecutor(2)
    yield made
    made.close()


def plus(executor, n=1, **kw):
    """A plan that adds 1 to an array, `n` times."""
    s = Sketch()
    v = s.view(0, CHUNKS)
    for _ in range(n):
        v = s.apply("add", v, 1.0)
    return s.plan(executor.cluster, [v], **kw)


def plus_held(executor, held):
    s = Sketch()
    return s.plan(executor.cluster, [s.apply("add", s.held(0, CHUNKS, home=held.home), 1.0)])


def steps(executor):
    return sum(method == "step" for _, method in executor.calls)


def test_one_call_a_worker_where_nothing_crosses(executor):
    plan, outputs = plus(executor, 6)
    (got,), _ = executor.run(plan, [np.zeros(2000)], outputs)
    np.testing.assert_array_equal(got, np.full(2000, 6.0))
    assert steps(executor) == 2


def test_calls_grow_with_phases_not_with_tasks(executor):
    plan, outputs = plus(executor, 6, place="turned")
    executor.run(plan, [np.zeros(2000)], outputs)
    assert steps(executor) == 12  # six phases on two workers, whatever the number of blocks


def test_a_part_is_sent_once(executor, monkeypatch):
    from nums_core.runtime.executors import calls

    sent = []
    header = calls.Header
    monkeypatch.setattr(calls, "Header", lambda *a: sent.append(a[1] is not None) or header(*a))
    plan, outputs = plus(executor)
    for _ in range(3):
        executor.run(plan, [np.zeros(2000)], outputs)
    assert sent == [True, True, False, False, False, False]


def test_a_dead_worker_is_replaced_and_the_run_repeated(executor):
    plan, outputs = plus(executor, 4, place="turned")
    for w in range(2):
        executor.kill.add(w)
        (got,), _ = executor.run(plan, [np.zeros(2000)], outputs)
        np.testing.assert_array_equal(got, np.full(2000, 4.0))
    assert executor.generation == [1, 1]


def test_kept_blocks_without_a_history_are_lost_and_said_so(executor):
    plan, outputs = plus(executor, keep=True)
    with config.set(lineage_depth=0):
        (held,), _ = executor.run(plan, [np.zeros(2000)], outputs)
    again, wanted = plus_held(executor, held)
    executor.kill.add(1)
    for use in (lambda: executor.run(again, [held], wanted), lambda: executor.fetch(held)):
        with pytest.raises(WorkerLostError, match="Compute that array again"):
            use()
    (fresh,), _ = executor.run(plan, [np.zeros(2000)], outputs)
    np.testing.assert_array_equal(executor.run(again, [fresh], wanted)[0][0], np.full(2000, 2.0))


def test_a_worker_that_dies_each_time_is_given_up(executor, monkeypatch):
    plan, outputs = plus(executor)
    revive = executor._revive
    monkeypatch.setattr(executor, "_revive", lambda w: (revive(w), executor.kill.add(w)))
    executor.kill.add(0)
    with pytest.raises(WorkerLostError, match="tried 3 times"):
        executor.run(plan, [np.zeros(2000)], outputs)


def test_plans_and_their_parts_are_freed(executor):
    plan, outputs = plus(executor)
    executor.run(plan, [np.zeros(2000)], outputs)
    gone = weakref.ref(plan)
    assert executor.hosts[0].parts
    del plan
    gc.collect()
    assert gone() is None
    for _ in range(100):
        if not executor.hosts[0].parts:
            return
        time.sleep(0.02)
    raise AssertionError("a worker still has its part of a plan that is gone")


def test_kept_blocks_of_another_executor_are_taken_over(executor):
    local = LocalExecutor(1, 2**30)
    plan, outputs = plus(local, keep=True)
    (held,), _ = local.run(plan, [np.zeros(2000)], outputs)
    again, outputs = plus_held(executor, held)
    np.testing.assert_array_equal(executor.run(again, [held], outputs)[0][0], np.full(2000, 2.0))
    assert np.concatenate(executor.fetch(held)).sum() == 2000


def test_an_array_that_was_donated_cannot_be_used_again(executor):
    plan, outputs = plus(executor, keep=True)
    (held,), _ = executor.run(plan, [np.zeros(2000)], outputs)
    again, wanted = plus_held(executor, held)
    executor.run(again, [held], wanted, frozenset({0}))
    with pytest.raises(ConfigError, match="donated"):
        executor.run(again, [held], wanted)


def test_closed(executor):
    plan, outputs = plus(executor)
    executor.close()
    executor.close()
    with pytest.raises(ConfigError, match=r"nums_core\.init"):
        executor.run(plan, [np.zeros(2000)], outputs)
