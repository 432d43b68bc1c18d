"""Axes, shapes, joining, padding and diagonals: NumPy is the oracle, on several grids."""

import itertools

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as np
from nums_core.expr import optimise

optimise.validate = True

SHAPES = [((6, 8), (3, 4)), ((6, 8), (4, 3)), ((6, 8), -1), ((7, 5), ((1, 2, 4), (5,))), ((1, 5), (1, 2)), ((4, 1), (3, 1)),
          ((0, 3), (1, 2)), ((2, 3, 4), (1, 2, 3)), ((5,), (2,)), ((), ())]


def source(shape, dtype=float):
    x = numpy.arange(numpy.prod(shape, dtype=int), dtype=dtype).reshape(shape)
    if numpy.dtype(dtype).kind == "f" and x.size:
        x.reshape(-1)[x.size // 2] = numpy.nan
    return x


def same(made, expected):
    """Equal in shape, dtype and values; nests of both alike."""
    if isinstance(expected, (tuple, list)):
        assert len(made) == len(expected)
        for m, e in zip(made, expected):
            same(m, e)
        return
    assert isinstance(made, np.Array), type(made)
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype
    assert made.chunks == () or tuple(map(sum, made.chunks)) == expected.shape
    values = numpy.asarray(made)
    assert values.shape == expected.shape and values.dtype == expected.dtype
    numpy.testing.assert_array_equal(values, expected)


def check(function, *arrays):
    """`function(module, *arrays)` agrees, from sources in memory and from computed blocks."""
    cut = [np.from_array(x, chunks) for x, chunks in arrays]
    expected = function(numpy, *(x for x, _ in arrays))
    same(function(np, *cut), expected)
    same(function(np, *(x + 0 if x.dtype != bool else x & True for x in cut)), expected)


UNARY = {
    "transpose": lambda m, x: m.transpose(x),
    "T": lambda m, x: x.T,
    "flip": lambda m, x: m.flip(x),
    "ravel": lambda m, x: m.ravel(x),
    "ravel F": lambda m, x: m.ravel(x, "F"),
    "flatten": lambda m, x: x.flatten(),
    "squeeze": lambda m, x: m.squeeze(x),
    "expand_dims": lambda m, x: m.expand_dims(x, (0, -1)),
    "reshape -1": lambda m, x: m.reshape(x, -1),
    "reshape column": lambda m, x: x.reshape(-1, 1),
    "reshape F": lambda m, x: m.reshape(x, (1, *x.shape[::-1]), order="F"),
    "atleast_1d": lambda m, x: m.atleast_1d(x),
    "atleast_2d": lambda m, x: m.atleast_2d(x),
    "atleast_3d": lambda m, x: m.atleast_3d(x),
    "atleast both": lambda m, x: m.atleast_2d(x, x),
    "roll all": lambda m, x: m.roll(x, 3),
    "repeat all": lambda m, x: m.repeat(x, 3),
    "repeat none": lambda m, x: m.repeat(x, 0),
    "tile": lambda m, x: m.tile(x, 2),
    "tile up": lambda m, x: m.tile(x, (2, 1, 3)),
    "tile none": lambda m, x: m.tile(x, 0),
    "append": lambda m, x: m.append(x, x),
    "resize": lambda m, x: m.resize(x, (3, 7)),
    "concatenate flat": lambda m, x: m.concatenate([x, x], axis=None),
    "stack": lambda m, x: m.stack([x, x, x], axis=-1),
    "vstack": lambda m, x: m.vstack([x, x]),
    "hstack": lambda m, x: m.hstack([x, x]),
    "dstack": lambda m, x: m.dstack([x, x]),
    "broadcast_to": lambda m, x: m.broadcast_to(x, (3, 2, *x.shape)),
    "broadcast_arrays": lambda m, x: m.broadcast_arrays(x, m.ravel(x)[:1]) if x.size else (x,),
    "diagflat": lambda m, x: m.diagflat(x, 1),
}


@pytest.mark.parametrize("shape, chunks", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_of_one_array(name, shape, chunks):
    check(UNARY[name], (source(shape), chunks))


@pytest.mark.parametrize("dtype", ["?", "u1", "i4", "f2", "c16", "M8[s]", "S3", "U2"])
@pytest.mark.parametrize("name", ["T", "ravel", "roll all", "repeat all", "stack", "resize", "tile"])
def test_dtypes(name, dtype):
    x = numpy.arange(12).astype("i8").astype(dtype).reshape(3, 4)
    same(UNARY[name](np, np.from_array(x, (2, 3))), UNARY[name](numpy, x))


TWO_AXES = {
    "permute": lambda m, x: m.permute_dims(x, (1, 0)),
    "negative axes": lambda m, x: m.transpose(x, (-1, 0)),
    "matrix_transpose": lambda m, x: m.matrix_transpose(x),
    "swapaxes": lambda m, x: m.swapaxes(x, 0, -1),
    "moveaxis": lambda m, x: m.moveaxis(x, 0, -1),
    "rollaxis": lambda m, x: m.rollaxis(x, 1),
    "rollaxis end": lambda m, x: m.rollaxis(x, 0, 2),
    "flipud": lambda m, x: m.flipud(x),
    "fliplr": lambda m, x: m.fliplr(x),
    "rot90": lambda m, x: m.rot90(x),
    "rot180": lambda m, x: m.rot90(x, 2),
    "rot270": lambda m, x: m.rot90(x, -1, (1, 0)),
    "roll axis": lambda m, x: m.roll(x, 2, axis=1),
    "roll both": lambda m, x: m.roll(x, (-3, 9), axis=(0, 1)),
    "roll twice": lambda m, x: m.roll(x, (1, 2), axis=(0, 0)),
    "repeat axis": lambda m, x: m.repeat(x, 2, axis=1),
    "repeat each": lambda m, x: x.repeat(numpy.arange(x.shape[0]) % 3, axis=0),
    "concatenate": lambda m, x: m.concatenate([x, x[:1], x], axis=0),
    "concat columns": lambda m, x: m.concat([x, x[:, 1:]], axis=-1),
    "concatenate dtype": lambda m, x: m.concatenate([x, x], dtype="f4", casting="same_kind"),
    "column_stack": lambda m, x: m.column_stack([x[:, 0], x, x[:, 1]]),
    "block": lambda m, x: m.block([[x, x[:, :1]], [x[:1], x[:1, :1]]]),
    "block mixed": lambda m, x: m.block([x[0], 5.0, x[1]]),
    "array_split": lambda m, x: m.array_split(x, 4),
    "array_split at": lambda m, x: m.array_split(x, [2, 1, 99], axis=1),
    "split": lambda m, x: m.split(x, [1, 3]),
    "hsplit": lambda m, x: m.hsplit(x, [2]),
    "vsplit": lambda m, x: m.vsplit(x, [2]),
    "dsplit": lambda m, x: m.dsplit(x[:, :, None], [1]),
    "unstack": lambda m, x: m.unstack(x, axis=1),
    "diagonal": lambda m, x: m.diagonal(x),
    "diagonal up": lambda m, x: x.diagonal(2),
    "diagonal down": lambda m, x: m.diagonal(x, -1, 1, 0),
    "diagonal outside": lambda m, x: m.diagonal(x, 99),
    "diag": lambda m, x: m.diag(x, 1),
    "tril": lambda m, x: m.tril(x),
    "tril up": lambda m, x: m.tril(x, 2),
    "triu": lambda m, x: m.triu(x),
    "triu down": lambda m, x: m.triu(x, -1),
    "delete": lambda m, x: m.delete(x, 1, axis=0),
    "delete many": lambda m, x: m.delete(x, [0, -1, 0], axis=1),
    "delete slice": lambda m, x: m.delete(x, slice(None, None, 2), axis=1),
    "delete mask": lambda m, x: m.delete(x, numpy.arange(x.shape[1]) > 2, axis=1),
    "delete flat": lambda m, x: m.delete(x, [3, 7]),
    "insert": lambda m, x: m.insert(x, 1, 5, axis=0),
    "insert row": lambda m, x: m.insert(x, 1, numpy.arange(x.shape[1]), axis=0),
    "insert column": lambda m, x: m.insert(x, -1, numpy.arange(x.shape[0]), axis=1),
    "insert columns": lambda m, x: m.insert(x, [1], numpy.arange(2 * x.shape[0]).reshape(-1, 2), axis=1),
    "insert many": lambda m, x: m.insert(x, [3, 1, 1], [[7, 8, 9]], axis=1),
    "insert slice": lambda m, x: m.insert(x, slice(1, 3), 4, axis=0),
    "insert flat": lambda m, x: m.insert(x, [2, 2], [6, 7]),
    "expand": lambda m, x: m.expand_dims(x, 1),
    "reshape": lambda m, x: x.reshape(x.shape[1], x.shape[0]),
}
MATRICES = [((6, 8), (3, 4)), ((6, 8), (4, 3)), ((7, 5), ((1, 2, 4), (5,))), ((4, 4), (1, 3)), ((5, 7), -1)]


@pytest.mark.parametrize("shape, chunks", MATRICES, ids=str)
@pytest.mark.parametrize("name", TWO_AXES)
def test_of_a_matrix(name, shape, chunks):
    check(TWO_AXES[name], (source(shape), chunks))


def test_stacks_of_matrices():
    x = source((3, 4, 5), "i8")
    for f in (lambda m, x: m.diagonal(x, 1, 1, 2), lambda m, x: m.diagonal(x, -1, 2, 0), lambda m, x: m.tril(x, 1),
              lambda m, x: m.triu(x), lambda m, x: m.moveaxis(x, (0, 1), (-1, 0)), lambda m, x: m.flip(x, (0, 2)),
              lambda m, x: m.matrix_transpose(x), lambda m, x: m.roll(x, 1, 2), lambda m, x: m.squeeze(x[:1, :, :1], 0)):
        check(f, (x, (2, 3, 2)))
    check(lambda m, x: m.diag(x[0, 0], -2), (x, (2, 3, 2)))


# -- reshape ----------------------------------------------------------------------------------------------------------

@st.composite
def reshapes(draw):
    """A shape, another of the same size, and chunks of the first."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), max_size=5))
    def grouped():
        shape = [1] * draw(st.integers(1 if primes else 0, 4))
        for p in draw(st.permutations(primes)):
            shape[draw(st.integers(0, len(shape) - 1))] *= p
        return tuple(shape)
    a, b = grouped(), grouped()
    return a, b, tuple(draw(st.integers(1, n)) for n in a)


@given(reshapes())
@settings(max_examples=60, deadline=None)
def test_reshape_of_any_shape_to_any(case):
    a, b, chunks = case
    x = numpy.arange(numpy.prod(a, dtype=int)).reshape(a)
    same(np.from_array(x, chunks).reshape(b), x.reshape(b))
    same((np.from_array(x, chunks) + 1).reshape(b), (x + 1).reshape(b))
    same(np.from_array(x.T, chunks[::-1]).reshape(b, order="F"), x.T.reshape(b, order="F"))


def test_reshape_keeps_blocks_of_about_the_usual_size():
    with np_config(block_bytes=8 * 100):
        x = np.from_array(numpy.arange(60.0 * 1000).reshape(60, 1000), (60, 10)) + 0
        y = x.reshape(-1)
        assert max(y.chunks[0]) <= 600
        numpy.testing.assert_array_equal(y.compute(), numpy.arange(60000.0))


def np_config(**changes):
    from nums_core import config

    return config.set(**changes)


def test_reshape_of_a_source_in_memory_is_a_view():
    x = numpy.arange(24.0).reshape(4, 6)
    plan = (np.from_array(x, (3, 4)).reshape(3, 8)[1:] + 1).explain()
    assert "gather" not in plan.text() and "reshape" not in plan.text()


def test_reshape_blockwise():
    x = np.from_array(numpy.arange(24).reshape(4, 6), (2, 3))
    y = np.reshape_blockwise(x, (24,))
    assert y.chunks == ((6, 6, 6, 6),)
    numpy.testing.assert_array_equal(y.compute()[:6], [0, 1, 2, 6, 7, 8])
    back = np.reshape_blockwise(y, (4, 6), x.chunks)
    numpy.testing.assert_array_equal(back.compute(), numpy.arange(24).reshape(4, 6))
    with pytest.raises(ValueError, match="chunks= is needed"):
        np.reshape_blockwise(y, (4, 6))


@pytest.mark.parametrize("bad, words", [((7,), "cannot reshape array of size 6 into shape .7,."),
                                        ((-1, -1), "can only specify one unknown dimension"),
                                        ((4, -1), "cannot reshape array of size 6 into shape .4,newaxis.")])
def test_reshape_errors(bad, words):
    with pytest.raises(ValueError, match=words):
        np.ones((2, 3)).reshape(bad)


# -- joining ----------------------------------------------------------------------------------------------------------

def test_joining_promotes_and_takes_lists():
    same(np.concatenate([[1, 2], numpy.float32([3])]), numpy.concatenate([[1, 2], numpy.float32([3])]))
    same(np.stack([1, 2.5]), numpy.stack([1, 2.5]))
    same(np.hstack([np.asarray([True]), [2]]), numpy.hstack([[True], [2]]))
    same(np.row_stack([[1, 2], [3, 4]]), numpy.vstack([[1, 2], [3, 4]]))


def test_joining_with_empty_parts():
    x = np.from_array(numpy.arange(5), 2)
    same(np.concatenate([x[:0], x, x[5:]]), numpy.arange(5))
    same(np.concatenate([x[:0], x[:0]]), numpy.arange(0))
    same(np.concatenate([x, x[x > 99], x]), numpy.tile(numpy.arange(5), 2))


def test_joining_arrays_of_unknown_extent_stays_lazy():
    x = np.from_array(numpy.arange(10), 3)
    y = np.concatenate([x[x > 4], x[x < 2]])
    assert numpy.isnan(y.expr.shape[0])
    numpy.testing.assert_array_equal(y.compute(), [5, 6, 7, 8, 9, 0, 1])


def test_joining_adds_no_task_for_blocks():
    x = np.from_array(numpy.arange(12.0), 3)
    assert np.concatenate([x, x, x]).explain().graph.n_tasks == 3 * 4 + 4  # views, and their copies into the result


ERRORS = [
    (lambda: np.transpose(np.ones((2, 3)), (0, 0)), ValueError, "repeated axis in transpose"),
    (lambda: np.transpose(np.ones((2, 3)), (0,)), ValueError, "axes don't match array"),
    (lambda: np.matrix_transpose(np.ones(3)), ValueError, "at least 2-dimensional"),
    (lambda: np.swapaxes(np.ones((2, 3)), 0, 3), numpy.exceptions.AxisError, "axis2: axis 3 is out of bounds"),
    (lambda: np.moveaxis(np.ones((2, 3)), 0, (1, 0)), ValueError, "same number of elements"),
    (lambda: np.rollaxis(np.ones((2, 3)), 5), numpy.exceptions.AxisError, "axis 5 is out of bounds"),
    (lambda: np.squeeze(np.ones((2, 3)), 0), ValueError, "size not equal to one"),
    (lambda: np.expand_dims(np.ones((2, 3)), 5), numpy.exceptions.AxisError, "axis 5 is out of bounds"),
    (lambda: np.broadcast_to(np.ones((2, 3)), (3, 3)), ValueError, "could not be broadcast together"),
    (lambda: np.concatenate([]), ValueError, "need at least one array"),
    (lambda: np.concatenate([np.ones((2, 3)), np.ones(3)]), ValueError, "same number of dimensions"),
    (lambda: np.concatenate([np.ones((2, 3)), np.ones((2, 4))]), ValueError, "along dimension 1, the array at index 0 has size 3"),
    (lambda: np.concatenate([np.ones(2)], dtype=int), TypeError, "casting='unsafe'"),
    (lambda: np.stack([np.ones(3), np.ones(4)]), ValueError, "must have the same shape"),
    (lambda: np.block([[np.ones(3)], np.ones(3)]), ValueError, "List depths are mismatched"),
    (lambda: np.array_split(np.ones(3), 0), ValueError, "larger than 0"),
    (lambda: np.split(np.ones(3), 2), ValueError, "use array_split"),
    (lambda: np.hsplit(np.asarray(3.0), 1), ValueError, "1 or more dimensions"),
    (lambda: np.repeat(np.ones(3), -1), ValueError, "negative"),
    (lambda: np.repeat(np.ones(3), [1, 2]), ValueError, "could not be broadcast"),
    (lambda: np.delete(np.ones(3), 9), IndexError, "index 9 is out of bounds for axis 0 with size 3"),
    (lambda: np.insert(np.ones(3), 9, 1), IndexError, "index 9 is out of bounds for axis 0 with size 3"),
    (lambda: np.pad(np.ones(3), -1), ValueError, "negative values"),
    (lambda: np.pad(np.ones(3), 1.5), TypeError, "integral type"),
    (lambda: np.pad(np.ones(3), 1, "mirror"), ValueError, "the modes are constant"),
    (lambda: np.pad(np.ones(3), 1, "edge", constant_values=3), ValueError, "unsupported keyword"),
    (lambda: np.pad(np.ones(0), 1, "edge"), ValueError, "can't extend empty axis 0"),
    (lambda: np.diagonal(np.ones(3)), ValueError, "at least two dimensions"),
    (lambda: np.diag(np.ones((2, 2, 2))), ValueError, "1- or 2-d"),
    (lambda: np.rot90(np.ones((2, 3)), axes=(0, 0)), ValueError, "Axes must be different"),
    (lambda: np.unstack(np.asarray(1.0)), ValueError, "at least 1-d"),
    (lambda: np.resize(np.ones(3), -1), ValueError, "non-negative"),
    (lambda: np.fill_diagonal(np.ones(3), 1), ValueError, "at least 2-d"),
    (lambda: np.trim_zeros(np.ones(3), "x"), ValueError, "give 'f', 'b' or 'fb'"),
]


@pytest.mark.parametrize("call, kind, words", ERRORS, ids=[w for _, _, w in ERRORS])
def test_errors(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


# -- padding ----------------------------------------------------------------------------------------------------------

PADS = [("constant", {}), ("constant", {"constant_values": ((1, 2), (3, 4))}), ("edge", {}), ("linear_ramp", {}),
        ("linear_ramp", {"end_values": (5, -4)}), ("maximum", {}), ("maximum", {"stat_length": 2}), ("minimum", {}),
        ("mean", {}), ("mean", {"stat_length": ((2, 3), (1, 2))}), ("median", {}), ("reflect", {}),
        ("reflect", {"reflect_type": "odd"}), ("symmetric", {}), ("symmetric", {"reflect_type": "odd"}), ("wrap", {})]


@pytest.mark.parametrize("mode, kwargs", PADS, ids=str)
@pytest.mark.parametrize("width", [1, ((2, 3), (0, 1)), ((0, 0), (17, 11)), {0: 2, -1: (1, 4)}], ids=str)
@pytest.mark.parametrize("dtype", ["i4", "f8"])
def test_pad(mode, kwargs, width, dtype):
    x = (numpy.arange(20).reshape(4, 5) ** 2 % 17).astype(dtype)
    expected = numpy.pad(x, width, mode, **kwargs)
    made = np.pad(np.from_array(x, (3, 2)), width, mode, **kwargs)
    assert made.shape == expected.shape and made.dtype == expected.dtype
    numpy.testing.assert_allclose(made.compute(), expected, rtol=1e-15)


def test_pad_of_one_element_and_of_none():
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        same(np.pad(np.from_array(numpy.array([[3]]), 1), 2, mode), numpy.pad(numpy.array([[3]]), 2, mode))
    same(np.pad(np.ones((0, 2)), 1), numpy.pad(numpy.ones((0, 2)), 1))
    assert np.pad(np.ones((2, 2)), 1, "empty").shape == (4, 4)


def test_pad_by_a_function():
    def fill(vector, widths, axis, kwargs):
        vector[:widths[0]] = kwargs["value"] + axis
        vector[len(vector) - widths[1]:] = -axis
    x = numpy.arange(12).reshape(3, 4)
    same(np.pad(np.from_array(x, (2, 3)), ((1, 2), (2, 1)), fill, value=10), numpy.pad(x, ((1, 2), (2, 1)), fill, value=10))


# -- diagonals, chunks, the rest ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, k, m", list(itertools.product([0, 1, 4], [-5, -1, 0, 2, 5], [None, 3, 6])))
def test_triangle_indices(n, k, m):
    same(np.tril_indices(n, k, m, chunks=4), numpy.tril_indices(n, k, m))
    same(np.triu_indices(n, k, m, chunks=4), numpy.triu_indices(n, k, m))


def test_other_indices_of_parts():
    x = numpy.ones((4, 3))
    same(np.tril_indices_from(np.asarray(x), 1), numpy.tril_indices_from(x, 1))
    same(np.triu_indices_from(np.asarray(x)), numpy.triu_indices_from(x))
    same(np.diag_indices(3, 3), numpy.diag_indices(3, 3))
    same(np.diag_indices_from(np.ones((3, 3))), numpy.diag_indices(3))
    same(np.mask_indices(3, np.triu, 1), numpy.mask_indices(3, numpy.triu, 1))


@pytest.mark.parametrize("shape, wrap", [((5, 5), False), ((7, 3), False), ((7, 3), True), ((3, 7), False), ((3, 3, 3), False)])
@pytest.mark.parametrize("value", [9, [1, 2]])
def test_fill_diagonal(shape, wrap, value):
    x = numpy.zeros(shape)
    a = np.from_array(x.copy(), 2)
    b = a + 0
    np.fill_diagonal(a, value, wrap)
    numpy.fill_diagonal(x, value, wrap)
    same(a, x)
    assert not b.compute().any()


def test_diagonal_reads_only_its_blocks():
    x = np.from_array(numpy.ones((100, 100)), 10) + 1
    plan = np.diagonal(x).explain()
    assert sum(f.count for f in plan.graph.families if f.label == "diagonal") == 10


def test_unify_chunks():
    x, y = np.ones((10, 4), chunks=((4, 6), (4,))), np.ones(10, chunks=((5, 5),))
    chunks, (a, b, c) = np.unify_chunks(x, "ij", y, "i", 3, None)
    assert chunks == {"i": (4, 1, 5), "j": (4,)}
    assert a.chunks == ((4, 1, 5), (4,)) and b.chunks == ((4, 1, 5),) and c == 3


def test_rechunk_and_queries():
    x = np.ones((6, 4), chunks=3)
    assert np.rechunk(x, (2, -1)).chunks == ((2, 2, 2), (4,))
    assert np.shape([[1, 2]]) == (1, 2) and np.ndim(x) == 2 and np.size(x) == 24 and np.size(x, 1) == 4


def test_broadcast_to_keeps_blocks_small():
    with np_config(block_bytes=800):
        y = np.broadcast_to(np.from_array(numpy.arange(10.0), 10), (1000, 10))
        assert max(y.chunks[0]) <= 10
        assert y.sum().compute() == 45000
    assert np.broadcast_to(np.ones(3), (4, 3), chunks=(2, 3)).chunks == ((2, 2), (3,))


@pytest.mark.parametrize("trim", ["fb", "f", "b"])
def test_trim_zeros(trim):
    for x in ([0, 0, 1, 2, 0, 3, 0], [0, 0], [1, 2]):
        same(np.trim_zeros(np.from_array(numpy.array(x), 2), trim), numpy.trim_zeros(numpy.array(x), trim))
    x = numpy.zeros((4, 5))
    x[1:3, 2] = 1
    same(np.trim_zeros(np.from_array(x, 2)), numpy.trim_zeros(x))


@given(st.integers(0, 30), st.integers(1, 7), st.lists(st.integers(-40, 40), max_size=3))
@settings(max_examples=25, deadline=None)
def test_roll_there_and_back(n, chunk, shifts):
    x = numpy.arange(n)
    a = np.from_array(x, chunk)
    for s in shifts:
        a = np.roll(a, s)
    same(a, numpy.roll(x, sum(shifts)))
    same(np.roll(a, -sum(shifts)), x)


def test_nothing_is_computed_by_moving():
    from nums_core import session

    before = session.current().last_report
    x = np.from_array(source((6, 8)), 3) + 1
    for f in (*UNARY.values(), *TWO_AXES.values()):
        f(np, x)
    assert session.current().last_report is before
