"""The runner: a step of the model over the cache, compiled once for each shape and replayed.

A step is one function of the cache's states, which are donated and so changed where they lie, and of small arrays that
describe the batch. The weights are constants of it. Token counts are rounded up to a bucket, so that few shapes, and few
plans, serve all batches; page tables grow by powers of two.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from nums_core import session
from nums_core.array.array import Array, from_array
from nums_core.array.joining import concatenate
from nums_core.llm.cache.attend import CacheAttend
from nums_core.llm.cache.batch import Batch
from nums_core.llm.cache.kv_cache import KVCache
from nums_core.llm.engine.batcher import Chunk
from nums_core.nn import functional as F  # noqa: N812
from nums_core.nn.quantized import whole_products

LEAST_PAGES = 64  # of a page table
FINE_FROM, EVEN_FROM = 16, 128  # tokens: where buckets come closer than doublings, and where they are evenly spaced
# Tokens from which on a step is read in two parts, so that two threads take part: the second is a layer behind the first.
# Below, the products are cut instead.
CUT_FROM = 64
EVEN_STEP = 16  # tokens; a padded token costs what a real one does, a new shape some 0.3 s once
PANEL = 16  # tokens that products take at a time: a part of so many, times anything, wastes none


def bucket(n: int) -> int:
    """The smallest of 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 144, 160, 176, ... that holds `n`."""
    if n > EVEN_FROM:
        return -(-n // EVEN_STEP) * EVEN_STEP
    power = 1 << max(n - 1, 0).bit_length()
    middle = power * 3 // 4
    return middle if n <= middle and middle > FINE_FROM else power


class Runner:
    """Runs chunks of sequences through a model.

    Parameters
    ----------
    model : Decoder
    cache : KVCache
    max_batch : int, sequences
        Most in one step.
    """

    def __init__(self, model: Any, cache: KVCache, *, max_batch: int) -> None:
        self.cache, self.max_batch = cache, max_batch
        # A product of one row adds up in another order than one of several. Where sequences may come together or alone, they
        # shall say the same either way; where there is but one, the product of one row is faster.
        self.least_rows = min(max_batch, 2)
        spec, model = cache.spec, computed(model)

        def step(states: Any, parts: Sequence[Sequence[Array]], rows: Array | None,
                 last_only: tuple[()] | None) -> tuple[Array | None, Any]:
            made = []
            for tokens, *described in parts:  # each waits, layer by layer, only for what the one before put into the cache
                attend = CacheAttend(spec, states, batch := Batch(*described))
                with whole_products() if len(parts) > 1 else nullcontext():
                    made.append(model.hidden(tokens, attend=attend, positions=batch.positions))
                states = attend.states
            hidden = concatenate(made) if last_only is None and len(made) > 1 else made[-1]
            return None if rows is None else model.logits(F.embedding(hidden, rows)), states

        self._step = session.jit(step, donate=(0,))

    def run(self, work: Sequence[tuple[Hashable, Chunk]]) -> np.ndarray:
        """Run one chunk each of some sequences, named as in the cache.

        Returns
        -------
        float32 ndarray, shape (n_rows, vocab_size)
            Logits of the rows that the chunks want, in their order.
        """
        counts = [(seq_id, c.n_tokens) for seq_id, c in work]
        n_tokens = sum(n for _, n in counts)
        size = max(bucket(n_tokens), self.least_rows)
        pages = max(LEAST_PAGES, 1 << (self.cache.max_pages(counts) - 1).bit_length())
        batch = self.cache.batch(counts, n_seq=self.max_batch, max_pages=pages, n_rows=size)
        rows, tokens = _rows([c for _, c in work]), _tokens([c for _, c in work], size)
        cut = -(-size // (2 * PANEL)) * PANEL
        parts = [(tokens, batch)] if size < CUT_FROM else [
            *zip((tokens[:cut], tokens[cut:]), batch.cut(cut), strict=True)]
        # Where logits are wanted of the last part alone, the end of the others' last layer need not be computed.
        last_only = () if len(parts) > 1 and rows.min(initial=size) >= cut else None
        logits, self.cache.states = self._step(
            self.cache.states, tuple(tuple(map(_array, (tokens, *batch))) for tokens, batch in parts),
            _padded(rows if last_only is None else rows - cut, self.least_rows), last_only)
        self.cache.advance(counts)
        return values(logits)[:len(rows)] if logits is not None else np.empty((0, 0), np.float32)

    @property
    def n_compiled(self) -> int:
        """Shapes that have a plan."""
        return len(self._step.traces)  # type: ignore[attr-defined]


def _tokens(chunks: list[Chunk], size: int) -> np.ndarray:
    """The chunks' tokens one after another, int32, padded with zeros."""
    flat = np.zeros(size, np.int32)
    at = 0
    for c in chunks:
        s = c.sequence
        flat[at:at + c.n_tokens] = s.tokens[s.n_cached:s.n_cached + c.n_tokens]
        at += c.n_tokens
    return flat


def _rows(chunks: list[Chunk]) -> np.ndarray:
    """Which of the flat tokens need logits: int32."""
    ends = np.cumsum([c.n_tokens for c in chunks])
    return np.concatenate([np.arange(end - c.n_rows, end, dtype=np.int32) for end, c in zip(ends, chunks, strict=True)])


def _padded(rows: np.ndarray, least: int) -> Array | None:
    """Rows padded to a bucket with the first; None for none."""
    if not len(rows):
        return None
    padded = np.zeros(max(bucket(len(rows)), least), np.int32)
    padded[:len(rows)] = rows
    return _array(padded)


def _array(x: np.ndarray) -> Array:
    return from_array(x, -1)


def computed(model: Any) -> Any:
    """The model with all parameters as data: those that are still to be computed (random ones, say) would be in every step."""
    leaves, rest = session.flatten(model)
    lazy = [x for x in leaves if isinstance(x, Array) and x.expr.op != "leaf"]
    if not lazy:
        return model
    kept = dict(zip(map(id, lazy), map(Array, session.keep([x.expr for x in lazy])), strict=True))
    return session.unflatten([kept.get(id(x), x) for x in leaves], rest)


def values(x: Array) -> np.ndarray:
    """The values of a kept array; its one block as it is, without another run."""
    held = x.expr.params[0].data
    if len(held.refs) > 1:
        return np.asarray(x)
    block: np.ndarray = session.current().executor.fetch(held)[0]
    return block
