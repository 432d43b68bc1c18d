"""Movement rules: each one applies where it should, and both of its sides have the same values."""

import numpy
import pytest

from nums_core.expr import build, fuse, index, lower, optimise, reshape
from nums_core.expr.node import Source, postorder
from nums_core.expr.rules import movement, pushdown
from nums_core.runtime.executors.base import Output
from nums_core.runtime.executors.local import LocalExecutor
from nums_core.scheduler import make_plan

EXECUTOR = LocalExecutor(1)
RNG = numpy.random.default_rng(7)


def leaf(shape, chunks, dtype=float):
    x = RNG.normal(size=shape)
    x = x.astype(dtype) if dtype is float else (x * 10).astype(dtype)
    return build.leaf(Source("array", x, shape, x.dtype), chunks)


def value(e):
    """What `e` is, without any rule."""
    sources = list(dict.fromkeys(n.params[0] for n in postorder([e]) if n.op == "leaf"))
    graph = lower.lower(fuse.fuse([e]), {s: i for i, s in enumerate(sources)})
    plan = make_plan(graph, EXECUTOR.cluster, policy="portfolio", layout="packed", reduction_order="fixed", seed=0)
    return EXECUTOR.run(plan, [s.data for s in sources], [Output(e.chunks, e.dtype.str)])[0][0]


def holds(rule, node):
    """The rule applies, keeps shape, dtype and grid, and changes no value; returns what it makes."""
    made = rule(node)
    assert made is not None
    assert (made.shape, made.dtype, made.chunks) == (node.shape, node.dtype, node.chunks)
    numpy.testing.assert_allclose(value(made), value(node), rtol=1e-13)
    return made


MATRIX = ((3, 4, 1), (5, 4))  # chunks of an (8, 9) matrix
GATHERS = [((0, 0), (1, 1), ((8,), (9,))), ((2, 1), (1, 1), ((1, 2), (3, 3))), ((1, 0), (3, 2), ((2, 1), (5,))),
           ((7, 8), (-1, -1), ((4, 4), (2, 7))), ((6, 3), (-2, 1), ((1, 2), (1, 4)))]


def gathers(x):
    return [build.gather(x, *g) for g in GATHERS]


@pytest.mark.parametrize("k", range(len(GATHERS)))
def test_into_leaf(k):
    node = gathers(leaf((8, 9), MATRIX))[k]
    assert holds(movement.into_leaf, node).op == "leaf"
    again = holds(movement.into_leaf, build.gather(movement.into_leaf(node), *[
        (0,) * 2, (1,) * 2, tuple((sum(c),) for c in node.chunks)])) if node.grid != (1, 1) else node
    assert again.shape == node.shape


def test_into_leaf_leaves_held_blocks_alone():
    held = build.leaf(Source("held", None, (8, 9), numpy.dtype(float)), MATRIX)
    assert movement.into_leaf(build.gather(held, *GATHERS[1])) is None


@pytest.mark.parametrize("k", range(len(GATHERS)))
def test_into_fill(k):
    assert holds(movement.into_fill, gathers(build.full(3, (8, 9), float, MATRIX))[k]).op == "create"


@pytest.mark.parametrize("k", range(len(GATHERS)))
def test_merge(k):
    x = build.gather(leaf((20, 20), ((7, 13), (20,))), (17, 1), (-2, 2), MATRIX)
    assert holds(movement.merge, gathers(x)[k]).args[0].op == "leaf"


@pytest.mark.parametrize("k", range(len(GATHERS)))
@pytest.mark.parametrize("source", [(1, 0), (0, None), (None, 0)])
def test_through_axes(k, source):
    shapes = {(1, 0): ((9, 8), (MATRIX[1], MATRIX[0])), (0, None): ((8,), MATRIX[:1]), (None, 0): ((9,), MATRIX[1:])}
    x = build.axes(leaf(*shapes[source]), source, (8, 9), MATRIX)
    assert holds(movement.through_axes, gathers(x)[k]).op == "axes"


@pytest.mark.parametrize("k", range(len(GATHERS)))
def test_through_ewise(k):
    row = leaf((1, 9), ((1,), MATRIX[1]))
    x = build.elementwise("add", [build.elementwise("multiply", [leaf((8, 9), MATRIX), row]), 3.0])
    assert holds(movement.through_ewise, gathers(x)[k]).op == "ewise"


