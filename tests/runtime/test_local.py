"""The local executor beyond the conformance suite: threads, memory, interrupts."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

from nums_core import config
from nums_core.errors import KernelError, MemoryBudgetError, SpillError
from nums_core.runtime import store as store_module
from nums_core.runtime.executors.local import LocalExecutor, default_memory_bytes, from_config
from nums_core.runtime.store import Spilled
from nums_core.testing.sketch import Sketch

MIB = 2**20


def slow(block):
    time.sleep(0.02)
    return block + 1


def chain(executor, n, blocks=4, elements=1000, function=None, **kw):
    s = Sketch()
    v = s.view(0, ((elements,) * blocks,))
    for _ in range(n):
        v = s.apply("add", v, 1.0) if function is None else s.call(function, v)
    return s.plan(executor.cluster, [v], **kw)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupted_run_leaves_the_executor_usable(threads):
    executor = LocalExecutor(threads, 2**30)
    plan, outputs = chain(executor, 20, 8, function=slow)
    before = threading.active_count()
    began = time.perf_counter()
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        executor.run(plan, [np.zeros(8000)], outputs)
    assert time.perf_counter() - began < 160 * 0.02 / threads
    plan, outputs = chain(executor, 2, 8, function=slow)
    np.testing.assert_array_equal(executor.run(plan, [np.zeros(8000)], outputs)[0][0], np.full(8000, 2.0))
    executor.close()
    time.sleep(0.05)
    assert threading.active_count() <= before + threads


def test_no_segment_runs_on_after_a_failure():
    ran = []

    def record(block):
        ran.append(1)
        time.sleep(0.01)
        if block[0] == 3:
            raise ValueError("three")
        return block + 1

    executor = LocalExecutor(3, 2**30)
    plan, outputs = chain(executor, 30, 6, function=record)
    with pytest.raises(KernelError, match="three"):
        executor.run(plan, [np.zeros(6000)], outputs)
    n = len(ran)
    time.sleep(0.1)
    assert len(ran) == n < 180
    executor.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_given_back_as_blocks_die(threads):
    """A chain over 32 blocks of 1 MiB in depth-first order: a few blocks are alive at once, not 32 x 10."""
    executor = LocalExecutor(threads, 2**30)
    s = Sketch()
    v = s.view(0, ((MIB // 8,) * 32,))
    for _ in range(10):
        v = s.call(np.negative, v)
    total = s.reduce("sum", v, (0,))
    depth_first = np.concatenate([np.arange(32 * 12).reshape(12, 32).T.reshape(-1), [32 * 12]])
    plan, outputs = s.plan(executor.cluster, [total], order=depth_first)
    x = np.ones(32 * MIB // 8)
    executor.run(plan, [x], outputs)
    tracemalloc.start()
    _, report = executor.run(plan, [x], outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    executor.close()
    assert peak < (2 + 3 * threads) * MIB * 1.2
    assert 2 * MIB <= report.peak_bytes[0] <= (2 + 3 * threads) * MIB * 1.2
    assert report.memory


def test_a_budget_holds_and_the_rest_is_spilled(tmp_path):
    """Every block is made before the first is used: 24 blocks of 1 MiB with room for 6."""
    executor = LocalExecutor(1, 6 * MIB)
    s = Sketch()
    v = s.call(np.negative, s.view(0, ((MIB // 8,) * 24,)))
    w = s.call(np.negative, v)
    plan, outputs = s.plan(executor.cluster, [s.reduce("sum", w, (0,))])
    x = np.random.default_rng(0).normal(size=24 * MIB // 8)
    with config.set(spill_dir=str(tmp_path)):
        executor.run(plan, [x], outputs)
        tracemalloc.start()
        (got,), report = executor.run(plan, [x], outputs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert got == executor.run(plan, [x], outputs)[0][0]
    assert report.spilled_bytes >= 17 * MIB and report.unspilled_bytes >= 17 * MIB
    assert report.peak_bytes[0] <= 6 * MIB and peak < 8 * MIB
    assert max(n for *_, n in report.memory) <= 6 * MIB
    assert not list(tmp_path.rglob("*.blk*"))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_disk(tmp_path, monkeypatch, threads):
    def full(*a):
        raise OSError(28, "No space left on device")

    executor = LocalExecutor(threads, 3 * MIB)
    plan, outputs = chain(executor, 2, 12, MIB // 8, function=slow)
    with config.set(spill_dir=str(tmp_path)), monkeypatch.context() as patch:
        patch.setattr(store_module, "_write", full)
        with pytest.raises(SpillError, match="spill_dir"):
            executor.run(plan, [np.zeros(12 * MIB // 8)], outputs)
        assert not list(tmp_path.rglob("*.blk*"))
    plan, outputs = chain(executor, 1, 2, function=slow)
    np.testing.assert_array_equal(executor.run(plan, [np.zeros(2000)], outputs)[0][0], np.ones(2000))
    executor.close()


def test_a_budget_that_is_too_small_is_refused_with_the_numbers():
    executor = LocalExecutor(1, 1000)
    plan, outputs = chain(executor, 1)
    with pytest.raises(MemoryBudgetError, match=r"7\.8 KiB, over the memory budget of 1000 B; use smaller chunks"):
        executor.run(plan, [np.zeros(4000)], outputs)


def test_kept_blocks_may_be_on_the_disk(tmp_path):
    executor = LocalExecutor(1, 3 * MIB)
    with config.set(spill_dir=str(tmp_path)):
        plan, outputs = chain(executor, 1, 12, MIB // 8, function=np.negative, keep=True)
        x = np.random.default_rng(0).normal(size=12 * MIB // 8)
        (held,), _ = executor.run(plan, [x], outputs)
        assert any(isinstance(r, Spilled) for r in held.refs) and held.nbytes == x.nbytes
        s = Sketch()
        again, outputs = s.plan(executor.cluster, [s.apply("negative", s.held(0, ((MIB // 8,) * 12,)))])
        (got,), report = executor.run(again, [held], outputs)
        np.testing.assert_array_equal(got, x)
        assert report.unspilled_bytes > 0
        np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), -x)
        del held
        gc.collect()
        assert not list(tmp_path.rglob("*.blk*"))


def test_kept_blocks_die_with_their_handle():
    executor = LocalExecutor(1, 2**30)
    plan, outputs = chain(executor, 1, keep=True)
    (held,), _ = executor.run(plan, [np.zeros(4000)], outputs)
    block = weakref.ref(held.refs[0])
    del held
    gc.collect()
    assert block() is None


def test_donated_blocks_are_written_in_place():
    executor = LocalExecutor(1, 2**30)
    plan, outputs = chain(executor, 1, keep=True)
    (held,), _ = executor.run(plan, [np.zeros(4000)], outputs)
    where = [r.ctypes.data for r in held.refs]
    s = Sketch()
    doubled = s.apply("multiply", s.held(0, ((1000,) * 4,)), 2.0)
    plan, outputs = s.plan(executor.cluster, [doubled], keep=True)
    (held,), _ = executor.run(plan, [held], outputs, frozenset({0}))
    assert [r.ctypes.data for r in held.refs] == where


def test_plans_are_let_go():
    executor = LocalExecutor(1, 2**30)
    plan, outputs = chain(executor, 1)
    executor.run(plan, [np.zeros(4000)], outputs)
    gone = weakref.ref(plan)
    del plan
    gc.collect()
    assert gone() is None


def test_a_kernel_may_compute_on_the_same_executor():
    """Helpers that wait for a free thread must not be waited for in turn."""
    executor = LocalExecutor(2, 2**30)
    inner, wanted = chain(executor, 2, 4, function=slow)

    def outer(block):
        return block + executor.run(inner, [np.zeros(4000)], wanted)[0][0][:len(block)]

    plan, outputs = chain(executor, 1, 4, function=outer)
    np.testing.assert_array_equal(executor.run(plan, [np.zeros(4000)], outputs)[0][0], np.full(4000, 2.0))
    executor.close()


def test_settings():
    with config.set(threads=3, memory_bytes="1GiB"):
        made = from_config()
    assert made.threads == made.cluster.workers[0].threads == 3 and made.memory_bytes == 2**30
    assert LocalExecutor().memory_bytes == default_memory_bytes() > 2**28
    made.close()
    made.close()
