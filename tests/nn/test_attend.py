"""The attention kernels beside attention written out in NumPy."""

import itertools

import numpy as np
import pytest

from nums_core.nn.ops import attend
from nums_core.nn.ops.attend import attention_block, attention_gradients, column_sums


def weights(q, k, causal, scale=None, window=None, mask=None):
    """All p (heads, s, t), in float64; zeros in rows that see nothing."""
    q, k = q.astype(float), k.astype(float)
    s, heads, d = q.shape
    t = k.shape[0]
    k = k.repeat(heads // k.shape[1], axis=1)
    scores = np.einsum("shd,thd->hst", q, k) * (d ** -0.5 if scale is None else scale)
    own, at = np.arange(s)[:, None] + t - s, np.arange(t)
    seen = (at <= own) if causal else np.ones((s, t), bool)
    if window is not None:
        seen = seen & (at > own - window)
    if mask is not None and mask.dtype != bool:
        scores = scores + mask
    elif mask is not None:
        seen = seen & mask
    scores = np.where(seen, scores, -np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.exp(scores - scores.max(-1, keepdims=True))
        lse = np.log(p.sum(-1)) + scores.max(-1)
        return np.nan_to_num(p / p.sum(-1, keepdims=True)), lse


def drawn(s, t, heads, kv, d, e, dtype="f4", seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n).astype(dtype) for n in ((s, heads, d), (t, kv, d), (t, kv, e))]


SHAPES = [(1, 1, 1, 1, 4, 4), (7, 7, 2, 2, 4, 3), (5, 9, 6, 2, 8, 8), (9, 5, 2, 1, 4, 4), (1, 33, 4, 2, 8, 8),
          (300, 300, 2, 1, 4, 4), (0, 5, 2, 2, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3, 150])
def test_agrees_with_attention_written_out(shape, causal, window):
    q, k, v = drawn(*shape)
    out, lse = attention_block(q, k, v, causal, None, window)
    p, want_lse = weights(q, k, causal, window=window)
    np.testing.assert_allclose(out, np.einsum("hst,the->she", p, v.repeat(shape[2] // shape[3], 1)), atol=3e-6)
    seen = np.isfinite(want_lse.T)
    np.testing.assert_allclose(lse[seen], want_lse.T[seen], atol=3e-6, rtol=1e-6)
    assert (lse[~seen] == np.finfo("f4").min).all() and not out[~seen].any()
    np.testing.assert_allclose(column_sums(q, k, lse, causal, None, window), p.sum(1), atol=2e-5, rtol=2e-6)


@pytest.mark.parametrize("mask", ["bool", "heads", "added", "nothing"])
def test_masks(mask):
    q, k, v = drawn(6, 8, 4, 2, 4, 4)
    rng = np.random.default_rng(1)
    m = {"bool": rng.random((1, 6, 8)) < 0.5, "heads": rng.random((4, 6, 8)) < 0.6,
         "added": rng.normal(size=(4, 1, 8)).astype("f4"), "nothing": np.zeros((1, 1, 8), bool)}[mask]
    out, lse = attention_block(q, k, v, False, mask=m)
    p, _ = weights(q, k, False, mask=m)
    np.testing.assert_allclose(out, np.einsum("hst,the->she", p, v.repeat(2, 1)), atol=3e-6)
    assert mask != "nothing" or (not out.any() and (lse == np.finfo("f4").min).all())
    np.testing.assert_allclose(column_sums(q, k, lse, False, mask=m), p.sum(1), atol=1e-5)


@pytest.mark.parametrize("causal, window, scale", [(True, None, None), (False, None, 0.3), (True, 3, None)])
def test_gradients_are_those_of_the_softmax(causal, window, scale):
    q, k, v = drawn(7, 9, 4, 2, 3, 5, "f8")
    out, lse = attention_block(q, k, v, causal, scale, window)
    g = np.random.default_rng(2).normal(size=out.shape)
    got = attention_gradients(q, k, v, out, lse, g, causal, scale, window)
    for x, dx in zip((q, k, v), got, strict=True):
        direction, step = np.random.default_rng(3).normal(size=x.shape), 1e-6
        ahead, behind = ((attention_block(*[y + s * direction if y is x else y for y in (q, k, v)], causal, scale,
                                          window)[0] * g).sum() for s in (step, -step))
        np.testing.assert_allclose((dx * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-7)


def test_tiles_cover_what_is_seen_and_leave_out_what_is_not():
    q, k, _ = drawn(1000, 1000, 2, 1, 4, 4)
    for causal, window in itertools.product([True, False], [None, 200]):
        seen = np.zeros((1000, 1000), int)
        for g0, g1, i0, i1, j0, j1 in attend._Scores(q, k, causal, None, window, None, np.dtype("f4")).tiles():
            assert (g0, g1) == (0, 1)
            seen[i0:i1, j0:j1] += 1
        i, j = np.indices(seen.shape)
        must = (j <= i) | (not causal)
        if window:
            must &= j > i - window
        assert (seen[must] == 1).all() and seen.max() == 1
        assert seen.sum() <= must.sum() + 1000 * 2 * attend.TILE_ROWS


def test_any_tiling_gives_the_same_values(monkeypatch):
    q, k, v = drawn(70, 90, 4, 2, 8, 8)
    g = np.ones((70, 4, 8), "f4")
    one, lse = attention_block(q, k, v)
    grads, sums = attention_gradients(q, k, v, one, lse, g), column_sums(q, k, lse)
    monkeypatch.setattr(attend, "TILE_ROWS", 16)
    monkeypatch.setattr(attend, "TILE_ELEMENTS", 1000)
    other, _ = attention_block(q, k, v)
    np.testing.assert_allclose(other, one, atol=1e-6)
    np.testing.assert_allclose(column_sums(q, k, lse), sums, atol=2e-5)
    for a, b in zip(attention_gradients(q, k, v, one, lse, g), grads, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_reads_any_strides_writes_where_it_is_told_and_keeps_half_precision():
    q, k, v = drawn(5, 5, 2, 2, 4, 4)
    want, _ = attention_block(q, k, v)
    strided = [np.asfortranarray(x) for x in (q, k, v)]
    out, lse = np.full((5, 4, 4), np.nan, "f4")[:, ::2], np.empty((2, 5), "f4").T
    made, of_rows = attention_block(*strided, out=out, lse=lse)
    assert made is out and of_rows is lse
    np.testing.assert_allclose(out, want, atol=1e-6)
    half, lse = attention_block(*(x.astype("f2") for x in (q, k, v)))
    assert half.dtype == "f2" and lse.dtype == "f4"
    np.testing.assert_allclose(half, want, atol=3e-3)
    ones = np.ones_like(want)
    got = attention_gradients(*(x.astype("f2") for x in (q, k, v)), half, lse, ones.astype("f2"))
    for a, b in zip(got, attention_gradients(q, k, v, *attention_block(q, k, v), ones), strict=True):
        assert a.dtype == "f2"
        np.testing.assert_allclose(a, b, atol=5e-3)


def test_large_scores_do_not_overflow_and_nan_stays_in_its_row():
    q, k, v = drawn(4, 4, 1, 1, 4, 4)
    out, _ = attention_block(q * 1e4, k, v)
    assert np.isfinite(out).all()
    q[2] = np.nan
    out, _ = attention_block(q, k, v)
    assert np.isnan(out[2]).all() and np.isfinite(np.delete(out, 2, 0)).all()