def test_through_ewise_only_where_less_is_read():
    x = build.elementwise("add", [build.contract(leaf((8, 9), MATRIX), leaf((9, 9), (MATRIX[1], (9,))), "ij", "jk", "ik"), 1.0])
    assert movement.through_ewise(build.gather(x, *GATHERS[0])) is None
    assert holds(movement.through_ewise, build.gather(x, *GATHERS[1]))


def test_merge_axes():
    x = leaf((8, 9), MATRIX)
    turned = build.axes(build.axes(x, (1, None, 0), (9, 1, 8)), (2, 0), (8, 9))
    assert turned.op == "axes"
    assert holds(movement.merge_axes, turned) is x
    wide = build.axes(build.axes(leaf((1, 9), ((1,), MATRIX[1])), (0, 1), (8, 9), MATRIX), (1, 0), (9, 8))
    holds(movement.merge_axes, wide)


# -- concatenations ---------------------------------------------------------------------------------------------------

def parts():
    return [leaf((n, 9), (cut, MATRIX[1])) for n, cut in ((3, (2, 1)), (1, (1,)), (4, (4,)))]


@pytest.mark.parametrize("k", range(len(GATHERS)))
@pytest.mark.parametrize("lazy", [False, True])
def test_through_concat(k, lazy):
    given = [build.elementwise("exp", [p]) for p in parts()] if lazy else parts()
    node = gathers(build.concatenate(given, 0))[k]
    made = pushdown.through_concat(node)
    if made is None:  # one block over all parts, all of which it reads
        assert node.grid[0] == 1 and node.shape[0] == 8
    else:
        holds(pushdown.through_concat, node)


def test_through_concat_leaves_only_straddling_blocks_to_put_together():
    x = build.concatenate([leaf((10,), ((5, 5),)), leaf((10,), ((5, 5),))], 0)
    node = build.gather(x, (0,), (1,), ((4, 4, 4, 4, 4),))
    made = holds(pushdown.through_concat, node)
    assert [a.args[0].op if a.op == "gather" else a.op for a in made.args] == ["leaf", "concat", "leaf"]
    (done,) = optimise.rewrite([node])
    assert sum(n.op == "gather" for n in postorder([done])) == 1
    numpy.testing.assert_array_equal(value(done), value(node))


def test_a_shift_of_a_source_reads_views():
    import nums_core.array as np

    x = np.from_array(numpy.arange(100.0), 10)
    plan = (np.roll(x, 30) + x).explain()
    assert "gather" not in plan.text()
    plan = np.pad(x, 10).explain()
    assert "gather" not in plan.text()


# -- points, masks, shapes ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("k", range(len(GATHERS)))
@pytest.mark.parametrize("lazy", [False, True])
def test_through_points(k, lazy):
    x = leaf((5, 9), ((2, 3), MATRIX[1]))
    x = build.elementwise("exp", [x]) if lazy else x
    node = gathers(index.points(x, 0, [numpy.array([4, 0, 0, 3, 1, 2, 4, 4])], (3, 4, 1)))[k]
    assert holds(pushdown.through_points, node).op == "index.points"


def test_through_points_of_two_axes():
    x = leaf((5, 6, 9), ((2, 3), (4, 2), MATRIX[1]))
    at = [numpy.array([4, 0, 0, 3, 1, 2, 4, 4]), numpy.array([5, 1, 0, 3, 3, 2, 0, 5])]
    for node in gathers(index.points(x, 0, at, (3, 4, 1))):
        holds(pushdown.through_points, node)


def test_reshaped_leaf():
    x = leaf((8, 9), ((3, 3, 2), (9,)))
    node = reshape.blocks(x, (72,), ((27, 27, 18),))
    assert holds(pushdown.reshaped_leaf, node).op == "leaf"
    assert pushdown.reshaped_leaf(reshape.blocks(x, (72,), ((27, 27, 18),), in_order=False)) is None
    part = movement.into_leaf(build.gather(x, (1, 0), (1, 1), ((3, 3), (9,))))
    assert pushdown.reshaped_leaf(reshape.blocks(part, (54,), ((27, 27),))) is None


def test_mask_of_data():
    base = build.elementwise("exp", [leaf((8, 9), MATRIX)])
    mask = build.elementwise("greater", [base, 1.0])
    box = ((0, 0), (1, 1), ((8,), (9,)))
    node = index.select(build.gather(base, *box), build.gather(mask, *box), 0)
    made = pushdown.mask_of_data(node)
    assert made is not None and made.args[1].op == "ewise"
    numpy.testing.assert_array_equal(value(made), value(node))


