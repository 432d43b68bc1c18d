"""Reduction trees: the right shape, the right cuts, the fewest moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.ops import tree
from nums_core.scheduler import expand

BASE = 10_000  # ids of inner tasks start here, partials are 0, 1, ...


def build(workers, most=2, target=None, local=None):
    """Trees over the rows of `workers`; partial k of row r has id r * n + k."""
    workers = np.atleast_2d(np.array(workers, np.int32))
    rows, n = workers.shape
    target = np.full(rows, workers[0, 0], np.int32) if target is None else np.array(target, np.int32)
    node_of = None if local is None else np.array(local)
    return expand.cut(np.arange(rows * n), workers.ravel(), np.full(rows, n), target, BASE, most, node_of), workers


def value_and_moves(trees, workers):
    """Nested pairs of each row, partials moved, and the inputs of every task."""
    value = {i: i for i in range(workers.size)}
    at = {i: int(w) for i, w in enumerate(workers.ravel())}
    moved, next_id, widths = 0, BASE, []
    for level in (*trees.inner, trees.root):
        starts = np.cumsum(level.counts) - level.counts
        for s, c, w in zip(starts, level.counts, level.workers, strict=True):
            inputs = level.inputs[s:s + c].tolist()
            value[next_id] = tree.evaluate(lambda a, b: (a, b), [value[b] for b in inputs])
            at[next_id] = int(w)
            moved += sum(at[b] != w for b in set(inputs))
            widths.append((c, len({at[b] for b in inputs})))
            next_id += 1
    roots = range(next_id - len(trees.root.counts), next_id)
    return [value[r] for r in roots], moved, widths


def halving(ids):
    return tree.evaluate(lambda a, b: (a, b), ids)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(2, 9), st.integers(0, 4))
def test_fixed_order_is_the_halving_tree(workers, most, target):
    trees, workers = build([workers, workers[::-1]], most, [target, 0])
    values, _, widths = value_and_moves(trees, workers)
    n = workers.shape[1]
    assert values == [halving(list(range(n))), halving(list(range(n, 2 * n)))]
    assert all(c <= most or n <= 2 for c, _ in widths)
    assert all(c == 2 for c, places in widths if places > 1), "a range over several workers is combined in pairs"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(2, 9), st.integers(0, 5))
def test_local_order_moves_one_partial_a_worker_fewer_one(workers, most, target):
    nodes = [0, 0, 1, 1, 1, 2]
    trees, workers = build([workers, sorted(workers)], most, [target, workers[0]], nodes)
    values, moved, _ = value_and_moves(trees, workers)
    n = workers.shape[1]
    assert [sorted(flat(v)) for v in values] == [list(range(n)), list(range(n, 2 * n))]
    assert moved == 2 * (len(set(workers[0].tolist())) - 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_local_order_crosses_nodes_once_each(workers):
    nodes = np.array([0, 0, 1, 1, 1, 2])
    trees, _ = build(workers, 8, None, nodes)
    at = {i: int(w) for i, w in enumerate(workers)}
    crossed, next_id = 0, BASE
    for level in (*trees.inner, trees.root):
        starts = np.cumsum(level.counts) - level.counts
        for s, c, w in zip(starts, level.counts, level.workers, strict=True):
            crossed += sum(nodes[at[b]] != nodes[w] for b in level.inputs[s:s + c].tolist())
            at[next_id] = int(w)
            next_id += 1
    assert crossed == len(set(nodes[workers].tolist())) - 1


def flat(value):
    return [value] if not isinstance(value, tuple) else [x for part in value for x in flat(part)]


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("n", [16, 17, 33, 100])
@pytest.mark.parametrize("target", [0, "last"])
def test_packed_runs_on_a_power_of_two_move_k_minus_1(n, k, target):
    at = np.repeat(np.arange(k), np.diff(tree.bounds(n, k.bit_length() - 1)))
    target = k - 1 if target == "last" else 0
    trees, workers = build(at, 64, [target])
    _, moved, _ = value_and_moves(trees, workers)
    assert moved == k - 1
    assert trees.root.workers.tolist() == [target], "the result comes out where it is wanted"


def test_what_is_wanted_elsewhere_is_combined_first():
    """Six partials on worker 1, wanted on 2: one crosses. On 0 and 1, with no way to meet before: two."""
    def moved(workers):
        rows = np.atleast_2d(np.array(workers, np.int32))
        trees = expand.cut(np.arange(rows.size), rows.ravel(), np.array([rows.size]), np.array([2]), BASE, 8, forced=True)
        at_target = trees.root._replace(workers=np.array([2]))
        (value,), count, _ = value_and_moves(trees._replace(root=at_target), rows)
        assert value == halving(list(range(rows.size)))
        return count
    assert moved([1] * 6) == 1 and moved([0, 0, 0, 1, 1, 1]) == 2 and moved([1, 2, 2]) == 1


def test_one_task_where_partials_are_together_and_light():
    trees, _ = build(np.zeros((3, 50)), most=50)
    assert not trees.inner and trees.root.counts.tolist() == [50] * 3


@pytest.mark.parametrize("n, most", [(100, 2), (100, 7), (64, 8), (65, 8), (3, 2)])
def test_heavy_partials_are_cut_to_a_small_fan_in(n, most):
    trees, workers = build(np.zeros((2, n)), most)
    values, moved, widths = value_and_moves(trees, workers)
    assert moved == 0 and max(c for c, _ in widths) <= most
    assert values[1] == halving(list(range(n, 2 * n)))


def test_groups_of_different_sizes():
    counts = np.array([3, 1, 5, 3])
    worker = np.array([0, 1, 1, 0, 2, 2, 1, 1, 0, 0, 0, 0], np.int32)
    trees = expand.cut(np.arange(12), worker, counts, np.zeros(4, np.int32), BASE, 2)
    values, _, _ = value_and_moves(trees, worker.reshape(1, -1))
    assert values == [halving([0, 1, 2]), 3, halving([4, 5, 6, 7, 8]), halving([9, 10, 11])]
    assert trees.root.rows.tolist() == [0, 1, 2, 3]


def test_outputs_take_turns():
    """Halves on workers 0 and 1, wanted elsewhere: results are spread over both."""
    trees, _ = build(np.tile([0, 0, 1, 1], (8, 1)), target=[9] * 8)
    assert np.bincount(trees.root.workers).tolist() == [4, 4]


def test_ragged():
    assert expand.ragged(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert expand.ragged(np.zeros(0, int), np.zeros(0, int)).tolist() == []
