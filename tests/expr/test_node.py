"""Nodes are hash-consed, keyed by structure, and forgotten when nobody holds them."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest

import nums_core.array as nc
from nums_core import session
from nums_core.expr import node as nodes
from nums_core.expr.node import Const, consumers, make, postorder, with_args
from nums_core.expr.opaque import Opaque, keywords, value_of

X = np.arange(6.0)


def test_equal_expressions_are_one():
    x = nc.from_array(X, chunks=4)
    assert (x + 1).expr is (x + 1).expr
    assert (x.sum() * 2).expr is (x.sum() * 2).expr
    assert nc.from_array(X, chunks=4).expr is x.expr
    assert nc.ones((3, 4)).expr is nc.ones((3, 4)).expr


@pytest.mark.parametrize("other", [lambda x: x + 2, lambda x: x - 1, lambda x: x.astype("f4") + 1, lambda x: x.rechunk(3) + 1,
                                   lambda x: 1 + x, lambda x: x + True, lambda x: x + np.float32(1)])
def test_other_expressions_are_others(other):
    x = nc.from_array(X, chunks=4)
    made = other(x).expr
    assert made is not (x + 1).expr or made.dtype == (x + 1).expr.dtype  # x + True is x + 1.0


def test_what_is_written_twice_is_computed_once():
    calls = []

    def count(b):
        calls.append(1)
        return b
    x = nc.map_blocks(count, nc.from_array(X), dtype=float)
    nc.compute(x + 1, x + 1, (x * 2).sum(), [x + 1])
    assert len(calls) == 1


def test_arrays_are_told_apart_by_identity():
    a, b = X.copy(), X.copy()
    assert nc.from_array(a).expr is not nc.from_array(b).expr


def test_nodes_are_forgotten():
    gc.collect()
    before = len(nodes._nodes)
    x = nc.from_array(X.copy())
    for k in range(20):
        x = x * 2 + k
    assert len(nodes._nodes) >= before + 40
    del x
    gc.collect()
    assert len(nodes._nodes) <= before


def test_making_nodes_in_threads():
    x = nc.from_array(X)
    made = []

    def build():
        made.append([(x + k).expr for k in range(50)])
    threads = [threading.Thread(target=build) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(a is b for other in made[1:] for a, b in zip(made[0], other, strict=True))


def test_walks():
    x = nc.from_array(X)
    y = x + 1
    z = (y * y).expr
    order = list(postorder([z, y.expr]))
    assert order[0] is x.expr
    assert order[-1] is z
    assert len(order) == 3
    assert consumers([z, y.expr])[id(y.expr)] == 3
    assert with_args(z, z.args) is z


def test_deep_expressions():
    x = nc.from_array(X)
    for k in range(3000):
        x = x + k % 3
    np.testing.assert_array_equal(x.compute(), X + 3000)


def test_nodes_know_the_users_line():
    x = nc.from_array(X) + 17.5
    assert x.expr.line.file == __file__
    assert isinstance(x.expr.line.line, int)


# -- constants --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("a, b, same", [
    (Const(1, "i8"), Const(1, "i8"), True), (Const(1, "i8"), Const(1, "f8"), False), (Const(0.0, "f8"), Const(-0.0, "f8"), False),
    (Const(np.nan, "f8"), Const(np.nan, "f8"), True), (Const(True, bool), Const(1, "i1"), False), (Const("a", "U1"), Const("a", "U2"), False)])
def test_constants_are_compared_by_their_bits(a, b, same):
    assert (a == b) is same
    if same:
        assert hash(a) == hash(b)
    assert pickle.loads(pickle.dumps(a)) == a


# -- values of the user's ---------------------------------------------------------------------------------------------

def _f(b):
    return b


@pytest.mark.parametrize("a, b, same", [
    (1, 1, True), (1, 1.0, False), (1, True, False), (0.0, -0.0, False), ([1, 2], [1, 2], True), ([1, 2], (1, 2), False),
    ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"a": 2}, False), (np.float32(1), np.float32(1), True), (np.float32(1), np.float64(1), False),
    (_f, _f, True), (len, len, True), (slice(1, 2), slice(1, 2), True), (np.ones(2), np.ones(2), False), (complex(0, -0.0), 0j, False)],
    ids=repr)
def test_opaque_values(a, b, same):
    assert (Opaque(a) == Opaque(b)) is same
    if same:
        assert hash(Opaque(a)) == hash(Opaque(b))


def test_opaque_functions_are_compared_by_code():
    def made(bound=None):
        return (lambda b: b + 1) if bound is None else (lambda b: b + bound)
    assert Opaque(made()) == Opaque(made())
    assert Opaque(made(1)) != Opaque(made(1))  # what a closure holds may change
    marked = made()
    marked.flag = True
    assert Opaque(marked) != Opaque(made())


def test_opaque_containers_are_copied():
    given = [1, {"a": [2]}]
    held = Opaque(given)
    given[1]["a"].append(3)
    assert held.value == [1, {"a": [2]}]
    assert pickle.loads(pickle.dumps(held)) == held
    assert value_of(held) is held.value
    assert value_of(5) == 5
    assert keywords({"b": 1, "a": 2}) == (("a", Opaque(2)), ("b", Opaque(1)))


# -- structural keys --------------------------------------------------------------------------------------------------

def key(*arrays):
    return session.structure([a.expr for a in arrays])[0]


def test_structure_does_not_see_the_data():
    def program(data, chunks=4):
        x = nc.from_array(data, chunks=chunks)
        return (x * 2 + x.sum()).max()
    a, b = np.arange(6.0), np.ones(6)
    assert key(program(a)) == key(program(b))
    assert hash(key(program(a))) == hash(key(program(b)))
    for other in (program(a, 3), program(a.astype("f4")), program(np.ones(7)), program(a) + 0):
        assert key(other) != key(program(a))


def test_structure_sees_which_arrays_are_the_same():
    a, b = nc.from_array(np.ones(3)), nc.from_array(np.ones(3))
    assert key(a + b) == key(b + a)
    assert key(a + a) != key(a + b)
    assert key(a + b, a) != key(a + b, b)


def test_make_takes_parts():
    made = make("leaf", (), nc.from_array(X).expr.params, (6,), float, ((6,),))
    assert made is nc.from_array(X).expr
    assert "leaf" in repr(made)
