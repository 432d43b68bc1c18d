"""Indexing, selection and assignment: NumPy is the oracle, on several grids, for known and for lazy indices."""

import itertools

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core import config
from nums_core.errors import ImplicitComputeError, KernelError
from nums_core.expr import optimise

optimise.validate = True

X = numpy.arange(5.0 * 6 * 4).reshape(5, 6, 4)
GRIDS = [(2, 4, 3), (1, 2, 4), -1]
ROW = numpy.array([True, False, True, True, False])
COLUMN = numpy.array([True, False, False, True, False, True])
I = numpy.array([3, 0, 0, -1])  # noqa: E741

INDICES = {
    "int": 2, "negative": -1, "ints": (1, -2, 3), "slice": slice(1, 4), "step": (slice(None), slice(None, None, 2)),
    "reverse": (slice(None, None, -1), slice(4, 0, -2)), "out of range": (slice(-99, 99), slice(3, 99, 3)), "empty": slice(3, 1),
    "ellipsis": (..., 1), "ellipsis alone": ..., "nothing": (), "new axis": (None, 1, ..., None), "mixed": (1, slice(None), None, -1),
    "list": [2, 0, 2, -1], "no places": [], "array": I, "matrix": numpy.array([[0, 4], [3, 1]]), "second": (slice(None), I),
    "last": (..., [3, 0, 1]), "with slice": (slice(1, 4), [5, 0], slice(None, None, -1)), "pair": ([0, 4, 1], [2, 5, 0]),
    "broadcast": (numpy.array([[0], [3]]), [1, 2, 5]), "apart": ([0, 1], slice(None), [3, 2]), "int and array": (1, [0, 5, 2]),
    "array and int": ([0, 2], slice(None), 1), "apart by new": ([0, 1], None, [2, 3]), "three": ([0, 1], [1, 2], [3, 0]),
    "range": numpy.arange(1, 4), "backwards": numpy.arange(4, 0, -1), "same": [1, 1, 1, 1, 1, 1, 1, 1],
    "small ints": numpy.array([1, 2], "u1"), "scalar array": numpy.array(2), "mask": X > 50, "few": X > 110, "none": X > 999,
    "all": X >= 0, "row mask": ROW, "column mask": (slice(None), COLUMN), "mask and slice": (ROW, slice(2, 5), 1),
    "mask of two": (numpy.add.outer(ROW, COLUMN),), "masks": (ROW, COLUMN), "mask and array": (slice(None), COLUMN, [0, 1, 3]),
    "True": True, "False": False, "True inside": (slice(None), True, 1), "True with array": (True, [0, 1]),
    "list of bool": [True, False, False, True, True], "last mask": (..., numpy.array([True, False, True, True])),
    "range object": range(3), "int of mask apart": (0, slice(None), numpy.array([True, True, False, True])),
}


def same(made, expected):
    assert isinstance(made, np.Array)
    values = numpy.asarray(made)
    assert made.dtype == values.dtype == expected.dtype
    assert made.shape == values.shape == expected.shape
    assert tuple(map(sum, made.chunks)) == expected.shape
    numpy.testing.assert_array_equal(values, expected)


