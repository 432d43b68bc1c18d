"""The step of one layer in NumPy: append, attend, score, evict; states are changed in place.

Sequences that decode are taken together: products with keys and sums of values where these lie (native functions, or
NumPy where there are none), and everything else (softmax, scores, eviction) on one long line of columns, in which each
sequence has its own stretch. Prompts come one by one, a tile of rows at a time over all keys that its rows may see, so that
the extra memory is one tile; a key's score is its column's sum, which a tile gives as one product of the rows' weights with
its probabilities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nums_core.errors import MissingBackendError
from nums_core.llm.cache.batch import TILE_SLOTS, Decoding, Piece, Prompt, run_of, step_of
from nums_core.llm.cache.rotation import Rotation
from nums_core.llm.cache.spec import CacheSpec

# Probabilities of one tile of a prompt's rows: they stay in the second-level cache between the passes over them.
TILE_BYTES = 2**20
MIN_TILE_ROWS = 16
FEW_ROWS = 4


class Layer:
    """The states of one layer. Slots are on axis 1 of each array, behind the KV heads."""

    def __init__(self, spec: CacheSpec, states: tuple[np.ndarray, ...], rotation: Rotation | None) -> None:
        n = spec.codec.n_parts
        self.spec, self.policy, self.codec, self.states = spec, spec.policy, spec.codec, states
        self.key_parts, self.value_parts = states[:n], states[n:2 * n]
        self.position = states[2 * n] if spec.policy.positioned else None
        self.score = states[-1] if spec.policy.scored else None
        # By rank: keys are stored as they come, and rotated whenever they are read.
        self.by_rank = rotation if spec.policy.rolling else None
        self.window = spec.narrowest

    def append(self, slots: Any, k: np.ndarray, v: np.ndarray, positions: np.ndarray) -> None:
        """Write k and v, (n, kv_heads, d), with score 0, into `slots`."""
        both: Any = ((k, v),) if self.codec.direct else self.codec.encode(np.stack((k, v)))
        for keys, values, coded in zip(self.key_parts, self.value_parts, both, strict=True):
            keys[:, slots], values[:, slots] = coded[0].swapaxes(0, 1), coded[1].swapaxes(0, 1)
        if self.position is not None:
            self.position[:, slots] = positions
        if self.score is not None:
            self.score[:, slots] = 0

    def keys(self, piece: Piece) -> np.ndarray:
        """(kv_heads, m, d) float32, as they are stored."""
        return self.codec.decode(tuple(part[:, piece.at] for part in self.key_parts))

    def values(self, piece: Piece) -> np.ndarray:
        return self.codec.decode(tuple(part[:, piece.at] for part in self.value_parts))

    def positions(self, slots: Any, number: np.ndarray) -> np.ndarray:
        """True positions of slots with these numbers in their sequence: (kv_heads or 1, m)."""
        return number[None] if self.position is None else self.position[:, slots]

    def hidden(self, positions: np.ndarray, query: Any) -> np.ndarray | None:
        """Which keys a query at position `query` does not see any more; None if all are seen."""
        if self.window is None or np.max(query) < self.window:
            return None
        return (positions <= query - self.window) & (positions >= self.policy.sinks)

    def move(self, heads: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
        """Slot source[i] of head heads[i] goes to slot target[i]."""
        first = heads * self.states[0].shape[1]
        source, target = first + source, first + target
        for state in self.states:
            flat = state.reshape(-1, *state.shape[2:])
            flat[target] = flat[source]


def attend_layer(*blocks: np.ndarray, spec: CacheSpec, rotation: Rotation | None) -> tuple[np.ndarray]:
    """One layer of a step: the kernel of `CacheAttend`.

    Parameters
    ----------
    *blocks : states of the layer, then q (rows, heads, d), k, v (rows, kv_heads, d), tables, starts, past, held, limits
    """
    n = spec.n_states
    q, k, v, tables, starts, past, held, limits = blocks[n:]
    tile = None if spec.codec.direct else TILE_SLOTS
    step = step_of(tables, starts, past, held, limits, spec.page_tokens, tile)
    layer, out = Layer(spec, blocks[:n], rotation), np.zeros(q.shape, np.float32)
    q, k, v = (x[:step.n_rows].astype(np.float32, copy=False) for x in (q, k, v))
    if rotation is not None and layer.by_rank is None:
        both = rotation.turned(np.concatenate((q, k), axis=1), step.waves(rotation))
        q, k = both[:, :spec.n_heads], both[:, spec.n_heads:]
    mixing = spec.mixing
    if mixing is not None:
        q, k, v = q @ mixing, k @ mixing, v @ mixing
    q = (q * np.float32(spec.scale)).reshape(len(q), spec.n_kv_heads, -1, spec.head_dim)
    to = out[:step.n_rows].reshape(q.shape)
    if step.decoding is not None:
        rows = step.decoding.rows
        to[rows] = decode(layer, step.decoding, q[rows], k[rows], v[rows])
    for p in step.prompts:
        read(layer, p, q[p.rows], k[p.rows], v[p.rows], to[p.rows])
    if mixing is not None:
        to[...] = to @ mixing
    return (out,)


def turned(rotation: Rotation, keys: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Keys (kv_heads, m, d) turned by the rank (kv_heads, m) of each."""
    return rotation.apply(keys[:, :, None], ranks)[:, :, 0]


