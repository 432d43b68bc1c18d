"""Blocks travel with their values, their dtypes and their layout."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.runtime.wire import SMALL_BYTES, copied, pack, packed_bytes, unpack


def travel(blocks):
    """Through pickle, with arrays out of band and read-only; the blocks, and bytes that pickle had to copy."""
    buffers = []
    head = pickle.dumps(pack(blocks), protocol=5, buffer_callback=buffers.append)
    return unpack(pickle.loads(head, buffers=[bytes(b.raw()) for b in buffers])), len(head)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(b, tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(b, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("blocks", [
    [], [np.arange(3.0)], [np.full(2, float(k)) for k in range(50)], [np.array(k) for k in range(5)],
    [np.zeros((2, 0))] * 3, [np.arange(3), np.arange(4)], [np.arange(3), np.arange(3.0)], [1, 2.5, None, "text"],
    [(np.arange(3), 7, (np.ones((40, 40)),)), np.float32(3)], [np.array(["a", None], object)],
    [np.arange(5).astype("M8[D]"), np.arange(3000).astype("m8[us]")], [np.array("2020", "M8[Y]")],
    [np.array([(1, 2.0)] * 900, dtype=[("a", "i4"), ("b", "f8")])], [np.array(["xy", "z"])],
    [np.array(["long", "short"], np.dtypes.StringDType())]], ids=str)
def test_values(blocks):
    got, _ = travel(blocks)
    assert len(got) == len(blocks)
    for a, b in zip(got, blocks, strict=True):
        same(a, b)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "int4"])
@pytest.mark.parametrize("n", [3, 50_000])
def test_extension_dtypes(name, n):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = (np.arange(n) % 7).astype(getattr(ml_dtypes, name))
    (got,), copied_bytes = travel([x])
    assert got.dtype == x.dtype and (got == x).all() and copied_bytes < 10_000


@pytest.mark.parametrize("dtype", ["f2", "f8", "c16", "?", "M8[s]", "S3", "U2", [("a", "f8"), ("b", "i2")]])
def test_large_blocks_are_not_copied_by_pickle(dtype):
    x = np.zeros(50_000, dtype)
    for block in (x, x.reshape(500, 100).T, x.reshape(500, 100)[:, ::2]):
        _, copied_bytes = travel([block])
        assert copied_bytes < 2000


def test_many_small_blocks_are_one_buffer():
    buffers = []
    pickle.dumps(pack([np.ones(k % 3) for k in range(500)]), protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 1


def test_bytes():
    assert packed_bytes(pack([np.zeros(4)] * 3)) == 96
    assert packed_bytes(pack([np.zeros(SMALL_BYTES), np.zeros(2, "f4")])) == 8 * SMALL_BYTES + 8


@st.composite
def arrays_with_gaps(draw):
    """Views of an array by slices, reversals, transpositions and broadcasts."""
    ndim = draw(st.integers(1, 4))
    x = np.random.default_rng(0).normal(size=[draw(st.integers(1, 9)) for _ in range(ndim)])
    x = x[tuple(slice(draw(st.integers(0, 1)), None, draw(st.sampled_from([1, 2, -1, -2]))) if draw(st.booleans())
                else slice(None) for _ in range(ndim))]
    x = x.transpose(draw(st.permutations(range(ndim))))
    if draw(st.booleans()):
        x = np.broadcast_to(x, (draw(st.integers(1, 3)), *x.shape))
    return x


def layout(x):
    """What NumPy's iteration sees of an array: the order and direction of axes, and which run on into one another."""
    axes = [a for a in range(x.ndim) if x.shape[a] > 1]
    moving = sorted((a for a in axes if x.strides[a]), key=lambda a: (abs(x.strides[a]), -a))
    joined = [x.strides[b] == x.strides[a] * x.shape[a] for a, b in itertools.pairwise(moving)]
    return (moving, [x.strides[a] > 0 for a in moving], joined, x.flags.c_contiguous, x.flags.f_contiguous,
            [x.strides[a] == 0 for a in axes], bool(moving) and abs(x.strides[moving[0]]) == x.itemsize)


@settings(max_examples=400, deadline=None)
@given(arrays_with_gaps())
def test_layout(x):
    for got in (unpack(pack([x, 1]))[0], copied(x)):
        np.testing.assert_array_equal(got, x)
        if x.size:
            assert layout(got) == layout(x)
        assert got.dtype == x.dtype
    assert not np.shares_memory(copied(x), x)


@settings(max_examples=100, deadline=None)
@given(arrays_with_gaps())
def test_sums_have_the_same_bits(x):
    big = np.tile(x, (97,) + (1,) * (x.ndim - 1)) if x.ndim else x
    views = (x, big[::2], big[..., ::-1])
    for v, got in zip(views, travel([*views, 1])[0], strict=False):
        assert v.sum().tobytes() == got.sum().tobytes()


# -- copies -----------------------------------------------------------------------------------------------------------

EVENTS = np.dtype([("at", "M8[ns]"), ("price", "f4"), ("volume", "i4")])
DTYPES = ["?", "i1", "u8", "f2", "f4", "f8", "c8", "c16", "g", "M8[s]", "m8[ns]", "S5", "U3", "V1", "V2", "V8", "V3", "V24",
          EVENTS, [("a", "f8", (2,)), ("at", "m8[s]", (3,))], [("inner", EVENTS), ("n", "i2")], ">f8", ">i4",
          "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"]


def of(dtype, n=30_000):
    if isinstance(dtype, str) and dtype[0] in "bi" and dtype[1] in "fln":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        return (np.arange(n) % 7).astype(getattr(ml_dtypes, dtype))
    x = np.zeros(n, dtype)
    x.view("u1").reshape(n, -1)[:, 0] = np.arange(n) % 2
    return x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", [
    lambda x: x, lambda x: x.reshape(300, 100), lambda x: x.reshape(300, 100).T, lambda x: x.reshape(300, 100)[:, ::2],
    lambda x: x[::-1]], ids=["flat", "C", "F", "gaps", "backwards"])
def test_one_copy_at_most(dtype, view):
    """Contiguous blocks leave as they lie; others are made contiguous once. What arrives is the memory that came."""
    x = view(of(dtype))
    buffers = []
    head = pickle.dumps(pack([x]), protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 1 and len(head) < 2000
    sent = np.frombuffer(buffers[0].raw(), "u1")
    contiguous = x.flags.c_contiguous or x.flags.f_contiguous
    assert np.shares_memory(sent, x.view(np.dtype(f"V{x.itemsize}"))) == contiguous
    memory = np.array(sent)
    (got,) = unpack(pickle.loads(head, buffers=[memory]))
    assert not got.flags.owndata and np.shares_memory(memory, got.view(np.dtype(f"V{x.itemsize}")))
    assert got.dtype == x.dtype and got.tobytes() == x.tobytes()


def test_small_blocks_arrive_in_the_memory_they_shared():
    blocks = [np.arange(4).astype("M8[s]"), np.ones(3), np.ones((2, 2), "f4"), np.arange(5).astype("M8[s]")]
    buffers = []
    head = pickle.dumps(pack(blocks), protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 3  # one a dtype
    memory = [np.array(np.frombuffer(b.raw(), "u1")) for b in buffers]
    got = unpack(pickle.loads(head, buffers=memory))
    assert all(any(np.shares_memory(m, g.view("u1")) for m in memory) for g in got)
    for a, b in zip(got, blocks, strict=True):
        np.testing.assert_array_equal(a, b)