def lazily(index):
    """The same index with its arrays as Arrays that have to be computed."""
    if isinstance(index, tuple):
        return tuple(lazily(i) for i in index)
    if isinstance(index, (numpy.ndarray, list)) and numpy.ndim(index):
        i = numpy.asarray(index, dtype=None if len(index) else int)
        a = np.from_array(i, tuple(max(1, n // 2) for n in i.shape))
        return a & True if i.dtype == bool else a + 0
    return index


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("name", INDICES)
def test_getitem(name, chunks):
    index, a = INDICES[name], np.from_array(X, chunks)
    same(a[index], X[index])
    same((a + 0)[index], X[index])


@pytest.mark.parametrize("chunks", GRIDS[:2], ids=str)
@pytest.mark.parametrize("name", [k for k, v in INDICES.items() if lazily(v) is not v])
def test_getitem_by_lazy_indices(name, chunks):
    index, a = INDICES[name], np.from_array(X, chunks)
    for x in (a, a + 0):
        made = x[lazily(index)]
        numpy.testing.assert_array_equal(made.compute(), X[index])
        assert made.shape == X[index].shape and made.dtype == X.dtype


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("lazy", [False, True])
def test_setitem(name, lazy):
    index = INDICES[name]
    given = lazily(index) if lazy else index
    picked = X[index]
    values = [7, numpy.arange(picked.size, dtype="i4").reshape(picked.shape), numpy.full((1,) * picked.ndim, -3.5)]
    if picked.ndim and picked.shape[-1]:
        values.append(numpy.arange(picked.shape[-1]))
    for chunks, value in zip(itertools.cycle(GRIDS), values):
        expected, a = X.copy(), np.from_array(X.copy(), chunks)
        before = a + 0
        expected[index] = value
        a[given] = np.from_array(value, 3) if isinstance(value, numpy.ndarray) and lazy else value
        same(a, expected)
        same(before, X)


@st.composite
def basic_indices(draw):
    shape = tuple(draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, max(n, 1))) for n in shape)
    def entry(n):
        kinds = [st.slices(n), st.just(None)] + ([st.integers(-n, n - 1)] if n else [])
        return st.one_of(kinds)
    index, left = [], list(shape)
    while left and draw(st.booleans()):
        e = draw(entry(left[0]))
        index.append(e)
        if e is not None:
            left.pop(0)
    return shape, chunks, tuple(index)


@given(basic_indices(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_slices(case, twice):
    shape, chunks, index = case
    x = numpy.arange(numpy.prod(shape, dtype=int)).reshape(shape)
    a = np.from_array(x, chunks)
    same(a[index], x[index])
    same((a * 2)[index][..., ::-1] if x[index].ndim else (a * 2)[index], (x * 2)[index][..., ::-1] if x[index].ndim else
         numpy.asarray((x * 2)[index]))
    b, y = a, x.copy()
    b[index], y[index] = -1, -1
    same(b, y)


@given(st.integers(1, 40), st.integers(1, 9), st.data())
@settings(max_examples=30, deadline=None)
def test_take_of_anything(n, chunk, data):
    places = data.draw(st.lists(st.integers(-n, n - 1), max_size=60))
    x = numpy.arange(n) * 3
    a = np.from_array(x, chunk)
    same(a[places], x[numpy.array(places, int)])
    same((a + 0)[places], x[numpy.array(places, int)])
    same((a + 0)[np.asarray(numpy.array(places, int), chunks=7)], x[numpy.array(places, int)])
    y, b = x.copy(), a
    y[numpy.array(places, int)] = numpy.arange(len(places))
    b[places] = numpy.arange(len(places))
    same(b, y)


ERRORS = [
    (lambda a: a[9], "index 9 is out of bounds for axis 0 with size 5"),
    (lambda a: a[:, -7], "index -7 is out of bounds for axis 1 with size 6"),
    (lambda a: a[[0, 5]], "index 5 is out of bounds for axis 0 with size 5"),
    (lambda a: a[0, 0, 0, 0], "too many indices for array: array is 3-dimensional, but 4 were indexed"),
    (lambda a: a[..., ...], "single ellipsis"),
    (lambda a: a[1.5], "only integers, slices"),
    (lambda a: a["x"], "only integers, slices"),
    (lambda a: a[[0.5]], "only integers, slices.*astype"),
    (lambda a: a[a], "only integers, slices.*float64"),
    (lambda a: a[[0, 1], [0, 1, 2]], "could not be broadcast together with shapes .2,. .3,."),
    (lambda a: a[numpy.ones(3, bool)], "boolean index did not match indexed array along axis 0; size of axis is 5"),
    (lambda a: np.take(a, [7], axis=0), "index 7 is out of bounds for axis 0 with size 5"),
]


@pytest.mark.parametrize("call, words", ERRORS, ids=[w for _, w in ERRORS])
def test_index_errors(call, words):
    with pytest.raises(IndexError, match=words):
        call(np.from_array(X, 3))


def test_other_errors():
    a = np.from_array(X, 3)
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        a[::0]
    with pytest.raises(ValueError, match=r"could not broadcast input array from shape \(4,3\) into shape \(6,4\)"):
        a[0] = numpy.ones((4, 3))
    with pytest.raises(ValueError, match=r"shape mismatch: value array of shape .3,. could not be broadcast"):
        a[[0, 1], 0, 0] = [1, 2, 3]
    with pytest.raises(ValueError, match="cannot assign 3 input values to the 2 output values where the mask is true"):
        a[X < 2] = [1, 2, 3]
    with pytest.raises(OverflowError):
        np.zeros(3, dtype="i1")[:] = 300


def test_lazy_index_out_of_bounds_names_the_line():
    a, i = np.from_array(X, 2), np.from_array(numpy.array([0, 5]), 1)
    for x in (a, a + 0):
        with pytest.raises(IndexError, match=r"index 5 is out of bounds for axis 0 with size 5(.|\n)*test_indexing.py") as error:
            x[i + 0].compute()
        assert isinstance(error.value, KernelError)


# -- masks ------------------------------------------------------------------------------------------------------------

def test_mask_is_made_with_the_selection():
    a = np.from_array(X, (2, 4, 3))
    plan = a[a * 2 + 1 > 30].explain()
    assert [f.label for f in plan.graph.families if f.role == "task"] == ["select"]


def test_mask_of_computed_blocks_is_made_of_what_is_selected():
    a = np.from_array(X, (2, 3, 3)).persist()
    plan = a[a > 3].explain()
    assert [f.label for f in plan.graph.families if f.role == "task"] == ["gather", "select"]


@pytest.mark.parametrize("n, chunk", [(100_000, 30_000), (50_000, 50_000), (9_000, 100)])
def test_long_selections(n, chunk):
    x = numpy.random.default_rng(1).normal(size=n)
    a = np.from_array(x, chunk)
    for mask in (lambda x: x > 0, lambda x: x > 9, lambda x: x < 9, lambda x: (x > -1) & (x < 0.5)):
        numpy.testing.assert_array_equal(a[mask(a)].compute(), x[mask(x)])
    y = x.reshape(-1, 10)
    b = np.from_array(y, (chunk // 10, 3))
    numpy.testing.assert_array_equal(b[b > 0].compute(), y[y > 0])
    numpy.testing.assert_array_equal(b[b[:, 0] > 0].compute(), y[y[:, 0] > 0])
    numpy.testing.assert_array_equal(b.T[:, b[:, 0] > 0].compute(), y.T[:, y[:, 0] > 0])
    numpy.testing.assert_array_equal(b[:1000][:, b[0] > 0].compute(), y[:1000][:, y[0] > 0])


def test_unknown_extents_stay_lazy_where_they_can():
    x = numpy.arange(20.0)
    a = np.from_array(x, 6)
    y = a[a > 5]
    with config.set(implicit_compute=False):
        z = (y * 2)[y > 8]
        w = np.from_array(x.reshape(5, 4), 2)
        w = w[w[:, 0] > 3][:, 1:3]
        s = y.sum()
        with pytest.raises(ImplicitComputeError):
            y[2]
    numpy.testing.assert_array_equal(z.compute(), (x[x > 5] * 2)[x[x > 5] > 8])
    numpy.testing.assert_array_equal(w.compute(), x.reshape(5, 4)[1:, 1:3])
    assert s.compute() == x[x > 5].sum()
    same(y[2:5], x[x > 5][2:5])
    same(y[[0, -1]], x[x > 5][[0, -1]])
    same(y.reshape(2, -1), x[x > 5].reshape(2, -1))


def test_masks_in_memory_give_known_extents():
    a = np.from_array(X, (2, 4, 3))
    assert a[X > 50].expr.shape == (int((X > 50).sum()),)
    mask = X > 50
    y = a[mask]
    mask[:] = False  # what the caller does with the mask later changes nothing
    assert len(y.compute()) == (X > 50).sum()


def test_results_of_unknown_extent_beside_what_reads_them():
    a = np.from_array(numpy.arange(1000.0), 64)
    y = a[a % 3 == 0]
    values, total = np.compute(y, y.sum())
    numpy.testing.assert_array_equal(values, numpy.arange(0, 1000.0, 3))
    assert total == values.sum()
    again, kept = np.compute(y, y), y.persist()
    numpy.testing.assert_array_equal(again[0], again[1])
    numpy.testing.assert_array_equal(kept.compute(), values)
    assert values.base is None and values.flags.owndata


def test_selection_under_a_budget():
    from nums_core.runtime.executors.local import LocalExecutor
    from nums_core.session import Session

    x = numpy.random.default_rng(0).normal(size=(1 << 16))
    a = np.from_array(x, 1 << 12) * 2
    session = Session(LocalExecutor(2, memory_bytes=1 << 17))
    (values,) = session.run([a[a > 0].expr], keep=False)
    numpy.testing.assert_array_equal(values, (x * 2)[x > 0])
    session.executor.close()


# -- gathers ----------------------------------------------------------------------------------------------------------

def test_take_is_one_gather_for_each_owner():
    x = numpy.arange(1000.0)
    places = numpy.random.default_rng(0).integers(0, 1000, 5000)
    a = np.from_array(x, 100)
    plan = a[places].explain()
    families = {f.label: f.count for f in plan.graph.families}
    assert families["take"] <= 10
    assert numpy.diff(plan.graph.in_ptr)[-families["take"]:].max() <= 10
    same(a[places], x[places])


def test_take_of_computed_blocks_does_not_hold_them_all():
    x = numpy.arange(6400.0)
    places = numpy.random.default_rng(0).permutation(6400)
    a = np.from_array(x, 100) + 1
    labels = {f.label for f in a[places].explain().graph.families}
    assert {"take.pick", "take.join"} <= labels
    same(a[places], x[places] + 1)
    y = x.reshape(-1, 4)
    p = places[:1600] % 1600
    b = np.from_array(y, (25, 3)) + 1
    same(b[p], y[p] + 1)
    same(b[p, p % 4], y[p, p % 4] + 1)


def test_slices_of_takes_take_less():
    a = np.from_array(X, (2, 3, 2)) + 1
    same(a[[4, 0, 2, 2]][1:3, ::2, -1], (X + 1)[[4, 0, 2, 2]][1:3, ::2, -1])
    same(a[[4, 0, 2, 2]][::-1].rechunk(2), (X + 1)[[4, 0, 2, 2]][::-1])


TAKES = {
    "take flat": lambda m, x: m.take(x, [3, 7, -1]), "take axis": lambda m, x: m.take(x, [[1, 0], [2, 2]], axis=1),
    "take one": lambda m, x: m.take(x, 3, axis=1), "take wrap": lambda m, x: m.take(x, [7, -9], 0, mode="wrap"),
    "take clip": lambda m, x: x.take([7, -9], 0, mode="clip"), "compress": lambda m, x: m.compress([True, False, True], x, axis=1),
    "compress flat": lambda m, x: m.compress([False, True], x), "extract": lambda m, x: m.extract(x % 3 == 0, x),
    "take_along_axis": lambda m, x: m.take_along_axis(x, m.argsort(-x, axis=1), 1),
    "along last": lambda m, x: m.take_along_axis(x, numpy.array([[[1, 0]]]), -1),
    "along flat": lambda m, x: m.take_along_axis(x, numpy.array([3, 1]), None),
    "choose": lambda m, x: m.choose((x % 3).astype(int), [x, -x, 5]), "choose wrap": lambda m, x: m.choose((x % 3).astype(int), [x, -x], mode="wrap"),
    "select": lambda m, x: m.select([x < 10, x < 50], [x, x * 2], -1), "select default": lambda m, x: m.select([x > 100], [x]),
    "where": lambda m, x: m.where(x > 7, x, 0), "piecewise": lambda m, x: m.piecewise(x, [x < 20, x > 90], [-1, lambda v: v * 2, 7]),
    "isin": lambda m, x: m.isin(x, [3, 5, 700]), "isin not": lambda m, x: m.isin(x, [3, 5], invert=True),
}


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
@pytest.mark.parametrize("name", TAKES)
def test_functions(name, chunks):
    same(TAKES[name](np, np.from_array(X, chunks)), TAKES[name](numpy, X))


@pytest.mark.parametrize("chunks", GRIDS, ids=str)
def test_places(chunks):
    x = numpy.where(X % 7 == 0, X, 0)
    a = np.from_array(x, chunks)
    for made, expected in ((np.nonzero(a), x.nonzero()), (a.nonzero(), x.nonzero()), (np.where(a), numpy.where(x)),
                           ((np.flatnonzero(a), np.argwhere(a)), (numpy.flatnonzero(x), numpy.argwhere(x)))):
        assert len(made) == len(expected)
        for m, e in zip(made, expected):
            same(m, e)
    same(a[np.nonzero(a)], x[x.nonzero()])
    with pytest.raises(ValueError, match="0d arrays"):
        np.nonzero(np.asarray(1))


def test_flat_indices():
    i = numpy.array([[0, 5], [23, 7]])
    for order in "CF":
        for m, e in zip(np.unravel_index(np.from_array(i, 1), (2, 3, 4), order), numpy.unravel_index(i, (2, 3, 4), order)):
            same(m, e)
        same(np.ravel_multi_index((i % 2, i % 3), (2, 3), order=order), numpy.ravel_multi_index((i % 2, i % 3), (2, 3), order=order))
    same(np.ravel_multi_index(([3], [-1]), (2, 3), mode=("clip", "wrap")), numpy.ravel_multi_index(([3], [-1]), (2, 3), mode=("clip", "wrap")))
    with pytest.raises(ValueError, match="out of bounds"):
        np.unravel_index(np.asarray([24]), (2, 3, 4))[0].compute()
    with pytest.raises(ValueError, match="invalid entry in choice array"):
        np.choose(np.asarray([5]), [1, 2]).compute()


def test_open_meshes():
    a = np.from_array(X, 2)
    same(a[np.ix_([0, 3], [5, 1, 1])], X[numpy.ix_([0, 3], [5, 1, 1])])
    same(a[np.ix_(ROW, COLUMN)], X[numpy.ix_(ROW, COLUMN)])
    same(a[np.ix_(np.asarray([0, 3]), numpy.array([5, 1]))], X[numpy.ix_([0, 3], [5, 1])])
    with pytest.raises(ValueError, match="1 dimensional"):
        np.ix_([[1]])


def test_vindex():
    a = np.from_array(X, (2, 4, 3))
    same(a.vindex[[0, 3], [1, 5]], X[[0, 3], [1, 5]])
    same(a.vindex[:, [0, 3], [1, 2]], X.transpose(1, 2, 0)[[0, 3], [1, 2]])
    same(a.vindex[[0, 3], :, [1, 2]], X[[0, 3], :, [1, 2]])


def test_shuffle():
    a = np.from_array(X, (2, 4, 3))
    groups = [[5, 1], [0], [2, 3, 4]]
    y = np.shuffle(a, groups, axis=1)
    same(y, X[:, [5, 1, 0, 2, 3, 4]])
    assert y.chunks[1] == (3, 3)
    with pytest.raises(IndexError, match="from 0 to 5"):
        np.shuffle(a, [[9]], axis=1)


def test_structured_fields():
    x = numpy.array([(1, 2.0), (3, 4.0), (5, 6.0)], dtype=[("a", "i4"), ("b", "f8")])
    r = np.from_array(x.copy(), 2)
    same(r["b"], x["b"])
    same(r[["a"]], x[["a"]])
    r["a"] = [7, 8, 9]
    x["a"] = [7, 8, 9]
    numpy.testing.assert_array_equal(r.compute(), x)


# -- assignment -------------------------------------------------------------------------------------------------------

def test_assignment_costs_only_the_border():
    a = np.from_array(numpy.zeros((100, 100)), 10) + 1
    a[15:85, 20:80] = np.ones((70, 60), chunks=10)
    labels = {}
    for f in a.explain().graph.families:
        labels[f.label] = labels.get(f.label, 0) + f.count
    assert labels["assign"] == 2 * 6
    assert a.sum().compute() == 100 * 100


def test_assignment_keeps_the_dtype():
    for dtype in ("i4", "f4", "?", "u1"):
        x = numpy.zeros((3, 4), dtype)
        a = np.from_array(x.copy(), 2)
        a[1], x[1] = 1.75, 1.75
        a[0, ::2], x[0, ::2] = [True, 2], [True, 2]
        same(a, x)


def test_assignment_in_place_arithmetic():
    x = numpy.arange(12.0).reshape(3, 4)
    a = np.from_array(x.copy(), 2)
    a[1:] += 10
    x[1:] += 10
    a[a > 15] *= -1
    x[x > 15] *= -1
    a[[0, 2], [1, 1]] -= 0.5
    x[[0, 2], [1, 1]] -= 0.5
    same(a, x)


def test_the_last_of_equal_places_wins():
    places, values = numpy.array([3, 1, 3, 3, 0]), numpy.arange(5)
    x = numpy.zeros(4)
    x[places] = values
    for index in (places, np.from_array(places, 2) + 0):
        a = np.from_array(numpy.zeros(4), 2)
        a[index] = np.from_array(values, 2)
        same(a, x)


def test_put_functions():
    x = numpy.arange(12.0).reshape(3, 4)

    def both(change):
        y, a = x.copy(), np.from_array(x.copy(), 2)
        change(numpy, y)
        change(np, a)
        same(a, y)
    both(lambda m, a: m.put_along_axis(a, numpy.array([[1], [0], [3]]), -1, 1))
    both(lambda m, a: m.put_along_axis(a, numpy.array([[1, 2], [0, 0], [3, 1]]), numpy.array([[5, 6]]), 1))
    both(lambda m, a: m.put_along_axis(a, numpy.array([3, 5]), [7, 8], None))
    both(lambda m, a: m.put(a, [1, -1, 5], [8, 9]))
    both(lambda m, a: m.put(a, [99], 1, mode="clip"))
    both(lambda m, a: m.putmask(a, x > 4, [1, 2, 3]))
    both(lambda m, a: m.putmask(a, x > 4, -x))
    both(lambda m, a: m.place(a, x % 2 == 0, [1, 2]))
    both(lambda m, a: m.copyto(a, numpy.arange(4), where=numpy.array([[True], [False], [True]])))
    both(lambda m, a: m.copyto(a, 3))
    with pytest.raises(TypeError, match="casting='unsafe'"):
        np.copyto(np.zeros(3, dtype=int), 1.5)
    with pytest.raises(TypeError, match="changes an Array"):
        np.put_along_axis(x, numpy.array([[1]]), 1, 1)


def test_masks_of_other_arrays_of_unknown_extent():
    a, b = np.from_array(numpy.arange(20), 6), np.from_array(numpy.arange(20)[::-1].copy(), 7)
    y, m = a[a % 2 == 0], b[b % 2 == 0] > 8
    numpy.testing.assert_array_equal(y[m].compute(), numpy.arange(0, 20, 2)[numpy.arange(18, -1, -2) > 8])
    with pytest.raises(IndexError, match="did not match"):
        a[a > 10][m]


def test_replays_take_their_own_arguments():
    f = np.jit(lambda x, i: (x.reshape(-1)[3:][i], x[x > 2], np.roll(x, 1)))
    for k in range(3):
        x = numpy.arange(12.0).reshape(3, 4) + k
        for y in (x, numpy.asfortranarray(x)):
            made = f(np.from_array(y, 2), np.from_array(numpy.array([k, 2]), 2))
            for m, e in zip(made, (x.reshape(-1)[3:][[k, 2]], x[x > 2], numpy.roll(x, 1))):
                numpy.testing.assert_array_equal(m.compute(), e)


def test_indexing_computes_nothing():
    from nums_core import session

    a = np.from_array(X, 2) + 1
    before = session.current().last_report
    for index in INDICES.values():
        a[index]
        b = a + 0
        b[index] = 3
    assert session.current().last_report is before
