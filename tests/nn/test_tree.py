"""Trees: taken apart, put together, named, mapped, and through jit."""

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nums_core as nc
import nums_core.array as na
from nums_core.errors import ShapeError
from nums_core.nn import tree

Pair = namedtuple("Pair", "left right")


class Box:
    """A container by protocol alone."""

    def __init__(self, inside, tag):
        self.inside, self.tag = inside, tag

    def tree_flatten(self):
        return [self.inside], self.tag

    @classmethod
    def tree_unflatten(cls, tag, children):
        return cls(children[0], tag)

    def __eq__(self, other):
        return isinstance(other, Box) and (self.inside, self.tag) == (other.inside, other.tag)

    __hash__ = None


def containers(children):
    return st.one_of(
        st.lists(children, max_size=3), st.lists(children, max_size=3).map(tuple), st.builds(Pair, children, children),
        st.dictionaries(st.text("ab", max_size=2), children, max_size=3), st.builds(Box, children, st.integers(0, 3)))


TREES = st.recursive(st.one_of(st.integers(), st.none()), containers, max_leaves=12)


@given(TREES)
def test_round_trip(t):
    leaves, static = tree.flatten(t)
    assert None not in leaves
    assert tree.unflatten(static, leaves) == t
    hash(static)
    assert [leaf for _, leaf in tree.paths(t)] == leaves


@given(TREES)
def test_map_keeps_the_structure(t):
    doubled = tree.map(lambda a, b: a + b, t, t)
    assert tree.flatten(doubled) == ([2 * x for x in tree.flatten(t)[0]], tree.flatten(t)[1])


def test_paths_join_names():
    t = {"layers": [Pair(1, None), Pair(2, 3)], "rest": Box((4,), "x")}
    assert tree.paths(t) == [("layers.0.left", 1), ("layers.1.left", 2), ("layers.1.right", 3), ("rest.0.0", 4)]


@pytest.mark.parametrize("a, b, place", [
    ({"w": 1, "b": 2}, {"w": 1, "c": 2}, "'b' stands where the other has 'c'"),
    ([1, 2], [1], "'1' is in one of them only"),
    ([1, 2], (1, 2), "containers or settings"),
    (Box(1, 1), Box(1, 2), "containers or settings"),
])
def test_map_names_the_difference(a, b, place):
    with pytest.raises(ShapeError, match=place):
        tree.map(lambda x, y: x, a, b)


def test_unflatten_counts_leaves():
    _, static = tree.flatten({"a": [1, None, 2], "b": Box(3, 0)})
    with pytest.raises(ShapeError, match="2 leaves for a tree of 3; give one for each"):
        tree.unflatten(static, [1, 2])


def test_jit_takes_and_returns_containers():
    traced = []

    @nc.jit
    def step(state, x):
        traced.append(1)
        return Box({"sum": state.inside["sum"] + x, "none": None}, state.tag)

    state = Box({"sum": na.zeros(3), "none": None}, "tag")
    for _ in range(3):
        state = step(state, na.asarray(np.arange(3.0)))
    assert state.tag == "tag" and state.inside["none"] is None
    assert state.inside["sum"].compute().tolist() == [0, 3, 6]
    assert len(traced) == 1
    step(Box({"sum": na.zeros(3), "none": None}, "other"), na.zeros(3))
    assert len(traced) == 2


def test_compute_and_donation_see_through_containers():
    box = Box([na.ones(2), 5], 0)
    (made,) = nc.compute(box)
    assert made.inside[0].tolist() == [1, 1] and made.inside[1] == 5
    run = nc.jit(lambda box: Box([box.inside[0] + 1, box.inside[1]], box.tag), donate=(0,))
    box = Box([na.ones(1 << 15).persist(), 5], 0)
    memory = box.inside[0].expr.params[0].data.refs[0]
    assert np.shares_memory(run(box).inside[0].expr.params[0].data.refs[0], memory)