# -- where nobody else reads ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name, kw", [("sum", ()), ("max", ()), ("argmax", (("shape", (8, 6, 9)),)), ("count", ())])
def test_through_reduce(name, kw, keep):
    x = leaf((8, 6, 9), (MATRIX[0], (4, 2), MATRIX[1]))
    x = build.reduce(name, x, axis=1, keepdims=keep, kw=kw)
    for start, step, chunks in (GATHERS[1], GATHERS[2], GATHERS[4]):
        if keep:
            start, step, chunks = (start[0], 0, start[1]), (step[0], 1, step[1]), (chunks[0], (1,), chunks[1])
        assert holds(pushdown.through_reduce, build.gather(x, start, step, chunks)).op == "reduce"
    whole = build.gather(x, (0,) * x.ndim, (1,) * x.ndim, tuple((sum(c),) for c in x.chunks))
    assert pushdown.through_reduce(whole) is None


@pytest.mark.parametrize("labels", [("ij", "jk", "ik"), ("ji", "kj", "ik"), ("ij", "jk", "ki")])
def test_through_contract(labels):
    la, lb, lc = labels
    cut = {"i": MATRIX[0], "j": (2, 3), "k": MATRIX[1]} if lc == "ik" else {"k": MATRIX[0], "j": (2, 3), "i": MATRIX[1]}
    a, b = (leaf(tuple(sum(cut[c]) for c in s), tuple(cut[c] for c in s)) for s in (la, lb))
    x = build.contract(a, b, la, lb, lc)
    for g in (GATHERS[1], GATHERS[2], GATHERS[4]):
        assert holds(pushdown.through_contract, build.gather(x, *g)).op == "contract"
    assert pushdown.through_contract(build.gather(x, *GATHERS[0])) is None


def test_what_somebody_else_reads_is_not_computed_twice():
    x = build.reduce("sum", leaf((40, 6), ((20, 20), (6,))), axis=1)
    part = build.gather(x, (0,), (1,), ((5,),))
    (alone,) = optimise.rewrite([part])
    assert alone.op == "reduce"
    both = optimise.rewrite([part, x])
    assert both[0].op == "gather" and both[0].args[0] is both[1]


# -- the whole --------------------------------------------------------------------------------------------------------

def test_random_towers_of_movements():
    """Any stack of movements has the values that it has without rules."""
    rng = numpy.random.default_rng(3)
    for _ in range(40):
        e = leaf((8, 9), MATRIX)
        for _ in range(rng.integers(2, 6)):
            e = _moved(e, rng)
        optimise.validate = True
        (better,) = optimise.rewrite([e])
        assert (better.shape, better.dtype, better.chunks) == (e.shape, e.dtype, e.chunks)
        numpy.testing.assert_allclose(value(better), value(e), rtol=1e-12)


def _moved(e, rng):
    kind = rng.integers(0, 7)
    n = e.shape[0]
    if kind == 0:
        return build.transpose(e, (1, 0))
    if kind == 1:
        step = int(rng.choice([-2, -1, 1, 2]))
        start = n - 1 if step < 0 else int(rng.integers(0, max(n // 3, 1)))
        return index.along(e, 0, start, -1 if step < 0 else n, step)
    if kind == 2:
        return build.rechunk(e, tuple(reshape.uniform(m, int(rng.integers(1, m + 1))) for m in e.shape))
    if kind == 3:
        return build.elementwise("add", [e, float(rng.normal())])
    if kind == 4:
        return build.concatenate([e, index.along(e, 0, 0, max(n // 2, 1))], 0)
    if kind == 5:
        return index.points(e, 0, [rng.integers(0, n, n)])
    return reshape.reshape(e, e.shape[::-1])


def test_deep_expressions_take_slices_through_all_of_them():
    e = build.elementwise("exp", [leaf((100,), ((50, 50),))])
    e = build.contract(e, leaf((100,), ((50, 50),)), "i", "i", "i")
    for _ in range(1500):
        e = build.elementwise("add", [e, 1.0])
    (better,) = optimise.rewrite([index.along(e, 0, 3, 5)])
    assert better.op == "ewise" and better.shape == (2,)

