"""A worker may die at any call: the result is right to the last bit, and only what was lost is made again."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core import config
from nums_core.errors import KernelError, WorkerLostError
from nums_core.ops.taskgraph import Kernel
from nums_core.runtime.executors.base import Output
from nums_core.testing.loopback import LoopbackExecutor
from nums_core.testing.sketch import Sketch

CHUNKS = ((300,) * 6,)
X = np.random.default_rng(0).normal(size=1800)
ran: list[str] = []  # kernels of this module run in this process


def first(block):
    ran.append("first")
    return np.sin(block)


def second(block):
    ran.append("second")
    return block * 1.1


def total(a, b):
    ran.append("total")
    return a + b[::-1]


@pytest.fixture
def executor():
    made = LoopbackExecutor(3)
    yield made
    made.close()
    ran.clear()


def pairs(s, v):
    """Each block with the one of another worker."""
    ids = s.builder.ids(v)
    kernel = Kernel("map", (total, {}, None, None, ()))
    return s._add(kernel, s.chunks[v], "f8", np.stack([ids, np.roll(ids, 2)], axis=1), label="total")


def layered(executor, keep=True):
    """Two layers, the first is kept or not; the second reads across workers and goes to the driver."""
    s = Sketch()
    v = s.call(first, s.view(0, CHUNKS))
    w = pairs(s, v)
    return s.plan(executor.cluster, [v, w] if keep else [w], keep=[True, False] if keep else False)


def held_of(executor, function=first, x=X):
    s = Sketch()
    plan, outputs = s.plan(executor.cluster, [s.call(function, s.view(0, CHUNKS))], keep=True)
    return executor.run(plan, [x], outputs)[0][0]


def next_of(executor, held, function=second, donate=False, keep=True):
    s = Sketch()
    v = s.call(function, s.held(0, CHUNKS, home=held.home))
    plan, outputs = s.plan(executor.cluster, [v], keep=keep)
    return executor.run(plan, [held], outputs, frozenset({0}) if donate else frozenset())[0][0]


def value(executor, held):
    return np.concatenate(executor.fetch(held))


def kill(executor, *workers):
    for w in workers:
        executor.die(w)
    executor.replace_dead()
    ran.clear()


# -- lost persisted blocks --------------------------------------------------------------------------------------------

def test_only_the_lost_blocks_of_a_persisted_array_are_made_again(executor):
    held = held_of(executor)
    kill(executor, 1)
    np.testing.assert_array_equal(value(executor, held), np.sin(X))
    assert ran == ["first"] * 2  # two of six blocks were on that worker
    ran.clear()
    np.testing.assert_array_equal(value(executor, held), np.sin(X))
    assert ran == []


def test_a_run_makes_its_lost_inputs_again_before_it(executor):
    held = held_of(executor)
    kill(executor, 0, 2)
    got = next_of(executor, held, keep=False)
    np.testing.assert_array_equal(got, np.sin(X) * 1.1)
    assert sorted(ran) == ["first"] * 4 + ["second"] * 6


def test_what_the_program_dropped_is_made_again_in_passing(executor):
    held = next_of(executor, next_of(executor, held_of(executor)))
    gc.collect()
    kill(executor, 1)
    np.testing.assert_array_equal(value(executor, held), np.sin(X) * 1.1 * 1.1)
    assert sorted(ran) == ["first"] * 2 + ["second"] * 4
    gc.collect()
    assert sum(h.ping() for h in executor.hosts) <= 3 + 6  # what was made in passing is freed (maybe not yet)


def test_a_loop_of_a_thousand_persisted_steps(executor):
    held = held_of(executor)
    s = Sketch()
    plan, outputs = s.plan(executor.cluster, [s.apply("add", s.held(0, CHUNKS, home=held.home), 1.0)], keep=True)
    want = np.sin(X)
    for _ in range(999):
        (held,), _ = executor.run(plan, [held], outputs)
        want = want + 1.0
    gc.collect()
    kill(executor, 1)
    np.testing.assert_array_equal(value(executor, held), want)


def test_a_chain_that_is_too_long_is_said_so(executor):
    with config.set(lineage_depth=2):
        held = next_of(executor, next_of(executor, held_of(executor)))
        kill(executor, 1)
        with pytest.raises(WorkerLostError, match=r"x = x\.checkpoint\(path\)"):
            value(executor, held)


def test_a_chain_goes_back_to_what_lives(executor):
    base = held_of(executor)
    with config.set(lineage_depth=2):
        step = next_of(executor, base)
        for _ in range(5):
            step = next_of(executor, base)
    kill(executor, 2)
    np.testing.assert_array_equal(value(executor, step), np.sin(X) * 1.1)


def test_large_sources_are_held_on_to_only_by_the_program(executor):
    with config.set(lineage_bytes=X.nbytes):
        old, new = X.copy(), X + 1
        a, b = held_of(executor, x=old), held_of(executor, x=new)
        kill(executor, 0)
        np.testing.assert_array_equal(value(executor, a), np.sin(X))
        kill(executor, 0)
        del old, new
        np.testing.assert_array_equal(value(executor, b), np.sin(X + 1))
        with pytest.raises(WorkerLostError, match="Keep a reference to the source"):
            value(executor, a)


def test_a_source_is_let_go_with_the_last_array_made_from_it(executor):
    import weakref

    source = X.copy()
    gone = weakref.ref(source)
    held = held_of(executor, x=source)
    del source
    gc.collect()
    assert gone() is not None
    del held
    gc.collect()
    assert gone() is None


def test_a_store_takes_the_place_of_the_history(executor):
    first_, kept = held_of(executor), None
    kept = next_of(executor, first_)
    executor.stored(kept, np.sin(X) * 1.1, Output(CHUNKS, "<f8", True))
    last = next_of(executor, kept)
    del kept, first_
    gc.collect()
    kill(executor, 1)
    np.testing.assert_array_equal(value(executor, last), np.sin(X) * 1.1 * 1.1)
    assert ran == ["second"] * 2


# -- death in the middle of a run -------------------------------------------------------------------------------------

def test_what_others_made_is_kept(executor):
    plan, outputs = layered(executor)
    executor.kill.add(2)
    (held, got), report = executor.run(plan, [X], outputs)
    y = np.sin(X)
    np.testing.assert_array_equal(value(executor, held), y)
    want = y + np.roll(y.reshape(6, 300), 2, axis=0)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(got, want)
    assert ran.count("first") == 6 and ran.count("total") == 6  # it died before it did anything
    assert report.interruptions == 1 and "1 attempts cut short" in report.text()


def steps_of(executor, plan, inputs, outputs, donate=frozenset()):
    """How many calls a run takes that nobody disturbs, and its result."""
    executor.schedule(lambda *call: ())
    results, _ = executor.run(plan, inputs, outputs, donate)
    return executor.counted, results


def test_death_before_every_call(executor):
    """Nothing but what the dead worker had made is made again."""
    plan, outputs = layered(executor)
    n, (held, want) = steps_of(executor, plan, [X], outputs)
    kept = value(executor, held)
    for loses in (False, True):
        executor.loses = loses
        for at in range(n):
            for victim in range(3):
                ran.clear()
                executor.schedule(lambda call, *_, at=at, victim=victim: [victim] if call == at else [])
                (held, got), _ = executor.run(plan, [X], outputs)
                assert got.tobytes() == want.tobytes()
                assert ran.count("first") <= 8 and ran.count("total") <= 8  # its own two of each, at most once more
                executor.schedule(lambda *call: ())
                assert value(executor, held).tobytes() == kept.tobytes()
    assert executor.deaths == 2 * n * 3


def test_two_deaths_in_a_row(executor):
    plan, outputs = layered(executor)
    n, (held, want) = steps_of(executor, plan, [X], outputs)
    kept = value(executor, held)
    for at in range(n):
        for later in range(1, 2 * n, 3):
            executor.schedule(lambda call, *_, at=at, later=later: {at: [0], at + later: [1, 2]}.get(call, []))
            (held, got), _ = executor.run(plan, [X], outputs)
            executor.schedule(lambda *call: ())
            assert got.tobytes() == want.tobytes() and value(executor, held).tobytes() == kept.tobytes()


def test_death_during_a_fetch(executor):
    for at in range(3):
        for victim in range(3):
            held = held_of(executor)
            executor.schedule(lambda call, *_, at=at, victim=victim: [victim] if call == at else [])
            assert value(executor, held).tobytes() == np.sin(X).tobytes()
            executor.schedule(lambda *call: ())


def test_death_of_everybody(executor):
    held = held_of(executor)
    plan, outputs = layered(executor)
    n, (_, want) = steps_of(executor, plan, [X], outputs)
    executor.schedule(lambda call, *_: [0, 1, 2] if call == n - 1 else [])
    (_, got), _ = executor.run(plan, [X], outputs)
    assert got.tobytes() == want.tobytes()
    assert value(executor, held).tobytes() == np.sin(X).tobytes()


def test_lending_from_the_dead(executor):
    """Blocks that lie elsewhere than planned are asked of a worker that is gone."""
    held = held_of(executor)
    s = Sketch()
    plan, outputs = s.plan(executor.cluster, [s.call(second, s.held(0, CHUNKS, home=(held.home + 1) % 3))])
    n, (want,) = steps_of(executor, plan, [held], outputs)
    assert any(method == "lend" for _, method in executor.calls)
    for at in range(n):
        for victim in range(3):
            executor.schedule(lambda call, *_, at=at, victim=victim: [victim] if call == at else [])
            assert executor.run(plan, [held], outputs)[0][0].tobytes() == want.tobytes()


def crossing(executor, held):
    """In place where it can be, with blocks that cross before and after."""
    s = Sketch()
    v = s.apply("multiply", s.held(0, CHUNKS, home=held.home), 2.0)
    place = np.concatenate([held.home, held.home, (held.home + 1) % 3])
    return s.plan(executor.cluster, [v, s.apply("add", v, 1.0)], keep=[True, False], place=place)


def test_donated_inputs_are_made_again(executor):
    held = held_of(executor)
    plan, outputs = crossing(executor, held)
    n, (kept, want) = steps_of(executor, plan, [held], outputs, frozenset({0}))
    after = value(executor, kept)
    for at in range(n):
        for victim in range(3):
            held = held_of(executor)
            ran.clear()
            executor.schedule(lambda call, *_, at=at, victim=victim: [victim] if call == at else [])
            (kept, got), _ = executor.run(plan, [held], outputs, frozenset({0}))
            executor.schedule(lambda *call: ())
            assert got.tobytes() == want.tobytes() and value(executor, kept).tobytes() == after.tobytes()
            assert len(ran) <= 2  # no donated block but the victim's is made again


def test_a_donated_loop(executor):
    for victim in range(3):
        held = held_of(executor)
        for k in range(6):
            executor.schedule(lambda call, *_, k=k, victim=victim: [victim] if k == 4 and call == 1 else [])
            held = next_of(executor, held, donate=True)
        executor.schedule(lambda *call: ())
        want = np.sin(X)
        for _ in range(6):
            want = want * 1.1
        np.testing.assert_array_equal(value(executor, held), want)


def test_a_donated_input_without_history(executor):
    with config.set(lineage_depth=0):
        held = held_of(executor)
        plan, outputs = crossing(executor, held)
        executor.kill.add(1)
        with pytest.raises(WorkerLostError, match="checkpoint"):
            executor.run(plan, [held], outputs, frozenset({0}))


def _fails(block):
    raise ValueError("bad block")


def test_a_kernel_that_fails_while_lost_blocks_are_made_again_spares_the_others(executor):
    held = held_of(executor)
    kill(executor, 1)
    code, first.__code__ = first.__code__, _fails.__code__
    try:
        with pytest.raises(KernelError, match="bad block"):
            value(executor, held)
    finally:
        first.__code__ = code
    np.testing.assert_array_equal(value(executor, held), np.sin(X))


def test_nothing_is_left_behind(executor):
    plan, outputs = layered(executor)
    n = steps_of(executor, plan, [X], outputs)[0]
    for at in range(n):
        executor.schedule(lambda call, *_, at=at: [at % 3] if call == at else [])
        executor.run(plan, [X], outputs)
    executor.schedule(lambda *call: ())
    _settle(executor)
    assert [len(h.runs) + len(h.held) + len(h.stopped) for h in executor.hosts] == [0, 0, 0]
    assert len(executor.pins.boxes) == 0


def test_several_threads_at_once(executor):
    """They share a persisted array, part of which is lost; it is made again once."""
    held = held_of(executor)
    s = Sketch()
    plan, outputs = s.plan(executor.cluster, [pairs(s, s.held(0, CHUNKS, home=held.home))])
    want = executor.run(plan, [held], outputs)[0][0]
    kill(executor, 1)
    got: list[object] = []

    def work():
        try:
            got.append(executor.run(plan, [held], outputs)[0][0].tobytes())
        except BaseException as error:
            got.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [want.tobytes()] * 4 and ran.count("first") == 2


def _settle(executor):
    for _ in range(100):
        gc.collect()
        if not sum(h.ping() for h in executor.hosts):
            return
        time.sleep(0.02)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_plan_and_any_deaths(data):
    """Random layers on random workers; some are kept, some given; workers die at random calls."""
    executor = LoopbackExecutor(data.draw(st.integers(1, 4), "workers"))
    executor.loses = data.draw(st.booleans(), "loses")
    try:
        s = Sketch()
        base = held_of(executor)
        families = [s.held(0, CHUNKS, home=base.home), s.view(1, CHUNKS)]
        for _ in range(data.draw(st.integers(1, 5), "layers")):
            families.append(_layer(s, data, families))
        n_out = data.draw(st.integers(1, min(3, len(families) - 2)), "outputs")
        outs = families[-n_out:]
        keep = data.draw(st.lists(st.booleans(), min_size=n_out, max_size=n_out), "keep")
        n = s.builder.n_tasks
        place = np.array(data.draw(st.lists(st.integers(0, executor.cluster.n_workers - 1), min_size=n, max_size=n), "place"))
        plan, outputs = s.plan(executor.cluster, outs, keep=keep, place=place)
        calls, results = steps_of(executor, plan, [base, X], outputs)
        want = [value(executor, r) if k else r for r, k in zip(results, keep, strict=True)]
        donate = frozenset({0} if data.draw(st.booleans(), "donate") else ())
        deaths = data.draw(st.dictionaries(st.integers(0, 2 * calls), st.sets(
            st.integers(0, executor.cluster.n_workers - 1), min_size=1), max_size=2), "deaths")
        executor.schedule(lambda call, *_: deaths.get(call, ()))
        results, _ = executor.run(plan, [base, X], outputs, donate)
        got = [value(executor, r) if k else r for r, k in zip(results, keep, strict=True)]
        assert [g.tobytes() for g in got] == [w.tobytes() for w in want]
    finally:
        executor.close()


def _layer(s, data, families):
    a = families[data.draw(st.integers(0, len(families) - 1), "from")]
    kind = data.draw(st.sampled_from(["fused", "map", "pairs"]), "kind")
    if kind == "fused":
        return s.apply("multiply", a, 1.5)
    return s.call(second, a) if kind == "map" else pairs(s, a)
