"""Functions of the user on blocks, and blocks as elements."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import GridError, KernelError, ShapeError
from nums_core.testing.oracle import check

X = np.random.default_rng(0).normal(size=(7, 9))
GRIDS = [(7, 9), (3, 4), (1, 1), (2, 9), ((3, 4), (1, 8))]


@pytest.fixture(params=GRIDS, ids=str)
def x(request):
    return nc.asarray(X, chunks=request.param)


# -- map_blocks -------------------------------------------------------------------------------------------------------

def test_map_blocks(x):
    check(nc.map_blocks(lambda b: b + 1, x), X + 1)
    check(x.map_blocks(lambda b, k: b * k, k=3), X * 3)
    check(x.map_blocks(np.square, dtype="f4"), np.square(X).astype("f4"))


def test_axes_dropped_and_added(x):
    check(nc.map_blocks(lambda b: b.sum(1), x, drop_axis=1), X.sum(1), rtol=1e-12)
    check(nc.map_blocks(lambda b: b.sum(0), x, drop_axis=[-2]), X.sum(0), rtol=1e-12)
    check(nc.map_blocks(lambda b: b[:, None], x, new_axis=1), X[:, None])
    made = nc.map_blocks(lambda b: np.repeat(b[:, None], 3, 1), x, new_axis=1, chunks=(x.chunks[0], (3,), x.chunks[1]))
    check(made, np.repeat(X[:, None], 3, 1))


def test_chunks_as_one_number_an_axis():
    x = nc.asarray(X, chunks=(3, 9))
    made = nc.map_blocks(lambda b: b[:1], x, chunks=(1, 9))
    assert made.chunks == ((1, 1, 1), (9,))
    check(made, X[::3])


def test_other_arguments_stay_where_they_are(x):
    check(nc.map_blocks(lambda a, k, b: a + k * b, x, 2, x), X + 2 * X)
    check(nc.map_blocks(lambda a, w: a * w[0], x, np.array([2.0])), X * 2)
    check(nc.map_blocks(lambda a, o=None: a + o.sum(), x, o=nc.arange(5, chunks=2)), X + 10)


def test_arrays_are_matched_from_the_right():
    x = nc.asarray(X, chunks=(3, 4))
    check(nc.map_blocks(lambda a, b: a + b, x, nc.asarray(X[0], chunks=4)), X + X[0])
    check(nc.map_blocks(lambda a, b: a + b, x, nc.asarray(X, chunks=(2, 2))), X + X)  # cut alike first
    scale = nc.asarray(np.array([1.0, 2, 3]), chunks=1)  # one number a block
    check(nc.map_blocks(lambda a, s: a * s, nc.asarray(X[:, 0], chunks=3), scale, chunks=((3, 3, 1),)),
          X[:, 0] * [1, 1, 1, 2, 2, 2, 3])
    with pytest.raises(ShapeError, match=r"rechunk\(\) one of them"):
        nc.map_blocks(lambda a, b: a, x, nc.asarray(X[:5], chunks=(1, 4)))


def test_block_info():
    seen = {}

    def look(a, k, b, block_info=None, block_id=None):
        seen[block_id] = block_info
        return a

    x, y = nc.asarray(X, chunks=(3, 4)), nc.asarray(X[0], chunks=4)
    check(nc.map_blocks(look, x, 7, y, dtype=float), X)
    assert seen[1, 2] == {
        0: {"shape": (7, 9), "num-chunks": (3, 3), "chunk-location": (1, 2), "array-location": [(3, 6), (8, 9)]},
        2: {"shape": (9,), "num-chunks": (3,), "chunk-location": (2,), "array-location": [(8, 9)]},
        None: {"shape": (7, 9), "num-chunks": (3, 3), "chunk-location": (1, 2), "array-location": [(3, 6), (8, 9)],
               "chunk-shape": (3, 1), "dtype": np.dtype(float)}}


def test_without_arrays():
    made = nc.map_blocks(lambda block_id: np.full((2, 3), block_id[0]), chunks=((2, 2), (3,)), dtype=int)
    check(made, np.repeat([[0], [1]], 2, 0) * np.ones((1, 3), int))

    def ramp(block_info=None):
        return np.arange(*block_info[None]["array-location"][0])
    check(nc.map_blocks(ramp, chunks=((4, 4),)), np.arange(8))


def test_dtype_is_found_on_ones():
    calls = []

    def f(b):
        calls.append(b.shape)
        return b.astype("f4")

    x = nc.asarray(X, chunks=(3, 4))
    assert nc.map_blocks(f, x).dtype == "f4"
    assert calls == [(3, 4)]
    calls.clear()
    nc.map_blocks(f, x, dtype=float)
    assert not calls

    def fails(b):
        raise IndexError("no such thing")
    with pytest.raises(ValueError, match=r"`dtype` inference failed in `map_blocks`.*IndexError: no such thing.*dtype=float"):
        nc.map_blocks(fails, x)


def test_wrong_shapes_are_told(x):
    with pytest.raises(ShapeError, match="drop_axis= or adds with new_axis="):
        nc.map_blocks(lambda b: b.sum(1), x)
    made = nc.map_blocks(lambda b: b[:, :1], nc.asarray(X, chunks=(3, 4)), dtype=float)
    with pytest.raises(KernelError, match=r"tell the shape of its results with chunks=(.|\n)*test_blocks.py:\d+"):
        made.compute()
    with pytest.raises(ValueError, match="Dimension mismatch"):
        nc.map_blocks(lambda b: 1.0, nc.ones(1), enforce_ndim=True, dtype=float).compute()


def test_blocks_are_read_only():
    data = np.ones(4)

    def spoil(b):
        b += 1
        return b
    with pytest.raises(KernelError, match=r"block = block.copy\(\)"):
        nc.map_blocks(spoil, nc.asarray(data, chunks=2), dtype=float).compute()
    assert (data == 1).all()


def test_refusals(x):
    with pytest.raises(TypeError, match="must be callable"):
        nc.map_blocks(x, x)
    with pytest.raises(ValueError, match="drop_axis out of range"):
        nc.map_blocks(lambda b: b, x, drop_axis=5)
    with pytest.raises(ValueError, match="do not fill"):
        nc.map_blocks(lambda b: b, x, new_axis=7, dtype=float)
    with pytest.raises(GridError, match="one entry for each axis"):
        nc.map_blocks(lambda b: b, x, chunks=(1,), dtype=float)
    with pytest.raises(GridError, match="one extent for each block"):
        nc.map_blocks(lambda b: b, nc.asarray(X, chunks=(3, 9)), chunks=((1, 1), (9,)), dtype=float)


def test_the_same_function_is_planned_once():
    from nums_core import session

    def run():
        return nc.map_blocks(lambda b: b - 3, nc.asarray(X, chunks=4), dtype=float).compute()
    run()
    before = session.current().plans_made
    for _ in range(3):
        run()
    assert session.current().plans_made == before


def test_equal_keywords_of_other_types_are_not_confused():
    x = nc.asarray(np.ones(2))
    kinds = [nc.map_blocks(lambda b, k: np.full(2, type(k).__name__ == "bool"), x, k=k, dtype=bool) for k in (1, 1.0, True)]
    assert [k.compute().tolist() for k in kinds] == [[False] * 2, [False] * 2, [True] * 2]


def test_unknown_extents_pass_through():
    x = nc.arange(10, chunks=4)
    check(nc.map_blocks(lambda b: b * 2, x[x > 5], dtype=int), np.arange(6, 10) * 2)


# -- blockwise --------------------------------------------------------------------------------------------------------

def test_blockwise_outer(x):
    a, b = nc.asarray(X[:, 0], chunks=3), nc.asarray(X[0], chunks=2)
    check(nc.blockwise(np.multiply.outer, "ij", a, "i", b, "j"), np.multiply.outer(X[:, 0], X[0]))


@pytest.mark.parametrize("concatenate", [True, False, None])
def test_blockwise_contraction(x, concatenate):
    def product(a, b):
        return a @ b if concatenate else sum(p @ q for p, q in zip(a, b, strict=True))
    made = nc.blockwise(product, "ik", x, "ij", nc.asarray(X.T, chunks=(4, 2)), "jk", concatenate=concatenate, dtype=float)
    check(made, X @ X.T, rtol=1e-12)


def test_blockwise_lists_are_nested():
    shapes = nc.blockwise(lambda rows: np.array([len(rows), len(rows[0])]), "n", nc.asarray(X, chunks=(3, 4)), "ij",
                          new_axes={"n": 2}, dtype=int)
    check(shapes, [3, 3])


def test_blockwise_new_axes_and_adjusted_chunks():
    x = nc.asarray(X, chunks=(3, 4))
    made = nc.blockwise(lambda a: np.repeat(a, 2, 0), "ij", x, "ij", adjust_chunks={"i": lambda n: 2 * n}, dtype=float)
    check(made, np.repeat(X, 2, 0))
    made = nc.blockwise(lambda a: np.stack([a, -a]), "zij", x, "ij", new_axes={"z": 2})
    check(made, np.stack([X, -X]))
    made = nc.blockwise(lambda a: a[None], "zij", x, "ij", new_axes={"z": (1, 1)})
    check(made, np.stack([X, X]))


def test_blockwise_transposes_and_broadcasts():
    x = nc.asarray(X, chunks=(3, 4))
    check(nc.blockwise(np.transpose, "ji", x, "ij"), X.T)
    check(nc.blockwise(lambda a, b: a + b, "ij", x, "ij", nc.asarray(X[:1], chunks=4), "ij"), X + X[:1])
    check(nc.blockwise(lambda a, k: a * k, "ij", x, "ij", 3, None), X * 3)


def test_blockwise_refusals():
    x = nc.asarray(X)
    with pytest.raises(ValueError, match="pairs of an array and its labels"):
        nc.blockwise(np.add, "ij", x)
    with pytest.raises(ValueError, match="Repeated elements"):
        nc.blockwise(np.add, "ii", x, "ij")
    with pytest.raises(ValueError, match="one label an axis"):
        nc.blockwise(np.negative, "i", x, "i")
    with pytest.raises(ValueError, match="new_axes="):
        nc.blockwise(np.negative, "ijk", x, "ij")
    with pytest.raises(ShapeError, match="different lengths in arrays"):
        nc.blockwise(np.add, "ij", x, "ij", nc.asarray(X[:3]), "ij")


# -- coarsen ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("chunks", [4, (3, 4), (1, 1), -1])
def test_coarsen(chunks):
    data = np.arange(24).reshape(4, 6)
    x = nc.asarray(data, chunks=chunks)
    check(nc.coarsen(np.sum, x, {0: 2, 1: 3}), data.reshape(2, 2, 2, 3).sum((1, 3)))
    check(nc.coarsen(np.mean, x, {-1: 2}), data.reshape(4, 3, 2).mean(2))
    check(nc.coarsen(nc.max, x, {0: 4}), data.max(0, keepdims=True))
    check(nc.coarsen(np.max, x, {0: 3, 1: 4}, trim_excess=True), data[:3, :4].max((0, 1), keepdims=True))
    with pytest.raises(ValueError, match="trim_excess=True"):
        nc.coarsen(np.sum, x, {0: 3})


# -- blocks as elements -----------------------------------------------------------------------------------------------

def test_block_view():
    x = nc.asarray(X, chunks=(3, 4))
    b = x.blocks
    assert (b.shape, b.size, len(b), len(b.ravel())) == ((3, 3), 9, 3, 9)
    check(b[1], X[3:6])
    check(b[1, 2], X[3:6, 8:])
    check(b[-1, ..., -1], X[6:, 8:])
    check(b[::-1], X[[6, 3, 4, 5, 0, 1, 2]])
    check(b[[2, 0], 1], X[[6, 0, 1, 2], 4:8])
    check(b[np.array([True, False, True])], X[[0, 1, 2, 6]])
    check(b.ravel()[5], X[3:6, 8:])
    assert x.partitions[0].shape == (3, 9)


def test_block_view_of_unknown_extents():
    x = nc.arange(10, chunks=4)
    check(x[x > 2].blocks[0], [3])


def test_block_view_computes_what_it_names():
    calls = []

    def f(b):
        calls.append(b.shape)
        return b
    x = nc.map_blocks(f, nc.asarray(X, chunks=(3, 4)), dtype=float)
    check(x.blocks[1, 2], X[3:6, 8:])
    check(x.blocks[[2, 0], 0], X[[6, 0, 1, 2], :4])
    check(x[:2, :2], X[:2, :2])
    assert sorted(calls) == [(1, 4), (3, 1), (3, 4), (3, 4)]


@pytest.mark.parametrize("index, error, text", [
    (3, IndexError, "out of bounds"), ((0, 0, 0), IndexError, "too many"), (None, ValueError, "newaxis"),
    (([0], [0]), ValueError, "single list"), ("a", IndexError, "integers, slices"), (slice(3, 9), IndexError, "at least one"),
    ((..., ...), IndexError, "single ellipsis")])
def test_block_view_refusals(index, error, text):
    with pytest.raises(error, match=text):
        nc.asarray(X, chunks=(3, 4)).blocks[index]
