"""The halving tree: one order of combination from n alone, cuttable anywhere."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.ops import tree


def shape(leaves):
    """The tree as nested pairs."""
    return tree.evaluate(lambda a, b: (a, b), leaves)


@given(st.integers(1, 200))
def test_keeps_every_leaf_in_order(n):
    assert tree.evaluate(lambda a, b: a + b, [[i] for i in range(n)]) == [[*range(n)]][0]


@given(st.integers(1, 300))
def test_ranges_nest_and_differ_by_at_most_one(n):
    for d in range(tree.depth(n) + 1):
        edges = tree.bounds(n, d)
        sizes = np.diff(edges)
        assert edges[0] == 0 and edges[-1] == n and len(edges) == 2**d + 1
        assert sizes.max() - sizes.min() <= 1
        if d:
            assert set(tree.bounds(n, d - 1)) <= set(edges)


@given(st.integers(2, 200), st.data())
def test_may_be_cut_at_any_depth(n, data):
    d = data.draw(st.integers(0, tree.depth(n)))
    edges = tree.bounds(n, d)
    parts = [shape(list(range(a, b))) for a, b in itertools.pairwise(edges)]
    assert shape(parts) == shape(list(range(n)))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000])
def test_calls_combine_once_less_than_leaves(n):
    calls = []
    tree.evaluate(lambda a, b: calls.append(1), [0] * n)
    assert len(calls) == n - 1
    assert tree.depth(n) == int(np.floor(np.log2(n)))
