"""Grids: how chunks are written, how "auto" cuts, and where pieces of re-blocked arrays lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core import config
from nums_core.errors import GridError, UnknownSizeError
from nums_core.expr import grid as grids
from nums_core.testing.strategies import chunks_for


@pytest.mark.parametrize("chunks, shape, want", [
    (3, (7,), ((3, 3, 1),)), (3, (7, 4), ((3, 3, 1), (3, 1))), (-1, (7, 4), ((7,), (4,))), (None, (7,), ((7,),)),
    ((3, -1), (7, 4), ((3, 3, 1), (4,))), (((3, 4), (1, 3)), (7, 4), ((3, 4), (1, 3))), ({0: 2}, (5, 4), ((2, 2, 1), (4,))),
    ({-1: 2}, (5, 4), ((5,), (2, 2))), ((3, 4), (7,), ((3, 4),)), ("auto", (7, 4), ((7,), (4,))), ((), (), ()), (5, (), ()),
    (3, (0,), ((0,),)), ((2, "auto"), (4, 6), ((2, 2), (6,))), (np.int64(2), (3,), ((2, 1),)), (100, (7,), ((7,),)),
    ((2, None), (4, 3), ((2, 2), (3,))), (3.0, (6,), ((3, 3),))], ids=str)
def test_ways_to_write_chunks(chunks, shape, want):
    assert grids.normalize(chunks, shape, float) == want


def test_a_dict_keeps_what_it_leaves_out():
    assert grids.normalize({0: -1}, (4, 6), float, ((2, 2), (1, 5))) == ((4,), (1, 5))


@pytest.mark.parametrize("chunks, shape, text", [
    (((3, 3),), (7,), "must add up to it"), ((1, 2, 3), (7, 4), "one entry an axis"), (0, (7,), "positive extent"),
    (-2, (7,), "positive extent"), (2.5, (7,), "positive extent"), ({3: 1}, (7, 4), "axes are 0 to 1"),
    (((-1, 8),), (7,), "must add up")], ids=str)
def test_refusals(chunks, shape, text):
    with pytest.raises(GridError, match=text):
        grids.normalize(chunks, shape, float)


def test_sizes_in_bytes():
    assert grids.normalize("1KiB", (1000,), np.float64) == (grids.uniform(1000, 125),)
    with config.set(block_bytes=1024):
        assert grids.normalize("auto", (1000,), np.float64) == (grids.uniform(1000, 125),)
    assert grids.normalize(("1KiB", -1), (1000, 2), np.float64)[0][0] * 2 * 8 <= 1024


# The grids that a softmax over the cluster's shape gives for these arrays on these cores are remembered as goldens in the
# papers' code; its (2000, 100000) comes out in 511 slivers of (4, 50000). Ours do not look at the cluster.
GOLDEN = [
    ((10**8,), (64,), (1562500,)),
    ((10**8, 10), (512, 1), (195313, 10)),
    ((40000, 40000), (32, 32), (1250, 1250)),
    ((10**5, 2000), (64, 2), (1563, 1000)),
    ((2000, 10**5), (2, 64), (1000, 1563)),
    ((2000, 2000, 500), (32, 32, 1), None),
]


@pytest.mark.parametrize("shape, grid, block", GOLDEN, ids=str)
def test_golden_grids(shape, grid, block):
    chunks = grids.normalize("auto", shape, np.float64)
    found = tuple(c[0] for c in chunks)
    assert math.prod(found) * 8 <= config.get().block_bytes
    assert math.prod(found) * 8 > config.get().block_bytes / 4, "blocks much smaller than asked for"
    if block is not None:
        assert (grids.grid_of(chunks), found) == (grid, block)


def test_no_slivers():
    """The longest edge of a block is at most twice the shortest one of those that were cut."""
    for shape in ((2000, 10**5), (10**5, 2000), (300, 10**6), (10**6, 3), (70, 70, 10**5), (5000, 5000, 5000)):
        block = [c[0] for c in grids.normalize("auto", shape, np.float64)]
        cut = [b for b, n in zip(block, shape, strict=True) if b < n]
        assert max(cut) <= 2 * min(cut)
        assert min(cut) >= min(min(shape), 16)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), st.integers(1, 2**24))
def test_auto_stays_within_its_limit(shape, limit):
    with config.set(block_bytes=limit):
        chunks = grids.normalize("auto", tuple(shape), np.uint8)
    assert tuple(map(sum, chunks)) == tuple(shape)
    assert math.prod(max(max(c), 1) for c in chunks) <= limit
    assert all(len(set(c[:-1])) <= 1 and c[-1] <= c[0] for c in chunks)


def test_the_grid_does_not_depend_on_the_machine():
    with config.set(threads=1, memory_bytes=2**30):
        few = grids.normalize("auto", (10**5, 10**4), float)
    with config.set(threads=64, memory_bytes=2**40):
        assert grids.normalize("auto", (10**5, 10**4), float) == few


# -- pieces -----------------------------------------------------------------------------------------------------------

@settings(max_examples=150, deadline=None)
@given(st.data())
def test_pieces_are_the_slice(data):
    n = data.draw(st.integers(1, 12))
    have = data.draw(chunks_for((n,)))[0]
    index = data.draw(st.slices(n))
    start, stop, step = index.indices(n)
    m = len(range(start, stop, step))
    want = data.draw(chunks_for((m,)))[0]
    x = np.arange(n)
    blocks = np.split(x, np.cumsum(have)[:-1])
    made = []
    for extent, pieces in zip(want, grids.overlaps(have, start, step, want), strict=True):
        out = np.full(extent, -1)
        for chunk, where, to in pieces:
            out[to] = blocks[chunk][where]
        made.append(out)
    np.testing.assert_array_equal(np.concatenate(made) if made else [], x[index])


def test_unknown_extents():
    chunks = ((np.nan, np.nan), (3,))
    assert not grids.known(chunks)
    with pytest.raises(UnknownSizeError, match="compute_chunk_sizes"):
        grids.require_known(chunks, "sorting")
    assert np.isnan(grids.block_elements(chunks)).all()


def test_helpers():
    chunks = ((2, 3), (4, 1))
    assert grids.offsets((2, 3, 1)) == [0, 2, 5]
    assert grids.grid_of(chunks) == (2, 2)
    np.testing.assert_array_equal(grids.block_elements(chunks), [[8, 2], [12, 3]])
    assert grids.uniform(0, 5) == (0,)
    assert grids.check_block_bytes(chunks, np.dtype("f8")) == "96 B"
