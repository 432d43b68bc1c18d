"""Plan once, run many: the plan cache, jit, donated and persisted blocks, and where arrays are computed."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core import config, session
from nums_core.errors import ConfigError, ImplicitComputeError, KernelError
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.testing.oracle import check

X = np.random.default_rng(0).normal(size=(40, 6))


@pytest.fixture(autouse=True)
def fresh():
    """A session of its own for each test."""
    with session.use(LocalExecutor(threads=2)) as mine:
        yield mine


# -- the plan cache ---------------------------------------------------------------------------------------------------

def step(data, chunks=7):
    x = nc.from_array(data, chunks=(chunks, 6))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def test_the_second_run_makes_no_plan(fresh):
    first = step(X).compute()
    assert (fresh.plans_made, fresh.last_report.plan_reused) == (1, False)
    other = step(X[::-1].copy()).compute()
    assert (fresh.plans_made, fresh.last_report.plan_reused) == (1, True)
    assert fresh.last_report.optimise_s == 0
    np.testing.assert_allclose(other, first[::-1])


@pytest.mark.parametrize("change", [lambda: step(X, 9), lambda: step(X.astype("f4")), lambda: step(X[:-1]), lambda: step(X) + 1])
def test_other_structures_are_planned_anew(fresh, change):
    step(X).compute()
    change().compute()
    assert fresh.plans_made == 2


def test_settings_that_change_plans_are_part_of_the_key(fresh):
    step(X).compute()
    for setting in ({"policy": "owner"}, {"layout": "cyclic"}, {"reduction_order": "local"}, {"seed": 1}):
        made = fresh.plans_made
        with config.set(**setting):
            step(X).compute()
            assert fresh.plans_made == made + 1
    step(X).compute()
    assert fresh.last_report.plan_reused


def test_the_cache_is_bounded(fresh):
    with config.set(plan_cache_size=3):
        for k in range(6):
            (nc.from_array(X) + k).compute()
    assert len(fresh.plans) == 3
    (nc.from_array(X) + 5).compute()
    assert fresh.last_report.plan_reused
    (nc.from_array(X) + 0).compute()
    assert not fresh.last_report.plan_reused


def test_a_loop_over_persisted_arrays_plans_once(fresh):
    x = nc.from_array(X, chunks=(7, 6)).persist()
    beta = nc.zeros(6).persist()
    plans = []
    for _ in range(4):
        beta = (beta + x.T @ (1 - x @ beta) * 1e-3).persist()
        plans.append(fresh.plans_made)
    assert plans[1] == plans[-1]


# -- several arrays ---------------------------------------------------------------------------------------------------

def test_several_arrays_share_one_plan(fresh):
    x = nc.from_array(X, chunks=(7, 6))
    shared = nc.exp(x)
    total, top, whole = nc.compute(shared.sum(), shared.max(axis=0), shared)
    assert fresh.plans_made == 1
    np.testing.assert_allclose(total, np.exp(X).sum())
    np.testing.assert_array_equal(top, np.exp(X).max(axis=0))
    np.testing.assert_array_equal(whole, np.exp(X))
    names = [f.label for f in nc.explain(shared.sum(), shared.max(axis=0), shared).graph.families]
    assert sum("exp" in n for n in names) == 1


def test_the_same_array_twice():
    x = nc.from_array(X, chunks=(7, 6)) + 1
    a, b = nc.compute(x, x)
    assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, b)


class Pair(NamedTuple):
    first: object
    second: object


def test_nested_arguments():
    x = nc.from_array(X)
    made = nc.compute({"a": [x, 3], "b": (x.sum(), "text")}, Pair(x[0], None))
    np.testing.assert_array_equal(made[0]["a"][0], X)
    assert made[0]["a"][1] == 3
    assert made[0]["b"][1] == "text"
    assert isinstance(made[1], Pair)
    np.testing.assert_array_equal(made[1].first, X[0])
    assert nc.compute() == ()
    assert nc.compute(1, "a") == (1, "a")


def test_results_are_the_users_own():
    data = X.copy()
    x = nc.from_array(data)
    for lazy in (x, x[1:], x.T, x.persist(), nc.broadcast_to(x[0], (3, 6))):
        values = lazy.compute()
        values[...] = 7
        assert not np.shares_memory(values, data)
    np.testing.assert_array_equal(data, X)


# -- persist ----------------------------------------------------------------------------------------------------------

def counting():
    calls = []

    def f(b):
        calls.append(1)
        return b + 1
    return f, calls


def test_persisted_blocks_are_not_computed_again():
    f, calls = counting()
    x = nc.map_blocks(f, nc.from_array(X, chunks=(10, 6)), dtype=float)
    kept = x.persist()
    assert len(calls) == 4
    check(kept.sum(axis=0), (X + 1).sum(axis=0), rtol=1e-12)
    check(kept[3:5], (X + 1)[3:5])
    assert len(calls) == 4
    assert kept.chunks == x.chunks


def test_several_persisted_in_one_run(fresh):
    x = nc.from_array(X, chunks=(10, 6))
    a, (b, c) = nc.persist(x + 1, [x * 2, 5])
    assert (fresh.plans_made, c) == (1, 5)
    check(a, X + 1)
    check(b, X * 2)


def test_extents_that_depend_on_data_are_measured():
    x = nc.from_array(np.arange(10), chunks=4)
    kept = x[x % 3 == 0].persist()
    assert kept.chunks == ((2, 1, 1),)
    check(kept, [0, 3, 6, 9])


# -- jit --------------------------------------------------------------------------------------------------------------

def test_jit_traces_once_for_each_signature(fresh):
    traced = []

    @nc.jit
    def f(x, y, k):
        """Doc."""
        traced.append(k)
        return x * k + y, {"sum": x.sum(), "k": k}

    a = nc.from_array(X, chunks=(7, 6))
    for k in (2, 2, 2):
        made, more = f(a, a + 1, k)
        check(made, X * 2 + (X + 1))
        assert more["k"] == 2
        check(more["sum"], X.sum(), rtol=1e-12)
    assert traced == [2]
    assert fresh.last_report is not None
    f(a, a, 2)  # the same array twice is another signature
    f(a, a + 1, 3)
    f(a, a + 1, 2.0)
    f(nc.from_array(X, chunks=(9, 6)), a + 1, 2)
    assert len(traced) == 5
    assert (f.__name__, f.__doc__) == ("f", "Doc.")


def test_jit_replays_with_new_data(fresh):
    @nc.jit
    def centred(x):
        return x - x.mean(axis=0)
    for k in range(3):
        data = X * k
        check(centred(nc.from_array(data, chunks=(7, 6))), data - data.mean(axis=0), rtol=1e-12)
    assert fresh.last_report.plan_reused


def test_jit_tells_signed_zeros_apart():
    @nc.jit
    def f(x, k):
        return nc.copysign(x, k)
    x = nc.ones(2)
    check(f(x, 0.0), [1.0, 1.0])
    check(f(x, -0.0), [-1.0, -1.0])


def test_jit_keeps_named_tuples_and_constants():
    weights = nc.from_array(np.arange(6.0))

    @nc.jit
    def f(x):
        return Pair(x * weights, x)
    made = f(nc.from_array(X, chunks=(7, 6)))
    assert isinstance(made, Pair)
    check(made.first, X * np.arange(6.0))


def test_jit_refuses_what_cannot_be_a_key():
    with pytest.raises(TypeError, match=r"asarray\(x\)"):
        nc.jit(lambda x, k: x + k)(nc.ones(3), np.ones(3))


def test_jit_in_another_session():
    f = nc.jit(lambda x: x + 1)
    check(f(nc.ones(3)), np.full(3, 2.0))
    with session.use(LocalExecutor(threads=1)):
        check(f(nc.ones(3)), np.full(3, 2.0))


def test_donated_blocks_are_overwritten_in_place():
    @nc.jit(donate=[0])
    def step(x, g):
        return x - 0.5 * g
    x = nc.from_array(X, chunks=(10, 6)).persist()
    g = nc.from_array(np.ones_like(X), chunks=(10, 6)).persist()
    before = x.expr.params[0].data.refs[:]
    after = step(x, g)
    assert all(a is b for a, b in zip(after.expr.params[0].data.refs, before, strict=True))
    check(after, X - 0.5)
    again = step(after, g)
    assert all(a is b for a, b in zip(again.expr.params[0].data.refs, before, strict=True))
    check(again, X - 0.5 - 0.5)


def test_blocks_that_are_read_again_are_not_overwritten():
    f = nc.jit(lambda x: (x + 1, x.sum(axis=0)), donate=[0])
    x = nc.from_array(X, chunks=(10, 6)).persist()
    moved, total = f(x)
    check(moved, X + 1)
    check(total, X.sum(axis=0), rtol=1e-12)


def test_undonated_blocks_stay():
    f = nc.jit(lambda x: x + 1)
    x = nc.from_array(X, chunks=(10, 6)).persist()
    check(f(x), X + 1)
    check(x, X)


# -- explaining and reporting -----------------------------------------------------------------------------------------

def test_explain_says_what_will_run(fresh):
    x = nc.from_array(X, chunks=(10, 6))
    plan = (x @ x.T).sum(axis=0).explain()
    text = str(plan)
    for part in ("Plan:", "tasks", "contract", "flop", "peak", __file__.rsplit("/", 1)[-1]):
        assert part in text
    assert fresh.last_report is None, "explaining runs nothing"
    (x @ x.T).sum(axis=0).compute()
    assert fresh.last_report.plan_reused


def test_the_report_of_the_last_run():
    (nc.from_array(X, chunks=(10, 6)) * 2).sum().compute()
    report = nc.last_report()
    assert report.n_tasks >= 1
    assert report.run_s > 0
    assert "tasks" in str(report)


def test_a_failed_run_leaves_a_usable_session():
    def fails(b):
        raise ZeroDivisionError("on purpose")
    bad = nc.map_blocks(fails, nc.from_array(X, chunks=(10, 6)), dtype=float)
    with pytest.raises(ZeroDivisionError, match=r"on purpose(.|\n)*test_session.py:\d+") as caught:
        bad.compute()
    assert isinstance(caught.value, KernelError)
    check(nc.ones(3), np.ones(3))


def test_runs_from_several_threads():
    results = {}

    def run(k):
        results[k] = [(nc.from_array(X, chunks=(10, 6)) * k).sum().compute() for _ in range(5)]
    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in range(4):
        np.testing.assert_allclose(results[k], [X.sum() * k] * 5)


# -- computing unasked ------------------------------------------------------------------------------------------------

def test_nothing_is_computed_unasked(fresh):
    with config.set(implicit_compute=False):
        x = nc.from_array(X, chunks=(10, 6))
        y = ((x - x.mean(axis=0)) @ x.T)[:5].T
        assert y.shape == (40, 5)
        repr(y)
        y._repr_html_()
        with pytest.raises(ImplicitComputeError, match=r"\.compute\(\)"):
            bool(y.max() > 0)
        unknown = x[x[:, 0] > 0]
        with pytest.raises(ImplicitComputeError, match=r"\.persist\(\)"):
            unknown.shape  # noqa: B018
        assert fresh.plans_made == 0
        assert unknown.persist().shape == X[X[:, 0] > 0].shape


# -- where to compute -------------------------------------------------------------------------------------------------

def test_init_and_shutdown():
    with nums_core.init(threads=1, memory="1GiB") as mine:
        assert session.current() is mine
        assert (mine.executor.threads, mine.executor.memory_bytes) == (1, 2**30)
        check(nc.ones(3), np.ones(3))
    assert session.current() is not mine
    nums_core.shutdown()
    nums_core.shutdown()
    check(nc.ones(3), np.ones(3))


def test_init_takes_one_place():
    with pytest.raises(ConfigError, match="name one place"):
        nums_core.init(ray=True, executor=LocalExecutor(1))


def test_a_session_starts_when_it_is_needed():
    nums_core.shutdown()
    with config.set(threads=1):
        assert session.current().executor.threads == 1
    assert session.current() is session.current()
    nums_core.shutdown()
