"""Sorting and searching: NumPy is the oracle, whole lines and sample sort alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core import config
from nums_core.errors import ShapeError
from nums_core.expr.sorting import fits
from nums_core.runtime.devices.sort import Samples

DTYPES = ["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "M8[D]"]
GRIDS = {"one block": (103, 103), "even": (100, 20), "uneven": (103, 10), "ones": (7, 1), "one": (1, 1), "empty": (0, 3),
         "irregular": (40, ((3, 20, 2, 15),)), "last is largest": (40, ((3, 3, 34),))}
SHAPES = {"middle": ((6, 40, 3), (4, 11, 2)), "size-1 axis": ((1, 25), (1, 6)), "empty": ((3, 0), (2, 1))}


@pytest.fixture(params=["whole lines", "sample sort"])
def limit(request):
    """Blocks so small that nothing fits, or so large that everything does."""
    with config.set(block_bytes="16MiB" if request.param == "whole lines" else 48):
        yield request.param


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 30, shape)
    if np.dtype(dtype).kind in "fc":
        x = (x + rng.integers(0, 2, shape) / 2).astype(dtype)
        x.reshape(-1)[::9] = np.nan
        return x
    return x.astype("i8").astype(dtype)


def cut(x, chunks):
    return nc.from_array(x, chunks=chunks)


def agree(result, expected):
    assert result.shape == expected.shape and result.dtype == expected.dtype
    np.testing.assert_array_equal(result.compute(), expected, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_sort_and_argsort(limit, grid, dtype):
    n, chunks = GRIDS[grid]
    v = values(n, dtype)
    x = cut(v, chunks)
    agree(nc.sort(x), np.sort(v))
    agree(nc.argsort(x), np.argsort(v, kind="stable"))
    assert nc.sort(x).chunks == nc.argsort(x).chunks == x.chunks


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_axes(limit, shape, axis):
    shape, chunks = SHAPES[shape]
    v = values(shape, "i8")
    x = cut(v, chunks)
    agree(nc.sort(x, axis=axis), np.sort(v, axis=axis))
    agree(nc.argsort(x, axis=axis), np.argsort(v, axis=axis, kind="stable"))


def test_sample_sort_is_used_and_bounded():
    """A result block touches three merged runs; tasks are m sorts, m k pieces, k merges."""
    n, m = 20_000, 10
    x = nc.random.default_rng(0).random(n, chunks=n // m)
    with config.set(block_bytes=64):
        y = nc.sort(x)
        plan = y.explain()
    counts = {f.label: f.count for f in plan.graph.families}
    assert counts["sort.run"] == counts["sort.merge"] == counts["sort.fit"] == m
    assert counts["sort.piece"] == m * (m + 1)
    largest = 8 * n / m
    operands = np.bincount(plan.graph.consumer_of_edge, plan.graph.out_bytes[plan.graph.in_idx],
                           minlength=plan.graph.n_tasks)
    assert (operands + plan.graph.out_bytes).max() <= 3 * largest
    np.testing.assert_array_equal(y.compute(), np.sort(x.compute()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=80), st.integers(1, 30), st.booleans())
def test_any_cut_sorts_stably(items, size, backwards):
    v = np.array(items, np.int64)
    with config.set(block_bytes=8):
        x = cut(v, size)
        order = nc.argsort(x, descending=backwards).compute()
        ordered = nc.sort(x, descending=backwards).compute()
    np.testing.assert_array_equal(order, np.argsort(-v if backwards else v, kind="stable"))
    np.testing.assert_array_equal(ordered, np.sort(v)[::-1] if backwards else np.sort(v))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=40), min_size=1, max_size=6), st.integers(1, 7))
def test_ranks_of_samples_are_within_their_bounds(runs, stride):
    runs = [np.sort(np.array(r, np.int64)) for r in runs]
    samples = Samples([(r[::stride], len(r), len(r)) for r in runs], stride)
    order = sorted((int(v), k, i) for k, r in enumerate(runs) for i, v in enumerate(r))
    for q in range(len(samples.values)):
        value, run, place = (int(x[0]) for x in samples.splitters(np.array([q])))
        rank = order.index((value, run, place))
        assert q * stride - samples.slack <= rank <= q * stride


def test_methods_and_keywords():
    v = values(50, "f8")
    x = cut(v, 7)
    agree(x.argsort(), np.argsort(v, kind="stable"))
    y = cut(v, 7)
    y.sort()
    agree(y, np.sort(v))
    for kind in ("quicksort", "mergesort", "heapsort", "stable"):
        agree(nc.sort(x, kind=kind), np.sort(v, kind=kind))
    agree(nc.sort(x, stable=True), np.sort(v))
    agree(nc.sort([3, 1, 2]), np.array([1, 2, 3]))
    record = np.array([(1, 2.0), (0, 3.0), (1, 1.0)], dtype=[("a", "i4"), ("b", "f8")])
    agree(nc.sort(cut(record, 2)), np.sort(record))
    agree(nc.sort(cut(record, 2), order="b"), np.sort(record, order="b"))


@pytest.mark.parametrize("function", ["partition", "argpartition"])
def test_partition(limit, function):
    v = values((5, 60), "i8")
    made = getattr(nc, function)(cut(v, (2, 13)), [10, 30], axis=1)
    rows = np.take_along_axis(v, made.compute(), 1) if function == "argpartition" else made.compute()
    want = np.sort(v, axis=1)
    for k in (10, 30):
        np.testing.assert_array_equal(rows[:, k], want[:, k])
        assert (rows[:, :k] <= rows[:, k:k + 1]).all() and (rows[:, k:] >= rows[:, k:k + 1]).all()
    np.testing.assert_array_equal(np.sort(rows, axis=1), want)


@pytest.mark.parametrize("k", [1, 3, -3, 12, -12, 100])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_topk_and_argtopk(limit, k, axis):
    v = values((30, 12), "i8")
    x = cut(v, (7, 5))
    n = v.shape[axis]
    order = np.argsort(-v if k > 0 else v, axis=axis, kind="stable").take(range(min(abs(k), n)), axis)
    agree(nc.argtopk(x, k, axis), order)
    agree(nc.topk(x, k, axis), np.take_along_axis(v, order, axis))
    agree(x.topk(k, axis), np.take_along_axis(v, order, axis))


def test_topk_of_nothing():
    assert nc.topk(nc.arange(5, chunks=2), 0).compute().shape == nc.argtopk(nc.arange(5, chunks=2), 0).compute().shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chunks", [5, 37, 1])
def test_searchsorted(side, dtype, chunks):
    a, v = np.sort(values(37, dtype)), values((4, 6), dtype, 1)
    agree(nc.searchsorted(cut(a, chunks), cut(v, (3, 2)), side), np.searchsorted(a, v, side))
    agree(nc.searchsorted(cut(a, chunks), a[3], side), np.asarray(np.searchsorted(a, a[3], side)))


def test_searchsorted_with_a_sorter():
    v = values(37, "i8")
    agree(nc.searchsorted(cut(v, 5), [3, 99, -1], sorter=np.argsort(v)), np.searchsorted(v, [3, 99, -1],
                                                                                         sorter=np.argsort(v)))
    agree(nc.searchsorted(nc.zeros(0), [1.0]), np.array([0]))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("bins", [[1, 5, 9], [9, 5, 1], [4]])
def test_digitize(bins, right):
    v = values((6, 9), "f8")
    agree(nc.digitize(cut(v, (4, 2)), bins, right), np.digitize(v, bins, right))
    agree(nc.digitize(cut(v, (4, 2)), nc.from_array(np.array(bins), 1), right), np.digitize(v, bins, right))


def test_lexsort(limit):
    keys = [values((4, 40), "i8", seed) % 3 for seed in range(3)]
    for axis in (0, 1, -1):
        agree(nc.lexsort([cut(k, (3, 9)) for k in keys], axis), np.lexsort(keys, axis))
    table = np.stack([k[0] for k in keys])
    agree(nc.lexsort(cut(table, (1, 7))), np.lexsort(table))


@pytest.mark.parametrize("dtype", ["i1", "i8", "f8", "c8", "c16"])
def test_sort_complex(dtype):
    v = values(20, dtype)
    agree(nc.sort_complex(cut(v, 6)), np.sort_complex(v))


@pytest.mark.parametrize("kw", [{}, {"left": -1.0, "right": 9.0}, {"period": 7.0}])
def test_interp(kw):
    at, xp, fp = np.linspace(-3, 12, 30).reshape(5, 6), np.array([0.0, 1.0, 4.0, 5.0]), np.array([1.0, 3.0, 2.0, 0.0])
    agree(nc.interp(cut(at, (2, 4)), cut(xp, 2), fp, **kw), np.interp(at, xp, fp, **kw))
    agree(nc.interp(cut(at, (2, 4)), xp, fp * 1j), np.interp(at, xp, fp * 1j))


@pytest.mark.parametrize("call, error, message", [
    (lambda x: nc.sort(x, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds for array of dimension 2"),
    (lambda x: nc.sort(x, kind="bubble"), ValueError, "leave it out, sorting here is always stable"),
    (lambda x: nc.sort(x, kind="stable", stable=True), ValueError, "Use only one of them"),
    (lambda x: nc.partition(x, 9), ValueError, r"kth\(=9\) out of bounds \(4\); it must be from -4 to 3"),
    (lambda x: nc.partition(x, 1.5), TypeError, "Partition index must be integer"),
    (lambda x: nc.searchsorted(x, 1), ShapeError, r"flatten it with .ravel\(\)"),
    (lambda x: nc.searchsorted(x[0], 1, "middle"), ValueError, "must be one of 'left' or 'right'"),
    (lambda x: nc.digitize(x, [1, 3, 2]), ValueError, "monotonically increasing or decreasing"),
    (lambda x: nc.lexsort([]), TypeError, "pass one array a key"),
    (lambda x: nc.lexsort([x, x[0]]), ValueError, "broadcast them first"),
    (lambda x: nc.interp(x, [1, 2], [1]), ValueError, "give one axis each"),
    (lambda x: nc.interp(x, [1], [1], period=0), ValueError, "period must be a non-zero value"),
])
def test_mistakes_raise_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call(nc.arange(12, chunks=5).reshape(3, 4))


def test_fits_looks_at_lines():
    x = nc.ones((100, 3), chunks=(10, 3)).expr
    with config.set(block_bytes=800):
        assert fits(x, [0]) and fits(x, [1]) and not fits(x, [0, 1])


def test_a_run_is_divided_in_one_go():
    """What was spilled comes back once: all pieces of a run one after the other, before any merge."""
    with config.set(block_bytes=64):
        plan = nc.sort(nc.random.default_rng(0).random(1000, chunks=100)).explain()
    labels = [plan.graph.families[plan.graph.family_of[t]].label for t in plan.order]
    pieces = [int(plan.graph.inputs(t)[0]) for t, name in zip(plan.order, labels, strict=True) if name == "sort.piece"]
    assert pieces == sorted(pieces)
    assert labels.index("sort.merge") > len(labels) - 1 - labels[::-1].index("sort.piece")
    merges = [k for k, name in enumerate(labels) if name == "sort.merge"]
    fits = [k for k, name in enumerate(labels) if name == "sort.fit"]
    assert fits[0] < merges[3]  # result blocks are made as soon as their neighbours are
