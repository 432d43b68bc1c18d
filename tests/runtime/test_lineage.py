"""Parts of plans: what is run again, where, and in which order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held, Output
from nums_core.runtime.lineage import Making, Pins, Store, backward, part_of, reading
from nums_core.testing.sketch import Sketch

CHUNKS = ((2,) * 6,)


def layered(place="turned"):
    """Three layers and a sum over all."""
    s = Sketch()
    v = s.view(0, CHUNKS)
    for _ in range(3):
        v = s.apply("add", v, 1.0)
    return s.plan(Cluster.regular(3), [v, s.reduce("sum", v, (0,))], keep=[True, False], place=place)


def test_only_what_a_block_is_made_from():
    plan, _ = layered()
    wanted = np.zeros(plan.graph.n_tasks, bool)
    wanted[18 + 4] = True  # one block of the last layer
    cut = part_of(plan, wanted, np.full(plan.graph.n_tasks, -1), [], [0, 1])
    assert cut.ids.tolist() == [4, 10, 16, 22] and cut.outputs == (0,) and cut.rows[0].tolist() == [4]
    assert cut.plan.worker.tolist() == plan.worker[cut.ids].tolist()


def test_blocks_that_live_are_leaves_where_they_live():
    plan, _ = layered()
    n = plan.graph.n_tasks
    wanted, there = np.zeros(n, bool), np.full(n, -1)
    wanted[22], there[16], there[15] = True, 0, 0
    home = np.full(n, 2)
    cut = part_of(plan, wanted, there, [Store(1, 0, Held([], home, 0.0))], [0, 1])
    leaf, task = cut.plan.graph.families
    assert cut.ids.tolist() == [16, 22] and (leaf.kernel.params, list(leaf.args)) == ((1,), [16])
    assert cut.plan.worker[0] == 2 and task.role == "task"


@given(st.data())
def test_parts_are_plans(data):
    plan, _ = layered(data.draw(st.sampled_from(["packed", "turned"])))
    n = plan.graph.n_tasks
    tasks = np.flatnonzero(~plan.graph.is_leaf)
    wanted, there = np.zeros(n, bool), np.full(n, -1)
    wanted[18:24] = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    wanted[-1] = data.draw(st.booleans())
    there[data.draw(st.lists(st.sampled_from(tasks.tolist())))] = 0
    cut = part_of(plan, wanted, there, [Store(1, 0, Held([], plan.worker, 0.0))], [0, 1])
    cut.plan.validate()
    need = backward(plan.graph, wanted, (there >= 0) & ~wanted)
    assert sorted(cut.ids.tolist()) == np.flatnonzero(need).tolist()
    made = cut.ids[~cut.plan.graph.is_leaf]
    assert set(made.tolist()) == set(np.flatnonzero(need & ((there < 0) | wanted) & ~plan.graph.is_leaf).tolist())
    assert (np.diff(plan.position[cut.ids[cut.plan.order]]) > 0).all()  # the order of the whole plan


def test_a_store_is_read_where_the_blocks_were():
    home = np.array([1, 0, 2, 2])
    plan, _ = reading(np.arange(10.0).reshape(5, 2), Output(((3, 2), (1, 1)), "<f8", True), home, Cluster.regular(3))
    plan.validate()
    assert plan.worker.tolist() == home.tolist() and plan.graph.out_bytes.tolist() == [24, 24, 16, 16]
    assert list(plan.graph.families[0].args)[2] == (slice(3, 5), slice(0, 1))


def test_depth_counts_runs_on_the_longest_way():
    plan, outputs = layered()
    from nums_core.runtime.lineage import Origin

    a = Making(plan, tuple(outputs), ())
    b = Making(plan, tuple(outputs), (Origin(a, 0, lambda: None),))
    c = Making(plan, tuple(outputs), (Origin(a, 0, lambda: None), Origin(b, 0, lambda: None)))
    assert (a.depth, b.depth, c.depth) == (1, 2, 3) and a.serial < b.serial < c.serial


def test_pins_hold_each_array_once_and_the_newest_longest():
    pins, a, b = Pins(), np.zeros(100), np.zeros(100)
    first, same, view = pins.pin(a, 1600), pins.pin(a, 1600), pins.pin(b[:1], 1600)
    assert first is same and first.strong is a
    later = pins.pin(np.zeros(100), 1600)
    assert first.strong is None and first.get() is a and later.strong is not None and view.strong is not None
    del a
    assert first.get() is None
