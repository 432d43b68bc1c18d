"""Attention on Arrays: blocks, derivatives, refusals."""

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core import session
from nums_core.errors import DTypeError, ShapeError
from nums_core.nn.autodiff import grad
from nums_core.nn.functional import attention
from nums_core.nn.ops.attend import attention_block
from nums_core.testing.gradients import check_grad


def drawn(b=3, s=6, t=8, heads=4, kv=2, d=4, e=5, dtype="f4"):
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(dtype) for n in ((b, s, heads, d), (b, t, kv, d), (b, t, kv, e))]


@pytest.mark.parametrize("kv", [1, 2, 4])
@pytest.mark.parametrize("cut", ["whole", "batch", "length", "heads"])
@pytest.mark.parametrize("options", [{}, {"causal": False}, {"window": 3, "scale": 0.5}], ids=str)
def test_agrees_with_the_kernel_however_it_is_cut(kv, cut, options):
    q, k, v = drawn(kv=kv)
    chunks = {"whole": -1, "batch": {0: 2, 1: -1, 2: -1, 3: -1}, "length": {0: 1, 1: 3, 2: -1, 3: 2},
              "heads": {0: -1, 1: -1, 2: max(kv // 2, 1), 3: -1}}[cut]
    of_q = dict(chunks) if isinstance(chunks, dict) else chunks
    if cut == "heads":
        of_q[2] = max(kv // 2, 1) * 4 // kv
    made = attention(na.from_array(q, chunks=of_q), na.from_array(k, chunks=chunks), na.from_array(v, chunks=chunks), **options)
    want = np.stack([attention_block(*x, **options)[0] for x in zip(q, k, v, strict=True)])
    assert made.shape == want.shape and made.dtype == "f4"
    np.testing.assert_array_equal(made.compute(), want) if cut == "batch" else np.testing.assert_allclose(
        made.compute(), want, atol=1e-6)


def test_a_batch_or_heads_in_blocks_are_tasks_of_their_own():
    q, k, v = (na.from_array(x, chunks=(1, -1, -1, -1)) for x in drawn())
    assert attention(q, k, v).numblocks == (3, 1, 1, 1)
    q, k, v = (na.from_array(x, chunks=(-1, -1, x.shape[2] // 2, -1)) for x in drawn(heads=4, kv=2))
    plan = attention(q, k, v).explain()
    assert [f.count for f in plan.graph.families if f.label == "attention"] == [2]


@pytest.mark.parametrize("kv", [1, 2, 4])
@pytest.mark.parametrize("mask", [None, "bool", "added"])
def test_derivatives(kv, mask):
    q, k, v = drawn(2, 4, 5, 4, kv, 3, 3)
    rng = np.random.default_rng(1)
    m = {None: None, "bool": rng.random((2, 1, 4, 5)) < 0.7, "added": rng.normal(size=(1, 4, 4, 5))}[mask]
    check_grad(lambda q, k, v: attention(q, k, v, causal=mask is None, mask=m), q, k, v)


def test_derivatives_block_by_block_are_those_of_the_whole():
    arrays = drawn(heads=4, kv=2, e=4)

    def loss(q, k, v):
        return (attention(q, k, v) ** 2).sum()

    whole = nc.compute(grad(loss, (0, 1, 2))(*map(na.asarray, arrays)))[0]
    for cut in ((1, -1, -1, -1), (-1, -1, "heads", -1)):
        parts = [na.from_array(x, chunks=tuple(x.shape[2] // 2 if c == "heads" else c for c in cut)) for x in arrays]
        made = grad(loss, (0, 1, 2))(*parts)
        for a, b in zip(nc.compute(made)[0], whole, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_bits_do_not_depend_on_threads_or_on_how_the_batch_is_cut():
    q, k, v = drawn(b=6, s=40, t=40)
    seen = set()
    for threads in (1, 3):
        with session.init(threads=threads):
            for rows in (1, 4, 6):
                parts = [na.from_array(x, chunks=(rows, -1, -1, -1)) for x in (q, k, v)]
                made = nc.compute(attention(*parts), *grad(lambda *a: attention(*a).sum(), (0, 1, 2))(*parts))
                seen.add(b"".join(np.asarray(x).tobytes() for x in made))
    assert len(seen) == 1


@pytest.mark.parametrize("change, error, remedy", [
    (lambda q, k, v: (q[..., :2], k, v), ShapeError, "order of the axes"),
    (lambda q, k, v: (q[:, :, :3], k, v), ShapeError, "the nearest that does is 1"),
    (lambda q, k, v: (q[0], k, v), ShapeError, "reshape"),
    (lambda q, k, v: (q.astype(int), k, v), DTypeError, "astype"),
    (lambda q, k, v: (q, k, v[:, :2]), ShapeError, "must be equal"),
])
def test_refuses_what_does_not_fit(change, error, remedy):
    with pytest.raises(error, match=remedy):
        attention(*change(*map(na.asarray, drawn())))


@pytest.mark.parametrize("options, error, remedy", [
    ({"window": 0}, ShapeError, "at least 1"),
    ({"mask": np.ones((3, 4, 6), bool)}, ShapeError, "four axes"),
    ({"mask": np.ones((3, 3, 6, 8), bool)}, ShapeError, "or 1"),
    ({"mask": np.ones((1, 1, 1, 8), int)}, DTypeError, "ambiguous"),
])
def test_refuses_options(options, error, remedy):
    with pytest.raises(error, match=remedy):
        attention(*map(na.asarray, drawn()), **options)


def test_a_mask_that_is_an_array_is_data():
    q, k, v = map(na.asarray, drawn())
    run = nc.jit(lambda q, k, v, m: attention(q, k, v, causal=False, mask=m))
    m = np.zeros((1, 1, 1, 8), bool)
    for first in (2, 5):
        m = m.copy()
        m[..., :first] = True
        want = attention(q, k[:, :first], v[:, :first], causal=False).compute()
        np.testing.assert_allclose(run(q, k, v, na.asarray(m)).compute(), want, atol=1e-6)
