"""Workers come and go between runs: plans of before stay right, persisted blocks stay where they are, or are made again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np_
from nums_core import session
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Output
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch

CHUNKS = ((500,) * 4,)
X = np.arange(2000.0)
ran: list[int] = []  # blocks that `doubled` made


def doubled(block):
    ran.append(len(block))
    return block * 2


class Changing(LoopbackExecutor):
    """Workers that join and leave when they are told to."""

    def __init__(self, workers=2):
        super().__init__(workers)
        self.due = []

    def refresh(self):
        while self.due:
            self.due.pop(0)()

    def _now(self, n):
        return Cluster.regular(n, memory_bytes=self.memory_bytes, kind="loopback")

    def join(self):
        self.hosts.append(self._host(-1))
        self.renumber(range(len(self.hosts) - 1), self._now(len(self.hosts)))

    def leave(self, worker):
        stay = [w for w in range(len(self.hosts)) if w != worker]
        self.hosts = [self.hosts[w] for w in stay]
        self.renumber(stay, self._now(len(stay)))


@pytest.fixture
def executor():
    made = Changing(3)
    yield made
    made.close()


def plus(executor, keep=False, place="turned"):
    s = Sketch()
    v = s.view(0, CHUNKS)
    for _ in range(3):
        v = s.apply("add", v, 1.0)
    return s.plan(executor.cluster, [v], keep=keep, place=place)


def plus_held(executor, held):
    s = Sketch()
    return s.plan(executor.cluster, [s.apply("add", s.held(0, CHUNKS, home=held.home), 1.0)])


def on(worker, families=3):
    """Everything on one worker."""
    return np.full(4 * (families + 1), worker)


def test_a_plan_of_before_runs_where_it_did_after_others_joined(executor):
    plan, outputs = plus(executor)
    executor.join()
    for _ in range(2):
        (got,), report = executor.run(plan, [X], outputs)
        np.testing.assert_array_equal(got, X + 3)
    assert {w for _, w, *_ in report.spans} == {0, 1, 2} and report.bytes_moved == plan.bytes_moved


def test_newcomers_report_under_their_number(executor):
    executor.join()
    executor.join()
    plan, outputs = plus(executor, place=on(4))
    (got,), report = executor.run(plan, [X], outputs)
    np.testing.assert_array_equal(got, X + 3)
    assert {w for _, w, *_ in report.spans} == {4} and len(report.peak_bytes) == 5


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_plan_of_before_runs_after_a_worker_left(executor, gone):
    plan, outputs = plus(executor)
    executor.run(plan, [X], outputs)  # workers know their parts, by numbers of before
    executor.leave(gone)
    for _ in range(2):
        (got,), report = executor.run(plan, [X], outputs)
        np.testing.assert_array_equal(got, X + 3)
    assert {w for _, w, *_ in report.spans} == {0, 1}


def test_numbers_change_more_than_once(executor):
    plan, outputs = plus(executor, place=on(2))
    executor.join()
    executor.leave(0)
    executor.join()
    executor.leave(0)
    (got,), report = executor.run(plan, [X], outputs)
    np.testing.assert_array_equal(got, X + 3)
    assert {w for _, w, *_ in report.spans} == {0}  # who was number 2 is number 0 now


def test_persisted_blocks_keep_their_home_when_others_join(executor):
    (held,), _ = executor.run(*_inputs(plus(executor, keep=True)))
    home = held.home.copy()
    executor.join()
    np.testing.assert_array_equal(held.home, home)
    np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), X + 3)
    plan, outputs = plus_held(executor, held)
    assert executor.run(plan, [held], outputs)[1].bytes_moved == plan.bytes_moved


def test_persisted_blocks_are_found_after_others_left(executor):
    (held,), _ = executor.run(*_inputs(plus(executor, keep=True, place=on(2))))
    before, outputs = plus_held(executor, held)
    assert executor.holders() == {2}
    executor.leave(0)
    assert executor.holders() == {1} and set(held.home.tolist()) == {1}
    np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), X + 3)
    for plan in (before, plus_held(executor, held)[0]):
        (got,), _ = executor.run(plan, [held], outputs)
        np.testing.assert_array_equal(got, X + 4)
    del held
    assert executor.holders() == set()


def _inputs(made):
    plan, outputs = made
    return plan, [X], outputs


# -- who left had blocks, or dies later -------------------------------------------------------------------------------

def kept(executor, place, held=None):
    """Twice X, or twice a persisted array, persisted; block `i` on worker `place[i]`."""
    s = Sketch()
    v = s.call(doubled, s.view(0, CHUNKS) if held is None else s.held(0, CHUNKS, home=held.home))
    plan, outputs = s.plan(executor.cluster, [v], keep=True, place=np.tile(place, 2))
    return executor.run(plan, [X if held is None else held], outputs)[0][0]


def fetched(executor, held):
    """An array, and how many blocks were made again for it."""
    ran.clear()
    return np.concatenate(executor.fetch(held)), len(ran)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_what_left_with_a_worker_is_made_again_by_the_others(executor, gone):
    held = kept(executor, [0, 1, 2, gone])
    before, outputs = plus_held(executor, held)
    executor.leave(gone)
    got, n_made = fetched(executor, held)
    np.testing.assert_array_equal(got, X * 2)
    assert n_made == 2 and set(held.home.tolist()) == {0, 1} and executor.alive(held).all()
    for plan in (before, plus_held(executor, held)[0]):
        np.testing.assert_array_equal(executor.run(plan, [held], outputs)[0][0], X * 2 + 1)
    assert fetched(executor, held)[1] == 0


def test_a_run_makes_again_what_left_before_it(executor):
    held = kept(executor, [0, 1, 2, 2])
    plan, outputs = plus_held(executor, held)
    executor.leave(2)
    ran.clear()
    (got,), report = executor.run(plan, [held], outputs)
    np.testing.assert_array_equal(got, X * 2 + 1)
    assert len(ran) == 2 and report.interruptions == 0


def test_an_array_of_before_is_made_again_under_the_numbers_of_now(executor):
    """Also what the program has dropped, by plans of two numberings."""
    first = kept(executor, [1, 2, 1, 2])
    executor.leave(0)
    held = kept(executor, [0, 1, 0, 1], first)
    del first
    executor.join()
    executor.die(1)
    got, n_made = fetched(executor, held)
    np.testing.assert_array_equal(got, X * 4)
    assert n_made == 4 and held.home.tolist() == [0, 1, 0, 1] and executor.hosts[2].ping() == 0
    executor.leave(0)
    executor.die(1)  # nobody needs it
    got, n_made = fetched(executor, held)
    np.testing.assert_array_equal(got, X * 4)
    assert n_made == 4 and executor.alive(held).all()


def test_a_store_is_read_under_the_numbers_of_now(executor):
    held = kept(executor, [0, 1, 2, 2])
    executor.stored(held, X * 2, Output(CHUNKS, "<f8", True))
    executor.leave(0)
    executor.die(1)
    got, n_made = fetched(executor, held)
    np.testing.assert_array_equal(got, X * 2)
    assert n_made == 0 and held.home.tolist() == [0, 0, 1, 1]


def test_a_translated_plan_is_a_plan_and_known_to_workers(executor):
    s = Sketch()
    v = s.view(0, CHUNKS)
    plan, outputs = s.plan(executor.cluster, [s.reduce("sum", s.apply("add", v, 1.0), (0,))], place="turned")
    executor.leave(1)
    now = executor.renumbered(plan)
    now.validate()
    assert now is executor.renumbered(plan) and now.cluster is executor.cluster and now.worker.max() == 1
    for _ in range(2):
        assert executor.run(plan, [X], outputs)[0][0] == (X + 1).sum()
    assert len(executor._shares) == 1  # replays send their part once


EVENTS = st.tuples(st.sampled_from(["join", "leave", "die", "keep", "go on", "drop", "store"]), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=14))
def test_any_sequence(events):
    """After joining, leaving, dying, persisting, going on from persisted arrays and dropping them, in any order, every plan
    and array is right."""
    executor = Changing(2)
    plans, arrays = [], []
    for event, k in events:
        n = executor.cluster.n_workers
        place = np.arange(k, k + 4) % n if k < 5 else np.full(4, k % n)
        if event == "join" and n < 6:
            executor.join()
        elif event == "leave" and n > 1:
            executor.leave(k % n)
        elif event == "die":
            executor.die(k % n)
        elif event == "keep":
            arrays.append((kept(executor, place), X * 2))
        elif event == "go on" and arrays:
            held, value = arrays[k % len(arrays)]
            arrays.append((kept(executor, place, held), value * 2))
        elif event == "drop" and arrays:
            del arrays[k % len(arrays)]
        elif event == "store" and arrays:
            held, value = arrays[k % len(arrays)]
            executor.stored(held, value, Output(CHUNKS, "<f8", True))
        plans.append(plus(executor))
    for plan, outputs in plans:
        executor.renumbered(plan).validate()
        np.testing.assert_array_equal(executor.run(plan, [X], outputs)[0][0], X + 3)
    for held, value in arrays:
        np.testing.assert_array_equal(np.concatenate(executor.fetch(held)), value)
    executor.close()


# -- seen from a session ----------------------------------------------------------------------------------------------

def workers_used():
    return {w for _, w, *_ in session.last_report().spans}


def test_a_session_plans_anew_for_a_larger_cluster():
    executor = Changing(2)
    with session.use(executor) as mine:
        x = np_.from_array(X, chunks=500).persist()
        y = lambda: (np_.from_array(X, chunks=500) * 2 + x).compute()
        for _ in range(2):
            np.testing.assert_array_equal(y(), X * 3)
        made = mine.plans_made
        executor.due.append(executor.join)
        for _ in range(2):
            np.testing.assert_array_equal((np_.from_array(X, chunks=500) * 2).compute(), X * 2)
        assert mine.plans_made == made + 1 and workers_used() == {0, 1, 2}
        np.testing.assert_array_equal(y(), X * 3)
        assert mine.plans_made == made + 2


def test_a_jitted_function_is_traced_anew_for_a_larger_cluster():
    executor = Changing(1)
    with session.use(executor) as mine:
        traced = []

        @session.jit
        def f(x):
            traced.append(1)
            return x * 2.0

        x = np_.from_array(X, chunks=500)
        for joined in (False, True):
            if joined:
                executor.due.append(executor.join)
            for _ in range(2):
                np.testing.assert_array_equal(f(x).compute(), X * 2)
            assert len(traced) == 1 + joined
        assert mine.executor.cluster.n_workers == 2
