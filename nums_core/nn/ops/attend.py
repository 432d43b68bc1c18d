"""Softmax attention of one sequence, on NumPy arrays: tile by tile over the queries, in float32.

    out_i = sum_j p_ij v_j        p_ij = exp(scale q_i·k_j - lse_i)        lse_i = log sum_j exp(scale q_i·k_j)

These are the kernels; `nn.ops.attention` makes an operation with a derivative of them, and caches call them as they are. Of
the scores only one tile exists at a time, in scratch memory; tiles that no query may see are left out. A later pass needs no
more than (out, lse) to have any p_ij again: the backward pass, and the column sums by which some caches rank tokens.

Queries are the *last* of the keys' positions: query i of s stands at key t - s + i. Under `causal` it sees the keys up to its
own; with a `window` of w it sees no more than the last w of those. A query that sees nothing has out 0 and the lowest finite
lse.

Source     N. Rabe, C. Staats, "Self-attention does not need O(n²) memory", 2021; T. Dao et al., "FlashAttention", NeurIPS
           2022, for what the backward pass keeps.
Departs    A tile has all the keys that its queries see, so the softmax of a row is made at once, without rescaling: on a
           CPU a tile of that size fits the cache, and the bits of a row do not depend on how the keys are cut.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nums_core.runtime.devices import scratch

TILE_ROWS = 64  # queries of a tile, at most: of a causal sequence of n tiles, 1/2 + 1/2n of all scores are computed
TILE_ELEMENTS = 2**18  # of the scores of a tile: 1 MiB, long calls that still fit the cache


class Tile(NamedTuple):
    """Scores that are computed together: key heads g0..g1, queries i0..i1, keys j0..j1."""

    g0: int
    g1: int
    i0: int
    i1: int
    j0: int
    j1: int

    @property
    def keys(self) -> slice:
        return slice(self.j0, self.j1)

    @property
    def heads(self) -> slice:
        return slice(self.g0, self.g1)


def attention_block(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = True, scale: float | None = None,
                    window: int | None = None, out: np.ndarray | None = None, lse: np.ndarray | None = None,
                    mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Attention of one sequence.

    Parameters
    ----------
    q : (s, heads, d); k : (t, kv_heads, d); v : (t, kv_heads, e)
        Any strides. `kv_heads` divides `heads`: query head h reads key head h // (heads / kv_heads). float64 is computed in
        float64, everything else in float32.
    scale : float, optional
        Default 1 / √d.
    window : int, tokens, optional
    out : (s, heads, e), lse : (s, heads), optional
        Where to write.
    mask : (heads or 1, s or 1, t or 1), optional
        bool: True where a key may be seen; or numbers that are added to the scores.

    Returns
    -------
    out, lse

    Notes
    -----
    2·s·t·heads·(d + e) flop, about half of them under `causal`. Scratch: one tile, about 2**18 elements or
    16·t·heads/kv_heads, whichever is more.
    """
    work = _working(q)
    scores = _Scores(q, k, causal, scale, window, mask, work)
    v = np.asarray(v, work)
    if out is None:
        out = np.empty((*q.shape[:2], v.shape[2]), q.dtype)
    if lse is None:
        lse = np.empty(q.shape[:2], work)
    for tile in scores.tiles():
        o, of_rows = scores.part(tile, out), scores.part(tile, lse)
        if tile.j0 == tile.j1:
            o[...], of_rows[...] = 0, np.finfo(work).min
        else:
            _attend_tile(scores, tile, v[tile.keys, tile.heads], o, of_rows)
    return out, lse


def _attend_tile(scores: _Scores, tile: Tile, v: np.ndarray, out: np.ndarray, lse: np.ndarray) -> None:
    """Softmax of a tile's rows, which are whole, and their sums of `v`."""
    least = np.finfo(scores.work)
    _, p = scores.of(tile)
    top = p.max(axis=-1, keepdims=True)
    np.maximum(top, least.min, out=top)  # a row that is masked out as a whole
    p -= top
    np.exp(p, out=p)
    total = np.maximum(_row_sums(p), least.tiny)
    made = _product("attend out", p, v.transpose(1, 0, 2))
    made /= total
    out[...] = scores.by_head(made)
    np.log(total, out=total)
    total += top
    lse[...] = scores.by_head(total)[..., 0]


