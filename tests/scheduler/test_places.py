"""Places of a reduction's ranges: the fewest moves, found by brute force on small trees."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.ops import tree
from nums_core.scheduler.places import Places


def places(workers, target):
    workers = np.atleast_2d(np.array(workers, np.int32))
    deepest = tree.depth(workers.shape[1])
    edges = tree.bounds(workers.shape[1], deepest)
    found = Places(workers, np.full(len(workers), target, np.int32))
    found.leaves(workers[:, edges[:-1]], workers[:, edges[1:] - 1], deepest)
    for depth in range(deepest - 1, -1, -1):
        found.halves(depth)
    return found.top_down()


def moves_of(at, workers):
    """Edges of the tree whose ends lie on different workers; ranges of one leaf are that leaf."""
    moved = sum(int((upper.repeat(2, axis=1) != lower).sum()) for upper, lower in itertools.pairwise(at))
    n = workers.shape[1]
    edges = tree.bounds(n, len(at) - 1)
    pairs = np.diff(edges) == 2
    for column, begin in zip(np.flatnonzero(pairs), edges[:-1][pairs], strict=True):
        moved += int((workers[:, begin:begin + 2] != at[-1][:, [column]]).sum())
    return moved


def fewest(workers, target):
    """Least number of moves with the root at each worker, by trying every worker for every range."""
    def cost(lo, hi):
        if hi - lo == 1:
            return [0 if w == workers[lo] else np.inf for w in range(4)]
        mid = lo + (hi - lo) // 2
        parts = [cost(lo, mid), cost(mid, hi)]
        return [sum(min(c + (v != w) for v, c in enumerate(part)) for part in parts) for w in range(4)]
    costs = cost(0, len(workers))
    return min(costs), costs[target]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=24), st.integers(0, 3))
def test_no_placement_moves_less(workers, target):
    at = places(workers, target)
    least, at_target = fewest(workers, target)
    assert moves_of(at, np.atleast_2d(workers)) == least
    assert (at[0][0, 0] == target) == (at_target == least), "the result comes out where it is wanted, if that costs nothing"


@pytest.mark.parametrize("k", [2, 4, 8, 64, 128])
def test_packed_runs_on_a_power_of_two(k):
    """Also where workers are too many for the sets."""
    workers = np.repeat(np.arange(k), np.diff(tree.bounds(3 * k, k.bit_length() - 1)))[None]
    assert moves_of(places(workers[0], k - 1), workers) == k - 1


def test_rows_are_apart():
    rows = [[0, 1, 2, 2, 1, 0], [1, 1, 0, 2, 0, 3]]
    both = places(rows, 2)
    assert [moves_of([at[[r]] for at in both], np.array([row])) for r, row in enumerate(rows)] == [
        fewest(row, 2)[0] for row in rows]