def ranks_of(positions: np.ndarray) -> np.ndarray:
    """Rank of each among those of its head: (kv_heads, m)."""
    return positions.argsort(axis=1).argsort(axis=1)


# -- decoding: one new token of each of n sequences -------------------------------------------------------------------

def decode(layer: Layer, d: Decoding, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Attention of q (n, kv_heads, group, head_dim); k and v (n, kv_heads, head_dim) are appended."""
    layer.append(d.at_newest, k, v, d.past)
    weights = _products(layer, d, q)
    positions = None
    if layer.window is not None or d.n_full:
        positions = layer.positions(d.at, d.number)
        hidden = layer.hidden(positions, d.spread(d.past))
        if hidden is not None:
            np.copyto(weights, -np.inf, where=hidden[:, None])
    weights -= d.spread(np.maximum.reduceat(weights, d.starts, axis=-1))
    np.exp(weights, out=weights)
    sums = np.add.reduceat(weights, d.starts, axis=-1)
    out = _weighted_values(layer, d, weights)
    out /= sums.transpose(2, 0, 1)[..., None]
    score = None
    if layer.score is not None:
        weights /= d.spread(sums)
        score = _add_scores(layer, d, weights.sum(axis=1))
    if positions is not None and d.n_full:
        _evict_one(layer, d, score, positions)
    return out


@functools.cache
def native(form: str, dim: int, group: int) -> Any:
    """Native products and sums over vectors stored in this form; None where there are none."""
    try:
        from nums_core.runtime.devices.native.cached import Cached, takes

        return Cached(form, dim, group) if takes(form, dim) else None
    except MissingBackendError:
        return None


def _products(layer: Layer, d: Decoding, q: np.ndarray) -> np.ndarray:
    """Products of each sequence's queries with its keys: (kv_heads, group, columns)."""
    out = np.empty((*q.shape[1:3], len(d.slots)), np.float32)
    fast = native(layer.codec.form, layer.spec.head_dim, q.shape[2])
    if layer.by_rank is None and fast is not None:
        fast.products(layer.key_parts, d.slots, d.bounds, np.ascontiguousarray(q), out)
        return out
    for i, pieces in enumerate(d.pieces):
        query, turn = _by_rank(layer, d, q[i], slice(pieces[0].start, pieces[-1].stop))
        for piece in pieces:
            keys = turn(layer.keys(piece), piece)
            _few_rows(query, keys.swapaxes(1, 2), out[..., piece.start:piece.stop])
    return out


def _by_rank(layer: Layer, d: Decoding, query: np.ndarray, own: slice) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """A sequence's query turned by its rank, and what turns its keys, a piece of its columns `own` at a time."""
    rotation = layer.by_rank
    if rotation is None:
        return query, lambda keys, piece: keys
    ranks = ranks_of(layer.positions(d.slots[own], d.number[own]))
    turn = lambda keys, piece: turned(rotation, keys, ranks[:, piece.start - own.start:piece.stop - own.start])
    return _turned_query(rotation, query[None], ranks.shape[1] - 1)[0], turn


def _turned_query(rotation: Rotation, q: np.ndarray, first: int) -> np.ndarray:
    """Queries (n, kv_heads, group, d) turned by first, first + 1, ..."""
    return rotation.apply(q.reshape(len(q), -1, q.shape[-1]), np.arange(first, first + len(q))).reshape(q.shape)


def _weighted_values(layer: Layer, d: Decoding, weights: np.ndarray) -> np.ndarray:
    """Sums of each sequence's values: (n, kv_heads, group, head_dim)."""
    out = np.empty((d.n, *weights.shape[:2], layer.spec.head_dim), np.float32)
    fast = native(layer.codec.form, layer.spec.head_dim, weights.shape[1])
    if fast is not None:
        fast.sums(layer.value_parts, d.slots, d.bounds, weights, out)
        return out
    for i, (first, *more) in enumerate(d.pieces):
        _few_rows(weights[..., first.start:first.stop], layer.values(first), out[i])
        for piece in more:
            out[i] += _few_rows(weights[..., piece.start:piece.stop], layer.values(piece), np.empty_like(out[i]))
    return out


def _few_rows(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """a @ b of matrices (kv_heads, group, .) and (kv_heads, ., .): row by row where rows are few, since a product of
    matrices first repacks the larger one."""
    if a.shape[1] > FEW_ROWS:
        return np.matmul(a, b, out=out)
    np.matmul(a[:, :, None], b[:, None], out=out[:, :, None])
    return out


def _add_scores(layer: Layer, d: Decoding, received: np.ndarray) -> np.ndarray:
    """The scores after this step: (kv_heads, columns)."""
    assert layer.score is not None
    carry, weight = layer.policy.weights(1)
    score = layer.score[:, d.at]
    if carry != 1.0:
        score *= np.float32(carry)
    score += layer.policy.pooled(received) * weight
    if not isinstance(d.at, slice):  # else it is a view
        layer.score[:, d.at] = score
    return score


def _evict_one(layer: Layer, d: Decoding, score: np.ndarray | None, positions: np.ndarray) -> None:
    """Each head of each sequence over its budget drops one token, and the newcomer takes its slot."""
    keep = layer.policy.priority(score, positions, d.recent_from)
    drop = keep == d.spread(np.fmin.reduceat(keep, d.starts, axis=-1))
    if np.count_nonzero(drop) != drop.shape[0] * d.n:  # of equals the oldest
        age = np.where(drop, positions, np.iinfo(np.int32).max)
        drop = age == d.spread(np.minimum.reduceat(age, d.starts, axis=-1))
    if d.n_full < d.n:
        drop &= d.spread(d.full)
    heads, columns = np.nonzero(drop)  # a head's sequences in order
    newest = d.slots[d.newest[d.full]]
    layer.move(heads, np.concatenate([newest] * drop.shape[0]), d.slots[columns])


# -- prompts: many new tokens of one sequence -------------------------------------------------------------------------

def read(layer: Layer, p: Prompt, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
    """Attention of q (n, kv_heads, group, head_dim) into `out`; k and v (n, kv_heads, head_dim) are appended."""
    layer.append(p.slots[p.held:], k, v, np.arange(p.past, p.seen))
    positions = layer.positions(p.slots, np.arange(len(p.slots)))
    whole = Piece(run_of(p.slots), 0, len(p.slots))
    keys, values = layer.keys(whole), layer.values(whole)
    if layer.by_rank is not None:
        keys = turned(layer.by_rank, keys, np.broadcast_to(ranks_of(positions), keys.shape[:2]))
        q = _turned_query(layer.by_rank, q, p.held)
    received = np.zeros(keys.shape[:2], np.float32)
    carry, weight = layer.policy.weights(p.n)
    rows = max(TILE_BYTES // (4 * q.shape[1] * q.shape[2] * len(p.slots)), MIN_TILE_ROWS)
    for r in range(0, p.n, rows):
        tile = slice(r, min(r + rows, p.n))
        _attend_tile(layer, p, tile, (q, keys, values), positions, out, weight, received)
    if layer.score is not None:
        score = layer.score[:, p.slots] * np.float32(carry) + layer.policy.pooled(received)
        layer.score[:, p.slots] = score
    if len(p.slots) > p.limits.budget:
        _evict_down(layer, p, score if layer.score is not None else None, positions)


def _attend_tile(layer: Layer, p: Prompt, tile: slice, qkv: tuple[np.ndarray, ...], positions: np.ndarray, out: np.ndarray,
                 weight: np.ndarray, received: np.ndarray) -> None:
    """Attention of some rows; what each key received from them, times the rows' weights, is added to `received`."""
    q, keys, values = qkv
    n, stop = tile.stop - tile.start, p.held + tile.stop
    _, heads, group, dim = q.shape
    query = q[tile].swapaxes(0, 1).reshape(heads, n * group, dim)
    probs = query @ keys[:, :stop].swapaxes(1, 2)
    _mask(layer, p, tile, positions[:, :stop], probs.reshape(heads, n, group, stop))
    probs -= probs.max(axis=-1, keepdims=True)
    np.exp(probs, out=probs)
    sums = probs.sum(axis=-1, keepdims=True)
    made = probs @ values[:, :stop]
    made /= sums
    out[tile] = made.reshape(heads, n, group, dim).swapaxes(0, 1)
    if layer.score is not None:
        share = np.repeat(weight[tile], group) / sums[..., 0]
        received[:, :stop] += (share[:, None] @ probs)[:, 0]


def _mask(layer: Layer, p: Prompt, tile: slice, positions: np.ndarray, probs: np.ndarray) -> None:
    """Minus infinity where a row (axis 1) does not see a key (last axis): later ones, and those outside the window."""
    n = tile.stop - tile.start
    later = np.triu(np.ones((n, n), bool), 1)
    np.copyto(probs[..., p.held + tile.start:], -np.inf, where=later[:, None])
    hidden = layer.hidden(positions[:, None], np.arange(p.past + tile.start, p.past + tile.stop)[:, None])
    if hidden is not None:
        np.copyto(probs, -np.inf, where=hidden[:, :, None])


def _evict_down(layer: Layer, p: Prompt, score: np.ndarray | None, positions: np.ndarray) -> None:
    """Each head drops what is over its budget; what it keeps of the last slots moves into the slots that became free."""
    budget = p.limits.budget
    keep = layer.policy.priority(score, positions, p.seen - p.limits.recent)
    order = np.lexsort((positions, keep), axis=1)
    kept = np.ones(keep.shape, bool)
    np.put_along_axis(kept, order[:, :len(p.slots) - budget], False, axis=1)
    heads, source = np.nonzero(kept[:, budget:])
    _, target = np.nonzero(~kept[:, :budget])  # as many of each head
    layer.move(heads, p.slots[budget:][source], p.slots[target])
