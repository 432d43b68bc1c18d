"""Updates: tasks that change their states, in place where those are donated."""

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.array.array import Array
from nums_core.expr import build


def add_to(total, count, x, *, times):
    total += times * x
    count += 1
    return (x.sum(keepdims=True), total[:1].copy())


def step(total, count, x, times=2):
    (total, count), (s, first) = build.update(add_to, [total.expr, count.expr], [x.expr], [((1,), "f8"), ((1,), "f8")],
                                              (("times", times),))
    return tuple(map(Array, (total, count, s, first)))


def test_an_update_leaves_its_states_alone_where_they_are_not_donated():
    total, x = np.zeros(4), np.arange(4.0)
    made = nc.compute(*step(na.asarray(total), na.asarray(np.zeros(1, int)), na.asarray(x)))
    assert [m.tolist() for m in made] == [[0, 2, 4, 6], [1], [6], [0]]
    assert not total.any()


def test_donated_states_are_changed_where_they_lie():
    run = nc.jit(step, donate=(0, 1))
    total, count = nc.persist(na.zeros(1 << 16), na.zeros(1, dtype=int))
    x = na.asarray(np.ones(1 << 16))
    memory = None
    for k in range(1, 5):
        total, count, s, _ = run(total, count, x)
        block = total.expr.params[0].data.refs[0]
        assert memory is None or np.shares_memory(block, memory)
        memory = block
        assert float(total[0]) == 2 * k and int(count[0]) == k and float(s[0]) == 1 << 16


def test_updates_in_a_row_share_the_memory_of_a_donated_state():
    def twice(total, count, x):
        total, count, first, _ = step(total, count, x)
        return *step(total, count, x)[:3], first

    run = nc.jit(twice, donate=(0, 1))
    total, count = nc.persist(na.zeros(1 << 16), na.zeros(1, dtype=int))
    x, memory = na.asarray(np.ones(1 << 16)), total.expr.params[0].data.refs[0]
    for k in range(1, 4):
        total, count, s, _ = run(total, count, x)
        block = total.expr.params[0].data.refs[0]
        assert k == 1 or np.shares_memory(block, memory)
        memory = block
        assert float(total[0]) == 4 * k and int(count[0]) == 2 * k and float(s[0]) == 1 << 16


def test_a_state_between_two_updates_that_is_read_elsewhere_is_copied():
    def between(total, count, x):
        total, count, *_ = step(total, count, x)
        return *step(total, count, x)[:2], total * 1

    total, count = nc.persist(na.zeros(8), na.zeros(1, dtype=int))
    new, _, middle = nc.jit(between, donate=(0, 1))(total, count, na.asarray(np.ones(8)))
    assert new.compute().tolist() == [4.0] * 8
    assert middle.compute().tolist() == [2.0] * 8


def test_a_donated_state_that_is_read_elsewhere_is_copied():
    def both(total, count, x):
        return *step(total, count, x)[:2], total * 1

    total, count = nc.persist(na.zeros(8), na.zeros(1, dtype=int))
    new, _, old = nc.jit(both, donate=(0, 1))(total, count, na.asarray(np.ones(8)))
    assert new.compute().tolist() == [2.0] * 8
    assert old.compute().tolist() == [0.0] * 8


@pytest.mark.parametrize("grid", [(3,), (1, 2)])
def test_blocks_are_put_together_first(grid):
    (total, _), (s, _) = build.update(
        add_to, [na.zeros(6, chunks=4).expr, na.zeros(1, chunks=1).expr], [na.ones(6, chunks=grid[0]).expr],
        [((1,), "f8"), ((1,), "f8")], (("times", 1),))
    assert Array(total).compute().tolist() == [1.0] * 6
    assert Array(s).compute().tolist() == [6.0]