def attention_gradients(q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, lse: np.ndarray, g: np.ndarray,
                        causal: bool = True, scale: float | None = None, window: int | None = None,
                        mask: np.ndarray | None = None,
                        into: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
    """Cotangents of q, k, v, given `g` of out, from what `attention_block` made. `into` says where to write them.

        dv_j = sum_i p_ij g_i        dp_ij = g_i·v_j        ds_ij = p_ij (dp_ij - g_i·out_i)
        dq_i = scale sum_j ds_ij k_j        dk_j = scale sum_i ds_ij q_i
    """
    work = _working(q)
    scores = _Scores(q, k, causal, scale, window, mask, work)
    made = tuple(np.empty(x.shape, x.dtype) for x in (q, k, v)) if into is None else into
    k, v = scores.k, np.asarray(v, work)
    dq, dk, dv = (x if x.dtype == work else np.empty(x.shape, work) for x in made)  # half precision is not summed in
    dk[...], dv[...] = 0, 0
    for tile in scores.tiles():
        of_queries = scores.part(tile, dq)
        if tile.j0 == tile.j1:
            of_queries[...] = 0
        else:
            at = tile.keys, tile.heads
            of_queries[...] = _gradients_of_tile(scores, tile, k[at], v[at], out, lse, g, dk[at], dv[at])
    for x, sums in zip(made, (dq, dk, dv), strict=True):
        if x is not sums:
            x[...] = sums
    return made


def _gradients_of_tile(scores: _Scores, tile: Tile, k: np.ndarray, v: np.ndarray, out: np.ndarray, lse: np.ndarray,
                       g: np.ndarray, dk: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """Adds to dk and dv of the tile's keys, and gives dq of its queries."""
    x, p = scores.probabilities(tile, lse)
    y = scores.gathered("attend g", tile, g)
    dv += _product("attend dv", p.transpose(0, 2, 1), y).transpose(1, 0, 2)
    ds = _product("attend ds", y, v.transpose(1, 2, 0))
    y *= scores.gathered("attend out", tile, out)
    ds -= _row_sums(y)
    ds *= p
    dk += _product("attend dk", ds.transpose(0, 2, 1), x).transpose(1, 0, 2)  # x is scaled already
    dq = _product("attend dq", ds, k.transpose(1, 0, 2))
    dq *= scores.scale
    return scores.by_head(dq)


def column_sums(q: np.ndarray, k: np.ndarray, lse: np.ndarray, causal: bool = True, scale: float | None = None,
                window: int | None = None, mask: np.ndarray | None = None) -> np.ndarray:
    """How much attention every key got: sum_i p_ij, from the row log-sum-exp of `attention_block`.

    Returns
    -------
    (heads, t), float32 (float64 for float64)
    """
    work = _working(q)
    scores = _Scores(q, k, causal, scale, window, mask, work)
    sums = np.zeros((q.shape[1], k.shape[0]), work)
    for tile in scores.tiles():
        if tile.j0 == tile.j1:
            continue
        _, p = scores.probabilities(tile, lse)
        of_heads = slice(tile.g0 * scores.group, tile.g1 * scores.group)
        sums[of_heads, tile.keys] += p.reshape(len(p) * scores.group, -1, p.shape[2]).sum(axis=1)
    return sums


def _row_sums(p: np.ndarray) -> np.ndarray:
    """Sums along the last axis, which stays with extent 1: BLAS adds rows of some hundred elements three times faster."""
    return (p.reshape(-1, p.shape[2]) @ np.ones(p.shape[2], p.dtype)).reshape(*p.shape[:2], 1)


def _product(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of stacks of matrices, in scratch memory."""
    return np.matmul(a, b, out=scratch.empty(name, (*a.shape[:2], b.shape[2]), a.dtype))


def _working(q: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if q.dtype == np.float64 else np.float32)


class _Scores:
    """The scaled, masked scores of a sequence, by tiles. Rows of a tile are (query head of the key head, query)."""

    def __init__(self, q: np.ndarray, k: np.ndarray, causal: bool, scale: float | None, window: int | None,
                 mask: np.ndarray | None, work: np.dtype) -> None:
        self.q, self.k, self.work = q, np.asarray(k, work), work
        self.causal, self.window, self.mask = causal, window, mask
        self.n_kv = k.shape[1]
        self.group = q.shape[1] // k.shape[1]
        self.scale = work.type(q.shape[2] ** -0.5 if scale is None else scale)
        self.offset = k.shape[0] - q.shape[0]

    def tiles(self) -> Iterator[Tile]:
        """All tiles. How they are cut depends on the shapes alone."""
        s, t = self.q.shape[0], self.k.shape[0]
        rows = max(min(TILE_ELEMENTS // max(self.group * t, 1), TILE_ROWS, s), min(16, s), 1)
        heads = max(1, TILE_ELEMENTS // max(self.group * rows * t, 1))
        for g0 in range(0, self.n_kv, heads):
            for i0 in range(0, s, rows):
                i1 = min(i0 + rows, s)
                j1 = min(max(self.offset + i1, 0), t) if self.causal else t
                j0 = 0 if self.window is None else min(max(self.offset + i0 - self.window + 1, 0), j1)
                yield Tile(g0, min(g0 + heads, self.n_kv), i0, i1, j0, j1)

    def of(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """The scaled queries (n, rows, d) and the scores (n, rows, keys) of a tile; both may be written over."""
        x = self.gathered("attend q", tile, self.q)
        x *= self.scale
        p = _product("attend p", x, self.k[tile.keys, tile.heads].transpose(1, 2, 0))
        self._hide(p.reshape(x.shape[0], self.group, tile.i1 - tile.i0, -1), tile)
        return x, p

    def probabilities(self, tile: Tile, lse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scaled queries and exp(scores - lse)."""
        x, p = self.of(tile)
        p -= self._rowwise("attend lse", tile, lse)
        return x, np.exp(p, out=p)

    def _hide(self, p: np.ndarray, tile: Tile) -> None:
        """Put -inf where a query must not see a key."""
        rows, keys = p.shape[2:]
        own = self.offset + tile.i0 - tile.j0  # where in the tile the first query's own key stands
        first = max(own + 1, 0)
        if self.causal and first < keys:
            p[..., first:] += _later(rows, keys - first, own - first, self.work.char)
        if self.window is not None and (last := min(own + rows - self.window, keys)) > 0:
            p[..., :last] += _earlier(rows, last, own - self.window, self.work.char)
        if self.mask is not None:
            cut = tuple(slice(None) if n == 1 else slice(a, b) for n, a, b in zip(
                self.mask.shape, (tile.g0 * self.group, tile.i0, tile.j0), (tile.g1 * self.group, tile.i1, tile.j1),
                strict=True))
            m = self.mask[cut]
            if m.dtype == bool:
                m = np.where(m, self.work.type(0), self.work.type(-np.inf))
            p += m[None] if m.shape[0] == 1 else m.reshape(-1, self.group, *m.shape[1:])

    # -- rows of a tile and rows of the sequence ------------------------------------------------------------------------

    def gathered(self, name: str, tile: Tile, x: np.ndarray) -> np.ndarray:
        """The queries' rows of `x` (s, heads, d) in scratch memory: (n, group · rows, d)."""
        n, rows = tile.g1 - tile.g0, tile.i1 - tile.i0
        made = scratch.empty(name, (n, self.group, rows, x.shape[2]), self.work)
        made[...] = self.part(tile, x).transpose(1, 2, 0, 3)
        return made.reshape(n, self.group * rows, x.shape[2])

    def part(self, tile: Tile, x: np.ndarray) -> np.ndarray:
        """A view (rows, n, group, ...) of `x` (s, heads, ...)."""
        part = x[tile.i0:tile.i1, tile.g0 * self.group:tile.g1 * self.group]
        return part.reshape(part.shape[0], -1, self.group, *part.shape[2:])

    def by_head(self, x: np.ndarray) -> np.ndarray:
        """(n, group · rows, d) as a view (rows, n, group, d)."""
        return x.reshape(x.shape[0], self.group, -1, x.shape[2]).transpose(2, 0, 1, 3)

    def _rowwise(self, name: str, tile: Tile, x: np.ndarray) -> np.ndarray:
        """The queries' part of `x` (s, heads) as a column beside the scores: (n, group · rows, 1)."""
        part = self.part(tile, x).transpose(1, 2, 0)
        made = scratch.empty(name, part.shape, self.work)
        made[...] = part
        return made.reshape(len(part), -1, 1)


@functools.lru_cache(maxsize=64)
def _later(rows: int, keys: int, own: int, char: str) -> np.ndarray:
    """-inf where key c stands after query r's own, which is r + own; else 0."""
    return _hidden(np.arange(keys) > np.arange(rows)[:, None] + own, char)


@functools.lru_cache(maxsize=64)
def _earlier(rows: int, keys: int, last: int, char: str) -> np.ndarray:
    """-inf where key c stands at or before r + last, which the window has left; else 0."""
    return _hidden(np.arange(keys) <= np.arange(rows)[:, None] + last, char)


def _hidden(where: np.ndarray, char: str) -> np.ndarray:
    made = np.where(where, -np.inf, 0.0).astype(char)
    made.flags.writeable = False
    return made


__all__ = ["attention_block", "attention_gradients", "column_sums"]
