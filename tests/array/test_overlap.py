"""Blocks that see their neighbours: halos of every kind against numpy.pad."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core import config
from nums_core.array import overlap as ov
from nums_core.errors import KernelError, ShapeError
from nums_core.testing.oracle import check

X = np.random.default_rng(0).normal(size=(7, 9))
MODE = {"reflect": "symmetric", "nearest": "edge", "periodic": "wrap"}
GRIDS = [(7, 9), (3, 4), (1, 2), ((3, 4), (1, 8))]
windows = np.lib.stride_tricks.sliding_window_view


@pytest.fixture(params=GRIDS, ids=str)
def x(request):
    return nc.asarray(X, chunks=request.param)


def padded(kind, depth):
    pairs = [(d, d) if isinstance(d, int) else d for d in depth]
    if isinstance(kind, str):
        return np.pad(X, pairs, mode=MODE[kind])
    return np.pad(X, pairs, constant_values=kind)


def box_sums(block, before, after):
    """Sums over the box around each element; what the halo cannot fill is garbage, to be cut off."""
    width = before + after + 1
    if min(block.shape) < width:
        return block
    return np.pad(windows(block, (width, width)).sum((-1, -2)), (before, after))


@pytest.mark.parametrize("kind", ["reflect", "nearest", "periodic", 0.0, np.nan], ids=str)
@pytest.mark.parametrize("depth", [1, 5, (1, 3)], ids=str)
def test_map_overlap(x, kind, depth):
    before, after = (depth, depth) if isinstance(depth, int) else depth
    want = windows(padded(kind, [depth] * 2), (before + after + 1,) * 2).sum((-1, -2))
    depths = {0: depth, 1: depth}
    made = nc.map_overlap(lambda b: box_sums(b, before, after), x, depth=depths, boundary=kind)
    assert made.chunks == x.chunks
    check(made, want, rtol=1e-12)
    check(x.map_overlap(box_sums, depth=depths, boundary=kind, before=before, after=after, dtype=float), want, rtol=1e-12)
    # The long way, through map_blocks:
    seen = []

    def spy(b, block_id=None):
        seen.append(block_id)
        return box_sums(b, before, after)
    check(nc.map_overlap(spy, x, depth=depths, boundary=kind, dtype=float), want, rtol=1e-12)
    assert len(seen) == x.npartitions


def test_no_boundary_means_less_at_the_ends(x):
    shapes = []
    made = nc.map_overlap(lambda b: shapes.append(b.shape) or b, x, depth=2, dtype=float)
    check(made, X)
    ends = [np.cumsum(c) for c in x.chunks]
    want = [tuple(min(e[i] + 2, n) - max(e[i] - c[i] - 2, 0) for e, c, n, i in zip(ends, x.chunks, X.shape, at, strict=True))
            for at in np.ndindex(*x.numblocks)]
    assert sorted(shapes) == sorted(want)


def test_one_task_a_block():
    x = nc.asarray(X, chunks=(3, 4)).persist()
    made = nc.map_overlap(lambda b: b, x, depth=1, boundary="reflect", dtype=float)
    families = made.explain().graph.families
    assert [f.count for f in families if f.role != "leaf"] == [9]


def test_several_arrays(x):
    y = nc.asarray(X[0], chunks=4)
    made = nc.map_overlap(lambda a, b: a + b, x, y, depth=[{0: 1, 1: 2}, {0: 2}], boundary=[0, 0])
    check(made, X + X[0])
    made = nc.map_overlap(lambda a, b: a[:] - b, x, nc.asarray(X * 2, chunks=3), depth=1, boundary="nearest", dtype=float)
    check(made, X - 2 * X)


def test_axes_dropped_and_chunks_given():
    x = nc.asarray(X, chunks=(3, 9))
    made = nc.map_overlap(lambda b: b.sum(1), x, depth={0: 1}, boundary=0, drop_axis=1, dtype=float)
    check(made, X.sum(1), rtol=1e-12)
    made = nc.map_overlap(lambda b: b[None], x, depth={0: 1}, boundary=0, new_axis=0, dtype=float)
    check(made, X[None])
    made = nc.map_overlap(lambda b: b[1:-1], x, depth={0: 1}, boundary=0, trim=False)
    assert made.chunks == x.chunks
    check(made, X)
    made = nc.map_overlap(lambda b: b, x, depth={0: 1}, boundary=0, trim=False, chunks=((5, 5, 3), (9,)))
    assert made.shape == (7 + 2 * 3, 9)


def test_values_between_arrays():
    x = nc.asarray(X, chunks=(3, 4))
    check(nc.map_overlap(lambda k, b: k * b, 2.0, x, depth=1, boundary="reflect"), 2 * X)


@pytest.mark.parametrize("kind", ["none", "reflect", "nearest", "periodic", 0.0], ids=str)
@pytest.mark.parametrize("depth", [1, 3, {1: (0, 2)}], ids=str)
def test_overlap_and_trim_undo_each_other(x, kind, depth):
    grown = ov.overlap(x, depth, kind)
    assert all(np.asarray(grown.blocks[at].compute()).shape == grown.blocks[at].shape for at in np.ndindex(*grown.numblocks))
    check(ov.trim_overlap(grown, depth, kind), X)


def test_corners_take_the_later_axis():
    made = ov.overlap(nc.asarray(X), 1, {0: 1.0, 1: 2.0})
    assert np.asarray(made.compute())[0, 0] == 2.0


@pytest.mark.parametrize("name", list(MODE))
def test_padding(x, name):
    check(getattr(ov, name)(x, 0, 3), np.pad(X, ((3, 3), (0, 0)), mode=MODE[name]))
    check(ov.boundaries(x, {1: 2}, {1: name}), np.pad(X, ((0, 0), (2, 2)), mode=MODE[name]))


def test_constant_padding(x):
    check(ov.constant(x, 1, 2, 5), np.pad(X, ((0, 0), (2, 2)), constant_values=5))


@pytest.mark.parametrize("depth, boundary, text", [
    (8, "reflect", "larger than your array"), (1, "mirror", "or give a number"), (-1, 0, "0 or more"),
    ((1, 1, 1), 0, "one an axis"), (1, ("none",), "one an axis")])
def test_refusals(depth, boundary, text):
    with pytest.raises(ValueError, match=text):
        nc.map_overlap(lambda b: b, nc.asarray(X), depth=depth, boundary=boundary)


def test_refusals_of_map_overlap():
    with pytest.raises(TypeError, match="needs an Array"):
        nc.map_overlap(lambda b: b, 3, depth=1)
    with pytest.raises(TypeError, match="must be callable"):
        nc.map_overlap(3, nc.asarray(X), depth=1)
    with pytest.raises(ValueError, match="a list with one for each"):
        nc.map_overlap(lambda b: b, nc.asarray(X), depth=[1, 2])
    shrinking = nc.map_overlap(lambda b: b[1:], nc.asarray(X), depth=1, boundary=0, dtype=float)
    with pytest.raises(KernelError, match="return the shape given"):
        shrinking.compute()
    with pytest.raises(ShapeError, match="larger blocks"):
        ov.trim_internal(nc.asarray(X, chunks=1), 1, 0)


# -- moving windows ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape, axis", [((2, 3), None), (3, 1), ((2, 2), (0, 0)), (1, 0), ((7, 9), None), (2, -2)])
def test_sliding_window_view(x, shape, axis):
    want = windows(X, shape, axis)
    check(nc.sliding_window_view(x, shape, axis), want)
    check(nc.sliding_window_view(x, shape, axis) * 2, want * 2)
    check(np.lib.stride_tricks.sliding_window_view(x, shape, axis), want)


def test_windows_are_cut_finer():
    with config.set(block_bytes=400):
        made = nc.sliding_window_view(nc.asarray(np.arange(100.0), chunks=50), 10)
    assert max(made.chunks[0]) * 10 * 8 <= 400
    check(made, windows(np.arange(100.0), 10))


@pytest.mark.parametrize("shape, axis, text", [(8, 0, "cannot be larger"), (-1, 0, "negative"), (2, None, "matching length")])
def test_window_refusals(x, shape, axis, text):
    with pytest.raises(ValueError, match=text):
        nc.sliding_window_view(x, shape, axis)


# -- forward filling --------------------------------------------------------------------------------------------------

def pushed(data, n, axis):
    out = np.moveaxis(data.copy(), axis, -1)
    for line in out.reshape(-1, out.shape[-1]) if out.flags.c_contiguous else [out[i] for i in np.ndindex(out.shape[:-1])]:
        last, age = np.nan, 0
        for i, v in enumerate(line):
            age = age + 1 if np.isnan(v) else 0
            if age == 0:
                last = v
            elif n is None or age <= n:
                line[i] = last
    return np.moveaxis(out, -1, axis)


@pytest.mark.parametrize("n", [None, 1, 2, 100])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_push(n, axis):
    data = np.where(np.random.default_rng(1).random(X.shape) < 0.5, np.nan, X)
    for chunks in GRIDS:
        check(nc.push(nc.asarray(data, chunks=chunks), n, axis), pushed(data, n, axis))


def test_push_of_integers():
    check(nc.push(nc.arange(5, chunks=2), axis=0), np.arange(5))
